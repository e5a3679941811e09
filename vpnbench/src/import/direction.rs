//! Which packets of a capture left the host and which came to it. Some files say so (cooked mode,
//! `epb_flags`, the addresses of an interface); in all others it is told by which addresses are on
//! the near side of the device:
//!
//! * **Answers.** In a handshake (TCP's three segments; WireGuard's initiation, response and first data
//!   message) the answer of the far end takes a round trip, that of the near end next to nothing. The
//!   same holds for data and what acknowledges it, where both ends send data.
//! * **Time to live.** What left this host still has the value it was sent with: 32, 64, 128 or 255
//!   (RFC 1700 recommends 64; the others are those of common systems).
//! * **The other device of the host.** An inner packet that leaves is followed by an outer packet at
//!   least as long; one that arrives follows such a packet.

use std::collections::BTreeMap;
use std::net::IpAddr;

use rustc_hash::FxHashMap;
use vpnbench_common::event::{self, packet_flags};

use super::stream::Item;

const TCP: u8 = 6;
const SYN: u16 = 2;
const ACK: u16 = 0x10;
/// How much longer the far end's answer must take.
const FAR: u64 = 3;
/// Largest time from an inner packet to the outer packet that carries it, ns.
const CARRIED_NS: u64 = 2_000_000;
/// Inner packets shorter than this are not told from others by their length.
const LARGE: u32 = 500;
/// Flows of which answers are timed.
const FLOWS_MAX: usize = 4096;
/// Pairs of addresses whose direction was assumed that are remembered.
const ASSUMED_MAX: usize = 4096;

/// Weights: what the file or the user says, what follows from timing, and hints.
const GIVEN: f64 = 1e6;
const STATED: f64 = 100.0;
const ANSWERED: f64 = 20.0;
const HINT: f64 = 1.0;

/// IP version and address.
pub(super) type Address = (u8, [u8; 16]);

/// Address of a record's fields.
pub(super) fn address(ip: IpAddr) -> Address {
    let mut bytes = [0; 16];
    match ip {
        IpAddr::V4(ip) => {
            bytes[..4].copy_from_slice(&ip.octets());
            (4, bytes)
        }
        IpAddr::V6(ip) => (6, ip.octets()),
    }
}

/// Answers of one flow, from the end that sorts first to the other and back.
#[derive(Debug, Clone, Copy, Default)]
struct Answers {
    opened: Option<(usize, u64)>,
    answered: Option<(u64, u64)>,
    /// Sequence number behind the last data, and when it passed.
    sent: [Option<(u32, u64)>; 2],
    /// Quickest acknowledgement of each end's data.
    quickest: [Option<u64>; 2],
}

/// What is known of a host's addresses.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    scores: BTreeMap<Address, f64>,
    flows: FxHashMap<(Address, u16, Address, u16), Answers>,
    pairs: BTreeMap<(Address, Address), Address>,
}

impl Evidence {
    /// An address that is on the host.
    pub(super) fn given(&mut self, ip: IpAddr) {
        self.add(address(ip), GIVEN);
    }

    /// An address that is near on another host.
    pub(super) fn elsewhere(&mut self, address: Address, score: f64) {
        self.add(address, -score);
    }

    fn add(&mut self, address: Address, score: f64) {
        *self.scores.entry(address).or_default() += score;
    }

    /// A packet of one of its devices, in order of time per device.
    pub(super) fn packet(&mut self, item: &Item) {
        let packet = &item.packet;
        if packet.ip_version == 0 || item.device.loopback || is_group(packet) {
            return;
        }
        let (from, to) = ends(packet);
        let pair = (from.min(to), from.max(to));
        self.pairs.entry(pair).or_insert(from);
        match item.outgoing {
            Some(true) => self.add(from, STATED),
            Some(false) => self.add(to, STATED),
            None => {}
        }
        if ![32, 64, 128, 255].contains(&packet.ttl) {
            self.add(from, -HINT / 10.0);
        }
        self.answers(packet, from, to);
    }

    fn answers(&mut self, packet: &event::Packet, from: Address, to: Address) {
        let message = Message::of(packet);
        if message.is_none() && packet.ip_proto != TCP {
            return;
        }
        let (a, b) = ((from, packet.sport), (to, packet.dport));
        let side = usize::from(a > b);
        let (low, high) = (a.min(b), a.max(b));
        let key = (low.0, low.1, high.0, high.1);
        let now = packet.header.time_ns;
        if self.flows.len() >= FLOWS_MAX && !self.flows.contains_key(&key) {
            return;
        }
        let flow = self.flows.entry(key).or_default();
        let mut found = None;
        match message {
            Some(Message::Opens) => {
                // A repeated one would be answered too early.
                let again = flow.opened.is_some_and(|(before, _)| before == side);
                flow.opened = (!again).then_some((side, now));
                flow.answered = None;
            }
            Some(Message::Answers) => {
                let there = flow.opened.filter(|(opener, _)| *opener != side);
                flow.answered = there.map(|(_, sent)| (now - sent.min(now), now));
            }
            Some(Message::Completes) => {
                if let Some((opener, _)) = flow.opened.take()
                    && let Some((far, at)) = flow.answered.take()
                    && opener == side
                {
                    found = Some((far, now - at.min(now), side));
                }
            }
            None => {}
        }
        if packet.ip_proto == TCP {
            flow.data(packet, side, now);
        }
        if let Some((opener_waits, answerer_waits, opener)) = found {
            let [opener, answerer] = if opener == side {
                [from, to]
            } else {
                [to, from]
            };
            self.compare(opener, opener_waits, answerer, answerer_waits, ANSWERED);
        }
    }

    /// Two ends and how long each waited for the other: the near end waits longer.
    fn compare(&mut self, one: Address, waits: u64, other: Address, other_waits: u64, score: f64) {
        if waits > FAR * other_waits {
            self.add(one, score);
            self.add(other, -score);
        } else if other_waits > FAR * waits {
            self.add(other, score);
            self.add(one, -score);
        }
    }

    /// Packets of an inner and an outer device of the host, in order of time: ends of the outer
    /// packets by whether the inner ones leave. Call when the inner addresses are settled.
    pub(super) fn carried(&mut self, inner: &[(u64, u32, bool)], outer: &[&Item]) {
        let usable = |item: &&Item| item.packet.ip_version != 0 && !is_group(&item.packet);
        let mut score: BTreeMap<Address, f64> = BTreeMap::new();
        for &(time, length, leaves) in inner.iter().filter(|one| one.1 >= LARGE) {
            let place = outer.partition_point(|item| item.time_ns < time);
            let (behind, before) = (outer[place..].iter(), outer[..place].iter().rev());
            let near = |item: &&&Item| item.time_ns.abs_diff(time) < CARRIED_NS;
            let fits = |item: &&&Item| {
                item.packet.len - u32::from(item.packet.l2_len) >= length && usable(item)
            };
            let carrier = if leaves {
                behind.take_while(near).find(fits)
            } else {
                before.take_while(near).find(fits)
            };
            if let Some(item) = carrier {
                let (from, to) = ends(&item.packet);
                let (near, far) = if leaves { (from, to) } else { (to, from) };
                *score.entry(near).or_default() += HINT;
                *score.entry(far).or_default() -= HINT;
            }
        }
        for (address, score) in score {
            self.add(address, score);
        }
    }

    /// Times by another host's clock less those by this one's, of packets that both saw. From an end
    /// near here they are delay + offset, from the far end offset - delay: the quickest of each
    /// direction tell the ends apart whatever the offset.
    pub(super) fn crossed(&mut self, seen: &[(Address, Address, i64)]) {
        let mut quickest: BTreeMap<(Address, Address), i64> = BTreeMap::new();
        for &(from, to, later) in seen {
            let least = quickest.entry((from, to)).or_insert(later);
            *least = later.min(*least);
        }
        for (&(one, other), there) in &quickest {
            let Some(back) = quickest.get(&(other, one)).filter(|_| one < other) else {
                continue;
            };
            let (near, far) = match there.cmp(back) {
                std::cmp::Ordering::Greater => (one, other),
                std::cmp::Ordering::Less => (other, one),
                std::cmp::Ordering::Equal => continue,
            };
            self.add(near, ANSWERED);
            self.add(far, -ANSWERED);
        }
    }

    /// Settles which addresses are near.
    pub(super) fn settle(&self) -> Near {
        let mut scores = self.scores.clone();
        for (key, flow) in &self.flows {
            if let [Some(low), Some(high)] = flow.quickest {
                let mut one = Evidence::default();
                one.compare(key.0, low, key.2, high, ANSWERED / 2.0);
                for (address, score) in one.scores {
                    *scores.entry(address).or_default() += score;
                }
            }
        }
        let mut near = Near::default();
        for (address, score) in &scores {
            if *score > 0.0 {
                near.scores.insert(*address, *score);
            }
        }
        // Where one end is far, the other one is near; where nothing is known, an assumption.
        for ((one, other), first) in &self.pairs {
            if near.scores.contains_key(one) || near.scores.contains_key(other) {
                continue;
            }
            let of = |address: &Address| scores.get(address).copied().unwrap_or(0.0);
            let chosen = match of(one).total_cmp(&of(other)) {
                std::cmp::Ordering::Greater => *one,
                std::cmp::Ordering::Less => *other,
                std::cmp::Ordering::Equal => {
                    near.assumed.insert((*one, *other), *first);
                    continue;
                }
            };
            near.scores.insert(chosen, HINT / 10.0);
        }
        near
    }
}

impl Answers {
    fn data(&mut self, packet: &event::Packet, side: usize, now: u64) {
        if packet.payload_len > 0 {
            self.sent[side] = Some((packet.seq.wrapping_add(packet.payload_len), now));
        }
        if packet.tcp_flags & ACK == 0 {
            return;
        }
        let other = 1 - side;
        if let Some((end, sent)) = self.sent[other]
            && packet.ack.wrapping_sub(end) as i32 >= 0
        {
            let waited = now - sent.min(now);
            let quickest = self.quickest[other].map_or(waited, |least| least.min(waited));
            self.quickest[other] = Some(quickest);
            self.sent[other] = None;
        }
    }
}

/// What a packet is in a handshake.
enum Message {
    Opens,
    Answers,
    Completes,
}

impl Message {
    fn of(packet: &event::Packet) -> Option<Message> {
        if packet.ip_proto == TCP {
            return match packet.tcp_flags & (SYN | ACK) {
                SYN => Some(Message::Opens),
                ACK => Some(Message::Completes),
                0 => None,
                _ => Some(Message::Answers),
            };
        }
        // WireGuard's messages have fixed lengths (whitepaper section 5.4).
        let udp = packet.ip_proto == 17;
        match packet.payload_len {
            148 if udp => Some(Message::Opens),
            92 if udp => Some(Message::Answers),
            _ if packet.flags & packet_flags::WIREGUARD != 0 => Some(Message::Completes),
            _ => None,
        }
    }
}

/// Ends of a packet as numbers, which are compared quickly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pair {
    from: u128,
    to: u128,
    version: u8,
}

impl Pair {
    fn of(packet: &event::Packet) -> Pair {
        Pair {
            from: u128::from_ne_bytes(packet.saddr),
            to: u128::from_ne_bytes(packet.daddr),
            version: packet.ip_version,
        }
    }

    fn back(self) -> Pair {
        Pair {
            from: self.to,
            to: self.from,
            ..self
        }
    }
}

/// The near side of a host's devices.
#[derive(Debug, Clone, Default)]
pub(super) struct Near {
    scores: BTreeMap<Address, f64>,
    /// Pairs about which nothing is known: the end that is taken to be near.
    assumed: BTreeMap<(Address, Address), Address>,
    /// Packets whose direction is an assumption.
    pub(super) unsure: u64,
    /// Ends of the last packet whose direction its addresses told, and whether it left.
    last: Option<(Pair, bool)>,
}

/// A packet's ends, and whether it goes to a group.
pub(super) fn ends_of(packet: &event::Packet) -> Option<(Address, Address)> {
    (packet.ip_version != 0 && !is_group(packet)).then(|| ends(packet))
}

impl Near {
    /// Addresses that are on the host as far as anything shows it, and how sure that is.
    pub(super) fn addresses(&self) -> impl Iterator<Item = (Address, f64)> {
        self.scores
            .iter()
            .map(|(address, score)| (*address, *score))
    }

    /// Pairs of which the near end is an assumption, with that end.
    pub(super) fn assumed(&self) -> impl Iterator<Item = ((Address, Address), Address)> {
        self.assumed.iter().map(|(pair, end)| (*pair, *end))
    }

    /// Assumes an end of a pair to be near.
    pub(super) fn assume(&mut self, pair: (Address, Address), end: Address) {
        if let Some(place) = self.assumed.get_mut(&pair) {
            *place = end;
        }
    }

    /// As [`Near::leaves`] without counting.
    pub(super) fn peek(&mut self, item: &Item) -> bool {
        let unsure = self.unsure;
        let leaves = self.leaves(item);
        self.unsure = unsure;
        leaves
    }

    /// Whether a packet leaves the host; `None` where that would be an assumption.
    pub(super) fn known(&self, item: &Item) -> Option<bool> {
        if item.outgoing.is_some() {
            return item.outgoing;
        }
        let (from, to) = ends(&item.packet);
        match (self.scores.get(&from), self.scores.get(&to)) {
            (Some(from), Some(to)) => Some(from >= to),
            (Some(_), None) => Some(true),
            (None, Some(_)) => Some(false),
            (None, None) => is_group(&item.packet).then_some(false),
        }
    }

    /// Whether addresses tell the directions apart, so that what goes back has the other one.
    fn is_told(&self, one: Address, other: Address) -> bool {
        self.scores.get(&one) != self.scores.get(&other)
    }

    /// Whether a packet leaves the host.
    #[inline]
    pub(super) fn leaves(&mut self, item: &Item) -> bool {
        if let Some(leaves) = item.outgoing {
            return leaves;
        }
        let pair = Pair::of(&item.packet);
        match &self.last {
            Some((last, leaves)) if *last == pair => *leaves,
            Some((last, leaves)) if *last == pair.back() => !leaves,
            _ => self.concluded(item),
        }
    }

    /// The same of a packet between other ends than the one before.
    #[inline(never)]
    fn concluded(&mut self, item: &Item) -> bool {
        let (from, to) = ends(&item.packet);
        if let Some(leaves) = self.known(item) {
            if !is_group(&item.packet) && self.is_told(from, to) {
                self.last = Some((Pair::of(&item.packet), leaves));
            }
            return leaves;
        }
        self.unsure += 1;
        let pair = (from.min(to), from.max(to));
        if self.assumed.len() >= ASSUMED_MAX && !self.assumed.contains_key(&pair) {
            return true;
        }
        *self.assumed.entry(pair).or_insert(from) == from
    }
}

fn ends(packet: &event::Packet) -> (Address, Address) {
    (
        (packet.ip_version, packet.saddr),
        (packet.ip_version, packet.daddr),
    )
}

/// Whether a packet goes to a group: multicast or broadcast.
fn is_group(packet: &event::Packet) -> bool {
    match packet.ip_version {
        4 => packet.daddr[0] >= 224,
        _ => packet.daddr[0] == 0xff,
    }
}

#[cfg(test)]
mod tests {
    use super::super::headers::Options;
    use super::super::stream::DeviceKey;
    use super::*;
    use bytemuck::Zeroable;

    fn item(time_ns: u64, from: u8, to: u8) -> Item {
        let mut packet = event::Packet::zeroed();
        (packet.ip_version, packet.ttl, packet.ip_proto) = (4, 64, TCP);
        packet.header.time_ns = time_ns;
        packet.saddr[..4].copy_from_slice(&[10, 0, 0, from]);
        packet.daddr[..4].copy_from_slice(&[10, 0, 0, to]);
        Item {
            time_ns,
            device: DeviceKey::default(),
            packet,
            options: Options::default(),
            partial: false,
            outgoing: None,
            look: 0,
            carries: 0,
        }
    }

    fn segment(time_ns: u64, from: u8, to: u8, flags: u16) -> Item {
        let mut one = item(time_ns, from, to);
        one.packet.tcp_flags = flags;
        (one.packet.sport, one.packet.dport) = (from.into(), to.into());
        one
    }

    fn leaves(near: &mut Near, from: u8, to: u8) -> bool {
        near.leaves(&item(0, from, to))
    }

    #[test]
    fn a_handshake_shows_the_near_end() {
        for (gap, client_near) in [(10, true), (1000, false)] {
            let mut evidence = Evidence::default();
            evidence.packet(&segment(0, 1, 2, SYN));
            evidence.packet(&segment(100, 2, 1, SYN | ACK));
            evidence.packet(&segment(100 + gap, 1, 2, ACK));
            let mut near = evidence.settle();
            assert_eq!(leaves(&mut near, 1, 2), client_near);
            assert_eq!(leaves(&mut near, 2, 1), !client_near);
            assert_eq!(near.unsure, 0);
        }
    }

    #[test]
    fn without_evidence_it_is_an_assumption_and_counted() {
        let mut evidence = Evidence::default();
        evidence.packet(&item(0, 3, 1));
        let mut near = evidence.settle();
        assert!(leaves(&mut near, 3, 1) && !leaves(&mut near, 1, 3));
        assert!(leaves(&mut near, 7, 8) && !leaves(&mut near, 8, 7));
        assert_eq!(near.unsure, 4);
        let mut evidence = Evidence::default();
        evidence.packet(&item(0, 3, 1));
        evidence.given("10.0.0.1".parse().expect("an address"));
        let mut near = evidence.settle();
        assert!(!leaves(&mut near, 3, 1));
        assert_eq!(near.unsure, 0);
    }

    #[test]
    fn outer_packets_follow_the_inner_ones_they_carry() {
        let mut outer: Vec<Item> = (0..20).map(|at| item(at * 1000, 1, 2)).collect();
        for one in &mut outer {
            one.packet.len = 1400;
        }
        let inner: Vec<(u64, u32, bool)> = (0..20)
            .map(|at| (at * 1000 - at.min(1), 1300, true))
            .collect();
        let mut evidence = Evidence::default();
        outer.iter().for_each(|one| evidence.packet(one));
        let outer: Vec<&Item> = outer.iter().collect();
        evidence.carried(&inner, &outer);
        let mut near = evidence.settle();
        assert!(leaves(&mut near, 1, 2));
        assert_eq!(near.unsure, 0);
    }
}
