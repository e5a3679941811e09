//! The same packet captured more than once: a capture of all devices (`-i any`) sees a packet at a
//! bridge and at its port, at a bond and at its member, at a VLAN and below it.
//!
//! A copy has the same addresses, ports, numbers and length within a few milliseconds. TCP's
//! retransmissions have another IPv4 identification or another timestamp; a bare acknowledgement of IPv6 can
//! be sent twice and look the same, so only what carries an identification or payload is judged.

use std::collections::VecDeque;
use std::hash::Hasher as _;

use rustc_hash::FxHasher;
use vpnbench_common::event;

/// How far apart copies of a packet are at most, ns.
const APART_NS: u64 = 5_000_000;
/// Packets looked back at.
const LOOK_BACK: usize = 128;

/// Recognises copies among the packets of the devices of one role on one host.
#[derive(Debug, Default)]
pub(super) struct Duplicates {
    recent: VecDeque<(u64, u64)>,
    /// Copies.
    pub(super) count: u64,
}

impl Duplicates {
    /// Whether a packet is a copy of an earlier one. `look` is a hash of its payload.
    pub(super) fn is_copy(&mut self, packet: &event::Packet, look: u32) -> bool {
        if packet.ip_version == 0 || packet.ip_id == 0 && packet.payload_len == 0 {
            return false;
        }
        let now = packet.header.time_ns;
        let signature = signature(packet, look);
        while self.recent.len() >= LOOK_BACK
            || self
                .recent
                .front()
                .is_some_and(|one| one.1 + APART_NS < now)
        {
            self.recent.pop_front();
        }
        let copy = self.recent.iter().any(|one| one.0 == signature);
        if copy {
            self.count += 1;
        } else {
            self.recent.push_back((signature, now));
        }
        copy
    }
}

/// What a packet and its copies have in common.
pub(super) fn signature(packet: &event::Packet, look: u32) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(&packet.saddr);
    hasher.write(&packet.daddr);
    hasher.write_u32(u32::from(packet.sport) << 16 | u32::from(packet.dport));
    hasher.write_u32(packet.ip_id);
    hasher.write_u32(packet.seq);
    hasher.write_u32(packet.ack);
    hasher.write_u32(packet.tsval);
    hasher.write_u32(packet.payload_len);
    hasher.write_u32(u32::from(packet.tcp_flags) << 16 | u32::from(packet.frag));
    hasher.write_u32(packet.marker);
    hasher.write_u32(look);
    hasher.write_u8(packet.ip_proto);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable;

    #[test]
    fn copies_are_near_and_alike() {
        let mut duplicates = Duplicates::default();
        let mut packet = event::Packet::zeroed();
        (packet.ip_version, packet.ip_id, packet.header.time_ns) = (4, 9, 1_000_000);
        assert!(!duplicates.is_copy(&packet, 0));
        packet.header.time_ns += 40_000;
        assert!(duplicates.is_copy(&packet, 0));
        assert!(!duplicates.is_copy(&packet, 1), "another payload");
        packet.ip_id = 10;
        assert!(!duplicates.is_copy(&packet, 0), "sent again");
        packet.header.time_ns += APART_NS + 1;
        assert!(!duplicates.is_copy(&packet, 0), "much later");
        packet.ip_id = 0;
        for _ in 0..2 {
            assert!(!duplicates.is_copy(&packet, 0), "nothing to tell it by");
        }
        assert_eq!(duplicates.count, 1);
    }
}
