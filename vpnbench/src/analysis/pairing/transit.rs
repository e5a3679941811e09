//! Packets that leave one host and should arrive at another: by flow and number, over units of any
//! size on either side.
//!
//! A departure covers a range of numbers ([`identity`](super::identity)); so does an arrival, and the
//! two need not have the same bounds: segmentation and coalescing on the way are the normal case. An
//! arrival is laid over the departures it overlaps. What was sent twice (a TCP retransmission) is a
//! departure of its own, told apart by its salt.

mod batches;
mod departure;

use std::collections::VecDeque;

use rustc_hash::FxHashMap;
use vpnbench_common::event;

use super::amount::Amount;
use super::identity::{Identity, Numbering, Unwrap, without_counter};
use batches::Sizes;

/// A departure that has not arrived after this long is lost. Longer than any queue this side of
/// seconds of bufferbloat.
const PATIENCE_NS: u64 = 8_000_000_000;
/// In a flow with more departures than are kept, one that is older than this and than four times the
/// slowest so far is lost.
const PASSED_NS: u64 = 1_000_000_000;
/// Arrived departures kept per flow, to recognise duplicates.
const KEPT: usize = 2048;
/// Departures of all flows kept; beyond, the oldest of the flow at hand are given up, and counted.
const DEPARTURES_MAX: usize = 1 << 19;
/// Flows kept.
const FLOWS_MAX: usize = 1 << 16;
/// Departures looked at for one without a number.
const LOOK_MAX: usize = 1024;

/// One unit that left.
#[derive(Debug, Clone, Copy)]
struct Departure {
    start: i64,
    length: i64,
    /// Numbers per segment.
    step: i64,
    time_ns: u64,
    unit: u64,
    segments: u32,
    missing: u32,
    bytes: u32,
    salt: u32,
    skb: u64,
    sizes: Sizes,
    /// Of a batch: which of its datagrams have arrived, by place.
    places: u128,
}

/// A departure, or part of one, that arrived.
#[derive(Debug, Clone, Copy)]
pub struct Hit {
    /// The unit of the departure.
    pub unit: u64,
    /// When it left, ns.
    pub departed_ns: u64,
    /// Segments of this arrival in it.
    pub segments: u32,
    /// Of these, ones that had arrived before.
    pub duplicates: u32,
    /// Their bytes: a share of the departure's by segments.
    pub bytes: u32,
}

/// A departure whose fate is known.
#[derive(Debug, Clone, Copy)]
pub struct Closed {
    /// When it left, ns.
    pub departed_ns: u64,
    /// Its segments.
    pub segments: u32,
    /// Those that did not arrive.
    pub missing: u32,
    /// Bytes per segment.
    pub segment_bytes: u32,
}

/// What a flow came to between two hosts.
#[derive(Debug, Clone, Default)]
pub struct Sums {
    /// Left.
    pub departed: Amount,
    /// Arrived, each departure once.
    pub arrived: Amount,
    /// Arrived again.
    pub duplicated: Amount,
    /// Did not arrive.
    pub missing: Amount,
    /// Dropped for a reason the kernel told.
    pub dropped: Amount,
    /// Still on its way when the recording ended.
    pub inside: Amount,
    /// Arrived without a departure.
    pub unknown: Amount,
    /// Given up for lack of room: fate unknown.
    pub evicted: Amount,
    /// Segments of those that arrived that only their order or their place in a batch tells apart.
    pub by_order: u64,
}

impl Sums {
    /// Adds another flow's.
    pub(super) fn add(&mut self, other: &Sums) {
        self.departed = self.departed.plus(other.departed);
        self.arrived = self.arrived.plus(other.arrived);
        self.duplicated = self.duplicated.plus(other.duplicated);
        self.missing = self.missing.plus(other.missing);
        self.dropped = self.dropped.plus(other.dropped);
        self.inside = self.inside.plus(other.inside);
        self.unknown = self.unknown.plus(other.unknown);
        self.evicted = self.evicted.plus(other.evicted);
        self.by_order += other.by_order;
    }
}

/// Departures of one flow.
#[derive(Debug, Clone)]
pub struct Flow {
    /// Host it leaves from.
    pub from: u16,
    /// Host it arrives at, once something did.
    pub to: Option<u16>,
    /// How it is numbered.
    pub numbering: Numbering,
    /// Source and destination, for the question whether its destination is watched.
    pub version: u8,
    /// Destination address.
    pub destination: [u8; 16],
    /// Protocol and port there.
    pub destination_port: (u8, u16),
    /// Its packets without payload differ in what they acknowledge.
    tcp: bool,
    /// What it came to.
    pub sums: Sums,
    numbers: Unwrap,
    first: VecDeque<Departure>,
    again: VecDeque<Departure>,
    slowest_ns: u64,
    fastest_ns: u64,
    last_departed_ns: u64,
    last_arrived_ns: u64,
    /// When the last that arrived in a flow of batches had left.
    last_hit_ns: u64,
    /// Where the last arrival was found among the first departures: the next one is there or behind it.
    near: usize,
    /// A batch was among the departures.
    batched: bool,
    /// All departures have the number 0, which is the place in a batch ([`super::identity::between_hosts`]).
    all_alike: bool,
}

/// All flows between hosts on one level (inner or outer).
#[derive(Debug, Clone, Default)]
pub struct Transit {
    flows: FxHashMap<u64, Flow>,
    live: usize,
    /// Departures of flows for which there was no room.
    pub uncounted: u64,
}

impl Transit {
    /// A unit leaves `host`. Returns whether the same numbers had left before.
    pub fn depart(
        &mut self,
        host: u16,
        packet: &event::Packet,
        id: &Identity,
        unit: u64,
        closed: &mut Vec<Closed>,
    ) -> bool {
        if self.flows.len() >= FLOWS_MAX && !self.flows.contains_key(&id.flow) {
            self.uncounted += 1;
            return false;
        }
        let flow = self
            .flows
            .entry(id.flow)
            .or_insert_with(|| Flow::new(host, packet, id));
        if flow.from != host {
            return false;
        }
        let before = flow.len();
        let again = flow.depart(packet, id, unit);
        flow.expire(packet.header.time_ns, closed);
        self.live = self.live + flow.len() - before;
        if self.live > DEPARTURES_MAX {
            self.live -= flow.give_up();
        }
        again
    }

    /// A unit arrives at `host`; what it holds of departures goes to `hits`. Returns the segments
    /// that nothing left for.
    pub fn arrive(
        &mut self,
        host: u16,
        packet: &event::Packet,
        id: &Identity,
        hits: &mut Vec<Hit>,
    ) -> Option<u32> {
        let other = without_counter(packet, id).filter(|other| {
            self.flows.contains_key(&other.flow)
                && !self
                    .flows
                    .get(&id.flow)
                    .is_some_and(|flow| flow.has_left(id))
        });
        let id = other.as_ref().unwrap_or(id);
        let flow = self.flows.get_mut(&id.flow)?;
        if flow.from == host {
            return None;
        }
        flow.to.get_or_insert(host);
        Some(flow.arrive(packet, id, hits))
    }

    /// A unit that had left at `since` or later was dropped for a known reason; it is no longer waited for.
    pub fn dropped(&mut self, packet: &event::Packet, id: &Identity, since: u64) -> Option<u64> {
        let mut drop = |id: &Identity| {
            let flow = self.flows.get_mut(&id.flow)?;
            flow.dropped(id, packet.skb, since)
        };
        drop(id).or_else(|| drop(&without_counter(packet, id)?))
    }

    /// Whether these numbers have left `host` already.
    #[must_use]
    pub fn has_left(&self, host: u16, id: &Identity) -> bool {
        let flow = self.flows.get(&id.flow);
        flow.is_some_and(|flow| flow.from == host && flow.has_left(id))
    }

    /// Ends all flows: what has not arrived within the flow's own experience is missing, the rest
    /// still inside.
    pub fn finish(mut self, now_ns: u64, closed: &mut Vec<(u64, Closed)>) -> Vec<(u64, Flow)> {
        let mut flows: Vec<(u64, Flow)> = self.flows.drain().collect();
        flows.sort_unstable_by_key(|(hash, _)| *hash);
        for (hash, flow) in &mut flows {
            let mut found = Vec::new();
            flow.finish(now_ns, &mut found);
            closed.extend(found.into_iter().map(|one| (*hash, one)));
        }
        flows
    }
}

impl Flow {
    fn new(host: u16, packet: &event::Packet, id: &Identity) -> Flow {
        Flow {
            from: host,
            to: None,
            numbering: id.numbering,
            version: packet.ip_version,
            destination: packet.daddr,
            destination_port: (packet.ip_proto, packet.dport),
            tcp: packet.ip_proto == 6,
            sums: Sums::default(),
            numbers: Unwrap::default(),
            first: VecDeque::new(),
            again: VecDeque::new(),
            slowest_ns: 0,
            fastest_ns: u64::MAX,
            last_departed_ns: 0,
            last_arrived_ns: 0,
            last_hit_ns: 0,
            near: 0,
            batched: false,
            all_alike: id.numbering == Numbering::IpId && id.start == 0,
        }
    }

    fn len(&self) -> usize {
        self.first.len() + self.again.len()
    }

    /// Whether these numbers are among the departures.
    fn has_left(&self, id: &Identity) -> bool {
        let start = self.numbers.peek(id.start, id.numbering.bits());
        let covering = |one: &Departure| one.start <= start;
        id.numbering != Numbering::Order
            && self
                .first
                .get(self.first_behind(start))
                .is_some_and(covering)
    }

    fn depart(&mut self, packet: &event::Packet, id: &Identity, unit: u64) -> bool {
        let segments = packet.segments();
        self.sums.departed.add(segments, packet.len);
        self.last_departed_ns = packet.header.time_ns;
        let start = if id.numbering == Numbering::Order {
            self.numbers.last_plus(i64::from(id.length))
        } else {
            self.numbers.next(id.start, id.numbering.bits())
        };
        let step = match id.numbering {
            Numbering::TcpSequence if segments > 1 => i64::from(packet.gso_size.max(1)),
            Numbering::TcpSequence => i64::from(id.length.max(1)),
            _ => 1,
        };
        let departure = Departure {
            start,
            length: i64::from(id.length.max(1)),
            step,
            time_ns: packet.header.time_ns,
            unit,
            segments,
            missing: segments,
            bytes: packet.len,
            salt: id.salt,
            skb: packet.skb,
            sizes: Sizes::of(packet),
            places: 0,
        };
        self.all_alike &= id.start == 0;
        if self.departs_in_batches(id, segments) {
            self.insert_batch(departure);
            return false;
        }
        let end = |one: &Departure| one.start + one.length;
        if self.first.back().is_none_or(|last| start >= end(last)) {
            self.first.push_back(departure);
            return false;
        }
        let at = self.first.partition_point(|one| end(one) <= start);
        let overlaps = self
            .first
            .get(at)
            .is_some_and(|one| one.start < end(&departure));
        if overlaps || at == 0 {
            self.again.push_back(departure);
        } else {
            self.first.insert(at, departure);
        }
        overlaps
    }

    fn arrive(&mut self, packet: &event::Packet, id: &Identity, hits: &mut Vec<Hit>) -> u32 {
        let segments = packet.segments();
        let now = packet.header.time_ns;
        let left = if id.numbering == Numbering::Order {
            self.arrive_by_look(packet, id, hits)
        } else if self.batched || self.all_alike {
            let start = self.numbers.peek(id.start, id.numbering.bits());
            self.arrive_in_batches(start, segments, Sizes::of(packet), hits)
        } else {
            self.arrive_by_number(id, segments, hits)
        };
        self.last_arrived_ns = now;
        for hit in hits.iter() {
            let took = now.saturating_sub(hit.departed_ns);
            self.slowest_ns = self.slowest_ns.max(took);
            self.fastest_ns = self.fastest_ns.min(took);
            self.last_hit_ns = hit.departed_ns;
            let fresh = hit.segments - hit.duplicates;
            let share =
                |part: u32| u64::from(hit.bytes) * u64::from(part) / u64::from(hit.segments.max(1));
            self.sums
                .arrived
                .add_parts(u64::from(fresh > 0), fresh, share(fresh));
            if self.is_by_order() {
                self.sums.by_order += u64::from(fresh);
            }
            self.sums.duplicated.add_parts(
                u64::from(hit.duplicates > 0),
                hit.duplicates,
                share(hit.duplicates),
            );
        }
        if left > 0 {
            self.sums.unknown.add(left, packet.len);
        }
        left
    }

    /// Index of the first departure that ends behind a number.
    fn first_behind(&self, number: i64) -> usize {
        let passed = |one: &Departure| one.start + one.length <= number;
        let is_it = |at: usize| {
            let here = self.first.get(at).is_some_and(|one| !passed(one));
            here && (at == 0 || self.first.get(at - 1).is_some_and(passed))
        };
        // A search jumps about in memory; most arrivals are next to the last one.
        let near = [self.near, self.near + 1].into_iter().find(|at| is_it(*at));
        near.unwrap_or_else(|| self.first.partition_point(passed))
    }

    fn arrive_by_number(&mut self, id: &Identity, segments: u32, hits: &mut Vec<Hit>) -> u32 {
        let start = self.numbers.peek(id.start, id.numbering.bits());
        let end = start + i64::from(id.length.max(1));
        if let Some(at) = self.repeated(start, end, id.salt) {
            let again = &mut self.again[at];
            hits.push(again.take(start, end));
            return 0;
        }
        let mut found = 0;
        let mut at = self.first_behind(start);
        self.near = at;
        while let Some(one) = self.first.get_mut(at).filter(|one| one.start < end) {
            let hit = one.take(start, end);
            found += hit.segments;
            hits.push(hit);
            at += 1;
        }
        segments.saturating_sub(found)
    }

    /// The repeated departure that an arrival shows: same salt, not arrived yet, and the first
    /// departure of these numbers is not the better explanation.
    fn repeated(&self, start: i64, end: i64, salt: u32) -> Option<usize> {
        if self.again.is_empty() {
            return None;
        }
        let overlapping = |one: &Departure| one.start < end && one.start + one.length > start;
        let at = self.first_behind(start);
        let original = self.first.get(at).filter(|one| overlapping(one));
        if original.is_some_and(|one| one.missing > 0 && one.salt == salt) {
            return None;
        }
        let wanted = |one: &Departure| overlapping(one) && one.missing > 0;
        let exact = self
            .again
            .iter()
            .position(|one| wanted(one) && one.salt == salt);
        let other = || {
            let gone = original.is_none_or(|one| one.missing == 0);
            self.again.iter().position(wanted).filter(|_| gone)
        };
        exact.or_else(other)
    }

    fn arrive_by_look(
        &mut self,
        packet: &event::Packet,
        id: &Identity,
        hits: &mut Vec<Hit>,
    ) -> u32 {
        let mut needed = packet.segments();
        let waiting = |one: &&mut Departure| one.missing > 0 && one.salt == id.salt;
        let same = |one: &&mut Departure| waiting(one) && one.skb == packet.skb;
        if let Some(one) = self.first.iter_mut().rev().take(LOOK_MAX).find(same) {
            let hit = one.take_some(needed);
            needed -= hit.segments;
            hits.push(hit);
        }
        // The first unanswered one of this look; those in front of the window are given up.
        for one in self
            .first
            .iter_mut()
            .filter(|one| waiting(one))
            .take(LOOK_MAX)
        {
            if needed == 0 {
                break;
            }
            let hit = one.take_some(needed);
            needed -= hit.segments;
            hits.push(hit);
        }
        needed
    }

    fn dropped(&mut self, id: &Identity, skb: u64, since: u64) -> Option<u64> {
        let start = self.numbers.peek(id.start, id.numbering.bits());
        let numbered = id.numbering != Numbering::Order;
        let matches = |one: &&mut Departure| {
            one.skb == skb
                && one.time_ns >= since
                && one.missing > 0
                && (!numbered || (one.start <= start && start < one.start + one.length))
        };
        let found = self.first.iter_mut().rev().take(LOOK_MAX).find(matches);
        let one = match found {
            Some(one) => one,
            None => self.again.iter_mut().rev().find(matches)?,
        };
        let (segments, bytes) = (one.missing, one.share(one.missing));
        one.missing = 0;
        one.places = u128::MAX;
        self.sums.dropped.add_parts(1, segments, u64::from(bytes));
        Some(one.unit)
    }

    fn expire(&mut self, now: u64, closed: &mut Vec<Closed>) {
        while let Some(front) = self.first.front() {
            // Fast flows are not waited for that long: what came later and arrived long ago has passed it.
            let age = now.saturating_sub(front.time_ns);
            let passed = front.missing == 0 || age > (4 * self.slowest_ns).max(PASSED_NS);
            // Where all have one number, one that came before looks like one that is yet to come.
            let kept = if self.is_by_order() { 0 } else { KEPT };
            let done =
                passed && self.first.len() > KEPT || front.missing == 0 && self.first.len() > kept;
            if !done && front.time_ns.saturating_add(PATIENCE_NS) > now {
                break;
            }
            if let Some(one) = self.first.pop_front() {
                self.near = self.near.saturating_sub(1);
                self.close(&one, closed);
            }
        }
        while self
            .again
            .front()
            .is_some_and(|one| one.time_ns.saturating_add(PATIENCE_NS) <= now)
        {
            if let Some(one) = self.again.pop_front() {
                self.close(&one, closed);
            }
        }
    }

    fn close(&mut self, one: &Departure, closed: &mut Vec<Closed>) {
        if one.missing > 0 {
            self.sums
                .missing
                .add_parts(1, one.missing, u64::from(one.share(one.missing)));
        }
        closed.push(one.closed());
    }

    /// Gives up the oldest quarter; returns how many.
    fn give_up(&mut self) -> usize {
        let count = (self.first.len() / 4).max(1).min(self.first.len());
        for one in self.first.drain(..count) {
            if one.missing > 0 {
                self.sums
                    .evicted
                    .add_parts(1, one.missing, u64::from(one.share(one.missing)));
            }
        }
        count
    }

    /// Whether only their size and order, or their place in a batch, tell these packets apart.
    fn is_by_order(&self) -> bool {
        self.numbering == Numbering::Order && !self.tcp || self.all_alike
    }

    /// What arrived last may have been the last that left: then nothing in front of it is on its way.
    fn ran_empty(&self) -> bool {
        let earliest = self.last_departed_ns.saturating_add(self.fastest_ns);
        self.is_by_order() && self.last_arrived_ns >= earliest
    }

    fn finish(&mut self, now: u64, closed: &mut Vec<Closed>) {
        // Where an arrival takes the place of a lost packet, those that are left over are the youngest.
        let limit = match self.ran_empty() {
            true => 0,
            false => inside_limit(self.slowest_ns),
        };
        let all: Vec<Departure> = self.first.drain(..).chain(self.again.drain(..)).collect();
        for one in all {
            if one.missing > 0 && now.saturating_sub(one.time_ns) <= limit {
                self.sums
                    .inside
                    .add_parts(1, one.missing, u64::from(one.share(one.missing)));
                continue;
            }
            self.close(&one, closed);
        }
    }
}

/// How long something may be on its way at the end of a recording before it counts as lost: twice
/// the slowest so far, and at least 20 ms.
#[must_use]
pub fn inside_limit(slowest_ns: u64) -> u64 {
    (2 * slowest_ns).max(20_000_000)
}
