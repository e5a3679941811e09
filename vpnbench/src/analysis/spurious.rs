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
//! * **Nothing of it, and an acknowledgement is missing** ([`acks`]) that came when a DSACK would have: the
//!   sender alone cannot know, and the verdict is left open.
//! * **Undo**: the sender took back the window reduction (`tcp_try_undo_*`), so the segment at the
//!   left edge of the episode had been spurious (RFC 5682 for timeouts).

mod acks;
mod echo;
mod events;
mod received;
mod tally;
mod watched;

use std::collections::{BTreeMap, VecDeque};

use rustc_hash::FxHashMap;

use acks::Acks;
use echo::Echo;
pub use events::{Ack, Arrival, Sent};
use received::Received;
pub use received::Repeat;
pub use tally::Tally;
use watched::Watched;

/// Retransmissions of one direction whose verdict is open.
const OPEN_MAX: usize = 16_384;
/// How long evidence is waited for, in ns: longer than any path keeps a packet in these tests, and
/// than the sender waits before it sends a segment a third time.
const OPEN_NS: u64 = 3_000_000_000;
/// Longest range of bytes of one record: a super-packet.
const RANGE_MAX: u64 = 1 << 17;

/// DSACKs that must have been due before their absence is judged by those that came.
const REPORTED_LEAST: u64 = 8;
/// How much later than two round trips an answer is waited for, ns.
const LATE_NS: u64 = 5_000_000;

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

#[derive(Debug, Clone, Copy)]
struct Resent {
    key: u32,
    offset: u64,
    end: u64,
    time: u64,
    tsval: Option<u32>,
    episode: u32,
    evidence: u8,
    /// From the first to the last of its bytes of which no earlier copy was seen: TCP may put segments together to
    /// send them again (`tcp_retrans_try_collapse`), whose originals come one by one.
    open: (u64, u64),
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
    /// The sender was told of its bytes.
    told: bool,
    /// It was sent with others in one unit.
    joined: bool,
    /// By the timestamp, it filled the gap at the left edge itself: no earlier copy had come by then.
    filled: bool,
    /// When one would, if its copy were the second to arrive, ns.
    answer: (u64, u64),
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

/// Retransmissions of one direction of a connection beside what arrives.
#[derive(Debug, Clone, Default)]
pub struct Spurious {
    open: BTreeMap<(u64, u32), Resent>,
    /// No byte from here on was sent again by one of them: nearly all acknowledgements are above.
    reach: u64,
    order: VecDeque<(u64, (u64, u32))>,
    received: Received,
    /// Without what TCP discarded.
    queued: Received,
    ordinal: u32,
    /// Last transmission of bytes sent before, at the device: start, end, timestamp.
    at_device: Option<(u64, u64, u32)>,
    tally: FxHashMap<u32, Tally>,
    acks_seen: bool,
    acks: Acks,
    echo: Echo,
    /// Smallest and smoothed round trip at the last acknowledgement, ns.
    round_trips: (u64, u64),
    marks: Vec<Mark>,
    /// One of so many segments has a mark, and how many were closed.
    every: u64,
    closed: u64,
    /// Retransmissions that timestamps or time showed to be spurious, and those of them that a DSACK reported, too.
    reported: (u64, u64),
    watched: Watched,
}

impl Spurious {
    /// Whether anything was seen arriving.
    #[must_use]
    pub fn receiver_seen(&self) -> bool {
        self.received.seen
    }

    /// From `time` on nothing is seen arriving at the receiver.
    pub fn receiver_left(&mut self, time: u64) {
        self.watched.receiver.get_or_insert(time);
    }

    /// From `time` on no acknowledgement is seen reaching the sender.
    pub fn sender_left(&mut self, time: u64) {
        self.watched.sender.get_or_insert(time);
    }

    /// Nothing is known of what happened after `time`.
    pub fn ended(&mut self, time: u64) {
        self.watched.all.get_or_insert(time);
    }

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

    /// A segment of the receiver passes the sender's device, with the identification of IPv4.
    pub fn answer_came(&mut self, time: u64, id: u32, segments: u32) {
        self.acks.came(time, id, segments);
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
        let (least, usual) = self.round_trips;
        // Round trips vary: some are far shorter than the shortest of late, others wait in a queue that grows, or for
        // the receiver.
        let latest = sent.time + 2 * usual.max(least) + LATE_NS;
        let answer = (sent.time + least / 4, latest);
        let pieces = u64::from(sent.segments.max(1));
        let length = (sent.end - sent.start).div_ceil(pieces).max(1);
        let mut start = sent.start;
        for _ in 0..pieces {
            let end = (start + length).min(sent.end).max(start);
            self.ordinal = self.ordinal.wrapping_add(1);
            let open = if self.received.seen {
                self.received.gap(start, end)
            } else {
                (start, end)
            };
            let known = end > start && open.0 >= open.1;
            let record = Resent {
                key: sent.key,
                offset: sent.offset + (start - sent.start),
                end,
                time: sent.time,
                tsval,
                episode: sent.episode,
                evidence: if known { ORIGINAL | CERTAIN } else { 0 },
                open,
                arrivals: 0,
                answered: false,
                superseded: false,
                first_older: known,
                dsack_at: 0,
                told: false,
                joined: pieces > 1,
                filled: false,
                answer,
            };
            let key = (start, self.ordinal);
            self.open.insert(key, record);
            self.reach = self.reach.max(end);
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
        if arrival.start < self.reach {
            let low = (arrival.start.saturating_sub(RANGE_MAX), 0);
            for (key, one) in self.open.range_mut(low..(arrival.end, 0)) {
                let newer = match arrival.tsval.zip(one.tsval) {
                    Some((copy, own)) => copy.wrapping_sub(own) as i32,
                    None => 0,
                };
                if newer < 0 && one.older_came(arrival.start, arrival.end) {
                    one.evidence |= ORIGINAL | CERTAIN;
                    one.first_older |= !one.answered;
                }
                // All of its bytes must be in this copy.
                if one.end > arrival.end || key.0 < arrival.start {
                    continue;
                }
                if newer == 0 {
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
        if ack.min_rtt > 0 {
            self.round_trips = (ack.min_rtt, ack.srtt);
        }
        let made = ack.tsval.and_then(|tsval| self.echo.came(ack.time, tsval));
        if self.open.is_empty() {
            return;
        }
        self.expire(ack.time);
        self.by_timestamp(&ack);
        if let Some((start, end)) = ack.dsack {
            self.duplicate_reported(start, end, ack);
        }
        let ranges = [(ack.una, ack.ack)].into_iter().chain(ack.sacked);
        for (start, end) in ranges.filter(|range| range.1 > range.0) {
            self.covered(start, end, &ack, made.unwrap_or(ack.time));
        }
    }

    /// The echo is the timestamp of what moved the left edge first since the acknowledgement before (RFC 7323,
    /// section 4.3). What this one covers beyond and was not reported before came with it: in one
    /// unit, or within the time of a delayed acknowledgement.
    fn by_timestamp(&mut self, ack: &Ack) {
        let news = ack.ack > ack.una && ack.una < self.reach;
        let Some(tsecr) = ack.tsecr.filter(|_| news) else {
            return;
        };
        let low = (ack.una.saturating_sub(RANGE_MAX), 0);
        let mut edge = ack.una;
        for (key, one) in self.open.range_mut(low..(ack.ack, 0)) {
            if one.end <= edge || one.end > ack.ack {
                continue;
            }
            // Behind something that is not judged, another packet may have come.
            if key.0 > edge || one.told && key.0 > ack.una {
                break;
            }
            edge = one.end;
            match one.tsval.map(|own| tsecr.wrapping_sub(own) as i32) {
                Some(..0) => one.evidence |= TIMESTAMP,
                Some(_) => one.filled = true,
                None => {}
            }
        }
    }

    /// Bytes are acknowledged: sooner than the latest copy can have gone there and back? `made` is when the
    /// acknowledgement would have come without waiting on its way.
    fn covered(&mut self, start: u64, end: u64, ack: &Ack, made: u64) {
        if start >= self.reach {
            return;
        }
        for (_, one) in self.open.range_mut((start, 0)..(end, 0)) {
            let whole = one.end <= end;
            // A sixteenth less: the smallest round trip seen need not be the smallest there is.
            let least = ack.min_rtt - ack.min_rtt / 16;
            if whole && !one.told {
                let early = ack.min_rtt > 0 && made.min(ack.time) < one.time + least;
                one.evidence |= if early { EARLY } else { 0 };
                one.told = true;
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
            if self.open.is_empty() {
                self.reach = 0;
            }
            self.mark(&one);
            let open = self.is_open(&one);
            let tally = self.tally.entry(one.key).or_default();
            if self.received.seen || self.acks_seen {
                if one.evidence & (TIMESTAMP | EARLY) != 0 {
                    self.reported.0 += 1;
                    self.reported.1 += u64::from(one.evidence & DSACK != 0);
                }
                judge(tally, &one, self.received.seen, open);
            } else {
                tally.unseen += 1;
            }
        }
    }

    /// Whether only the sender was seen, and what it was told leaves open whether an earlier copy arrived. A
    /// receiver forgets a duplicate that it has not reported when the next segment comes (`tcp_data_queue`
    /// clears `rx_opt.dsack`), as happens while it holds acknowledgements back, and acknowledgements get lost. So no
    /// DSACK says something only where others that are known to be due have come; for segments sent one by one, as
    /// a unit of several is answered once; and where there are timestamps, if the retransmission itself
    /// filled the gap.
    ///
    /// Of both ends: a copy may have come after the last that was seen of the end that decides.
    fn is_open(&self, one: &Resent) -> bool {
        if spurious(one, self.received.seen) {
            return false;
        }
        if self.watched.ended_before(one.answer.1, self.received.seen) {
            return true;
        }
        if self.received.seen {
            return is_unclear(one);
        }
        let (due, came) = self.reported;
        let unsure = due >= REPORTED_LEAST && came * 20 < due * 19;
        let lost = self.acks.missed(one.answer.0, one.answer.1);
        unsure || lost || one.joined || one.tsval.is_some() && !one.filled
    }

    fn mark(&mut self, one: &Resent) {
        self.every = self.every.max(1);
        if self.closed.is_multiple_of(self.every) {
            let seen = self.received.seen || self.acks_seen;
            let judged = seen && !self.is_open(one);
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

impl Resent {
    /// An older copy of some bytes came; whether all have come.
    fn older_came(&mut self, start: u64, end: u64) -> bool {
        let (from, until) = &mut self.open;
        if start <= *from {
            *from = (*from).max(end);
        }
        if end >= *until {
            *until = (*until).min(start);
        }
        from >= until
    }
}

fn spurious(one: &Resent, receiver_seen: bool) -> bool {
    if receiver_seen {
        one.evidence & ORIGINAL != 0
    } else {
        by_sender(one)
    }
}

/// Whether one copy arrived after it was sent, and no timestamp says which.
fn is_unclear(one: &Resent) -> bool {
    one.tsval.is_none() && one.arrivals > 0
}

fn by_sender(one: &Resent) -> bool {
    one.evidence & (DSACK | TIMESTAMP | UNDONE_EDGE | EARLY) != 0
}

fn judge(tally: &mut Tally, one: &Resent, receiver_seen: bool, open: bool) {
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
        tally.undecided += u64::from(open);
    } else {
        tally.sender_only += 1;
        tally.open += u64::from(open);
    }
}

#[cfg(test)]
mod tests;
