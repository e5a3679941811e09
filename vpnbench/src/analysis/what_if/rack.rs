//! RACK-TLP loss detection (RFC 8985) as net/ipv4/tcp_recovery.c and tcp_input.c do it, and RFC
//! 6675 and NewReno marking beside it. Works on a [`Board`]; knows no clock but its arguments.

use super::board::{Board, EVER, LOST, RETRANS};
use super::rules::Rules;

/// `TCP_RACK_RECOVERY_THRESH`: recoveries for which a widened reordering window lasts.
const PERSIST: u8 = 16;
/// Nanoseconds of a millisecond, the unit of TCP's timestamps.
const MS_NS: u64 = 1_000_000;
/// `TCP_TIMEOUT_MIN_US`.
const TIMER_MIN_NS: u64 = 2_000_000;

/// What the sender measures and the state it is in.
#[derive(Debug, Clone, Copy, Default)]
pub struct Inputs {
    /// ns.
    pub now: u64,
    /// Windowed minimum RTT, ns.
    pub min_rtt: u64,
    /// Smoothed RTT, ns.
    pub srtt: u64,
    /// `icsk_ca_state` >= Recovery.
    pub recovering: bool,
    /// Timestamp echo of the acknowledgement at hand in ms of `now`'s clock; `None` without timestamps.
    pub echo_ms: Option<u32>,
    /// Segment size in bytes.
    pub mss: u32,
}

/// RACK's variables, under the kernel's names.
#[derive(Debug, Clone, Copy)]
pub struct Rack {
    mstamp: u64,
    end: u64,
    rtt: u64,
    advanced: bool,
    /// `reo_wnd_steps`
    pub steps: u32,
    /// `reo_wnd_persist`
    pub persist: u8,
    /// `dsack_seen`
    pub dsack_seen: bool,
    /// When `reo_wnd_steps` last grew, ns (stands for `last_delivered`).
    pub adjusted: u64,
    /// `reord_seen`
    pub reord_seen: u32,
    /// `reordering`, in segments
    pub reordering: u32,
    /// When the reordering timer fires, ns.
    pub timer: Option<u64>,
}

impl Rack {
    /// A new connection's variables.
    #[must_use]
    pub fn new(reordering: u32) -> Rack {
        Rack {
            mstamp: 0,
            end: 0,
            rtt: 0,
            advanced: false,
            steps: 1,
            persist: 0,
            dsack_seen: false,
            adjusted: 0,
            reord_seen: 0,
            reordering,
            timer: None,
        }
    }

    /// Takes what an acknowledgement delivered, which is on the board by now. `before` is the
    /// start of the highest SACKed segment before it, 0 without one.
    pub fn delivered(
        &mut self,
        board: &Board,
        before: u64,
        dsack: bool,
        rules: &Rules,
        inputs: Inputs,
    ) {
        // tcp_dsack_seen: not without reordering, whose fault it would have to be.
        self.dsack_seen |= dsack && self.reord_seen > 0;
        let (mut by_sack, mut by_ack) = (u64::MAX, u64::MAX);
        let mut highest = before;
        let mut newest = 0;
        for one in board.delivered() {
            let segment = &one.segment;
            if !segment.is(EVER) {
                if !one.by_sack {
                    by_ack = by_ack.min(segment.start);
                } else if segment.start < highest {
                    by_sack = by_sack.min(segment.start);
                }
            }
            if one.by_sack {
                highest = highest.max(segment.start);
            }
            newest = newest.max(segment.sent);
            // tcp_skb_spurious_retrans, in tcp_clean_rtx_queue only: the echo shows the original.
            let early = |echo: u32| (echo.wrapping_sub((segment.sent / MS_NS) as u32) as i32) < 0;
            let original = segment.is(EVER) && inputs.echo_ms.is_some_and(early);
            if one.by_sack || !original {
                self.advance(segment.sent, segment.end, segment.is(EVER), inputs);
            }
        }
        self.reordered(by_sack, highest, rules, inputs.mss);
        if by_ack < before {
            let highest = if board.sacked_out == 0 {
                board.una
            } else {
                highest
            };
            self.reordered(by_ack, highest, rules, inputs.mss);
        }
        if newest > 0 && !rules.static_window() {
            self.widen(newest, inputs.now);
        }
    }

    /// `tcp_rack_advance`.
    fn advance(&mut self, sent: u64, end: u64, again: bool, inputs: Inputs) {
        let rtt = inputs.now.saturating_sub(sent);
        // Sent again and answered too early: that was the original.
        if again && rtt < inputs.min_rtt {
            return;
        }
        self.advanced = true;
        self.rtt = rtt;
        if (sent, end) > (self.mstamp, self.end) {
            (self.mstamp, self.end) = (sent, end);
        }
    }

    /// `tcp_check_sack_reordering`.
    fn reordered(&mut self, low: u64, highest: u64, rules: &Rules, mss: u32) {
        if low >= highest {
            return;
        }
        let mss = u64::from(mss.max(1));
        let distance = highest - low;
        if distance > u64::from(self.reordering) * mss {
            let segments = u32::try_from(distance.div_ceil(mss)).unwrap_or(u32::MAX);
            self.reordering = segments.min(rules.max_reordering);
        }
        self.reord_seen += 1;
    }

    /// `tcp_rack_update_reo_wnd`; `newest` is when the newest delivered segment was sent.
    fn widen(&mut self, newest: u64, now: u64) {
        if newest < self.adjusted {
            self.dsack_seen = false;
        }
        if self.dsack_seen {
            self.steps = (self.steps + 1).min(255);
            self.dsack_seen = false;
            self.adjusted = now;
            self.persist = PERSIST;
        } else if self.persist == 0 {
            self.steps = 1;
        }
    }

    /// `tcp_try_undo_partial`: an acknowledgement of the original. `una` was the left edge before it.
    pub fn delayed(&mut self, board: &Board, una: u64, rules: &Rules, mss: u32) {
        let highest = if board.sacked_out == 0 {
            board.una
        } else {
            board.highest_sacked
        };
        self.reordered(una, highest, rules, mss);
    }

    /// A window reduction was taken back: what is still missing is looked at anew.
    pub fn look_again(&mut self) {
        self.advanced = true;
    }

    /// A recovery ended that was not undone (`tcp_try_undo_recovery`).
    pub fn recovered(&mut self) {
        self.persist = self.persist.saturating_sub(1);
    }

    /// The reordering window in ns (`tcp_rack_reo_wnd`).
    #[must_use]
    pub fn window(&self, board: &Board, rules: &Rules, inputs: Inputs) -> u64 {
        let threshold = board.sacked_out >= self.reordering && !rules.no_threshold();
        if self.reord_seen == 0 && (inputs.recovering || threshold) {
            return 0;
        }
        // The kernel divides microseconds.
        let quarter = (inputs.min_rtt / 1000 / 4) * 1000;
        (quarter * u64::from(self.steps)).min(inputs.srtt)
    }

    /// Gives up what is lost after an acknowledgement. Returns the ranges.
    pub fn mark(&mut self, board: &mut Board, rules: &Rules, inputs: Inputs) -> Vec<(u64, u64)> {
        if rules.rfc6675() {
            return self.mark_rfc6675(board);
        }
        if !self.advanced {
            return Vec::new();
        }
        self.advanced = false;
        self.detect(board, rules, inputs)
    }

    /// `tcp_rack_detect_loss`. Sets the timer if something may be lost soon.
    pub fn detect(&mut self, board: &mut Board, rules: &Rules, inputs: Inputs) -> Vec<(u64, u64)> {
        let patience = self.rtt + self.window(board, rules, inputs);
        let until = board.last().map_or(0, |one| one.end);
        let mut lost = Vec::new();
        let mut longest = 0;
        for segment in board.missing(until) {
            if segment.is(LOST) && !segment.is(RETRANS) {
                continue;
            }
            if (segment.sent, segment.end) >= (self.mstamp, self.end) {
                if segment.is(EVER) {
                    continue;
                }
                break;
            }
            let waited = inputs.now.saturating_sub(segment.sent);
            if waited >= patience {
                lost.push((segment.start, segment.end));
            } else {
                longest = longest.max(patience - waited);
            }
        }
        for &(start, end) in &lost {
            board.give_up(start, end);
        }
        if longest > 0 {
            let ticks = (longest + TIMER_MIN_NS).div_ceil(rules.tick_ns);
            // It fires at a tick; the first one comes after half a tick on average.
            self.timer = Some(inputs.now + ticks * rules.tick_ns - rules.tick_ns / 2);
        }
        lost
    }

    /// `tcp_mark_head_lost`: all that has `reordering` SACKed segments above it.
    fn mark_rfc6675(&self, board: &mut Board) -> Vec<(u64, u64)> {
        let Some(mut above) = board.sacked_out.checked_sub(self.reordering) else {
            return Vec::new();
        };
        let mut lost = Vec::new();
        for segment in board.all() {
            if segment.start >= board.highest_sacked {
                break;
            }
            if segment.is(super::board::SACKED) {
                let Some(rest) = above.checked_sub(1) else {
                    break;
                };
                above = rest;
            } else if !segment.is(LOST) {
                lost.push((segment.start, segment.end));
            }
        }
        for &(start, end) in &lost {
            board.give_up(start, end);
        }
        lost
    }

    /// `tcp_enter_loss` outside of an episode: many were SACKed and still it took a timeout, so the degree
    /// of reordering was put too high.
    pub fn overestimated(&mut self, board: &Board, rules: &Rules) {
        if board.sacked_out >= rules.reordering {
            self.reordering = self.reordering.min(rules.reordering);
        }
    }

    /// `tcp_timeout_mark_lost`: the first segment, and all whose time is over.
    pub fn timed_out(&mut self, board: &mut Board, rules: &Rules, now: u64) {
        let head = board.una;
        let until = board.last().map_or(0, |one| one.end);
        let rtt = self.rtt;
        let over = |sent: u64| rules.rfc6675() || now.saturating_sub(sent) >= rtt;
        let lost: Vec<(u64, u64)> = board
            .missing(until)
            .filter(|one| one.start <= head || over(one.sent))
            .map(|one| (one.start, one.end))
            .collect();
        for (start, end) in lost {
            board.give_up(start, end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::board::Transmission;
    use super::*;

    const MS: u64 = 1_000_000;

    fn board() -> Board {
        let mut board = Board::default();
        board.una = 1000;
        for number in 0..8 {
            let start = 1000 + number * 100;
            board.transmitted(&Transmission {
                time: (number + 1) * MS,
                start,
                end: start + 100,
                segment: 100,
            });
        }
        board
    }

    fn inputs(now: u64) -> Inputs {
        Inputs {
            now,
            min_rtt: 16 * MS,
            srtt: 10 * MS,
            recovering: false,
            echo_ms: None,
            mss: 100,
        }
    }

    /// SACKs one segment after the other, 1 ms apart, and returns what is given up at each.
    fn sack(rack: &mut Rack, board: &mut Board, rules: &Rules, numbers: &[u64]) -> Vec<Vec<u64>> {
        let mut result = Vec::new();
        for number in numbers {
            let now = (number + 11) * MS;
            let before = board.highest_sacked;
            let start = 1000 + number * 100;
            board.acknowledged(now, 1000, &[(start, start + 100)]);
            rack.delivered(board, before, false, rules, inputs(now));
            let lost = rack.mark(board, rules, inputs(now));
            result.push(lost.into_iter().map(|one| one.0).collect());
        }
        result
    }

    #[test]
    fn the_threshold_ends_the_window_until_reordering_was_seen() {
        let rules = Rules::default();
        let (mut rack, mut on) = (Rack::new(3), board());
        let lost = sack(&mut rack, &mut on, &rules, &[1, 2, 3]);
        assert_eq!(lost, [vec![], vec![], vec![1000]]);
        assert!(rack.timer.is_some(), "armed before the threshold");
        let (mut rack, mut on) = (Rack::new(10), board());
        // A quarter of min_rtt (4 ms) after the RTT of 10 ms, sent at 1 ms: given up at 15 ms.
        let lost = sack(&mut rack, &mut on, &rules, &[1, 2, 3, 4]);
        assert_eq!(lost, [vec![], vec![], vec![], vec![1000]]);
    }

    #[test]
    fn reordering_is_a_segment_below_the_highest_sack() {
        let rules = Rules::default();
        let (mut rack, mut on) = (Rack::new(3), board());
        sack(&mut rack, &mut on, &rules, &[5]);
        let now = 17 * MS;
        let before = on.highest_sacked;
        on.acknowledged(now, 1000, &[(1000, 1100)]);
        rack.delivered(&on, before, false, &rules, inputs(now));
        assert_eq!((rack.reord_seen, rack.reordering), (1, 5));
    }

    #[test]
    fn rfc_6675_counts_what_is_above() {
        let rules = Rules {
            recovery: 0,
            has_rfc6675: true,
            ..Rules::default()
        };
        let (mut rack, mut on) = (Rack::new(3), board());
        let lost = sack(&mut rack, &mut on, &rules, &[1, 2, 3]);
        assert_eq!(lost, [vec![], vec![], vec![1000]]);
    }

    #[test]
    fn a_dsack_widens_the_window_once_a_round() {
        let rules = Rules::default();
        let (mut rack, mut on) = (Rack::new(3), board());
        rack.reord_seen = 1;
        on.acknowledged(12 * MS, 1100, &[]);
        rack.delivered(&on, 0, true, &rules, inputs(12 * MS));
        assert_eq!((rack.steps, rack.persist), (2, 16));
        on.acknowledged(13 * MS, 1200, &[]);
        rack.delivered(&on, 0, true, &rules, inputs(13 * MS));
        assert_eq!(rack.steps, 2, "sent before the last step");
    }
}
