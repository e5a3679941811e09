//! What has reached the receiver of one direction.

use std::collections::BTreeMap;

/// Intervals of data above a gap that are remembered at the receiver.
const INTERVALS_MAX: usize = 4096;

/// Data that reached the receiver. What TCP discarded for its old timestamp (PAWS) arrived, too.
#[derive(Debug, Clone, Default)]
pub(super) struct Received {
    pub(super) seen: bool,
    next: u64,
    above: BTreeMap<u64, u64>,
}

impl Received {
    /// From the first to the last byte of a range that has not come; empty if all have.
    pub(super) fn gap(&self, start: u64, end: u64) -> (u64, u64) {
        let mut from = start.max(self.next);
        if let Some((_, until)) = self.above.range(..=from).next_back() {
            from = from.max(*until);
        }
        let last = self.above.range(..end).next_back();
        match last.filter(|(_, until)| **until >= end) {
            Some((begin, _)) => (from, end.min(*begin)),
            None => (from, end),
        }
    }

    /// Whether any of it, or all of it, waits above a gap.
    pub(super) fn repeats(&self, start: u64, end: u64) -> Option<Repeat> {
        let (from, until) = self.above.range(..end).next_back()?;
        let whole = *from <= start && *until >= end;
        (*until > start).then_some(if whole { Repeat::Whole } else { Repeat::Partly })
    }

    pub(super) fn add(&mut self, start: u64, end: u64) {
        if end <= self.next {
            return;
        }
        if start <= self.next && self.above.is_empty() {
            self.next = end;
            return;
        }
        let (mut start, mut end) = (start.max(self.next), end);
        while let Some((&from, &until)) = self.above.range(..=end).next_back() {
            if until < start {
                break;
            }
            start = start.min(from);
            end = end.max(until);
            self.above.remove(&from);
        }
        if start <= self.next {
            self.next = end;
        } else if self.above.len() < INTERVALS_MAX {
            self.above.insert(start, end);
        }
    }

    /// `rcv_nxt` as the socket has it.
    pub(super) fn at_least(&mut self, next: u64) {
        self.next = self.next.max(next);
        while let Some((&from, &until)) = self.above.first_key_value() {
            if from > self.next {
                break;
            }
            self.next = self.next.max(until);
            self.above.remove(&from);
        }
    }
}

/// Data that repeats some that waits above a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// All of it waits.
    Whole,
    /// Some of it waits.
    Partly,
}
