//! Ethernet frames with their virtio-net header, as a TAP device hands them over: what they hold,
//! and how a super-packet is cut into the packets it stands for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of `struct virtio_net_hdr` (include/uapi/linux/virtio_net.h).
pub(super) const VNET_HEADER: usize = 10;
/// Bytes of an Ethernet header.
pub(super) const ETHERNET: usize = 14;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;
const TCP: u8 = 6;
const UDP: u8 = 17;
const FIN_PSH: u8 = 0x09;
const CWR: u8 = 0x80;

/// One unit: a virtio-net header and an Ethernet frame.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    /// May be longer than what is in it: buffers are used again.
    buffer: Vec<u8>,
    length: usize,
}

/// Longest frame a device hands over: the header, Ethernet with one tag, and a 64 KiB packet.
pub(super) const LONGEST: usize = VNET_HEADER + ETHERNET + 4 + 65_536;

/// The virtio-net header's fields that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Vnet {
    gso_type: u8,
    gso_size: u16,
    csum_start: u16,
    csum_offset: u16,
}

/// How much a unit is on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    /// Packets.
    pub(super) segments: u32,
    /// Bytes with all headers from Ethernet's on, as `qdisc_pkt_len_init` counts them.
    pub(super) bytes: u64,
}

/// What tells a packet from others, for the truth log. Zero where a packet has no such field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Identity {
    pub(super) addresses: Option<(IpAddr, IpAddr)>,
    pub(super) protocol: u8,
    /// IPv4's identification; IPv6's flow label.
    pub(super) ip_id: u32,
    pub(super) source_port: u16,
    pub(super) destination_port: u16,
    pub(super) tcp_seq: u32,
    pub(super) tcp_ack: u32,
    pub(super) tcp_flags: u8,
    /// First 8 bytes of a UDP payload: room for a sequence number.
    pub(super) udp_payload: u64,
}

/// Where the layers of a frame start.
struct Layers {
    network: usize,
    transport: usize,
    is_ipv6: bool,
    protocol: u8,
}

impl Frame {
    /// The first `length` bytes of `buffer`, as they were read from a device, virtio-net header
    /// first; the buffer itself when that is too short for a frame.
    pub(super) fn new(buffer: Vec<u8>, length: usize) -> Result<Frame, Vec<u8>> {
        if length < VNET_HEADER + ETHERNET || length > buffer.len() {
            return Err(buffer);
        }
        Ok(Frame { buffer, length })
    }

    fn whole(buffer: Vec<u8>) -> Frame {
        let length = buffer.len();
        Frame { buffer, length }
    }

    /// Header and frame, to be written to a device.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.length]
    }

    /// The buffer, to be used again.
    pub(super) fn into_buffer(self) -> Vec<u8> {
        self.buffer
    }

    /// The Ethernet frame.
    pub(super) fn ethernet(&self) -> &[u8] {
        &self.buffer[VNET_HEADER..self.length]
    }

    /// Destination and source hardware address.
    pub(super) fn hardware_addresses(&self) -> ([u8; 6], [u8; 6]) {
        let mut addresses = ([0; 6], [0; 6]);
        addresses.0.copy_from_slice(&self.ethernet()[..6]);
        addresses.1.copy_from_slice(&self.ethernet()[6..12]);
        addresses
    }

    fn vnet(&self) -> Vnet {
        let word = |at: usize| u16::from_ne_bytes([self.buffer[at], self.buffer[at + 1]]);
        Vnet {
            gso_type: self.buffer[1],
            gso_size: word(4),
            csum_start: word(6),
            csum_offset: word(8),
        }
    }

    /// Bytes before the payload of each segment; `None` when the frame is no super-packet or
    /// contradicts itself.
    fn segment_header(&self) -> Option<(Vnet, usize)> {
        let vnet = self.vnet();
        if vnet.gso_type == GSO_NONE || vnet.gso_size == 0 {
            return None;
        }
        let frame = self.ethernet();
        let start = usize::from(vnet.csum_start);
        let header = match vnet.gso_type & !GSO_ECN {
            GSO_TCPV4 | GSO_TCPV6 => start + usize::from(*frame.get(start + 12)? >> 4) * 4,
            GSO_UDP_L4 => start + 8,
            _ => return None,
        };
        (header < frame.len() && start > ETHERNET).then_some((vnet, header))
    }

    /// Its size on the wire.
    pub(super) fn size(&self) -> Size {
        let length = self.ethernet().len();
        let Some((vnet, header)) = self.segment_header() else {
            return Size {
                segments: 1,
                bytes: length as u64,
            };
        };
        let segments = (length - header).div_ceil(vnet.gso_size.into());
        Size {
            segments: segments as u32,
            bytes: (length + (segments - 1) * header) as u64,
        }
    }

    /// Cuts a super-packet into packets as `tcp_gso_segment`, `__udp_gso_segment` and
    /// `inet_gso_segment` do: sequence numbers and IPv4 identifications count up, FIN and PSH stay
    /// with the last segment, CWR with the first; all checksums are filled in. `None` when the
    /// frame is one packet already, or contradicts itself.
    pub(super) fn segments(&self) -> Option<Vec<Frame>> {
        let (vnet, header) = self.segment_header()?;
        let frame = self.ethernet();
        let layers =
            layers(frame).filter(|layers| layers.transport == usize::from(vnet.csum_start))?;
        let chunks = frame[header..].chunks(vnet.gso_size.into());
        let last = chunks.len() - 1;
        let cut = |(index, payload): (usize, &[u8])| {
            let mut bytes = Vec::with_capacity(VNET_HEADER + header + payload.len());
            bytes.extend_from_slice(&[0; VNET_HEADER]);
            bytes.extend_from_slice(&frame[..header]);
            bytes.extend_from_slice(payload);
            let offset = (index * usize::from(vnet.gso_size)) as u32;
            let segment = &mut bytes[VNET_HEADER..];
            number(segment, &layers, index as u16);
            if layers.protocol == TCP {
                count_tcp(segment, layers.transport, offset, index == 0, index == last);
            } else {
                let length = (segment.len() - layers.transport) as u16;
                put(segment, layers.transport + 4, length);
            }
            fill_checksum(segment, &layers, vnet.csum_offset.into());
            Frame::whole(bytes)
        };
        Some(chunks.enumerate().map(cut).collect())
    }

    /// Payload bytes of each segment but the last, if this is a super-packet.
    pub(super) fn segment_payload(&self) -> Option<usize> {
        self.segment_header().map(|(vnet, _)| vnet.gso_size.into())
    }

    /// Bytes of all headers, Ethernet's included, of a TCP or UDP packet.
    pub(super) fn headers(&self) -> Option<usize> {
        let frame = self.ethernet();
        let layers = layers(frame)?;
        match layers.protocol {
            TCP => {
                Some(layers.transport + usize::from(*frame.get(layers.transport + 12)? >> 4) * 4)
            }
            UDP => Some(layers.transport + 8),
            _ => None,
        }
    }

    /// Whether it is an IP packet.
    pub(super) fn is_ip(&self) -> bool {
        matches!(self.ethernet()[12..14], [0x08, 0x00] | [0x86, 0xdd])
    }

    /// What tells this packet from others.
    pub(super) fn identity(&self) -> Identity {
        let frame = self.ethernet();
        layers(frame)
            .and_then(|layers| identity(frame, &layers))
            .unwrap_or_default()
    }
}

fn identity(frame: &[u8], layers: &Layers) -> Option<Identity> {
    let network = frame.get(layers.network..)?;
    let transport = frame.get(layers.transport..)?;
    let word = |at: usize| {
        Some(u16::from_be_bytes([
            *transport.get(at)?,
            *transport.get(at + 1)?,
        ]))
    };
    let long = |at: usize| Some(u32::from(word(at)?) << 16 | u32::from(word(at + 2)?));
    let mut identity = Identity {
        addresses: addresses(network, layers.is_ipv6),
        protocol: layers.protocol,
        ip_id: match layers.is_ipv6 {
            true => u32::from_be_bytes(network.get(..4)?.try_into().ok()?) & 0xf_ffff,
            false => u16::from_be_bytes(network.get(4..6)?.try_into().ok()?).into(),
        },
        ..Identity::default()
    };
    if matches!(layers.protocol, TCP | UDP) {
        identity.source_port = word(0)?;
        identity.destination_port = word(2)?;
    }
    if layers.protocol == TCP {
        (identity.tcp_seq, identity.tcp_ack) = (long(4)?, long(8)?);
        identity.tcp_flags = *transport.get(13)?;
    }
    if let (UDP, Some(payload)) = (layers.protocol, transport.get(8..16)) {
        identity.udp_payload = u64::from_be_bytes(payload.try_into().ok()?);
    }
    Some(identity)
}

fn addresses(network: &[u8], is_ipv6: bool) -> Option<(IpAddr, IpAddr)> {
    if is_ipv6 {
        let at = |at: usize| -> Option<IpAddr> {
            let bytes: [u8; 16] = network.get(at..at + 16)?.try_into().ok()?;
            Some(Ipv6Addr::from(bytes).into())
        };
        return Some((at(8)?, at(24)?));
    }
    let at = |at: usize| -> Option<IpAddr> {
        let bytes: [u8; 4] = network.get(at..at + 4)?.try_into().ok()?;
        Some(Ipv4Addr::from(bytes).into())
    };
    Some((at(12)?, at(16)?))
}

/// Finds the layers of an IP packet with whole headers. IPv6 extension headers are not walked
/// through: the hosts of the lab send none with TCP or UDP, and fragments are not segmented.
fn layers(frame: &[u8]) -> Option<Layers> {
    let ether_type = u16::from_be_bytes(frame.get(12..14)?.try_into().ok()?);
    let network = ETHERNET;
    match ether_type {
        0x0800 => {
            let header = usize::from(frame.get(network)? & 0xf) * 4;
            (header >= 20 && frame.len() >= network + header).then(|| Layers {
                network,
                transport: network + header,
                is_ipv6: false,
                protocol: frame[network + 9],
            })
        }
        0x86dd => (frame.len() >= network + 40).then(|| Layers {
            network,
            transport: network + 40,
            is_ipv6: true,
            protocol: frame[network + 6],
        }),
        _ => None,
    }
}

/// Lengths, identification and header checksum of the `index`th segment's IP header.
fn number(segment: &mut [u8], layers: &Layers, index: u16) {
    let network = layers.network;
    if layers.is_ipv6 {
        let length = (segment.len() - layers.transport) as u16;
        put(segment, network + 4, length);
        return;
    }
    let length = (segment.len() - network) as u16;
    put(segment, network + 2, length);
    let id = u16::from_be_bytes([segment[network + 4], segment[network + 5]]);
    put(segment, network + 4, id.wrapping_add(index));
    put(segment, network + 10, 0);
    let checksum = !fold(sum(&segment[network..layers.transport]));
    put(segment, network + 10, checksum);
}

fn count_tcp(segment: &mut [u8], tcp: usize, offset: u32, is_first: bool, is_last: bool) {
    let at = tcp + 4;
    let mut seq = [0; 4];
    seq.copy_from_slice(&segment[at..at + 4]);
    let seq = u32::from_be_bytes(seq).wrapping_add(offset);
    segment[at..at + 4].copy_from_slice(&seq.to_be_bytes());
    if !is_last {
        segment[tcp + 13] &= !FIN_PSH;
    }
    if !is_first {
        segment[tcp + 13] &= !CWR;
    }
}

/// Checksum over pseudo-header, transport header and payload (RFC 9293, RFC 768, RFC 8200).
fn fill_checksum(segment: &mut [u8], layers: &Layers, offset: usize) {
    let at = layers.transport + offset;
    put(segment, at, 0);
    let addresses = match layers.is_ipv6 {
        true => layers.network + 8..layers.network + 40,
        false => layers.network + 12..layers.network + 20,
    };
    let length = (segment.len() - layers.transport) as u64;
    let pseudo = sum(&segment[addresses]) + length + u64::from(layers.protocol);
    let mut checksum = !fold(pseudo + sum(&segment[layers.transport..]));
    if checksum == 0 && layers.protocol == UDP {
        checksum = 0xffff; // 0 would mean that there is none
    }
    put(segment, at, checksum);
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Ones' complement sum of big-endian 16-bit words (RFC 1071), four bytes at a time.
fn sum(bytes: &[u8]) -> u64 {
    let mut chunks = bytes.chunks_exact(4);
    let mut sum: u64 = 0;
    for chunk in &mut chunks {
        let word: [u8; 4] = [chunk[0], chunk[1], chunk[2], chunk[3]];
        sum += u64::from(u32::from_be_bytes(word));
    }
    let mut rest = [0; 4];
    rest[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
    sum + u64::from(u32::from_be_bytes(rest))
}

fn fold(mut sum: u64) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
