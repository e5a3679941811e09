//! How many segments a captured unit holds. A capture on the sending host is taken before the device
//! segments, one on the receiving host after packets were coalesced: both have units larger than
//! anything on the wire, and no field that says of how many segments.
//!
//! TCP: the segment size is the smaller of both ends' MSS (RFC 9293, section 3.7.1), less the
//! segment's options; without the handshake the largest payload that fits 1500 bytes and was seen in
//! the flow. WireGuard: each datagram in a unit begins with its own header and the next counter. Other
//! UDP: the largest datagram of the flow that fits 1500 bytes.

use vpnbench_common::event::{self, packet_flags};

use super::headers::wireguard;
use crate::rows::Rows;

const TCP: u8 = 6;
const UDP: u8 = 17;
const SYN: u16 = 2;
/// Bytes of an IP packet that are no super-packet unless the handshake says otherwise: Ethernet's MTU.
const ORDINARY: u32 = 1500;
/// Flows remembered.
const FLOWS_MAX: usize = 1 << 16;
/// `SKB_GSO_TCPV4`, `SKB_GSO_TCPV6`, `SKB_GSO_UDP_L4` (include/linux/skbuff.h).
const GSO_TCP4: u32 = 1;
const GSO_TCP6: u32 = 1 << 4;
const GSO_UDP: u32 = 1 << 17;

/// Both ends of a flow, in either direction; addresses as numbers, which are compared and hashed quickly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    low: u128,
    high: u128,
    /// Protocol and ports of both.
    ports: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Size {
    /// Smaller MSS of those announced.
    mss: u16,
    /// Largest payload of an ordinary packet.
    largest: u16,
}

/// Flows whose largest payload is known without looking for them.
const LEARNED: usize = 32;

/// One direction of a flow of IPv4: addresses, ports, protocol.
type Four = ([u32; 2], [u16; 2], u8);

/// Segment sizes of flows.
#[derive(Debug, Default)]
pub(super) struct Segments {
    flows: Rows<Key, Size>,
    /// A payload that flows are known to have, by the lowest bits of their ports: most of a flow's are of one size.
    learned: [(Four, u16); LEARNED],
    /// Units whose segment size was taken from other packets of the flow.
    pub(super) assumed: u64,
    /// Units larger than a packet whose segment size is not known: counted as one.
    pub(super) unknown: u64,
    /// Units of several segments.
    pub(super) units: u64,
}

impl Segments {
    /// Sets the segmentation of a packet. `mss` is what it announces or 0, `payload` what was kept of its
    /// transport payload, `given` the size that the capture itself states, or 0.
    #[inline]
    pub(super) fn of(&mut self, packet: &mut event::Packet, mss: u16, payload: &[u8], given: u16) {
        let fragment = packet.frag & 0x3fff != 0;
        if !matches!(packet.ip_proto, TCP | UDP)
            || fragment
            || packet.flags & packet_flags::TRUNCATED != 0
        {
            return;
        }
        let on_wire = packet.len - u32::from(packet.l2_len);
        let announces = packet.ip_proto == TCP && packet.tcp_flags & SYN != 0;
        if given == 0 && packet.flags & packet_flags::WIREGUARD != 0 {
            // Short datagrams in one unit may fit an ordinary packet.
            if let Some(size) = datagram(payload) {
                return self.split(packet, size);
            }
        }
        if given == 0 && on_wire <= ORDINARY && !announces {
            // Only what is as large as can be tells the size of segments.
            if packet.payload_len > 1000 {
                self.learn(packet);
            }
            return;
        }
        if announces {
            if let Some(size) = self.size(packet).filter(|_| mss > 0) {
                size.mss = if size.mss == 0 {
                    mss
                } else {
                    size.mss.min(mss)
                };
            }
            return;
        }
        let size = match (given, packet.ip_proto) {
            (0, TCP) => self.tcp(packet),
            (0, _) => self.udp(packet),
            (given, _) => u32::from(given),
        };
        self.split(packet, size);
    }

    /// A unit of segments of this size.
    fn split(&mut self, packet: &mut event::Packet, size: u32) {
        if size == 0 || packet.payload_len <= size {
            return;
        }
        packet.gso_size = size as u16;
        packet.gso_segs = packet.payload_len.div_ceil(size).min(u16::MAX.into()) as u16;
        packet.gso_type = match (packet.ip_proto, packet.ip_version) {
            (UDP, _) => GSO_UDP,
            (_, 6) => GSO_TCP6,
            _ => GSO_TCP4,
        };
        self.units += 1;
    }

    fn tcp(&mut self, packet: &event::Packet) -> u32 {
        let options = u32::from(packet.l4_len).saturating_sub(20);
        let headers = packet.len - u32::from(packet.l2_len) - packet.payload_len;
        let size = self.size(packet).copied().unwrap_or_default();
        if size.mss > 0 {
            return u32::from(size.mss).saturating_sub(options);
        }
        self.assumed += 1;
        if size.largest > 0 {
            return size.largest.into();
        }
        ORDINARY.saturating_sub(headers)
    }

    fn udp(&mut self, packet: &event::Packet) -> u32 {
        let largest = self.size(packet).map_or(0, |size| size.largest);
        if largest > 0 {
            self.assumed += 1;
        } else {
            self.unknown += 1;
        }
        largest.into()
    }

    #[inline]
    fn learn(&mut self, packet: &event::Packet) {
        let payload = packet.payload_len as u16;
        let four = |bytes: &[u8; 16]| u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let ends = [four(&packet.saddr), four(&packet.daddr)];
        let flow = (ends, [packet.sport, packet.dport], packet.ip_proto);
        let at = usize::from(packet.sport ^ packet.dport) % LEARNED;
        let (known, most) = &self.learned[at];
        let is_known = packet.ip_version == 4 && *known == flow && *most >= payload;
        if !is_known && self.has(packet, payload) && packet.ip_version == 4 {
            self.learned[at] = (flow, payload);
        }
    }

    /// The flow has such a payload; false if there is no room for the flow.
    #[inline(never)]
    fn has(&mut self, packet: &event::Packet, payload: u16) -> bool {
        let Some(size) = self.size(packet) else {
            return false;
        };
        size.largest = size.largest.max(payload);
        true
    }

    fn size(&mut self, packet: &event::Packet) -> Option<&mut Size> {
        let source = (u128::from_ne_bytes(packet.saddr), packet.sport);
        let destination = (u128::from_ne_bytes(packet.daddr), packet.dport);
        let (low, high) = if source <= destination {
            (source, destination)
        } else {
            (destination, source)
        };
        let ports = u64::from(low.1) << 16 | u64::from(high.1);
        let key = Key {
            low: low.0,
            high: high.0,
            ports: u64::from(packet.ip_proto) << 32 | ports,
        };
        let hint = u32::from(packet.sport) ^ u32::from(packet.dport);
        self.flows.get_or_add(key, hint, FLOWS_MAX, Size::default)
    }
}

/// Size of the first of several WireGuard datagrams in a payload: where the next one's header stands.
/// Datagrams are padded to sixteen bytes behind header and tag.
fn datagram(payload: &[u8]) -> Option<u32> {
    let counter = wireguard(payload)?;
    let mut size = 32;
    while size < payload.len().min(ORDINARY as usize) {
        let same = payload.get(size + 4..size + 8) == payload.get(4..8);
        if same && wireguard(&payload[size..]) == Some(counter.wrapping_add(1)) {
            return Some(size as u32);
        }
        size += 16;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable;

    /// A packet, the segment size that it announces, and its payload.
    type Unit<'a> = (event::Packet, u16, &'a [u8]);

    fn unit(protocol: u8, payload_len: u32, payload: &[u8]) -> Unit<'_> {
        let mut packet = event::Packet::zeroed();
        (packet.ip_version, packet.ip_proto) = (4, protocol);
        packet.l4_len = if protocol == TCP { 32 } else { 8 };
        packet.payload_len = payload_len;
        packet.len = payload_len + 20 + u32::from(packet.l4_len);
        if wireguard(payload).is_some() {
            packet.flags |= packet_flags::WIREGUARD;
        }
        (packet, 0, payload)
    }

    fn counted(segments: &mut Segments, unit: Unit<'_>, given: u16) -> (u16, u16) {
        let (mut packet, mss, payload) = unit;
        segments.of(&mut packet, mss, payload, given);
        (packet.gso_size, packet.gso_segs)
    }

    #[test]
    fn tcp_by_the_handshake_else_by_what_was_seen() {
        let mut segments = Segments::default();
        assert_eq!(counted(&mut segments, unit(TCP, 4344, &[]), 0), (1448, 3));
        assert_eq!(segments.assumed, 1);
        let mut syn = unit(TCP, 0, &[]);
        (syn.0.tcp_flags, syn.1) = (SYN, 1380);
        assert_eq!(counted(&mut segments, syn, 0), (0, 0));
        assert_eq!(counted(&mut segments, unit(TCP, 4000, &[]), 0), (1368, 3));
        assert_eq!(counted(&mut segments, unit(TCP, 1448, &[]), 0), (0, 0));
        assert_eq!(counted(&mut segments, unit(TCP, 1000, &[]), 500), (500, 2));
        assert_eq!((segments.assumed, segments.units), (1, 3));
    }

    #[test]
    fn wireguard_by_its_counters() {
        let mut payload = Vec::new();
        for counter in 7..10u8 {
            let length = if counter < 9 { 1312 } else { 100 };
            let mut datagram = vec![0xaa; length];
            datagram[..8].copy_from_slice(&[4, 0, 0, 0, 5, 5, 5, 5]);
            datagram[8..16].copy_from_slice(&[counter, 0, 0, 0, 0, 0, 0, 0]);
            payload.extend(datagram);
        }
        let mut segments = Segments::default();
        let found = counted(&mut segments, unit(UDP, payload.len() as u32, &payload), 0);
        assert_eq!(found, (1312, 3));
        assert_eq!(counted(&mut segments, unit(UDP, 9000, &[1; 32]), 0), (0, 0));
        assert_eq!(segments.unknown, 1);
        counted(&mut segments, unit(UDP, 1200, &[]), 0);
        assert_eq!(
            counted(&mut segments, unit(UDP, 9000, &[1; 32]), 0),
            (1200, 8)
        );
    }
}
