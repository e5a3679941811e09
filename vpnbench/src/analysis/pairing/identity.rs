//! What a packet is recognised by at another tap or on another host: its flow and a number in it.
//!
//! | packet | numbered by | source |
//! | --- | --- | --- |
//! | TCP with payload | sequence number, one per byte | RFC 9293 section 3.4 |
//! | WireGuard data | low 32 bits of the transport counter, one per packet | whitepaper section 5.4.6 |
//! | ICMP echo | sequence number | RFC 792, RFC 4443 |
//! | other IPv4 with an identification | IP ID, one per packet; one for a whole batch of UDP_SEGMENT | RFC 6864; Linux `ip_select_ident_segs` counts per connected socket |
//! | UDP whose IP ID is always 0, on another host | the place in its batch of UDP_SEGMENT ([`between_hosts`]) | Linux `inet_gso_segment` |
//! | anything else | its order among packets of equal flow and look | - |
//!
//! The salt tells transmissions of the same numbers apart (TCP timestamps, else the IP ID).

use std::hash::Hasher;

use rustc_hash::FxHasher;
use vpnbench_common::event::{self, packet_flags};

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// How the packets of a flow are numbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Numbering {
    /// TCP sequence numbers: 32 bits, one per byte.
    TcpSequence,
    /// WireGuard's counter: 32 bits, one per packet.
    TunnelCounter,
    /// ICMP sequence numbers: 16 bits, one per packet.
    IcmpSequence,
    /// IP identification: 16 bits, one per packet.
    IpId,
    /// None: packets of equal look are told apart by their order only.
    Order,
}

impl Numbering {
    /// Bits after which the numbers wrap.
    #[must_use]
    pub const fn bits(self) -> u32 {
        match self {
            Numbering::TcpSequence | Numbering::TunnelCounter | Numbering::Order => 32,
            Numbering::IcmpSequence | Numbering::IpId => 16,
        }
    }

    /// Name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Numbering::TcpSequence => "tcp-sequence",
            Numbering::TunnelCounter => "tunnel-counter",
            Numbering::IcmpSequence => "icmp-sequence",
            Numbering::IpId => "ip-id",
            Numbering::Order => "order",
        }
    }
}

/// A packet's flow and its numbers in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Hash of addresses, protocol, ports and numbering.
    pub flow: u64,
    /// What `start` counts.
    pub numbering: Numbering,
    /// First number; 0 for [`Numbering::Order`].
    pub start: u32,
    /// Numbers covered: payload bytes for TCP, segments otherwise.
    pub length: u32,
    /// Tells transmissions of the same numbers apart.
    pub salt: u32,
}

/// The identity of a packet; `None` for anything but IPv4 and IPv6.
#[inline]
#[must_use]
pub fn identity(packet: &event::Packet) -> Option<Identity> {
    if packet.ip_version == 0 {
        return None;
    }
    let segments = packet.segments();
    let timestamps = packet.flags & packet_flags::TIMESTAMPS != 0;
    let (numbering, start, length, salt) = if packet.is_later_fragment() {
        // All fragments of a datagram share the ID; the offset tells them apart.
        let salt = look(packet) ^ u32::from(packet.frag);
        (Numbering::Order, 0, 1, salt)
    } else if packet.ip_proto == TCP && packet.payload_len > 0 {
        let salt = if timestamps {
            packet.tsval
        } else {
            packet.ip_id
        };
        (Numbering::TcpSequence, packet.seq, packet.payload_len, salt)
    } else if packet.flags & packet_flags::WIREGUARD != 0 {
        (Numbering::TunnelCounter, packet.marker, segments, 0)
    } else if packet.ip_proto == ICMP || packet.ip_proto == ICMPV6 {
        (Numbering::IcmpSequence, packet.seq, 1, 0)
    } else if packet.ip_version == 4 && packet.ip_id != 0 {
        (Numbering::IpId, packet.ip_id, segments, 0)
    } else {
        (Numbering::Order, 0, segments, look(packet))
    };
    Some(Identity {
        flow: flow(packet, numbering),
        numbering,
        start,
        length,
        salt,
    })
}

/// The identity of a packet whose IP identification is 0, if that is one of the numbers of its flow: counters
/// pass 0 every 2^16 packets, and whether this one did only the others of the flow tell.
#[must_use]
pub fn numbered_zero(packet: &event::Packet) -> Option<Identity> {
    let zero = packet.ip_version == 4 && packet.ip_id == 0;
    let unnumbered = identity(packet)?.numbering == Numbering::Order;
    (zero && unnumbered && !packet.is_later_fragment()).then(|| Identity {
        flow: flow(packet, Numbering::IpId),
        numbering: Numbering::IpId,
        start: 0,
        length: packet.segments(),
        salt: 0,
    })
}

/// What a packet is looked for by on another host. All batches of an unconnected UDP socket have the
/// identification 0 (`ip_select_ident_segs` with DF set, include/net/ip.h), and whatever cuts them counts up from
/// there: on the way a datagram's 0 is a number.
#[must_use]
pub fn between_hosts(packet: &event::Packet, id: Identity) -> Identity {
    let datagram = packet.ip_proto == UDP && id.numbering == Numbering::Order;
    datagram
        .then(|| numbered_zero(packet))
        .flatten()
        .unwrap_or(id)
}

/// What else a WireGuard packet may be known by on another host: a batch whose first bytes could not be read shows no
/// counter, its datagrams do once something has cut it.
#[must_use]
pub fn without_counter(packet: &event::Packet, id: &Identity) -> Option<Identity> {
    if id.numbering != Numbering::TunnelCounter {
        return None;
    }
    let mut packet = *packet;
    packet.flags &= !packet_flags::WIREGUARD;
    Some(between_hosts(&packet, identity(&packet)?))
}

/// What packets of one flow without a number differ in: size, and for TCP what they acknowledge.
fn look(packet: &event::Packet) -> u32 {
    let mut hasher = FxHasher::default();
    let segment = if packet.gso_segs > 1 {
        u32::from(packet.gso_size)
    } else {
        packet.payload_len
    };
    hasher.write_u32(segment);
    hasher.write_u32(packet.ip_id);
    if packet.ip_proto == TCP {
        hasher.write_u32(packet.seq);
        hasher.write_u32(packet.ack);
        hasher.write_u32(packet.tsval);
        hasher.write_u32(u32::from(packet.window) << 16 | u32::from(packet.tcp_flags));
    }
    let hash = hasher.finish();
    (hash ^ (hash >> 32)) as u32
}

/// Hash of what all packets of a flow share.
fn flow(packet: &event::Packet, numbering: Numbering) -> u64 {
    let mut hasher = FxHasher::default();
    let word = |bytes: &[u8; 16], at: usize| {
        u64::from_le_bytes(std::array::from_fn(|index| bytes[at + index]))
    };
    hasher.write_u64(word(&packet.saddr, 0));
    hasher.write_u64(word(&packet.daddr, 0));
    if packet.ip_version == 6 {
        hasher.write_u64(word(&packet.saddr, 8));
        hasher.write_u64(word(&packet.daddr, 8));
    }
    // The fields of ICMP hold the identifier and the type.
    let ports = u64::from(packet.sport) << 16 | u64::from(packet.dport);
    hasher.write_u64(
        ports << 24
            | u64::from(packet.ip_proto) << 8
            | u64::from(packet.ip_version) << 4
            | numbering as u64,
    );
    hasher.finish()
}

/// Numbers that wrap, as numbers that do not.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unwrap {
    last: Option<i64>,
}

impl Unwrap {
    /// The number nearest to the last one that is congruent to `number` modulo 2^`bits` (serial
    /// number arithmetic, RFC 1982).
    pub fn next(&mut self, number: u32, bits: u32) -> i64 {
        let value = self.peek(number, bits);
        self.last = Some(value);
        value
    }

    /// The running count before `length` more: for packets without a number.
    pub fn last_plus(&mut self, length: i64) -> i64 {
        let start = self.last.unwrap_or(0);
        self.last = Some(start + length);
        start
    }

    /// As [`Unwrap::next`] without moving.
    #[must_use]
    pub fn peek(&self, number: u32, bits: u32) -> i64 {
        let Some(last) = self.last else {
            return i64::from(number);
        };
        // The lower bits of the difference as a number with a sign.
        let unused = i64::BITS - bits;
        let difference = (i64::from(number) - last) << unused >> unused;
        last + difference
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable;

    #[test]
    fn numbers_wrap_in_both_directions() {
        let mut unwrap = Unwrap::default();
        assert_eq!(unwrap.next(65_534, 16), 65_534);
        assert_eq!(unwrap.next(2, 16), 65_538);
        assert_eq!(unwrap.next(65_535, 16), 65_535, "a late one");
        let mut unwrap = Unwrap::default();
        assert_eq!(unwrap.next(u32::MAX - 10, 32), i64::from(u32::MAX) - 10);
        assert_eq!(unwrap.next(5, 32), i64::from(u32::MAX) + 6);
    }

    #[test]
    fn each_kind_of_packet_has_its_numbers() {
        let mut packet = event::Packet::zeroed();
        assert_eq!(identity(&packet), None);
        (packet.ip_version, packet.ip_proto, packet.ip_id) = (4, 17, 7);
        let number = |packet: &event::Packet| {
            let found = identity(packet).expect("an IP packet");
            (found.numbering, found.start, found.length)
        };
        assert_eq!(number(&packet), (Numbering::IpId, 7, 1));
        packet.gso_segs = 3;
        assert_eq!(number(&packet), (Numbering::IpId, 7, 3));
        (packet.flags, packet.marker) = (packet_flags::WIREGUARD, 99);
        assert_eq!(number(&packet), (Numbering::TunnelCounter, 99, 3));
        (
            packet.ip_proto,
            packet.flags,
            packet.payload_len,
            packet.seq,
        ) = (6, 0, 1448, 1000);
        assert_eq!(number(&packet), (Numbering::TcpSequence, 1000, 1448));
        packet.frag = 0x2001;
        assert_eq!(number(&packet).0, Numbering::Order);
    }

    #[test]
    fn directions_are_different_flows() {
        let mut packet = event::Packet::zeroed();
        (packet.ip_version, packet.ip_proto, packet.ip_id) = (6, 17, 0);
        (packet.saddr[15], packet.daddr[15]) = (1, 2);
        let there = identity(&packet).expect("IPv6").flow;
        (packet.saddr[15], packet.daddr[15]) = (2, 1);
        assert_ne!(there, identity(&packet).expect("IPv6").flow);
    }
}
