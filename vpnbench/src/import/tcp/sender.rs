//! What a TCP sender knew and why it sent again, from the packets that left it and the acknowledgements
//! that reached it. The rules are those of Linux 6.1 to 6.18 (net/ipv4/tcp_input.c, tcp_output.c,
//! tcp_recovery.c, tcp_timer.c); docs/captures.md has them with their limits.

use std::collections::VecDeque;
use std::ops::Range;

/// `TCP_CA_Open` .. `TCP_CA_Loss` (include/net/tcp.h)
pub(super) const OPEN: u8 = 0;
const DISORDER: u8 = 1;
pub(super) const RECOVERY: u8 = 3;
pub(super) const LOSS: u8 = 4;
/// `ICSK_TIME_RETRANS`, `ICSK_TIME_LOSS_PROBE`, `ICSK_TIME_REO_TIMEOUT`
/// (include/net/inet_connection_sock.h)
const PENDING_LOSS_PROBE: u8 = 5;
const PENDING_REORDER: u8 = 6;
/// `TCP_FASTRETRANS_THRESH`, the initial `tcp_reordering`.
const THRESHOLD: u32 = 3;
/// `TCP_RTO_MIN`, ns.
const RTO_MIN: u64 = 200_000_000;
/// Shortest timer: two ticks of a kernel with 1000 ticks a second, less one that may be running.
const TIMER_MIN: u64 = 900_000;
/// How late a timer fires at most: two ticks of a kernel with 250 a second, and the queue of a busy host.
const TIMER_LATE: u64 = 12_000_000;
/// Samples of the round trip among which the smallest is taken for what is possible at the time.
const RECENT: u64 = 64;
/// Units that are followed; beyond, the oldest are forgotten.
const UNITS_MAX: usize = 1 << 16;

/// Why a segment was sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// Retransmission timeout.
    Rto,
    /// After a timeout, clocked by acknowledgements.
    AfterRto,
    /// Tail loss probe.
    Probe,
    /// RACK's reordering timer.
    RackTimer,
    /// An acknowledgement, or what it left to be sent later.
    Clocked,
}

/// A unit that left and is not acknowledged.
#[derive(Debug, Clone, Copy)]
struct Unit {
    start: u64,
    end: u64,
    /// When it last left, ns.
    sent: u64,
    resent: bool,
    sacked: bool,
}

/// A conclusion, in the terms of the kernel's fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Conclusion {
    pub(super) cause: Cause,
    /// `icsk_ca_state` at the retransmission.
    pub(super) ca_state: u8,
    /// `icsk_pending`
    pub(super) pending: u8,
    /// Whether it begins an episode of recovery, and of which kind.
    pub(super) enters: Option<u8>,
    /// Whether timing alone decided between two causes.
    pub(super) close: bool,
}

/// The least of the last [`RECENT`] samples: those that are least of all behind them, in order.
#[derive(Debug, Default)]
struct Recent {
    number: u64,
    least: VecDeque<(u64, u64)>,
}

impl Recent {
    fn push(&mut self, rtt: u64) {
        self.number += 1;
        while self.least.back().is_some_and(|(_, last)| *last >= rtt) {
            self.least.pop_back();
        }
        self.least.push_back((self.number, rtt));
        if let Some((number, _)) = self.least.front()
            && number + RECENT <= self.number
        {
            self.least.pop_front();
        }
    }

    fn least(&self) -> Option<u64> {
        self.least.front().map(|(_, rtt)| *rtt)
    }
}

/// One direction of a connection at its sender.
#[derive(Debug, Default)]
pub(super) struct Sender {
    units: VecDeque<Unit>,
    /// First byte not acknowledged.
    pub(super) una: u64,
    /// Byte behind the last one sent.
    pub(super) nxt: u64,
    pub(super) ca_state: u8,
    /// Where the episode ends.
    pub(super) high: u64,
    /// Times that reordering was seen.
    pub(super) reordered: u32,
    /// Smoothed RTT and its mean deviation (RFC 6298), ns.
    srtt: u64,
    deviation: u64,
    pub(super) min_rtt: u64,
    recent: Recent,
    /// Largest byte that was SACKed.
    forward: u64,
    sacked_bytes: u64,
    /// Acknowledgements without progress in a row.
    repeated_acks: u32,
    last_sent: u64,
    /// When the last acknowledgement came.
    last_ack: u64,
    /// When the head of the queue was sent or moved: the retransmission timer began.
    timer_began: u64,
    probed: Option<u64>,
    timeouts: u32,
    /// RACK: when the latest of what was delivered had been sent, and its round trip.
    rack_sent: u64,
    rack_rtt: u64,
    /// Multiples of a quarter of the smallest round trip that RACK waits, and when that last grew.
    steps: u64,
    steps_at: u64,
    /// Whether the retransmission before was RACK's timer's and nothing came since.
    by_timer: bool,
    pub(super) resent_segments: u32,
    pub(super) sacks: bool,
    pub(super) segment: u32,
}

impl Sender {
    /// `srtt_us` as the kernel has it: us x 8.
    pub(super) fn srtt_8us(&self) -> u32 {
        (self.srtt / 125).min(u32::MAX.into()) as u32
    }

    /// The smallest of the last round trips: what went there and back now cannot have been quicker, with queues as
    /// they are.
    pub(super) fn recent_rtt(&self) -> u64 {
        self.recent.least().unwrap_or(self.min_rtt)
    }

    /// Segments in so many bytes.
    pub(super) fn segments(&self, bytes: u64) -> u32 {
        bytes.div_ceil(u64::from(self.segment.max(1))) as u32
    }

    /// `sacked_out`: segments that were SACKed, or duplicate acknowledgements without SACK.
    pub(super) fn sacked_out(&self) -> u32 {
        if self.sacks {
            self.segments(self.sacked_bytes)
        } else {
            self.repeated_acks
        }
    }

    /// Retransmission timeout (RFC 6298 with Linux's floor), doubled for each one in a row.
    fn timeout(&self) -> u64 {
        let base = if self.srtt == 0 {
            1_000_000_000
        } else {
            self.srtt + (4 * self.deviation).max(RTO_MIN)
        };
        base << self.timeouts.min(10)
    }

    /// New data leaves.
    pub(super) fn sends(&mut self, now: u64, start: u64, end: u64) {
        if self.units.is_empty() {
            self.timer_began = now;
        }
        if self.nxt == 0 {
            self.una = start;
        }
        self.nxt = end;
        self.last_sent = now;
        self.by_timer = false;
        self.probed = None;
        if self.units.len() >= UNITS_MAX {
            let gone = self.units.pop_front();
            let sacked = gone.filter(|one| one.sacked);
            self.sacked_bytes -= sacked.map_or(0, |one| one.end - one.start);
        }
        self.units.push_back(Unit {
            start,
            end,
            sent: now,
            resent: false,
            sacked: false,
        });
    }

    /// Bytes that had left leave again: why.
    pub(super) fn resends(&mut self, now: u64, start: u64, end: u64) -> Conclusion {
        let mut conclusion = self.conclude(now, start, end);
        let segments = self.segments(end - start);
        match conclusion.cause {
            Cause::Rto => {
                conclusion.enters = (self.ca_state != LOSS).then_some(LOSS);
                self.ca_state = LOSS;
                self.high = self.nxt;
                self.timeouts += 1;
                self.timer_began = now;
            }
            Cause::Probe => {
                self.probed = Some(self.nxt);
                self.timer_began = now;
            }
            Cause::RackTimer | Cause::Clocked => {
                if self.ca_state < RECOVERY {
                    conclusion.enters = Some(RECOVERY);
                    self.ca_state = RECOVERY;
                    self.high = self.nxt;
                }
                if start <= self.una {
                    self.timer_began = now;
                }
            }
            Cause::AfterRto => {}
        }
        conclusion.ca_state = self.ca_state;
        self.by_timer = conclusion.cause == Cause::RackTimer;
        self.mark_resent(now, start, end);
        self.resent_segments = self.resent_segments.saturating_add(segments);
        self.last_sent = now;
        conclusion
    }

    fn conclude(&self, now: u64, start: u64, end: u64) -> Conclusion {
        let found = |cause, pending, close| Conclusion {
            cause,
            ca_state: self.ca_state,
            pending,
            enters: None,
            close,
        };
        let quiet = now.saturating_sub(self.last_ack.max(self.last_sent));
        let waited = now.saturating_sub(self.timer_began);
        let timer = quiet >= TIMER_MIN;
        let head = start <= self.una;
        let tail = end >= self.nxt;
        // A tick less than the timeout: the capture sees the last event later than the kernel did.
        let overdue = waited + waited / 10 >= self.timeout();
        let may_probe = self.ca_state <= DISORDER
            && self.sacked_bytes == 0
            && self.probed.is_none()
            && self.timeouts == 0;
        if timer && tail && may_probe {
            // Two round trips behind the last event, longer with a single segment in flight; the
            // timeout would be at least that much later for all but the shortest round trips.
            let due = 2 * self.srtt;
            let close = head && overdue && due + RTO_MIN > self.timeout();
            return found(Cause::Probe, PENDING_LOSS_PROBE, close);
        }
        if timer && head && overdue {
            return found(Cause::Rto, 0, false);
        }
        if self.ca_state == LOSS {
            return found(Cause::AfterRto, 0, false);
        }
        if timer && head && !self.evidence_of_loss() && waited >= RTO_MIN {
            return found(Cause::Rto, 0, true);
        }
        if self.sacked_bytes > 0 && (self.by_timer || timer && self.timer_is_due(now, start)) {
            return found(Cause::RackTimer, PENDING_REORDER, true);
        }
        found(Cause::Clocked, 0, false)
    }

    /// Whether RACK's timer gives a segment up: what was sent a round trip and the window for reordering before is
    /// lost (`tcp_rack_detect_loss`, net/ipv4/tcp_recovery.c). Where the last acknowledgement came later than
    /// that, it did; the timer fires within two ticks.
    fn timer_is_due(&self, now: u64, start: u64) -> bool {
        let index = self.units.partition_point(|unit| unit.end <= start);
        let Some(unit) = self.units.get(index) else {
            return false;
        };
        // Without reordering seen, in recovery and from the threshold on there is no window.
        let none =
            self.reordered == 0 && (self.ca_state >= RECOVERY || self.sacked_out() >= THRESHOLD);
        let window = match none {
            true => 0,
            false => (self.min_rtt / 4 * self.steps.max(1)).min(self.srtt),
        };
        let due = unit.sent + self.rack_rtt + window;
        due > self.last_ack && (due..due + TIMER_LATE).contains(&now)
    }

    /// A DSACK widens RACK's window once a round trip (`tcp_rack_update_reo_wnd`).
    fn widened(&mut self, now: u64) {
        if now.saturating_sub(self.steps_at) >= self.srtt {
            self.steps = (self.steps.max(1) + 1).min(255);
            self.steps_at = now;
        }
    }

    /// Something was delivered in its only transmission, or in its last one.
    fn delivered(&mut self, now: u64, unit: &Unit) {
        let rtt = now.saturating_sub(unit.sent);
        // A copy that is acknowledged sooner than any round trip was not what arrived.
        if unit.sent >= self.rack_sent && !(unit.resent && rtt < self.min_rtt) {
            (self.rack_sent, self.rack_rtt) = (unit.sent, rtt);
        }
    }

    fn evidence_of_loss(&self) -> bool {
        self.sacked_bytes > 0 || self.repeated_acks > 0 || self.ca_state >= RECOVERY
    }

    /// Cuts units at both ends of a range; which ones are inside.
    fn cut(&mut self, start: u64, end: u64) -> Range<usize> {
        let first = self.units.partition_point(|unit| unit.end <= start);
        self.split(first, start);
        let first = self.units.partition_point(|unit| unit.end <= start);
        let last = self.units.partition_point(|unit| unit.start < end);
        if last > first {
            self.split(last - 1, end);
        }
        first.min(last)..last
    }

    fn mark_resent(&mut self, now: u64, start: u64, end: u64) {
        let inside = self.cut(start, end);
        for unit in self.units.range_mut(inside) {
            (unit.sent, unit.resent) = (now, true);
        }
    }

    /// Cuts a unit in two.
    fn split(&mut self, index: usize, at: u64) {
        let Some(unit) = self.units.get_mut(index) else {
            return;
        };
        if unit.start < at && at < unit.end {
            let mut rest = *unit;
            rest.start = at;
            unit.end = at;
            self.units.insert(index + 1, rest);
        }
    }

    /// An acknowledgement reaches the sender. Returns true if it ended an episode.
    pub(super) fn acknowledged(
        &mut self,
        now: u64,
        ack: u64,
        blocks: &[(u64, u64)],
        pure: bool,
    ) -> bool {
        if ack > self.nxt {
            // The capture has not seen what this acknowledges.
            self.nxt = ack;
        }
        self.sacks |= !blocks.is_empty();
        self.by_timer = false;
        if let [first, rest @ ..] = blocks {
            let inside = rest
                .first()
                .is_some_and(|next| first.0 >= next.0 && first.1 <= next.1);
            if first.0 < ack || inside {
                self.widened(now);
            }
        }
        let mut sample = None;
        let mut newly = self.ack_below(now, ack, &mut sample);
        // In the order of sequence numbers, as `tcp_sacktag_write_queue` does: only what lies below an
        // earlier acknowledgement's blocks was overtaken.
        let mut blocks: Vec<(u64, u64)> =
            blocks.iter().copied().filter(|one| one.1 > ack).collect();
        blocks.sort_unstable();
        for (start, end) in blocks {
            newly |= self.sack(now, start, end, &mut sample);
        }
        if let Some(rtt) = sample {
            self.measured(rtt);
        }
        self.last_ack = now;
        if ack > self.una {
            self.una = ack;
            self.timer_began = now;
            (self.repeated_acks, self.timeouts) = (0, 0);
            self.probed = self.probed.filter(|edge| *edge > ack);
        } else if pure && ack == self.una && !self.units.is_empty() {
            self.repeated_acks += 1;
        }
        let ends = self.ca_state >= RECOVERY && self.una >= self.high;
        if ends {
            self.ca_state = OPEN;
        }
        if self.ca_state <= DISORDER {
            let disorder = self.sacked_bytes > 0 || self.repeated_acks > 0 && !newly;
            self.ca_state = if disorder { DISORDER } else { OPEN };
        }
        ends
    }

    fn ack_below(&mut self, now: u64, ack: u64, sample: &mut Option<u64>) -> bool {
        let mut newly = false;
        while let Some(unit) = self.units.front().copied() {
            if unit.start >= ack {
                break;
            }
            newly = true;
            if unit.end > ack {
                self.split(0, ack);
            }
            let unit = self.units.pop_front().unwrap_or(unit);
            if !unit.sacked {
                self.delivered(now, &unit);
            }
            if unit.sacked {
                self.sacked_bytes -= unit.end - unit.start;
            } else if !unit.resent {
                *sample = Some(now - unit.sent.min(now));
                // Delivered in its first transmission behind something that was SACKed.
                self.reordered += u32::from(unit.end < self.forward);
            }
        }
        newly
    }

    fn sack(&mut self, now: u64, start: u64, end: u64, sample: &mut Option<u64>) -> bool {
        let mut newly = false;
        for index in self.cut(start, end) {
            let Some(unit) = self.units.get_mut(index) else {
                break;
            };
            if unit.sacked {
                continue;
            }
            unit.sacked = true;
            let unit = *unit;
            self.delivered(now, &unit);
            newly = true;
            self.sacked_bytes += unit.end - unit.start;
            if !unit.resent {
                *sample = Some(now - unit.sent.min(now));
                self.reordered += u32::from(unit.end < self.forward);
            }
        }
        self.forward = self.forward.max(end);
        newly
    }

    /// RFC 6298, section 2.
    fn measured(&mut self, rtt: u64) {
        self.recent.push(rtt);
        self.min_rtt = if self.min_rtt == 0 {
            rtt
        } else {
            self.min_rtt.min(rtt)
        };
        if self.srtt == 0 {
            (self.srtt, self.deviation) = (rtt, rtt / 2);
        } else {
            self.deviation = (3 * self.deviation + self.srtt.abs_diff(rtt)) / 4;
            self.srtt = (7 * self.srtt + rtt) / 8;
        }
    }

    /// `tp->reordering >= sacked_out` is what RACK's threshold asks while no reordering was seen.
    pub(super) fn threshold() -> u32 {
        THRESHOLD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Ten segments of 1000 bytes, a ms apart, with a round trip of 20 ms measured before.
    fn sender() -> Sender {
        let mut sender = Sender {
            segment: 1000,
            ..Sender::default()
        };
        sender.sends(0, 0, 1000);
        sender.acknowledged(20 * MS, 1000, &[], true);
        for number in 1..11 {
            sender.sends((20 + number) * MS, number * 1000, number * 1000 + 1000);
        }
        sender
    }

    #[test]
    fn the_least_of_the_last_samples() {
        let mut recent = Recent::default();
        let mut all = Vec::new();
        for number in 0..1000u64 {
            let rtt = number * 7919 % 101 + number / 5;
            recent.push(rtt);
            all.push(rtt);
            let last = &all[all.len().saturating_sub(RECENT as usize)..];
            assert_eq!(recent.least(), last.iter().copied().min());
        }
    }

    #[test]
    fn acknowledgements_clock_a_fast_retransmission() {
        let mut sender = sender();
        for number in 2..5 {
            sender.acknowledged(
                (41 + number) * MS,
                1000,
                &[(2000, number * 1000 + 1000)],
                true,
            );
        }
        assert_eq!((sender.sacked_out(), sender.ca_state), (3, DISORDER));
        let found = sender.resends(45 * MS + 30_000, 1000, 2000);
        assert_eq!(
            (found.cause, found.enters),
            (Cause::Clocked, Some(RECOVERY))
        );
        let found = sender.resends(45 * MS + 40_000, 5000, 6000);
        assert_eq!((found.cause, found.enters), (Cause::Clocked, None));
        assert!(!sender.acknowledged(66 * MS, 5000, &[], true));
        assert!(sender.acknowledged(67 * MS, 11_000, &[], true));
        assert_eq!((sender.ca_state, sender.sacked_out()), (OPEN, 0));
    }

    #[test]
    fn a_probe_sends_the_tail_and_a_timeout_the_head() {
        let mut sender = sender();
        let found = sender.resends(72 * MS, 10_000, 11_000);
        assert_eq!((found.cause, found.pending), (Cause::Probe, 5));
        let found = sender.resends(72 * MS + sender.timeout(), 1000, 2000);
        assert_eq!((found.cause, found.enters), (Cause::Rto, Some(LOSS)));
        sender.acknowledged(400 * MS, 2000, &[], true);
        let found = sender.resends(400 * MS + 20_000, 2000, 3000);
        assert_eq!((found.cause, found.ca_state), (Cause::AfterRto, LOSS));
    }

    #[test]
    fn racks_timer_fires_between_acknowledgements() {
        let mut sender = sender();
        sender.acknowledged(43 * MS, 1000, &[(2000, 3000)], true);
        let found = sender.resends(48 * MS, 1000, 2000);
        assert_eq!(
            (found.cause, found.enters),
            (Cause::RackTimer, Some(RECOVERY))
        );
    }

    #[test]
    fn reordering_is_seen_by_what_fills_a_gap_unasked() {
        let mut sender = sender();
        sender.acknowledged(43 * MS, 1000, &[(2000, 3000)], true);
        sender.acknowledged(44 * MS, 3000, &[], true);
        assert_eq!((sender.reordered, sender.ca_state), (1, OPEN));
    }
}
