//! Which retransmissions were spurious, and how that is known.
//!
//! A retransmission is spurious if an earlier copy of its bytes arrives at the receiver, before or
//! after it (RFC 3522, section 1; RFC 5827 calls it unnecessary). Evidence, best first:
//!
//! * **The original was seen arriving** (`tcp_probe` at the receiver, `net/ipv4/tcp_input.c`): the
//!   bytes were already in sequence or queued when the sender sent them again; or a copy arrives
//!   whose TCP timestamp is older than the retransmission's (RFC 7323); or two copies arrive after
//!   it. Where the receiver is seen, this alone decides.
//! * **DSACK** (RFC 2883): the first SACK block lies below the acknowledgement or inside the
//!   second block. A block speaks of the latest retransmission of its bytes that is at least a
//!   minimum RTT old, for its duplicate cannot have been reported earlier.
//! * **Timestamps** (Eifel detection, RFC 3522): the acknowledgement that moves the left edge over
//!   a retransmission echoes a timestamp older than the retransmission's.
//! * **Sooner than any round trip**: bytes are acknowledged or SACKed within less than the smallest round
//!   trip after they were sent again, so an earlier copy had arrived (the argument of RFC 8985, section 7.2,
//!   step 2, by which RACK leaves such samples out).
//! * **Undo**: the sender took back the window reduction (`tcp_try_undo_*`), so the segment at the
//!   left edge of the episode had been spurious (RFC 5682 for timeouts).

use std::collections::{BTreeMap, VecDeque};

use rustc_hash::FxHashMap;

/// Retransmissions of one direction whose verdict is open.
const OPEN_MAX: usize = 16_384;
/// How long evidence is waited for, in ns: longer than any path keeps a packet in these tests, and
/// than the sender waits before it sends a segment a third time.
const OPEN_NS: u64 = 3_000_000_000;
/// Intervals of data above a gap that are remembered at the receiver.
const INTERVALS_MAX: usize = 4096;
/// Longest range of bytes of one record: a super-packet.
const RANGE_MAX: u64 = 1 << 17;

const ORIGINAL: u8 = 1;
const DSACK: u8 = 2;
const TIMESTAMP: u8 = 4;
const UNDO: u8 = 8;
/// The undone episode's left edge.
const UNDONE_EDGE: u8 = 16;
/// The original was told from the retransmission by more than a count of copies.
const CERTAIN: u8 = 32;
/// Acknowledged sooner than any round trip.
const EARLY: u8 = 64;

/// Segments by what is known about them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Segments that could be judged: their receiver or the acknowledgements were seen.
    pub segments: u64,
    /// Proven spurious.
    pub spurious: u64,
    /// Of those, proven even if a retransmission of the same bytes was not recorded.
    pub certain: u64,
    /// Neither the receiver nor acknowledgements were seen.
    pub unseen: u64,
    /// An earlier copy was seen at the receiver.
    pub original_seen: u64,
    /// Reported by DSACK.
    pub dsack: u64,
    /// Acknowledged with a timestamp older than the retransmission.
    pub timestamps: u64,
    /// Acknowledged sooner than any round trip after it was sent.
    pub early: u64,
    /// Sent in an episode that the sender took back.
    pub undo: u64,
    /// Only the sender was seen.
    pub sender_only: u64,
    /// One copy arrived later, without a timestamp to say which.
    pub undecided: u64,
    /// Receiver seen: the sender's evidence says the same.
    pub agree: u64,
    /// Receiver seen: all that could be compared.
    pub compared: u64,
}

impl Tally {
    /// Adds another tally.
    pub fn add(&mut self, other: &Tally) {
        self.segments += other.segments;
        self.spurious += other.spurious;
        self.certain += other.certain;
        self.unseen += other.unseen;
        self.original_seen += other.original_seen;
        self.dsack += other.dsack;
        self.timestamps += other.timestamps;
        self.early += other.early;
        self.undo += other.undo;
        self.sender_only += other.sender_only;
        self.undecided += other.undecided;
        self.agree += other.agree;
        self.compared += other.compared;
    }
}

#[derive(Debug, Clone, Copy)]
struct Resent {
    key: u32,
    offset: u64,
    end: u64,
    time: u64,
    tsval: Option<u32>,
    episode: u32,
    evidence: u8,
    /// Copies that arrived after it was sent and may be it.
    arrivals: u8,
    /// A copy arrived after it was sent.
    answered: bool,
    /// The same bytes were sent once more.
    superseded: bool,
    /// Whether the first copy that arrived after it was older.
    first_older: bool,
    /// When a DSACK for it reached the sender, ns; 0 if none did.
    dsack_at: u64,
}

/// Marks kept for plots; up to twice as many.
const MARKS_MAX: usize = 1000;

/// A segment that was sent again, as plots show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// [`Sent::key`].
    pub key: u32,
    /// [`Sent::time`].
    pub time: u64,
    /// [`Sent::offset`].
    pub offset: u64,
    /// Whether an earlier copy arrived; `None` if nothing can be said.
    pub arrived: Option<bool>,
}

/// What became of the original of bytes that were sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Original {
    /// It arrived.
    pub arrived: bool,
    /// It arrived before the copy.
    pub first: bool,
    /// When the sender was told of a second copy, ns.
    pub duplicate_at: Option<u64>,
}

/// Data that reached the receiver. What TCP discarded for its old timestamp (PAWS) arrived, too.
#[derive(Debug, Default)]
struct Received {
    seen: bool,
    next: u64,
    above: BTreeMap<u64, u64>,
}

impl Received {
    fn has(&self, start: u64, end: u64) -> bool {
        if end <= self.next {
            return true;
        }
        let start = start.max(self.next);
        let below = self.above.range(..=start).next_back();
        below.is_some_and(|(_, until)| *until >= end)
    }

    /// Whether any of it, or all of it, waits above a gap.
    fn repeats(&self, start: u64, end: u64) -> Option<Repeat> {
        let (from, until) = self.above.range(..end).next_back()?;
        let whole = *from <= start && *until >= end;
        (*until > start).then_some(if whole { Repeat::Whole } else { Repeat::Partly })
    }

    fn add(&mut self, start: u64, end: u64) {
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
    fn at_least(&mut self, next: u64) {
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

/// A copy of data that reaches the receiver.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// Place of the first byte.
    pub start: u64,
    /// Place after the last byte.
    pub end: u64,
    /// TCP timestamp, if the segment has one.
    pub tsval: Option<u32>,
    /// `rcv_nxt` before it is processed.
    pub rcv_nxt: u64,
    /// ns.
    pub time: u64,
    /// TCP discards it unread.
    pub discarded: bool,
}

/// An acknowledgement that reaches the sender.
#[derive(Debug, Clone, Copy)]
pub struct Ack {
    /// ns.
    pub time: u64,
    /// `snd_una` before it is processed.
    pub una: u64,
    /// Place it acknowledges.
    pub ack: u64,
    /// Timestamp echo, if it has one.
    pub tsecr: Option<u32>,
    /// DSACK block.
    pub dsack: Option<(u64, u64)>,
    /// SACK blocks; those that are not there are empty.
    pub sacked: [(u64, u64); 4],
    /// `rtt_min` in ns.
    pub min_rtt: u64,
}

/// A segment sent again.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    /// ns.
    pub time: u64,
    /// Place of the first byte.
    pub start: u64,
    /// Place after the last byte.
    pub end: u64,
    /// Segments the range holds.
    pub segments: u32,
    /// What its cause depends on, a number of the caller's.
    pub key: u32,
    /// Where it is in the stream, for plots: bytes after the first one of the recording.
    pub offset: u64,
    /// Number of the episode, 0 outside of one.
    pub episode: u32,
}

/// Retransmissions of one direction of a connection beside what arrives.
#[derive(Debug, Default)]
pub struct Spurious {
    open: BTreeMap<(u64, u32), Resent>,
    order: VecDeque<(u64, (u64, u32))>,
    received: Received,
    /// Without what TCP discarded.
    queued: Received,
    ordinal: u32,
    /// Last transmission of bytes sent before, at the device: start, end, timestamp.
    at_device: Option<(u64, u64, u32)>,
    tally: FxHashMap<u32, Tally>,
    acks_seen: bool,
    marks: Vec<Mark>,
    /// One of so many segments has a mark, and how many were closed.
    every: u64,
    closed: u64,
}

impl Spurious {
    /// The device takes over a segment that repeats bytes.
    pub fn repeated_at_device(&mut self, start: u64, end: u64, tsval: u32) {
        // A queue before the tap: the retransmission is already known.
        let low = (start.saturating_sub(RANGE_MAX), 0);
        let late = self
            .open
            .range_mut(low..(end, 0))
            .filter(|(key, one)| one.tsval.is_none() && key.0 < end && one.end > start);
        let mut known = false;
        for (_, one) in late {
            one.tsval = Some(tsval);
            known = true;
        }
        if !known {
            self.at_device = Some((start, end, tsval));
        }
    }

    /// TCP sent a segment again.
    pub fn resent(&mut self, sent: Sent) {
        self.expire(sent.time);
        let tsval = match self.at_device {
            Some((start, end, tsval)) if start < sent.end && end > sent.start => Some(tsval),
            _ => None,
        };
        let low = (sent.start.saturating_sub(RANGE_MAX), 0);
        for (_, one) in self.open.range_mut(low..(sent.end, 0)) {
            one.superseded |= one.end > sent.start;
        }
        let pieces = u64::from(sent.segments.max(1));
        let length = (sent.end - sent.start).div_ceil(pieces).max(1);
        let mut start = sent.start;
        for _ in 0..pieces {
            let end = (start + length).min(sent.end).max(start);
            self.ordinal = self.ordinal.wrapping_add(1);
            let known = self.received.seen && end > start && self.received.has(start, end);
            let record = Resent {
                key: sent.key,
                offset: sent.offset + (start - sent.start),
                end,
                time: sent.time,
                tsval,
                episode: sent.episode,
                evidence: if known { ORIGINAL | CERTAIN } else { 0 },
                arrivals: 0,
                answered: false,
                superseded: false,
                first_older: known,
                dsack_at: 0,
            };
            let key = (start, self.ordinal);
            self.open.insert(key, record);
            self.order.push_back((sent.time, key));
            start = end;
        }
        while self.open.len() > OPEN_MAX {
            self.close_oldest();
        }
    }

    /// A segment reaches the receiver. Says whether some of it waits above a gap already.
    pub fn arrived(&mut self, arrival: Arrival) -> Option<Repeat> {
        self.expire(arrival.time);
        self.received.seen = true;
        self.received.at_least(arrival.rcv_nxt);
        if !self.open.is_empty() {
            let low = (arrival.start.saturating_sub(RANGE_MAX), 0);
            for (key, one) in self.open.range_mut(low..(arrival.end, 0)) {
                // All of its bytes must be in this copy.
                if one.end > arrival.end || key.0 < arrival.start {
                    continue;
                }
                let newer = match arrival.tsval.zip(one.tsval) {
                    Some((copy, own)) => copy.wrapping_sub(own) as i32,
                    None => 0,
                };
                if newer < 0 {
                    one.evidence |= ORIGINAL | CERTAIN;
                    one.first_older |= !one.answered;
                } else if newer == 0 {
                    one.arrivals = one.arrivals.saturating_add(1);
                    // Two copies, and no third one was sent in between: one is older.
                    if one.arrivals >= 2 && !one.superseded {
                        one.evidence |= ORIGINAL;
                    }
                }
                one.answered = true;
            }
        }
        self.received.add(arrival.start, arrival.end);
        if arrival.discarded {
            return None;
        }
        self.queued.at_least(arrival.rcv_nxt);
        let repeats = self.queued.repeats(arrival.start, arrival.end);
        self.queued.add(arrival.start, arrival.end);
        repeats
    }

    /// An acknowledgement reaches the sender.
    pub fn acknowledged(&mut self, ack: Ack) {
        self.acks_seen = true;
        if self.open.is_empty() {
            return;
        }
        self.expire(ack.time);
        if let Some((start, end)) = ack.dsack {
            self.duplicate_reported(start, end, ack);
        }
        let ranges = [(ack.una, ack.ack)].into_iter().chain(ack.sacked);
        for (start, end) in ranges.filter(|range| range.1 > range.0) {
            self.covered(start, end, &ack);
        }
        if let Some(tsecr) = ack.tsecr
            && ack.ack > ack.una
        {
            let low = (ack.una.saturating_sub(RANGE_MAX), 0);
            for (key, one) in self.open.range_mut(low..(ack.una + 1, 0)) {
                let older = one
                    .tsval
                    .is_some_and(|own| (tsecr.wrapping_sub(own) as i32) < 0);
                if older && key.0 <= ack.una && one.end > ack.una && ack.ack >= one.end {
                    one.evidence |= TIMESTAMP;
                }
            }
        }
    }

    /// Bytes are acknowledged: sooner than the latest copy can have gone there and back?
    fn covered(&mut self, start: u64, end: u64, ack: &Ack) {
        if ack.min_rtt == 0 {
            return;
        }
        let low = (start.saturating_sub(RANGE_MAX), 0);
        for (key, one) in self.open.range_mut(low..(end, 0)) {
            let whole = key.0 >= start && one.end <= end;
            // A sixteenth less: the smallest round trip seen need not be the smallest there is.
            let least = ack.min_rtt - ack.min_rtt / 16;
            if whole && ack.time < one.time + least {
                one.evidence |= EARLY;
            }
        }
    }

    fn duplicate_reported(&mut self, start: u64, end: u64, ack: Ack) {
        let mut at = start;
        while at < end {
            let low = (at.saturating_sub(RANGE_MAX), 0);
            let latest = self
                .open
                .range_mut(low..(at + 1, 0))
                .filter(|(_, one)| one.end > at && one.evidence & DSACK == 0)
                .filter(|(_, one)| one.time + ack.min_rtt <= ack.time)
                .max_by_key(|(key, one)| (one.time, key.1));
            match latest {
                Some((_, one)) => {
                    one.evidence |= DSACK;
                    one.dsack_at = ack.time;
                    at = one.end;
                }
                None => {
                    // On to the next record that begins inside the block.
                    let next = self.open.range((at + 1, 0)..(end, 0)).next();
                    at = next.map_or(end, |(key, _)| key.0);
                }
            }
        }
    }

    /// The sender took back the window reduction of an episode that began at `edge`.
    pub fn undone(&mut self, episode: u32, edge: u64) {
        for (key, one) in &mut self.open {
            if one.episode == episode {
                one.evidence |= UNDO;
                if key.0 <= edge && one.end > edge {
                    one.evidence |= UNDONE_EDGE;
                }
            }
        }
    }

    fn expire(&mut self, now: u64) {
        while let Some((time, _)) = self.order.front() {
            if time + OPEN_NS > now {
                break;
            }
            self.close_oldest();
        }
    }

    fn close_oldest(&mut self) {
        let Some((_, key)) = self.order.pop_front() else {
            return;
        };
        if let Some(one) = self.open.remove(&key) {
            self.mark(&one);
            let tally = self.tally.entry(one.key).or_default();
            if self.received.seen || self.acks_seen {
                judge(tally, &one, self.received.seen);
            } else {
                tally.unseen += 1;
            }
        }
    }

    fn mark(&mut self, one: &Resent) {
        self.every = self.every.max(1);
        if self.closed.is_multiple_of(self.every) {
            let judged = self.received.seen || self.acks_seen;
            self.marks.push(Mark {
                key: one.key,
                time: one.time,
                offset: one.offset,
                arrived: judged.then(|| spurious(one, self.received.seen)),
            });
        }
        self.closed += 1;
        if self.marks.len() >= 2 * MARKS_MAX {
            let mut at = 0;
            self.marks.retain(|_| {
                at += 1;
                at % 2 == 1
            });
            self.every *= 2;
        }
    }

    /// Segments sent again in the order they were, at most 2,000 of them, evenly picked. Closes all that are open.
    pub fn marks(&mut self) -> Vec<Mark> {
        while !self.order.is_empty() {
            self.close_oldest();
        }
        std::mem::take(&mut self.marks)
    }

    /// What became of the original of bytes that were sent again; `None` if they were not, or too
    /// long ago.
    #[must_use]
    pub fn original(&self, start: u64, end: u64) -> Option<Original> {
        let low = (start.saturating_sub(RANGE_MAX), 0);
        let mut first: Option<(u32, &Resent)> = None;
        for (key, one) in self.open.range(low..(end, 0)) {
            if one.end > start && first.is_none_or(|(ordinal, _)| key.1 < ordinal) {
                first = Some((key.1, one));
            }
        }
        let (_, one) = first?;
        Some(Original {
            arrived: spurious(one, self.received.seen),
            first: one.first_older || one.evidence & TIMESTAMP != 0,
            duplicate_at: (one.dsack_at > 0).then_some(one.dsack_at),
        })
    }

    /// All verdicts by the caller's key.
    #[must_use]
    pub fn finish(mut self) -> FxHashMap<u32, Tally> {
        while !self.order.is_empty() {
            self.close_oldest();
        }
        self.tally
    }
}

fn spurious(one: &Resent, receiver_seen: bool) -> bool {
    if receiver_seen {
        one.evidence & ORIGINAL != 0
    } else {
        by_sender(one)
    }
}

fn by_sender(one: &Resent) -> bool {
    one.evidence & (DSACK | TIMESTAMP | UNDONE_EDGE | EARLY) != 0
}

fn judge(tally: &mut Tally, one: &Resent, receiver_seen: bool) {
    let has = |bit: u8| u64::from(one.evidence & bit != 0);
    tally.segments += 1;
    tally.original_seen += has(ORIGINAL);
    tally.dsack += has(DSACK);
    tally.timestamps += has(TIMESTAMP);
    tally.early += has(EARLY);
    tally.undo += has(UNDO);
    let verdict = spurious(one, receiver_seen);
    tally.spurious += u64::from(verdict);
    tally.certain += u64::from(verdict && one.evidence & CERTAIN != 0);
    if receiver_seen {
        tally.compared += 1;
        tally.agree += u64::from(verdict == by_sender(one));
        let unclear = !verdict && one.tsval.is_none() && one.arrivals > 0;
        tally.undecided += u64::from(unclear);
    } else {
        tally.sender_only += 1;
    }
}

#[cfg(test)]
mod tests;
