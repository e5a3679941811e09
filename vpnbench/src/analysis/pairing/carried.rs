//! What a daemon got in one direction and what it made of it outside, in sums: the only books of a tunnel
//! whose outer transport is a stream, where no datagram is an inner packet.
//!
//! Bytes of a TCP connection are counted once, whatever was sent again: by their sequence numbers
//! (RFC 9293 section 3.4). A QUIC stream's frames are encrypted, so what of it was sent again is not known.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;
use vpnbench_common::event::{
    self, packet_flags::QUIC, packet_flags::QUIC_BIT, packet_flags::UDP_READ,
};

use super::amount::Amount;
use super::identity::{Identity, Numbering, Unwrap};
use super::units::Shape;
use crate::analysis::ledger::DaemonSums;

/// Connections kept.
const FLOWS_MAX: usize = 1 << 10;
/// Gaps kept per connection; a window has fewer.
const GAPS_MAX: usize = 1 << 14;
/// Protocol number of TCP.
const TCP: u8 = 6;
/// Units from which it is told whether they are QUIC.
const QUIC_LEAST: u64 = 32;

/// Bytes of a connection that have been seen.
#[derive(Debug, Clone, Default)]
struct Seen {
    numbers: Unwrap,
    begun: bool,
    /// All before this has been seen, or was before the recording.
    edge: i64,
    /// Ranges beyond it, by their beginning.
    beyond: BTreeMap<i64, i64>,
}

impl Seen {
    /// Adds a range; returns how much of it is new.
    fn add(&mut self, id: &Identity) -> u64 {
        let bits = id.numbering.bits();
        let start = self.numbers.next(id.start, bits);
        let mut end = start + i64::from(id.length);
        if !std::mem::replace(&mut self.begun, true) {
            self.edge = start;
        }
        let mut from = start.max(self.edge);
        if end <= from {
            return 0;
        }
        let mut fresh = end - from;
        // What overlaps or touches becomes part of this range.
        let near = self.beyond.range(..=end).rev();
        let near: Vec<(i64, i64)> = near
            .take_while(|(_, until)| **until >= from)
            .map(|(from, until)| (*from, *until))
            .collect();
        for (old, until) in near {
            fresh -= (until.min(end) - old.max(from)).max(0);
            self.beyond.remove(&old);
            from = from.min(old);
            end = end.max(until);
        }
        if from <= self.edge {
            self.edge = end;
        } else {
            self.beyond.insert(from, end);
        }
        if self.beyond.len() > GAPS_MAX
            && let Some((_, until)) = self.beyond.pop_first()
        {
            // The gap in front of it is given up: what fills it later counts as sent again.
            self.edge = self.edge.max(until);
        }
        u64::try_from(fresh).unwrap_or(0)
    }
}

/// Sums of one direction of a daemon.
#[derive(Debug, Clone, Default)]
pub(crate) struct Carried {
    flows: FxHashMap<u64, Seen>,
    /// Inner packets, each segment with its headers, without a link layer.
    pub(crate) inner: Amount,
    /// Outer packets with payload; bytes of payload.
    pub(crate) outer: Amount,
    /// Outer payload in segments of TCP.
    pub(crate) tcp: u64,
    /// Of that, bytes that had not been seen before.
    pub(crate) fresh: u64,
    /// Connections for which there was no room.
    pub(crate) uncounted: u64,
    /// Units of which the first byte of the payload is known, those that begin as a QUIC packet, and those of
    /// them with the protected bit set.
    quic: [u64; 3],
}

impl Carried {
    /// An inner packet.
    pub(crate) fn inner(&mut self, shape: Shape) {
        self.inner.add(shape.segments, shape.bytes());
    }

    /// An outer packet of the tunnel.
    pub(crate) fn outer(&mut self, packet: &event::Packet, id: Option<&Identity>) {
        if packet.payload_len == 0 {
            return;
        }
        self.outer.add(packet.segments(), packet.payload_len);
        for (count, bits) in self.quic.iter_mut().zip([UDP_READ, QUIC, QUIC | QUIC_BIT]) {
            *count += u64::from(packet.flags & bits == bits);
        }
        let Some(id) = id.filter(|id| id.numbering == Numbering::TcpSequence) else {
            return;
        };
        if packet.ip_proto != TCP {
            return;
        }
        if self.flows.len() >= FLOWS_MAX && !self.flows.contains_key(&id.flow) {
            self.uncounted += 1;
            return;
        }
        self.tcp += u64::from(packet.payload_len);
        self.fresh += self.flows.entry(id.flow).or_default().add(id);
    }

    /// Whether the outer transport is (mostly) TCP.
    pub(crate) fn in_stream(&self) -> bool {
        2 * self.tcp > self.outer.bytes
    }

    /// Whether the outer transport is QUIC: all packets that could be looked at begin as its packets do, and a bit that it protects is
    /// random. Its packets are numbered, put together, cut and sent again behind encryption, so a datagram
    /// need not be one inner packet.
    pub(crate) fn in_quic(&self) -> bool {
        let [read, alike, set] = self.quic;
        read >= QUIC_LEAST && 100 * alike >= 99 * read && (read..=3 * read).contains(&(4 * set))
    }

    /// The sums as a row, without the name of its stage and direction.
    pub(crate) fn book(&self) -> DaemonSums {
        let (inner, outer) = (self.inner.bytes, self.outer.bytes);
        let seen = self.outer.units > 0;
        let all = seen && self.tcp == outer && self.uncounted == 0;
        let overhead = (self.fresh as f64 - inner as f64) / inner as f64;
        DaemonSums {
            inner_segments: self.inner.segments,
            inner_bytes: inner,
            outer_segments: seen.then_some(self.outer.segments),
            outer_bytes: seen.then_some(outer),
            repeated_bytes: all.then(|| self.tcp - self.fresh),
            overhead_ratio: (all && inner > 0).then_some(overhead),
            ..DaemonSums::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;

    use super::*;

    fn of_packets(flags: impl Iterator<Item = u8>) -> Carried {
        let mut carried = Carried::default();
        for flags in flags {
            let mut packet = event::Packet::zeroed();
            (packet.ip_proto, packet.payload_len, packet.flags) = (17, 1000, flags);
            carried.outer(&packet, None);
        }
        carried
    }

    #[test]
    fn quic_is_known_by_its_first_byte_and_a_random_bit() {
        let protected = |number: u8| {
            UDP_READ
                | QUIC
                | if number.is_multiple_of(3) {
                    QUIC_BIT
                } else {
                    0
                }
        };
        assert!(of_packets((0..100).map(protected)).in_quic());
        // Batches, of which nothing can be read, say nothing.
        let batches = (0..100).chain((0..100).map(|_| 0));
        assert!(of_packets(batches.map(|one| if one == 0 { 0 } else { protected(one) })).in_quic());
        assert!(!of_packets((0..20).map(protected)).in_quic(), "too few");
        // A header of another protocol that happens to begin so.
        assert!(!of_packets((0..100).map(|_| UDP_READ | QUIC)).in_quic());
        // Random bytes begin so in half of all packets.
        let random = |one| {
            if one % 2 == 0 {
                protected(one)
            } else {
                UDP_READ
            }
        };
        assert!(!of_packets((0..100).map(random)).in_quic());
    }

    fn range(start: u32, length: u32) -> Identity {
        Identity {
            flow: 1,
            numbering: Numbering::TcpSequence,
            start,
            length,
            salt: 0,
        }
    }

    #[test]
    fn each_byte_counts_once_in_whatever_order() {
        let mut seen = Seen::default();
        let start = u32::MAX - 149;
        for (offset, length, fresh) in [
            (0, 100, 100),
            // Beyond a gap, over the wrap; again; over its end; the gap with both sides; before all.
            (200, 100, 100),
            (200, 100, 0),
            (250, 100, 50),
            (50, 200, 100),
            (0, 350, 0),
            (350, 10, 10),
        ] {
            let found = seen.add(&range(start.wrapping_add(offset), length));
            assert_eq!(found, fresh, "{offset}+{length}");
        }
        assert!(seen.beyond.is_empty(), "{seen:?}");
    }
}
