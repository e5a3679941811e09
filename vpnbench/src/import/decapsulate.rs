//! Tunnels whose packets carry the inner packet as it is: GRE (RFC 2784, 2890), IP in IP (RFC 2003, 2473), IPv6
//! in IPv4 (RFC 4213), VXLAN (RFC 7348) and Geneve (RFC 8926). The header in between is taken off, so that
//! a capture of the outer device alone shows what passed the tunnel device.

use vpnbench_common::event;

use super::link::{self, Frame, IP4, IP6, half};

const TCP: u8 = 6;
const UDP: u8 = 17;
/// `IPPROTO_IPIP`, `IPPROTO_IPV6`, `IPPROTO_GRE`
const IPIP: u8 = 4;
const SIT: u8 = 41;
const GRE: u8 = 47;
/// VXLAN's port, and the one of Linux from before there was one (drivers/net/vxlan/vxlan_core.c).
const VXLAN_PORTS: [u16; 2] = [4789, 8472];
const GENEVE_PORT: u16 = 6081;
/// `ETH_P_TEB`: an Ethernet frame inside.
const ETHERNET_INSIDE: u16 = 0x6558;

/// How a packet carries another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Encapsulation {
    Gre,
    Ipip,
    Sit,
    Vxlan,
    Geneve,
}

impl Encapsulation {
    /// Name of the device that such packets stand for.
    pub(super) fn name(self) -> &'static str {
        match self {
            Encapsulation::Gre => "gre",
            Encapsulation::Ipip => "ipip",
            Encapsulation::Sit => "sit",
            Encapsulation::Vxlan => "vxlan",
            Encapsulation::Geneve => "geneve",
        }
    }
}

/// A packet inside of another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inner<'a> {
    pub(super) encapsulation: Encapsulation,
    /// Its frame, with Ethernet in front of it or not.
    pub(super) frame: Frame<'a>,
    /// Bytes of it on the wire, its link layer included.
    pub(super) original: u32,
}

/// The packet that a packet carries in its transport payload; `None` if it carries none that can be told.
#[inline]
pub(super) fn inner<'a>(packet: &event::Packet, payload: &'a [u8]) -> Option<Inner<'a>> {
    if packet.ip_proto == TCP || is_fragment(packet) {
        return None;
    }
    let (encapsulation, header, ethernet) = match packet.ip_proto {
        IPIP => (Encapsulation::Ipip, 0, false),
        SIT => (Encapsulation::Sit, 0, false),
        GRE => {
            let (header, ethernet) = gre(payload)?;
            (Encapsulation::Gre, header, ethernet)
        }
        UDP if VXLAN_PORTS.contains(&packet.dport) => {
            // Flags: only that the network identifier is valid; what is reserved is 0.
            let sound = payload.starts_with(&[8, 0, 0, 0]) && payload.get(7) == Some(&0);
            sound.then_some((Encapsulation::Vxlan, 8, true))?
        }
        UDP if packet.dport == GENEVE_PORT => {
            let first = *payload.first()?;
            if first >> 6 != 0 {
                return None;
            }
            let header = 8 + 4 * usize::from(first & 0x3f);
            let ethernet = inside(half(payload, 2)?)?;
            (Encapsulation::Geneve, header, ethernet)
        }
        _ => return None,
    };
    let bytes = payload.get(header..)?;
    let frame = link::inside(bytes, ethernet)?;
    Some(Inner {
        encapsulation,
        frame,
        original: packet.payload_len.checked_sub(header as u32)?,
    })
}

fn is_fragment(packet: &event::Packet) -> bool {
    packet.frag & 0x3fff != 0
}

/// Whether there is Ethernet inside, by the protocol field; `None` for what is neither that nor IP.
fn inside(protocol: u16) -> Option<bool> {
    match protocol {
        ETHERNET_INSIDE => Some(true),
        IP4 | IP6 => Some(false),
        _ => None,
    }
}

/// Length of a GRE header and whether there is Ethernet behind it.
fn gre(bytes: &[u8]) -> Option<(usize, bool)> {
    let flags = half(bytes, 0)?;
    // Version 1 is PPTP's. The routing field (RFC 1701) is deprecated and not sent.
    if flags & 0x4007 != 0 {
        return None;
    }
    let optional = [0x8000, 0x2000, 0x1000];
    let header = 4 + 4 * optional.iter().filter(|bit| flags & *bit != 0).count();
    Some((header, inside(half(bytes, 2)?)?))
}

/// What the inner packet's segmentation says about the outer one: a unit that is captured before the device
/// segments it becomes as many outer packets as inner ones.
pub(super) fn share_segments(outer: &mut event::Packet, inner: &event::Packet) {
    if inner.gso_segs > 1 && outer.gso_segs <= 1 {
        let headers = outer.payload_len.saturating_sub(inner.payload_len);
        let size = headers + u32::from(inner.gso_size);
        outer.gso_size = size.min(u16::MAX.into()) as u16;
        outer.gso_segs = inner.gso_segs;
        outer.gso_type = inner.gso_type;
    }
}

#[cfg(test)]
mod tests {
    use super::super::headers::{Options, headers};
    use super::*;
    use bytemuck::Zeroable as _;
    use etherparse::PacketBuilder;

    /// A packet's record and its transport payload.
    fn read<'a>(frame: &Frame<'a>, original: u32) -> (event::Packet, &'a [u8]) {
        let mut packet = event::Packet::zeroed();
        let rest = headers(frame, original, &mut packet, &mut Options::default());
        (packet, rest.expect("an IP packet").payload)
    }

    /// An inner packet of 10 bytes of payload, with Ethernet in front or not.
    fn carried(ethernet: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        if ethernet {
            bytes.extend([2; 12]);
            bytes.extend(IP4.to_be_bytes());
        }
        let mut packet = Vec::new();
        let builder = PacketBuilder::ipv4([10, 9, 0, 1], [10, 9, 0, 2], 64).udp(7, 8);
        builder.write(&mut packet, &[5; 10]).expect("writes");
        bytes.extend(packet);
        bytes
    }

    /// What is found in an outer IPv4 packet of this protocol.
    fn found(protocol: u8, payload: &[u8]) -> Option<(Encapsulation, u32, [u8; 4], u16)> {
        let header = etherparse::Ipv4Header::new(
            payload.len() as u16,
            64,
            etherparse::IpNumber(protocol),
            [192, 0, 2, 1],
            [192, 0, 2, 2],
        );
        let mut bytes = Vec::new();
        header.expect("a header").write(&mut bytes).expect("writes");
        bytes.extend(payload);
        let frame = Frame {
            ethertype: IP4,
            network: &bytes,
            ..Frame::default()
        };
        let (outer, payload) = read(&frame, bytes.len() as u32);
        let inner = inner(&outer, payload)?;
        let (packet, _) = read(&inner.frame, inner.original);
        let source = packet.saddr[..4].try_into().expect("four bytes");
        Some((inner.encapsulation, packet.len, source, packet.dport))
    }

    fn udp(port: u16, header: &[u8], ethernet: bool) -> Vec<u8> {
        let payload = [header, &carried(ethernet)].concat();
        let mut bytes = [0x99, 0x99].to_vec();
        bytes.extend(port.to_be_bytes());
        bytes.extend((8 + payload.len() as u16).to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn each_header_is_taken_off() {
        let bare = |kind| Some((kind, 38, [10, 9, 0, 1], 8));
        let framed = |kind| Some((kind, 52, [10, 9, 0, 1], 8));
        assert_eq!(found(IPIP, &carried(false)), bare(Encapsulation::Ipip));
        let gre = |header: &[u8], ethernet| found(GRE, &[header, &carried(ethernet)].concat());
        assert_eq!(gre(&[0, 0, 8, 0], false), bare(Encapsulation::Gre));
        let key_and_sequence = [0x30, 0, 8, 0, 0, 0, 0, 9, 0, 0, 0, 1];
        assert_eq!(gre(&key_and_sequence, false), bare(Encapsulation::Gre));
        let checksum = [0x80, 0, 0x65, 0x58, 0, 0, 0, 0];
        assert_eq!(gre(&checksum, true), framed(Encapsulation::Gre));
        let vxlan = [8, 0, 0, 0, 0, 0, 42, 0];
        for port in VXLAN_PORTS {
            let packet = udp(port, &vxlan, true);
            assert_eq!(found(UDP, &packet), framed(Encapsulation::Vxlan));
        }
        let geneve = [1, 0, 0x65, 0x58, 0, 0, 42, 0, 1, 2, 3, 4];
        let packet = udp(GENEVE_PORT, &geneve, true);
        assert_eq!(found(UDP, &packet), framed(Encapsulation::Geneve));
    }

    #[test]
    fn what_only_looks_alike_is_left() {
        let pptp = [0x30, 0x81, 0x88, 0x0b, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(found(GRE, &pptp), None);
        assert_eq!(found(UDP, &udp(4789, &[0; 8], true)), None);
        assert_eq!(found(UDP, &udp(GENEVE_PORT, &[0xc0; 8], true)), None);
        assert_eq!(found(IPIP, &[0; 20]), None, "no IP inside");
    }
}
