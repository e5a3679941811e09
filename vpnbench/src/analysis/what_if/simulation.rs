//! One sender under one set of settings, on the recorded fates of its segments: which of them it would
//! have sent again.
//!
//! New data leaves when it left in fact. The answer to an original comes when it came in fact, or
//! would have come. A copy that the model sends has the fate of the actual copy of that segment; without
//! one, that of a segment that leaves soon after it: not of the last one before it, for it is a quick
//! answer to that one that makes others look lost. If the kernel had to send a segment more than twice,
//! the model's first copy is lost too. In recovery, at most as many
//! segments are sent again by an acknowledgement as it delivers (packet conservation; PRR in
//! net/ipv4/tcp_input.c, RFC 6937), at least one at the entry.

use std::collections::{BTreeMap, VecDeque};

use super::fate::{Fate, Measured};
use super::rules::Rules;
use super::sender::{Copied, Outcome, Road, Sender};
use super::window::Window;

/// Segments that are known before they leave, as fates of copies.
const AHEAD: usize = 64;

/// What is known of each segment.
#[derive(Debug, Clone, Default)]
struct Recorded {
    fates: BTreeMap<u64, Fate>,
    /// What leaves next, and how many of them have lent their fate to a copy.
    ahead: VecDeque<Fate>,
    lent: usize,
}

impl Recorded {
    /// The next fate for a copy.
    fn lend(&mut self) -> Option<Fate> {
        let fate = self.ahead.get(self.lent).or_else(|| self.ahead.back());
        self.lent = (self.lent + 1).min(self.ahead.len());
        fate.copied()
    }
}

impl Road for Recorded {
    fn copy(&mut self, start: u64, again: bool, measured: &Measured) -> Copied {
        let fate = self.fates.get(&start).copied();
        let spurious = fate.is_some_and(|one| one.original.is_some());
        let actual = fate.filter(|one| one.copies > 0 && one.original.is_none());
        let delay = match actual {
            Some(one) if !again && one.copies > 1 => None,
            Some(one) => Some(one.delay),
            None => match self.lend() {
                Some(one) if one.original.is_none() => None,
                Some(one) => Some(one.delay),
                None => Some(measured.srtt),
            },
        };
        Copied { spurious, delay }
    }

    fn acknowledged(&mut self, edge: u64) {
        self.fates = self.fates.split_off(&edge);
    }
}

/// One sender under one set of settings.
#[derive(Debug, Clone)]
pub struct Simulation {
    sender: Sender<Recorded>,
}

impl Simulation {
    /// Starts with nothing on its way. `reordering` is the socket's value at its start.
    #[must_use]
    pub fn new(rules: Rules, reordering: u32) -> Simulation {
        Simulation {
            sender: Sender::new(rules, reordering, Recorded::default()),
        }
    }

    /// The next segment, in order of sequence numbers.
    pub fn push(&mut self, fate: Fate) {
        let ahead = &mut self.sender.road.ahead;
        ahead.push_back(fate);
        if ahead.len() > AHEAD
            && let Some(next) = ahead.pop_front()
        {
            self.step(next);
        }
    }

    fn step(&mut self, fate: Fate) {
        let sender = &mut self.sender;
        if sender.window.is_none() {
            let cwnd = fate.measured.cwnd;
            let threshold = fate.measured.threshold.unwrap_or(cwnd);
            let window = Window::new(sender.rules.control, fate.sent, cwnd, threshold);
            sender.window = Some(window);
            sender.board.una = fate.start;
            sender.next = fate.start;
            sender.progress = fate.sent;
        }
        if fate.end <= sender.next {
            return;
        }
        sender.run(fate.sent);
        sender.road.lent = sender.road.lent.saturating_sub(1);
        if let (Some(window), Some(threshold)) = (&mut sender.window, fate.measured.threshold) {
            window.slow_start_ends(threshold);
        }
        sender.measured = fate.measured;
        if fate.start > sender.next {
            // Nobody saw this data leave: it arrives at once.
            let missed = Fate {
                start: sender.next,
                end: fate.start,
                original: Some(fate.sent),
                ..fate
            };
            self.leave(missed);
        }
        self.sender.outcome.segments += 1;
        self.leave(Fate {
            start: fate.start.max(self.sender.next),
            ..fate
        });
    }

    fn leave(&mut self, fate: Fate) {
        self.sender
            .leave(fate.sent, fate.start, fate.end, fate.original);
        self.sender.road.fates.insert(fate.start, fate);
    }

    /// Lets everything arrive.
    #[must_use]
    pub fn finish(mut self) -> Outcome {
        while let Some(next) = self.sender.road.ahead.pop_front() {
            self.step(next);
        }
        if let Some(last) = self.sender.last_notice() {
            self.sender.run(last);
        }
        let mean = self.sender.window.map_or(0.0, |window| window.mean());
        self.sender.outcome.window_milli = (mean * 1000.0) as u64;
        self.sender.outcome
    }
}
