//! Link layers: what is in front of the IP header.
//!
//! Numbers and layouts: <https://www.tcpdump.org/linktypes.html>.

/// What a link layer says about a packet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    /// EtherType of `network`.
    pub(super) ethertype: u16,
    /// The packet from its network header on.
    pub(super) network: &'a [u8],
    /// Bytes in front of it in the file.
    pub(super) skipped: u32,
    /// Bytes of link-layer header on the wire: what the interface counters count.
    pub(super) on_wire: u32,
    /// Whether the host sent it, where the link layer tells.
    pub(super) outgoing: Option<bool>,
    /// Tag control information of the outermost VLAN.
    pub(super) vlan: Option<u16>,
    /// Interface index, where one file has the packets of several devices.
    pub(super) ifindex: u32,
    /// `ARPHRD_*`, where the link layer tells.
    pub(super) hardware: Option<u16>,
    /// Segmentation, where a virtio-net header tells: size in bytes.
    pub(super) segment: u16,
    /// Whether the checksum is left to the device, by a virtio-net header.
    pub(super) partial: bool,
}

/// `LINKTYPE_NULL`
const NULL: u32 = 0;
/// `LINKTYPE_ETHERNET`
const ETHERNET: u32 = 1;
/// `LINKTYPE_RAW`, and the `DLT_RAW` of two systems that wrote it into files.
const RAW: [u32; 3] = [101, 12, 14];
/// `LINKTYPE_LOOP`
const LOOP: u32 = 108;
/// `LINKTYPE_LINUX_SLL`
const COOKED: u32 = 113;
/// `LINKTYPE_USER0` to `LINKTYPE_USER15`
const USER: std::ops::RangeInclusive<u32> = 147..=162;
/// `LINKTYPE_IPV4`
const IPV4: u32 = 228;
/// `LINKTYPE_IPV6`
const IPV6: u32 = 229;
/// `LINKTYPE_LINUX_SLL2`
const COOKED2: u32 = 276;

/// `ETH_P_IP`
pub(super) const IP4: u16 = 0x0800;
/// `ETH_P_IPV6`
pub(super) const IP6: u16 = 0x86dd;
const VLAN_TAGS: [u16; 3] = [0x8100, 0x88a8, 0x9100];
/// `PACKET_OUTGOING` (include/uapi/linux/if_packet.h)
const OUTGOING: u16 = 4;
/// `ARPHRD_NONE`: TUN, WireGuard.
pub(super) const NO_HARDWARE: u16 = 0xfffe;
/// `ARPHRD_ETHER`, `ARPHRD_LOOPBACK`
const HARDWARE_WITH_HEADER: [u16; 2] = [1, LOOPBACK];
const LOOPBACK: u16 = 772;

/// Whether this version reads a link type.
pub(super) fn is_known(link: u32) -> bool {
    matches!(
        link,
        NULL | ETHERNET | LOOP | COOKED | IPV4 | IPV6 | COOKED2
    ) || RAW.contains(&link)
        || USER.contains(&link)
}

/// Whether packets have no link layer at all: a TUN device or a tunnel of the kernel.
#[inline]
pub(super) fn is_bare(link: u32) -> bool {
    link != ETHERNET
        && (RAW.contains(&link) || USER.contains(&link) || link == IPV4 || link == IPV6)
}

/// Whether a packet passed a loopback device.
#[inline]
pub(super) fn is_loopback(link: u32, hardware: Option<u16>) -> bool {
    link == NULL || link == LOOP || hardware == Some(LOOPBACK)
}

/// Takes the link layer off; `None` for a type that is not known and for what is too short.
#[inline]
pub(super) fn frame(link: u32, data: &[u8]) -> Option<Frame<'_>> {
    // Nearly all packets of nearly all files.
    if link == ETHERNET
        && let Some(ethertype @ (IP4 | IP6)) = half(data, 12)
        && let Some(network) = data.get(14..)
        && is_ip(ethertype, network)
    {
        return Some(Frame {
            ethertype,
            network,
            skipped: 14,
            on_wire: 14,
            ..Frame::default()
        });
    }
    any_frame(link, data)
}

#[inline(never)]
fn any_frame(link: u32, data: &[u8]) -> Option<Frame<'_>> {
    match link {
        ETHERNET => {
            let plain = ethernet(data)?;
            if is_ip(plain.ethertype, plain.network) {
                return Some(plain);
            }
            // A TAP device with IFF_VNET_HDR.
            let behind = |header: usize| {
                let frame = ethernet(data.get(header..)?)?;
                let sound = is_ip(frame.ethertype, frame.network);
                sound.then(|| virtio(data, header, frame)).flatten()
            };
            Some(behind(10).or_else(|| behind(12)).unwrap_or(plain))
        }
        COOKED => cooked(data),
        COOKED2 => cooked2(data),
        NULL | LOOP => {
            let family: [u8; 4] = data.get(..4)?.try_into().ok()?;
            let network = data.get(4..)?;
            let family = u32::from_be_bytes(family).min(u32::from_le_bytes(family));
            // AF_INET is 2 everywhere; AF_INET6 is 10, 24, 28 or 30.
            let ethertype = match family {
                2 => IP4,
                10 | 24 | 28 | 30 => IP6,
                _ => by_version(network)?,
            };
            Some(Frame {
                ethertype,
                network,
                skipped: 4,
                ..Frame::default()
            })
        }
        _ if is_bare(link) => bare(data),
        _ => None,
    }
}

/// A packet behind a tunnel's header: an Ethernet frame, or IP without a link layer.
pub(super) fn inside(data: &[u8], ethernet_in_front: bool) -> Option<Frame<'_>> {
    let frame = if ethernet_in_front {
        ethernet(data)?
    } else {
        Frame {
            ethertype: by_version(data)?,
            network: data,
            ..Frame::default()
        }
    };
    is_ip(frame.ethertype, frame.network).then_some(frame)
}

pub(super) fn half(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(data.get(at..at + 2)?.try_into().ok()?))
}

fn by_version(network: &[u8]) -> Option<u16> {
    match network.first()? >> 4 {
        4 => Some(IP4),
        6 => Some(IP6),
        _ => None,
    }
}

fn is_ip(ethertype: u16, network: &[u8]) -> bool {
    by_version(network) == Some(ethertype)
}

fn ethernet(data: &[u8]) -> Option<Frame<'_>> {
    let mut at = 12;
    let mut ethertype = half(data, at)?;
    let mut vlan = None;
    while VLAN_TAGS.contains(&ethertype) && at < 24 {
        let tag = half(data, at + 2)?;
        vlan.get_or_insert(tag);
        at += 4;
        ethertype = half(data, at)?;
    }
    Some(Frame {
        ethertype,
        network: data.get(at + 2..)?,
        skipped: at as u32 + 2,
        on_wire: at as u32 + 2,
        vlan,
        ..Frame::default()
    })
}

/// Linux cooked mode, version 1: packet type, ARPHRD, address, protocol.
fn cooked(data: &[u8]) -> Option<Frame<'_>> {
    let hardware = half(data, 2)?;
    Some(Frame {
        ethertype: half(data, 14)?,
        network: data.get(16..)?,
        skipped: 16,
        on_wire: device_header(hardware),
        outgoing: Some(half(data, 0)? == OUTGOING),
        hardware: Some(hardware),
        ..Frame::default()
    })
}

/// Linux cooked mode, version 2: protocol, interface index, ARPHRD, packet type, address.
fn cooked2(data: &[u8]) -> Option<Frame<'_>> {
    let hardware = half(data, 8)?;
    Some(Frame {
        ethertype: half(data, 0)?,
        network: data.get(20..)?,
        skipped: 20,
        on_wire: device_header(hardware),
        outgoing: Some(u16::from(*data.get(10)?) == OUTGOING),
        ifindex: u32::from_be_bytes(data.get(4..8)?.try_into().ok()?),
        hardware: Some(hardware),
        ..Frame::default()
    })
}

/// The header that cooked mode took off.
fn device_header(hardware: u16) -> u32 {
    if HARDWARE_WITH_HEADER.contains(&hardware) {
        14
    } else {
        0
    }
}

/// IP without a link layer, as it is or as a program reads it from a TUN device: behind the packet
/// information (`struct tun_pi`) or a virtio-net header, or both.
fn bare(data: &[u8]) -> Option<Frame<'_>> {
    if let Some(ethertype) = by_version(data) {
        return Some(Frame {
            ethertype,
            network: data,
            ..Frame::default()
        });
    }
    let information = half(data, 2).filter(|kind| [IP4, IP6].contains(kind));
    for (header, segmentation) in [(4, 0), (10, 10), (12, 12), (14, 10), (16, 12)] {
        let Some(network) = data.get(header..) else {
            continue;
        };
        let Some(ethertype) = by_version(network) else {
            continue;
        };
        let has_information = header - segmentation == 4;
        if has_information && information != Some(ethertype) {
            continue;
        }
        let frame = Frame {
            ethertype,
            network,
            skipped: header as u32,
            ..Frame::default()
        };
        if segmentation == 0 {
            return Some(frame);
        }
        let start = header - segmentation;
        let found = data
            .get(start..)
            .and_then(|data| virtio(data, segmentation, frame));
        if let Some(mut frame) = found {
            frame.skipped = header as u32;
            return Some(frame);
        }
    }
    None
}

/// `struct virtio_net_hdr` (virtio 1.2, section 5.1.6), little-endian.
fn virtio<'a>(data: &[u8], header: usize, mut frame: Frame<'a>) -> Option<Frame<'a>> {
    let (flags, kind) = (*data.first()?, *data.get(1)?);
    let little = |at: usize| Some(u16::from_le_bytes(data.get(at..at + 2)?.try_into().ok()?));
    // NEEDS_CSUM, DATA_VALID, RSC_INFO; NONE, TCPV4, UDP, TCPV6, UDP_L4, with ECN.
    if flags & !7 != 0 || !matches!(kind & 0x7f, 0 | 1 | 3 | 4 | 5) {
        return None;
    }
    frame.segment = if kind & 0x7f == 0 { 0 } else { little(4)? };
    frame.partial = flags & 1 != 0;
    frame.skipped += header as u32;
    Some(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: [u8; 4] = [0x45, 0, 0, 20];

    #[test]
    fn each_link_layer_is_taken_off() {
        let tagged = [
            &[1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2][..],
            &[0x88, 0xa8, 0, 5, 0x81, 0, 0, 7, 8, 0],
            &PACKET,
        ]
        .concat();
        let found = frame(ETHERNET, &tagged).expect("Ethernet");
        assert_eq!((found.network, found.vlan), (&PACKET[..], Some(5)));
        assert_eq!((found.skipped, found.on_wire), (22, 22));
        let cooked = [&[0, 4, 0xff, 0xfe, 0, 0][..], &[0; 8], &[8, 0], &PACKET].concat();
        let found = frame(COOKED, &cooked).expect("cooked");
        assert_eq!((found.outgoing, found.on_wire), (Some(true), 0));
        assert_eq!(
            (found.network, found.hardware),
            (&PACKET[..], Some(NO_HARDWARE))
        );
        let cooked = [&[8, 0, 0, 0, 0, 0, 0, 7, 0, 1, 0, 6][..], &[0; 8], &PACKET].concat();
        let found = frame(COOKED2, &cooked).expect("cooked 2");
        assert_eq!((found.outgoing, found.ifindex), (Some(false), 7));
        assert_eq!((found.network, found.on_wire), (&PACKET[..], 14));
        for family in [[2, 0, 0, 0], [0, 0, 0, 2], [30, 0, 0, 0]] {
            let data = [&family[..], &PACKET].concat();
            let found = frame(NULL, &data).expect("null");
            assert_eq!(found.network, PACKET);
        }
        for link in [101, 12, 228, 147] {
            assert_eq!(
                frame(link, &PACKET).map(|one| one.network),
                Some(&PACKET[..])
            );
        }
        assert_eq!(frame(127, &PACKET), None, "802.11 is not read");
    }

    #[test]
    fn a_header_of_virtio_net_in_front_of_a_tun_packet() {
        let header = [1, 1, 52, 0, 0xa8, 5, 20, 0, 16, 0];
        let data = [&header[..], &PACKET].concat();
        let found = frame(101, &data).expect("virtio-net");
        assert_eq!(
            (found.segment, found.partial, found.skipped),
            (1448, true, 10)
        );
        let data = [&[0, 0, 8, 0][..], &header, &PACKET].concat();
        let found = frame(101, &data).expect("with packet information");
        assert_eq!((found.network, found.skipped), (&PACKET[..], 14));
        let data = [&[0, 0, 8, 0][..], &PACKET].concat();
        assert_eq!(frame(101, &data).map(|one| one.skipped), Some(4));
        assert_eq!(frame(101, &[9; 40]), None);
    }
}
