//! One sender under one set of settings: the recorded fates of its segments, and the model's own
//! decisions about what to send again.
//!
//! New data leaves when it left in fact. The answer to an original comes when it came in fact, or
//! would have come. A copy that the model sends is answered after the delay of the actual copy of
//! that segment, or of the segment that is on its way at that time; if the kernel had to send a
//! segment more than twice, the model's first copy is lost too. In recovery, at most as many
//! segments are sent again by an acknowledgement as it delivers (packet conservation; PRR in
//! net/ipv4/tcp_input.c, RFC 6937), at least one at the entry.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::board::{Board, EVER, LOST, RETRANS, SACKED, Transmission};
use super::fate::{Fate, Measured};
use super::rack::{Inputs, Rack};
use super::rules::Rules;

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
}

impl Outcome {
    pub(super) fn add(&mut self, other: &Outcome) {
        self.segments += other.segments;
        self.resent += other.resent;
        self.spurious += other.spurious;
        self.entries += other.entries;
        self.undone += other.undone;
        self.timeouts += other.timeouts;
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
}

#[derive(Debug, Clone, Copy)]
struct Episode {
    high: u64,
    first_copy: u64,
    undone: bool,
}

/// One sender under one set of settings.
#[derive(Debug)]
pub struct Simulation {
    rules: Rules,
    board: Board,
    rack: Rack,
    notices: BinaryHeap<Reverse<Notice>>,
    fates: BTreeMap<u64, Fate>,
    episode: Option<Episode>,
    measured: Measured,
    /// Delay of the segment that left last, ns.
    delay: u64,
    /// When the timeout runs from.
    progress: u64,
    outcome: Outcome,
    began: bool,
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
            episode: None,
            measured: Measured::default(),
            delay: 0,
            progress: 0,
            outcome: Outcome::default(),
            began: false,
        }
    }

    /// The next segment, in order of sequence numbers.
    pub fn push(&mut self, fate: Fate) {
        if !self.began {
            self.began = true;
            self.board.una = fate.start;
            self.progress = fate.sent;
        }
        self.run(fate.sent);
        self.measured = fate.measured;
        self.delay = fate.delay;
        self.outcome.segments += 1;
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
            mss: self.measured.mss,
        }
    }

    /// All notices of one moment are one acknowledgement.
    fn answer(&mut self, now: u64) {
        let mut blocks = Vec::new();
        let mut dsack = false;
        let mut left_edge = None;
        while let Some(Reverse(notice)) = self.notices.peek().copied() {
            if notice.time != now {
                break;
            }
            self.notices.pop();
            if self.missing(&notice) {
                if notice.start <= self.board.una && notice.original {
                    left_edge = self.fates.get(&notice.start).map(|one| one.sent);
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
        if edge > una {
            self.board.acknowledged(now, edge, &[]);
            self.progress = now;
            self.fates = self.fates.split_off(&edge);
        }
        if delivered > 0 {
            self.rack.timer = None;
        }
        self.leave(edge, left_edge);
        let dubious = dsack || self.board.sacked_out > 0 || self.episode.is_some();
        if dubious {
            let inputs = self.inputs(now);
            let lost = self.rack.mark(&mut self.board, &rules, inputs);
            let entered = self.enter(now, !lost.is_empty());
            self.send_again(now, delivered.max(usize::from(entered)));
        }
    }

    fn missing(&mut self, notice: &Notice) -> bool {
        let mut segments = self.board.range_mut(notice.start, notice.end);
        segments.next().is_some_and(|one| !one.is(SACKED))
    }

    /// Ends the episode where it is over, or the original at the left edge shows it was needless.
    fn leave(&mut self, edge: u64, original_sent: Option<u64>) {
        let Some(episode) = &mut self.episode else {
            return;
        };
        if !episode.undone && original_sent.is_some_and(|sent| sent < episode.first_copy) {
            episode.undone = true;
            self.outcome.undone += 1;
            self.rack.reordered_in_time();
        }
        if edge < episode.high {
            return;
        }
        if !episode.undone {
            self.rack.recovered();
        }
        self.episode = None;
    }

    fn enter(&mut self, now: u64, lost: bool) -> bool {
        if !lost || self.episode.is_some() {
            return false;
        }
        self.outcome.entries += 1;
        self.episode = Some(Episode {
            high: self.board.last().map_or(0, |one| one.end),
            first_copy: now,
            undone: false,
        });
        true
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
        let fate = self.fates.get(&start).copied();
        let original = fate.and_then(|one| one.original);
        self.outcome.spurious += u64::from(original.is_some());
        let lost_too = original.is_none() && !again && fate.is_some_and(|one| one.copies > 1);
        if lost_too {
            return;
        }
        let actual = fate.filter(|one| one.copies > 0 && one.original.is_none());
        let delay = actual.map_or(self.delay, |one| one.delay);
        self.notices.push(Reverse(Notice {
            time: now + delay.max(self.measured.min_rtt.min(1)),
            start,
            end,
            original: false,
        }));
    }

    fn reordering_timer(&mut self, now: u64) {
        self.rack.timer = None;
        let inputs = self.inputs(now);
        let rules = self.rules;
        let lost = self.rack.detect(&mut self.board, &rules, inputs);
        if !lost.is_empty() {
            self.enter(now, true);
            self.send_again(now, 1);
        }
    }

    fn timeout(&mut self, now: u64) {
        self.outcome.timeouts += 1;
        self.progress = now;
        let rules = self.rules;
        self.rack.timed_out(&mut self.board, &rules, now);
        self.episode = Some(Episode {
            high: self.board.last().map_or(0, |one| one.end),
            first_copy: now,
            undone: false,
        });
        self.send_again(now, 1);
    }

    /// Lets everything arrive.
    #[must_use]
    pub fn finish(mut self) -> Outcome {
        let last = self.notices.iter().map(|one| one.0.time).max();
        if let Some(last) = last {
            self.run(last);
        }
        self.outcome
    }
}
