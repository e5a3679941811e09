//! A sender under one set of settings: its scoreboard, loss detection, timers, episodes and window.
//! What becomes of what it sends is the business of a [`Road`]; when new data leaves, that of its user:
//! [`super::simulation`] as recorded, [`super::closed`] as the simulated window lets it.
//!
//! Entries, exits and undos follow `tcp_fastretrans_alert`; timestamps echo the segment that last moved
//! the left edge (RFC 7323, 4.3). With a window that rules, recovery is clocked by PRR (RFC 6937,
//! `tcp_cwnd_reduction`) and the timeout follows RFC 6298 as net/ipv4/tcp_input.c does it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::board::{Board, EVER, LOST, RETRANS, SACKED, Segment, Transmission};
use super::closed::Clock;
use super::fate::Measured;
use super::rack::{Inputs, Rack};
use super::rules::Rules;
use super::window::Window;

/// Segments sent again, by whether the original was lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copies {
    /// The original was lost.
    pub needed: u64,
    /// The original arrives: spurious.
    pub spurious: u64,
}

impl Copies {
    pub(super) fn add(&mut self, other: Copies) {
        self.needed += other.needed;
        self.spurious += other.spurious;
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.needed + self.spurious
    }
}

/// What a simulation came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Segments sent for the first time.
    pub segments: u64,
    /// Sent again in fast recovery.
    pub fast: Copies,
    /// Sent again by a timeout and while recovering from it.
    pub slow: Copies,
    /// Entries into fast recovery.
    pub entries: u64,
    /// Of those, taken back.
    pub undone: u64,
    /// Timeouts.
    pub timeouts: u64,
    /// Segments delivered.
    pub delivered: u64,
    /// Of those, by acknowledgements that may raise the window.
    pub raising: u64,
    /// Mean congestion window in 1/1000 segments.
    pub window_milli: u64,
}

impl Outcome {
    pub(super) fn add(&mut self, other: &Outcome) {
        self.segments += other.segments;
        self.fast.add(other.fast);
        self.slow.add(other.slow);
        self.entries += other.entries;
        self.undone += other.undone;
        self.timeouts += other.timeouts;
        self.delivered += other.delivered;
        self.raising += other.raising;
        self.window_milli += other.window_milli;
    }

    /// Segments sent again.
    #[must_use]
    pub fn resent(&self) -> u64 {
        self.fast.total() + self.slow.total()
    }

    /// Reductions of the window that were not taken back.
    #[must_use]
    pub fn reductions(&self) -> u64 {
        self.entries.saturating_sub(self.undone) + self.timeouts
    }
}

/// What becomes of copies.
pub(super) trait Road {
    /// A copy leaves. `again`: it is not the first of this segment.
    fn copy(&mut self, start: u64, again: bool, measured: &Measured) -> Copied;
    /// Everything below is acknowledged.
    fn acknowledged(&mut self, edge: u64);
}

/// The fate of a copy.
#[derive(Debug, Clone, Copy)]
pub(super) struct Copied {
    /// The original arrives as well.
    pub spurious: bool,
    /// Until the sender learns of its arrival, ns; `None` if it is lost.
    pub delay: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Notice {
    time: u64,
    start: u64,
    end: u64,
    /// When this copy left, ns.
    sent: u64,
}

/// Recovery, or what follows a timeout.
#[derive(Debug, Clone, Copy)]
pub(super) struct Episode {
    high: u64,
    /// After a timeout.
    pub loss: bool,
    /// `retrans_stamp`: the first copy, ms.
    first_copy: Option<u32>,
    /// `undo_retrans`: copies that no DSACK has shown to be needless; `None` without a copy.
    copies: Option<u32>,
}

/// Nanoseconds as TCP's timestamp.
fn stamp(ns: u64) -> u32 {
    (ns / 1_000_000) as u32
}

/// What happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Answer,
    ReorderingTimer,
    Timeout,
}

/// One sender under one set of settings.
#[derive(Debug, Clone)]
pub(super) struct Sender<R> {
    pub rules: Rules,
    pub board: Board,
    pub rack: Rack,
    pub road: R,
    notices: BinaryHeap<Reverse<Notice>>,
    /// Place after the last byte that left.
    pub next: u64,
    pub episode: Option<Episode>,
    /// Timestamp echo of the last acknowledgement, ms.
    echo_ms: Option<u32>,
    pub measured: Measured,
    /// When the timeout runs from.
    pub progress: u64,
    pub outcome: Outcome,
    /// Once something has left.
    pub window: Option<Window>,
    /// Where the window rules: PRR and RTT estimates.
    pub clock: Option<Clock>,
}

impl<R: Road> Sender<R> {
    /// Starts with nothing on its way. `reordering` is the socket's value at its start.
    pub(super) fn new(rules: Rules, reordering: u32, road: R) -> Sender<R> {
        Sender {
            rules,
            board: Board::default(),
            rack: Rack::new(reordering),
            road,
            notices: BinaryHeap::new(),
            next: 0,
            episode: None,
            echo_ms: None,
            measured: Measured::default(),
            progress: 0,
            outcome: Outcome::default(),
            window: None,
            clock: None,
        }
    }

    /// New data leaves; `arrives`: when the sender learns of its arrival, `None` if it is lost.
    pub(super) fn leave(&mut self, sent: u64, start: u64, end: u64, arrives: Option<u64>) {
        self.next = end;
        if self.board.is_empty() {
            self.progress = sent;
        }
        self.board.transmitted(&Transmission {
            time: sent,
            start,
            end,
            segment: u32::try_from(end - start).unwrap_or(u32::MAX),
        });
        self.notify(arrives, start, end, sent);
    }

    fn notify(&mut self, time: Option<u64>, start: u64, end: u64, sent: u64) {
        self.notices.extend(time.map(|time| {
            Reverse(Notice {
                time,
                start,
                end,
                sent,
            })
        }));
    }

    fn next_event(&self) -> Option<(u64, Next)> {
        let notice = self.notices.peek().map(|one| (one.0.time, Next::Answer));
        let timer = self.rack.timer.map(|at| (at, Next::ReorderingTimer));
        let running = !self.board.is_empty() && self.measured.rto > 0;
        let timeout = running.then(|| (self.progress + self.measured.rto, Next::Timeout));
        let all = [notice, timer, timeout].into_iter().flatten();
        all.min_by_key(|one| one.0)
    }

    /// When something happens next, ns.
    pub(super) fn next_time(&self) -> Option<u64> {
        self.next_event().map(|one| one.0)
    }

    /// Time of the last answer that is on its way, ns.
    pub(super) fn last_notice(&self) -> Option<u64> {
        self.notices.iter().map(|one| one.0.time).max()
    }

    /// Lets time pass.
    pub(super) fn run(&mut self, until: u64) {
        while let Some((time, what)) = self.next_event().filter(|one| one.0 <= until) {
            match what {
                Next::Answer => self.answer(time),
                Next::ReorderingTimer => self.reordering_timer(time),
                Next::Timeout => self.timeout(time),
            }
        }
    }

    fn inputs(&self, now: u64) -> Inputs {
        Inputs {
            now,
            min_rtt: self.measured.min_rtt,
            srtt: self.measured.srtt,
            recovering: self.episode.is_some(),
            echo_ms: self.echo_ms,
            mss: self.measured.mss,
        }
    }

    /// All notices of one moment are one acknowledgement.
    fn answer(&mut self, now: u64) {
        let mut blocks = Vec::new();
        let mut dsack = false;
        while let Some(Reverse(notice)) = self.notices.peek().copied() {
            if notice.time != now {
                break;
            }
            self.notices.pop();
            if self.missing(&notice) {
                if notice.start <= self.board.una {
                    self.echo_ms = Some(stamp(notice.sent));
                }
                blocks.push((notice.start, notice.end));
            } else {
                dsack = true;
            }
        }
        let before = self.board.highest_sacked;
        let una = self.board.una;
        blocks.sort_unstable();
        let rtt = self.board.acknowledged(now, una, &blocks);
        if let Some(clock) = &mut self.clock {
            clock.sample(rtt, &mut self.measured);
        }
        let inputs = self.inputs(now);
        let rules = self.rules;
        let delivered = self.board.delivered().len();
        self.rack
            .delivered(&self.board, before, dsack, &rules, inputs);
        let edge = self.board.edge();
        let advanced = edge > una;
        if advanced {
            self.board.acknowledged(now, edge, &[]);
            self.road.acknowledged(edge);
        }
        if delivered > 0 {
            self.rack.timer = None;
            self.progress = now;
        }
        if dsack && let Some(copies) = self.episode.as_mut().and_then(|one| one.copies.as_mut()) {
            *copies = copies.saturating_sub(1);
        }
        let dubious = dsack || self.board.sacked_out > 0 || self.episode.is_some();
        if dubious {
            self.alert(now, una, advanced, delivered);
        }
        self.outcome.delivered += delivered as u64;
        // tcp_cong_control and tcp_may_raise_cwnd: out of order counts only where much of it is known.
        let recovering = self.episode.is_some_and(|one| !one.loss);
        let out_of_order = self.rack.reordering > self.rules.reordering;
        if !recovering && (advanced || out_of_order) {
            self.outcome.raising += delivered as u64;
            if let Some(window) = &mut self.window {
                window.raise(now, delivered as u64);
            }
        }
    }

    fn missing(&mut self, notice: &Notice) -> bool {
        let mut segments = self.board.range_mut(notice.start, notice.end);
        segments.next().is_some_and(|one| !one.is(SACKED))
    }

    /// `tcp_fastretrans_alert`. `una` was the left edge before the acknowledgement.
    fn alert(&mut self, now: u64, una: u64, advanced: bool, delivered: usize) {
        if let Some(episode) = self.episode {
            let early = |first: u32| {
                self.echo_ms
                    .is_some_and(|echo| (echo.wrapping_sub(first) as i32) < 0)
            };
            // tcp_packet_delayed, and what tcp_may_undo adds.
            let delayed = episode.first_copy.is_none_or(early);
            let needless = episode.copies == Some(0);
            if self.board.una >= episode.high {
                self.end(now, delayed || needless, false);
            } else if episode.loss {
                if delayed || needless {
                    self.end(now, true, true);
                }
            } else if advanced && delayed {
                let rules = self.rules;
                self.rack
                    .delayed(&self.board, una, &rules, self.measured.mss);
                if self.board.retrans_out > 0 {
                    self.quota(delivered, false);
                    return;
                }
                self.end(now, true, true);
            } else if needless {
                self.end(now, true, false);
            }
        }
        let (rules, inputs) = (self.rules, self.inputs(now));
        self.rack.mark(&mut self.board, &rules, inputs);
        let entered = self.enter(now);
        let most = self.quota(delivered, entered);
        self.send_again(now, most);
    }

    /// An episode ends. `found`: what was given up is not lost any more.
    fn end(&mut self, now: u64, undone: bool, found: bool) {
        if undone {
            self.outcome.undone += 1;
            self.rack.look_again();
            if let Some(window) = &mut self.window {
                window.restore(now);
            }
        } else {
            self.rack.recovered();
        }
        if found {
            self.board.nothing_lost();
        }
        self.episode = None;
    }

    /// `tcp_time_to_recover`: anything given up is reason enough.
    fn enter(&mut self, now: u64) -> bool {
        if self.board.lost_out == 0 || self.episode.is_some() {
            return false;
        }
        self.outcome.entries += 1;
        self.begin(now, false);
        true
    }

    fn begin(&mut self, now: u64, loss: bool) {
        if let (Some(clock), Some(window)) = (&mut self.clock, &self.window) {
            clock.reduction_begins(window.segments());
        }
        if let Some(window) = &mut self.window {
            window.reduce(now, loss);
        }
        self.episode = Some(Episode {
            high: self.board.last().map_or(0, |one| one.end),
            loss,
            first_copy: None,
            copies: None,
        });
    }

    /// How many copies may leave now: with a window that rules, what it and PRR leave room for; else as
    /// many as were delivered, one at an entry.
    fn quota(&mut self, delivered: usize, entered: bool) -> usize {
        let recovering = self.episode.is_some_and(|one| !one.loss);
        let (Some(clock), Some(window)) = (&mut self.clock, &self.window) else {
            return delivered.max(usize::from(entered));
        };
        if recovering {
            clock.reduce(delivered as u64, window.threshold(), self.board.in_flight());
        }
        self.room()
    }

    /// Segments that the window leaves room for; without end where no window rules.
    pub(super) fn room(&self) -> usize {
        let (Some(clock), Some(window)) = (&self.clock, &self.window) else {
            return usize::MAX;
        };
        if self.episode.is_some_and(|one| !one.loss) {
            return clock.sendable as usize;
        }
        (window.segments() as usize).saturating_sub(self.board.in_flight() as usize)
    }

    fn send_again(&mut self, now: u64, most: usize) {
        if self.board.lost_out == 0 || most == 0 {
            return;
        }
        let until = self.board.last().map_or(0, |one| one.end);
        let lost = |one: &&Segment| one.is(LOST) && !one.is(RETRANS);
        let chosen: Vec<(u64, u64, bool)> = self
            .board
            .missing(until)
            .filter(lost)
            .take(most)
            .map(|one| (one.start, one.end, one.is(EVER)))
            .collect();
        for (start, end, again) in chosen {
            self.board.resent(now, start, end);
            self.copy(now, start, end, again);
        }
    }

    /// A copy leaves.
    fn copy(&mut self, now: u64, start: u64, end: u64, again: bool) {
        if let Some(episode) = &mut self.episode {
            episode.first_copy.get_or_insert(stamp(now));
            *episode.copies.get_or_insert(0) += 1;
        }
        if let Some(clock) = &mut self.clock {
            clock.sent();
        }
        let copied = self.road.copy(start, again, &self.measured);
        let kind = match self.episode {
            Some(episode) if episode.loss => &mut self.outcome.slow,
            _ => &mut self.outcome.fast,
        };
        if copied.spurious {
            kind.spurious += 1;
        } else {
            kind.needed += 1;
        }
        let least = self.measured.min_rtt.min(1);
        let time = copied.delay.map(|delay| now + delay.max(least));
        self.notify(time, start, end, now);
    }

    fn reordering_timer(&mut self, now: u64) {
        self.rack.timer = None;
        let inputs = self.inputs(now);
        let rules = self.rules;
        let lost = self.rack.detect(&mut self.board, &rules, inputs);
        if !lost.is_empty() {
            // tcp_rack_reo_timeout: tcp_cwnd_reduction(sk, 1, 0, 0) at an entry.
            if self.enter(now) {
                self.quota(1, true);
            }
            self.send_again(now, 1);
        }
    }

    fn timeout(&mut self, now: u64) {
        self.outcome.timeouts += 1;
        self.progress = now;
        let rules = self.rules;
        if self.episode.is_none() {
            self.rack.overestimated(&self.board, &rules);
        }
        self.rack.timed_out(&mut self.board, &rules, now);
        self.begin(now, true);
        if let Some(clock) = &mut self.clock {
            clock.timed_out(&mut self.measured);
        }
        self.send_again(now, 1);
    }
}
