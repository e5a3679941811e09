//! IP and transport headers of a captured packet, as the record that the kernel's probes would make.

use etherparse::{Ipv4HeaderSlice, Ipv6HeaderSlice, TcpHeaderSlice, TcpOptionElement};
use vpnbench_common::event::{self, packet_flags};

use super::link::{Frame, IP4, IP6, half};

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMP6: u8 = 58;
/// Extension headers looked through before a packet is given up.
const EXTENSIONS_MAX: usize = 8;
/// A WireGuard transport message: type and three reserved bytes (whitepaper section 5.4.6).
const WIREGUARD_DATA: [u8; 4] = [4, 0, 0, 0];

/// TCP options of a segment that its record has no room for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// SACK blocks as start and end; a DSACK is the first.
    pub(super) sack: [u32; 8],
    /// How many of them there are.
    pub(super) sack_count: u8,
    /// Whether a SYN permits SACK.
    pub(super) sack_permitted: bool,
    /// Maximum segment size of a SYN.
    pub(super) mss: Option<u16>,
    /// Window scale of a SYN.
    pub(super) scale: Option<u8>,
}

impl Options {
    /// As new ones, field by field: what is put together elsewhere first would be copied, with a stall for each packet.
    #[inline]
    pub(super) fn clear(&mut self) {
        let Options {
            sack,
            sack_count,
            sack_permitted,
            mss,
            scale,
        } = self;
        (*sack_count, *sack_permitted) = (0, false);
        (*mss, *scale) = (None, None);
        sack.fill(0);
    }
}

/// What of a packet its record and its options do not hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rest<'a> {
    /// Whether the checksum is that of the pseudo header only: the device is to fill in the rest.
    pub(super) partial: bool,
    /// What was kept of the transport payload.
    pub(super) payload: &'a [u8],
}

/// A packet's record and TCP's options where they are to be.
struct Into<'p, 'a> {
    packet: &'p mut event::Packet,
    options: &'p mut Options,
    rest: Rest<'a>,
}

/// The transport part of a packet.
struct Transport<'a> {
    /// What was kept of it.
    bytes: &'a [u8],
    /// Its bytes on the wire, header included.
    length: u32,
    /// Sum of the pseudo header's addresses (RFC 9293, section 3.1; RFC 8200, section 8.1).
    sum: u32,
}

/// Reads the headers of an IP packet of which `original` bytes were on the wire, link layer included, into
/// a record, without time and place, and options that are empty; `None` for anything else. Nothing is copied:
/// this is done for each packet. In place for the same reason.
#[inline(always)]
pub(super) fn headers<'a>(
    frame: &Frame<'a>,
    original: u32,
    packet: &mut event::Packet,
    options: &mut Options,
) -> Option<Rest<'a>> {
    let on_wire = original.saturating_sub(frame.skipped);
    packet.len = on_wire + frame.on_wire;
    packet.l2_len = frame.on_wire as u16;
    packet.ethertype = frame.ethertype;
    if let Some(tag) = frame.vlan {
        packet.flags |= packet_flags::VLAN;
        packet.vlan_tci = tag;
    }
    let transport = match frame.ethertype {
        IP4 => four(packet, frame.network, on_wire),
        IP6 => six(packet, frame.network, on_wire),
        _ => return None,
    };
    let rest = Rest {
        partial: frame.partial,
        payload: &[],
    };
    let mut into = Into {
        packet,
        options,
        rest,
    };
    match transport {
        Some(transport) if !into.packet.is_later_fragment() => into.transport(&transport),
        Some(transport) => into.packet.payload_len = transport.length,
        None => into.packet.flags |= packet_flags::TRUNCATED,
    }
    Some(into.rest)
}

// In place: the transport part would be written and read again for each packet.
#[inline(always)]
fn four<'a>(packet: &mut event::Packet, network: &'a [u8], on_wire: u32) -> Option<Transport<'a>> {
    // Nearly all packets have no options.
    let bytes: &[u8] = match network {
        [0x45, ..] => network.get(..20)?,
        _ => Ipv4HeaderSlice::from_slice(network).ok()?.slice(),
    };
    let fixed: &[u8; 20] = bytes.first_chunk()?;
    let field = |at: usize| u16::from_be_bytes([fixed[at], fixed[at + 1]]);
    packet.ip_version = 4;
    packet.ip_proto = fixed[9];
    (packet.tos, packet.ttl) = (fixed[1], fixed[8]);
    (packet.ip_id, packet.frag) = (field(4).into(), field(6));
    packet.saddr[..4].copy_from_slice(&fixed[12..16]);
    packet.daddr[..4].copy_from_slice(&fixed[16..20]);
    // 0 stands for a super-packet whose length does not fit the field.
    let total = match field(2) {
        0 => on_wire,
        total => u32::from(total).min(on_wire),
    };
    let length = total.checked_sub(bytes.len() as u32)?;
    Some(Transport {
        bytes: within(&network[bytes.len()..], length),
        length,
        sum: words(&bytes[12..20]),
    })
}

fn six<'a>(packet: &mut event::Packet, network: &'a [u8], on_wire: u32) -> Option<Transport<'a>> {
    let header = Ipv6HeaderSlice::from_slice(network).ok()?;
    let bytes = header.slice();
    packet.ip_version = 6;
    (packet.tos, packet.ttl) = (header.traffic_class(), header.hop_limit());
    (packet.saddr, packet.daddr) = (header.source(), header.destination());
    let behind = on_wire.checked_sub(bytes.len() as u32)?;
    let mut length = match header.payload_length() {
        0 => behind,
        length => u32::from(length).min(behind),
    };
    let mut rest = &network[bytes.len()..];
    let mut next = header.next_header().0;
    for _ in 0..EXTENSIONS_MAX {
        // Hop-by-hop, routing, destination options, mobility; authentication counts in fours.
        let size = match next {
            0 | 43 | 60 | 135 => 8 + 8 * u32::from(*rest.get(1)?),
            51 => 8 + 4 * u32::from(*rest.get(1)?),
            44 => {
                let field = half(rest, 2)?;
                packet.frag = field >> 3 | (field & 1) << 13;
                packet.ip_id = u32::from_be_bytes(rest.get(4..8)?.try_into().ok()?);
                8
            }
            _ => break,
        };
        next = *rest.first()?;
        rest = rest.get(size as usize..)?;
        length = length.checked_sub(size)?;
        if packet.is_later_fragment() {
            break;
        }
    }
    packet.ip_proto = next;
    Some(Transport {
        bytes: within(rest, length),
        length,
        sum: words(&bytes[8..40]),
    })
}

/// The bytes up to a length; what was not kept is missing, and padding is left out.
fn within(bytes: &[u8], length: u32) -> &[u8] {
    bytes.get(..length as usize).unwrap_or(bytes)
}

/// Sum of 16-bit words, without the carries folded in.
fn words(bytes: &[u8]) -> u32 {
    let pairs = bytes.chunks_exact(2);
    pairs
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum()
}

impl<'a> Into<'_, 'a> {
    #[inline(always)]
    fn transport(&mut self, transport: &Transport<'a>) {
        let read = match self.packet.ip_proto {
            TCP => self.tcp(transport),
            UDP => self.udp(transport),
            ICMP | ICMP6 => self.icmp(transport),
            _ => {
                self.packet.payload_len = transport.length;
                self.rest.payload = transport.bytes;
                Some(())
            }
        };
        if read.is_none() {
            self.packet.flags |= packet_flags::TRUNCATED;
        }
    }

    #[inline(always)]
    fn tcp(&mut self, transport: &Transport<'a>) -> Option<()> {
        let bytes = transport.bytes;
        let fixed: &[u8; 20] = bytes.get(..20)?.try_into().ok()?;
        let packet = &mut *self.packet;
        let word = |at: usize| {
            u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]])
        };
        (packet.sport, packet.dport) = (half(fixed, 0)?, half(fixed, 2)?);
        (packet.seq, packet.ack) = (word(4), word(8));
        packet.l4_len = u16::from(fixed[12] >> 4) * 4;
        packet.tcp_flags = half(fixed, 12)? & 0x1ff;
        packet.window = half(fixed, 14)?;
        packet.payload_len = transport.length.checked_sub(packet.l4_len.into())?;
        self.rest.partial |= partial(transport, TCP, half(fixed, 16)?);
        self.rest.payload = bytes.get(packet.l4_len.into()..).unwrap_or_default();
        // Nearly all segments: two NOPs and a timestamp.
        if packet.l4_len == 32
            && let Some([1, 1, 8, 10, a, b, c, d, e, f, g, h]) = bytes.get(20..32)
        {
            packet.flags |= packet_flags::TIMESTAMPS;
            packet.tsval = u32::from_be_bytes([*a, *b, *c, *d]);
            packet.tsecr = u32::from_be_bytes([*e, *f, *g, *h]);
            return Some(());
        }
        // Options that were cut off are missing; the rest is as good.
        let Ok(header) = TcpHeaderSlice::from_slice(bytes) else {
            return (packet.l4_len >= 20).then_some(());
        };
        self.options(header.options());
        Some(())
    }

    fn options(&mut self, bytes: &[u8]) {
        for option in etherparse::TcpOptionsIterator::from_slice(bytes).flatten() {
            match option {
                TcpOptionElement::Timestamp(value, echo) => {
                    self.packet.flags |= packet_flags::TIMESTAMPS;
                    (self.packet.tsval, self.packet.tsecr) = (value, echo);
                }
                TcpOptionElement::SelectiveAcknowledgement(first, more) => {
                    let blocks = [Some(first)].into_iter().chain(more).flatten();
                    self.options.sack_count = 0;
                    for (slot, block) in self.options.sack.chunks_exact_mut(2).zip(blocks) {
                        (slot[0], slot[1]) = block;
                        self.options.sack_count += 1;
                    }
                }
                TcpOptionElement::SelectiveAcknowledgementPermitted => {
                    self.options.sack_permitted = true;
                }
                TcpOptionElement::MaximumSegmentSize(size) => self.options.mss = Some(size),
                TcpOptionElement::WindowScale(scale) => self.options.scale = Some(scale),
                TcpOptionElement::Noop => {}
            }
        }
    }

    fn udp(&mut self, transport: &Transport<'a>) -> Option<()> {
        let bytes = transport.bytes;
        let header = bytes.get(..8)?;
        let packet = &mut *self.packet;
        (packet.sport, packet.dport) = (half(header, 0)?, half(header, 2)?);
        packet.l4_len = 8;
        packet.payload_len = transport.length.checked_sub(8)?;
        self.rest.partial |= partial(transport, UDP, half(header, 6)?);
        self.rest.payload = &bytes[8..];
        if let Some(counter) = wireguard(self.rest.payload) {
            packet.flags |= packet_flags::WIREGUARD;
            packet.marker = counter as u32;
        }
        packet.flags |= quic(self.rest.payload);
        Some(())
    }

    fn icmp(&mut self, transport: &Transport<'a>) -> Option<()> {
        let header = transport.bytes.get(..8)?;
        let packet = &mut *self.packet;
        packet.dport = half(header, 0)?;
        (packet.sport, packet.seq) = (half(header, 4)?, half(header, 6)?.into());
        packet.l4_len = 8;
        packet.payload_len = transport.length.checked_sub(8)?;
        self.rest.payload = &transport.bytes[8..];
        Some(())
    }
}

/// The counter of a WireGuard transport message.
pub(super) fn wireguard(payload: &[u8]) -> Option<u64> {
    let header = payload
        .get(..16)
        .filter(|header| header.starts_with(&WIREGUARD_DATA))?;
    Some(u64::from_le_bytes(header[8..].try_into().ok()?))
}

/// Flags of a payload that begins as a QUIC packet: a short header, or a long one of version 1 or 2;
/// the fixed bit may be anything (RFC 9287).
fn quic(payload: &[u8]) -> u8 {
    let Some(&[first, a, b, c, d]) = payload.first_chunk() else {
        return 0;
    };
    let version = u32::from_be_bytes([a, b, c, d]);
    let found = match first & 0x80 == 0 || matches!(version, 1 | 0x6b33_43cf) {
        true if first & 1 == 0 => packet_flags::QUIC,
        true => packet_flags::QUIC | packet_flags::QUIC_BIT,
        false => 0,
    };
    found | packet_flags::UDP_READ
}

/// Whether a checksum is the pseudo header's only: where the device computes checksums, that is what the
/// kernel leaves in the packet (`CHECKSUM_PARTIAL`, include/linux/skbuff.h), and what a capture on the
/// sending host has. The packet on the wire is sound.
fn partial(transport: &Transport<'_>, protocol: u8, checksum: u16) -> bool {
    let length = transport.length;
    let mut sum = transport.sum + u32::from(protocol) + (length >> 16) + (length & 0xffff);
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum == u32::from(checksum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable as _;
    use etherparse::PacketBuilder;

    /// What the headers of a packet say.
    struct Headers<'a> {
        packet: event::Packet,
        options: Options,
        partial: bool,
        payload: &'a [u8],
    }

    fn read(network: &[u8], original: usize) -> Headers<'_> {
        let frame = Frame {
            ethertype: if network[0] >> 4 == 4 { IP4 } else { IP6 },
            network,
            ..Frame::default()
        };
        let (mut packet, mut options) = (event::Packet::zeroed(), Options::default());
        let rest = headers(&frame, original as u32, &mut packet, &mut options);
        let Rest { partial, payload } = rest.expect("an IP packet");
        Headers {
            packet,
            options,
            partial,
            payload,
        }
    }

    fn segment(options: &[u8], payload: usize) -> Vec<u8> {
        let builder = PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 63)
            .tcp(1000, 2000, 7, 4096)
            .ack(9)
            .options_raw(options)
            .expect("options");
        let mut bytes = Vec::new();
        builder
            .write(&mut bytes, &vec![5; payload])
            .expect("writes");
        bytes
    }

    #[test]
    fn tcp_with_timestamps_and_sack() {
        let plain = [1, 1, 8, 10, 0, 0, 0, 3, 0, 0, 0, 4];
        let bytes = segment(&plain, 100);
        let found = read(&bytes, bytes.len());
        let packet = &found.packet;
        assert_eq!((packet.seq, packet.ack, packet.payload_len), (7, 9, 100));
        assert_eq!((packet.tsval, packet.tsecr, packet.tcp_flags), (3, 4, 0x10));
        assert_eq!((packet.sport, packet.dport, packet.ttl), (1000, 2000, 63));
        assert_eq!((found.payload.len(), found.partial), (100, false));
        let mut sack = plain.to_vec();
        sack.extend([1, 1, 5, 18, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 8, 0, 0, 0, 9]);
        let bytes = segment(&sack, 0);
        let found = read(&bytes, bytes.len());
        assert_eq!(found.options.sack[..4], [1, 2, 8, 9]);
        assert_eq!((found.options.sack_count, found.packet.tsval), (2, 3));
    }

    #[test]
    fn what_was_cut_off_is_missing_and_the_rest_is_used() {
        let bytes = segment(&[1, 1, 8, 10, 0, 0, 0, 3, 0, 0, 0, 4], 1000);
        let found = read(&bytes[..44], bytes.len());
        assert_eq!((found.packet.payload_len, found.packet.seq), (1000, 7));
        assert_eq!(found.packet.flags, 0, "no timestamps, and not unreadable");
        let found = read(&bytes[..30], bytes.len());
        assert_eq!(found.packet.flags, packet_flags::TRUNCATED);
        // A super-packet of which the snap length kept the headers.
        let mut large = bytes[..52].to_vec();
        large[2..4].copy_from_slice(&[0, 0]);
        let found = read(&large, 70_052);
        assert_eq!(found.packet.payload_len, 70_000);
    }

    #[test]
    fn a_checksum_left_to_the_device_is_recognised() {
        let mut bytes = segment(&[], 10);
        let sum = words(&bytes[12..20]) + u32::from(TCP) + 30;
        let folded = (sum >> 16) + (sum & 0xffff);
        bytes[36..38].copy_from_slice(&(folded as u16).to_be_bytes());
        assert!(read(&bytes, bytes.len()).partial);
    }

    #[test]
    fn ipv6_extensions_and_fragments() {
        let mut bytes = Vec::new();
        let builder = PacketBuilder::ipv6([1; 16], [2; 16], 60).udp(5, 6);
        builder
            .write(
                &mut bytes,
                &[4, 0, 0, 0, 1, 1, 1, 1, 9, 0, 0, 0, 0, 0, 0, 0],
            )
            .expect("writes");
        let found = read(&bytes, bytes.len());
        // The payload could begin a QUIC packet, too.
        let quic = packet_flags::UDP_READ | packet_flags::QUIC;
        assert_eq!(
            (found.packet.marker, found.packet.flags),
            (9, packet_flags::WIREGUARD | quic)
        );
        // A fragment header in front: first fragment, then a later one.
        let mut first = bytes[..40].to_vec();
        first[6] = 44;
        first[5] += 8;
        first.extend([UDP, 0, 0, 1, 0, 0, 0, 77]);
        first.extend(&bytes[40..]);
        let found = read(&first, first.len());
        assert_eq!((found.packet.frag, found.packet.ip_id), (0x2000, 77));
        assert_eq!((found.packet.sport, found.packet.ip_proto), (5, UDP));
        first[43] = 8;
        let found = read(&first, first.len());
        assert!(found.packet.is_later_fragment());
        assert_eq!((found.packet.sport, found.packet.payload_len), (0, 24));
    }
}
