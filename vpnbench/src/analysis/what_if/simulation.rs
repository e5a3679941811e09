//! One sender under one set of settings: the recorded fates of its segments, and the model's own
//! decisions about what to send again.
//!
//! New data leaves when it left in fact. The answer to an original comes when it came in fact, or
//! would have come. A copy that the model sends has the fate of the actual copy of that segment; without
//! one, that of a segment that leaves soon after it: not of the last one before it, for it is a quick
//! answer to that one that makes others look lost. If the kernel had to send a segment more than twice,
//! the model's first copy is lost too. In recovery, at most as many
//! segments are sent again by an acknowledgement as it delivers (packet conservation; PRR in
//! net/ipv4/tcp_input.c, RFC 6937), at least one at the entry. Entries, exits and undos follow
//! `tcp_fastretrans_alert`; timestamps echo the segment that last moved the left edge (RFC 7323, 4.3).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use super::board::{Board, EVER, LOST, RETRANS, SACKED, Transmission};
use super::fate::{Fate, Measured};
use super::rack::{Inputs, Rack};
use super::rules::Rules;
use super::window::Window;

/// What a simulation came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Segments sent for the first time.
    pub segments: u64,
    /// Segments sent again.
    pub resent: u64,
    /// Of those, with an original that arrives.
    pub spurious: u64,
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
        self.resent += other.resent;
        self.spurious += other.spurious;
        self.entries += other.entries;
        self.undone += other.undone;
        self.timeouts += other.timeouts;
        self.delivered += other.delivered;
        self.raising += other.raising;
        self.window_milli += other.window_milli;
    }

    /// Reductions of the window that were not taken back.
    #[must_use]
    pub fn reductions(&self) -> u64 {
        self.entries.saturating_sub(self.undone) + self.timeouts
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Notice {
    time: u64,
    start: u64,
    end: u64,
    original: bool,
    /// When this copy left, ns.
    sent: u64,
}

/// Segments that are known before they leave, as fates of copies.
const AHEAD: usize = 64;

/// Recovery, or what follows a timeout.
#[derive(Debug, Clone, Copy)]
struct Episode {
    high: u64,
    /// After a timeout.
    loss: bool,
    /// `retrans_stamp`: the first copy, ms.
    first_copy: Option<u32>,
    /// `undo_retrans`: copies that no DSACK has shown to be needless; `None` without a copy.
    copies: Option<u32>,
}

/// Nanoseconds as TCP's timestamp.
fn stamp(ns: u64) -> u32 {
    (ns / 1_000_000) as u32
}

/// One sender under one set of settings.
#[derive(Debug)]
pub struct Simulation {
    rules: Rules,
    board: Board,
    rack: Rack,
    notices: BinaryHeap<Reverse<Notice>>,
    fates: BTreeMap<u64, Fate>,
    /// What leaves next, and how many of them have lent their fate to a copy.
    ahead: VecDeque<Fate>,
    lent: usize,
    /// Place after the last byte that left.
    next: u64,
    episode: Option<Episode>,
    /// Timestamp echo of the last acknowledgement, ms.
    echo_ms: Option<u32>,
    measured: Measured,
    /// When the timeout runs from.
    progress: u64,
    outcome: Outcome,
    /// Once something has left.
    window: Option<Window>,
}

impl Simulation {
    /// Starts with nothing on its way. `reordering` is the socket's value at its start.
    #[must_use]
    pub fn new(rules: Rules, reordering: u32) -> Simulation {
        Simulation {
            rules,
            board: Board::default(),
            rack: Rack::new(reordering),
            notices: BinaryHeap::new(),
            fates: BTreeMap::new(),
            ahead: VecDeque::new(),
            lent: 0,
            next: 0,
            episode: None,
            echo_ms: None,
            measured: Measured::default(),
            progress: 0,
            outcome: Outcome::default(),
            window: None,
        }
    }

    /// The next segment, in order of sequence numbers.
    pub fn push(&mut self, fate: Fate) {
        self.ahead.push_back(fate);
        if self.ahead.len() > AHEAD
            && let Some(next) = self.ahead.pop_front()
        {
            self.step(next);
        }
    }

    fn step(&mut self, fate: Fate) {
        if self.window.is_none() {
            let cwnd = fate.measured.cwnd;
            let threshold = fate.measured.threshold.unwrap_or(cwnd);
            let window = Window::new(self.rules.control, fate.sent, cwnd, threshold);
            self.window = Some(window);
            self.board.una = fate.start;
            self.next = fate.start;
            self.progress = fate.sent;
        }
        if fate.end <= self.next {
            return;
        }
        self.run(fate.sent);
        self.lent = self.lent.saturating_sub(1);
        if let (Some(window), Some(threshold)) = (&mut self.window, fate.measured.threshold) {
            window.slow_start_ends(threshold);
        }
        self.measured = fate.measured;
        if fate.start > self.next {
            // Nobody saw this data leave: it arrives at once.
            let missed = Fate {
                start: self.next,
                end: fate.start,
                original: Some(fate.sent),
                ..fate
            };
            self.leave(missed);
        }
        self.outcome.segments += 1;
        self.leave(Fate {
            start: fate.start.max(self.next),
            ..fate
        });
    }

    fn leave(&mut self, fate: Fate) {
        self.next = fate.end;
        if self.board.is_empty() {
            self.progress = fate.sent;
        }
        self.board.transmitted(&Transmission {
            time: fate.sent,
            start: fate.start,
            end: fate.end,
            segment: u32::try_from(fate.end - fate.start).unwrap_or(u32::MAX),
        });
        if let Some(time) = fate.original {
            self.notices.push(Reverse(Notice {
                time,
                start: fate.start,
                end: fate.end,
                original: true,
                sent: fate.sent,
            }));
        }
        self.fates.insert(fate.start, fate);
    }

    /// Lets time pass.
    fn run(&mut self, until: u64) {
        loop {
            let notice = self.notices.peek().map(|one| one.0.time);
            let timeout = (!self.board.is_empty() && self.measured.rto > 0)
                .then(|| self.progress + self.measured.rto);
            let next = [notice, self.rack.timer, timeout];
            let Some(time) = next.into_iter().flatten().min().filter(|at| *at <= until) else {
                return;
            };
            if notice == Some(time) {
                self.answer(time);
            } else if self.rack.timer == Some(time) {
                self.reordering_timer(time);
            } else {
                self.timeout(time);
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
        self.board.acknowledged(now, una, &blocks);
        let inputs = self.inputs(now);
        let rules = self.rules;
        let delivered = self.board.delivered().len();
        self.rack
            .delivered(&self.board, before, dsack, &rules, inputs);
        let edge = self.board.edge();
        let advanced = edge > una;
        if advanced {
            self.board.acknowledged(now, edge, &[]);
            self.fates = self.fates.split_off(&edge);
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
                if self.board.all().any(|one| one.is(RETRANS)) {
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
        self.send_again(now, delivered.max(usize::from(entered)));
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

    fn send_again(&mut self, now: u64, most: usize) {
        if self.board.lost_out == 0 || most == 0 {
            return;
        }
        let until = self.board.last().map_or(0, |one| one.end);
        let lost = |one: &&super::board::Segment| one.is(LOST) && !one.is(RETRANS);
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
        self.outcome.resent += 1;
        if let Some(episode) = &mut self.episode {
            episode.first_copy.get_or_insert(stamp(now));
            *episode.copies.get_or_insert(0) += 1;
        }
        let fate = self.fates.get(&start).copied();
        let original = fate.and_then(|one| one.original);
        self.outcome.spurious += u64::from(original.is_some());
        let actual = fate.filter(|one| one.copies > 0 && one.original.is_none());
        let delay = match actual {
            Some(one) if !again && one.copies > 1 => return,
            Some(one) => one.delay,
            None => match self.lend() {
                Some(one) if one.original.is_none() => return,
                Some(one) => one.delay,
                None => self.measured.srtt,
            },
        };
        self.notices.push(Reverse(Notice {
            time: now + delay.max(self.measured.min_rtt.min(1)),
            start,
            end,
            original: false,
            sent: now,
        }));
    }

    /// The next fate for a copy.
    fn lend(&mut self) -> Option<Fate> {
        let fate = self.ahead.get(self.lent).or_else(|| self.ahead.back());
        self.lent = (self.lent + 1).min(self.ahead.len());
        fate.copied()
    }

    fn reordering_timer(&mut self, now: u64) {
        self.rack.timer = None;
        let inputs = self.inputs(now);
        let rules = self.rules;
        let lost = self.rack.detect(&mut self.board, &rules, inputs);
        if !lost.is_empty() {
            self.enter(now);
            self.send_again(now, 1);
        }
    }

    fn timeout(&mut self, now: u64) {
        self.outcome.timeouts += 1;
        self.progress = now;
        let rules = self.rules;
        self.rack.timed_out(&mut self.board, &rules, now);
        self.begin(now, true);
        self.send_again(now, 1);
    }

    /// Lets everything arrive.
    #[must_use]
    pub fn finish(mut self) -> Outcome {
        while let Some(next) = self.ahead.pop_front() {
            self.step(next);
        }
        let last = self.notices.iter().map(|one| one.0.time).max();
        if let Some(last) = last {
            self.run(last);
        }
        let mean = self.window.map_or(0.0, |window| window.mean());
        self.outcome.window_milli = (mean * 1000.0) as u64;
        self.outcome
    }
}
