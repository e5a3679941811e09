//! Ethernet frames, built by etherparse.

use std::net::IpAddr;

use anyhow::{Result, bail};
use etherparse::{
    EtherType, Ethernet2Header, IpFragOffset, IpNumber, Ipv4Header, Ipv4Options, Ipv6FlowLabel,
    Ipv6FragmentHeader, Ipv6Header, Ipv6RawExtHeader, PacketBuilder, SingleVlanHeader, TcpHeader,
    TcpOptionElement, UdpHeader, VlanId, VlanPcp,
};

use crate::tunnel::{OTHER, OWN};

/// A frame and its name in messages.
pub(crate) type Frame = (&'static str, Vec<u8>);

/// A UDP datagram to port 4000 in a frame from the other side.
pub(crate) fn udp(from: IpAddr, to: IpAddr, payload: &[u8]) -> Result<Vec<u8>> {
    let ethernet = PacketBuilder::ethernet2(OTHER, OWN);
    let mut frame = Vec::new();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet
            .ipv4(from.octets(), to.octets(), 64)
            .udp(4000, 4000)
            .write(&mut frame, payload)?,
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet
            .ipv6(from.octets(), to.octets(), 64)
            .udp(4000, 4000)
            .write(&mut frame, payload)?,
        _ => bail!("mixed addresses"),
    }
    Ok(frame)
}

/// Some bytes that differ from each other.
pub(crate) fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|number| 0x80 | number as u8).collect()
}

fn ethernet(ether_type: EtherType) -> Vec<u8> {
    let header = Ethernet2Header {
        source: OTHER,
        // Nobody's: the stack looks at it and throws it away.
        destination: [2, 0, 0, 0, 0x62, 9],
        ether_type,
    };
    header.to_bytes().to_vec()
}

fn tag(ether_type: EtherType, number: u16) -> Result<Vec<u8>> {
    let header = SingleVlanHeader {
        pcp: VlanPcp::try_new(5)?,
        drop_eligible_indicator: true,
        vlan_id: VlanId::try_new(number)?,
        ether_type,
    };
    Ok(header.to_bytes().to_vec())
}

fn joined(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

fn ipv4(
    protocol: IpNumber,
    payload: usize,
    change: impl FnOnce(&mut Ipv4Header),
) -> Result<Vec<u8>> {
    let length = u16::try_from(payload)?;
    let mut header = Ipv4Header::new(length, 61, protocol, [10, 98, 0, 2], [10, 98, 0, 1])?;
    header.dscp = 46u8.try_into()?;
    header.ecn = 1u8.try_into()?;
    header.identification = 0xbeef;
    change(&mut header);
    header.set_payload_len(payload)?;
    header.header_checksum = header.calc_header_checksum();
    Ok(header.to_bytes().to_vec())
}

fn ipv6(next_header: IpNumber, payload: usize) -> Result<Vec<u8>> {
    let header = Ipv6Header {
        traffic_class: 0xb9,
        flow_label: Ipv6FlowLabel::try_new(0x12345)?,
        payload_length: u16::try_from(payload)?,
        next_header,
        hop_limit: 62,
        source: [0xfd, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14],
        destination: [
            0xfd, 0, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44,
        ],
    };
    Ok(header.to_bytes().to_vec())
}

fn udp_segment(size: usize) -> Result<Vec<u8>> {
    let header = UdpHeader {
        source_port: 4001,
        destination_port: 4002,
        length: u16::try_from(8 + size)?,
        checksum: 0x1234,
    };
    Ok(joined(&[&header.to_bytes(), &payload(size)]))
}

fn tcp_segment(options: &[TcpOptionElement], size: usize) -> Result<Vec<u8>> {
    let mut header = TcpHeader::new(4003, 4004, 0xfedc_ba98, 0xabcd);
    header.acknowledgment_number = 0x8765_4321;
    (header.ack, header.psh, header.ece, header.ns) = (true, true, true, true);
    header.set_options(options)?;
    Ok(joined(&[&header.to_bytes(), &payload(size)]))
}

fn timestamps() -> [TcpOptionElement; 5] {
    [
        TcpOptionElement::Noop,
        TcpOptionElement::Noop,
        TcpOptionElement::Timestamp(0xaabb_ccdd, 0x1122_3344),
        TcpOptionElement::Noop,
        TcpOptionElement::Noop,
    ]
}

/// ICMP echo, type and code in front; the checksum is nobody's business here.
fn echo(kind: u8) -> Vec<u8> {
    joined(&[&[kind, 0, 0x12, 0x34, 0xca, 0xfe, 0x01, 0x02], &payload(56)])
}

/// What IP carries: protocol and bytes.
type Inside = (&'static str, IpNumber, Vec<u8>);

fn insides(echo_protocol: IpNumber, echo_type: u8) -> Result<Vec<Inside>> {
    let sack = TcpOptionElement::SelectiveAcknowledgement((1, 2), [Some((3, 4)), None, None]);
    let mut with_sack = timestamps().to_vec();
    with_sack.push(sack);
    Ok(vec![
        ("udp", IpNumber::UDP, udp_segment(100)?),
        ("empty udp", IpNumber::UDP, udp_segment(0)?),
        ("tcp", IpNumber::TCP, tcp_segment(&[], 33)?),
        (
            "tcp timestamps",
            IpNumber::TCP,
            tcp_segment(&timestamps()[..3], 50)?,
        ),
        (
            "tcp timestamps and sack",
            IpNumber::TCP,
            tcp_segment(&with_sack, 0)?,
        ),
        ("echo request", echo_protocol, echo(echo_type)),
        ("unknown protocol", IpNumber::from(253), payload(40)),
    ])
}

/// Well-formed IPv4 frames.
pub(crate) fn ipv4_frames() -> Result<Vec<Frame>> {
    let link = ethernet(EtherType::IPV4);
    let mut frames: Vec<Frame> = Vec::new();
    for (name, protocol, inside) in insides(IpNumber::ICMP, 8)? {
        frames.push((
            name,
            joined(&[&link, &ipv4(protocol, inside.len(), |_| ())?, &inside]),
        ));
    }
    let inside = tcp_segment(&timestamps()[..3], 20)?;
    for (name, options) in [
        ("4 bytes of options", Ipv4Options::from([1, 1, 1, 0])),
        ("40 bytes of options", Ipv4Options::from([1; 40])),
    ] {
        let header = ipv4(IpNumber::TCP, inside.len(), |header| {
            header.options = options;
        })?;
        frames.push((name, joined(&[&link, &header, &inside])));
    }
    let inside = udp_segment(64)?;
    for (name, offset, more, whole) in [
        ("first fragment", 0, true, false),
        ("middle fragment", 9, true, false),
        ("last fragment", 1000, false, false),
        ("not to be fragmented", 0, false, true),
    ] {
        let offset = IpFragOffset::try_new(offset)?;
        let header = ipv4(IpNumber::UDP, inside.len(), |header| {
            header.fragment_offset = offset;
            (header.more_fragments, header.dont_fragment) = (more, whole);
        })?;
        frames.push((name, joined(&[&link, &header, &inside])));
    }
    let inside = udp_segment(5)?;
    let header = ipv4(IpNumber::UDP, inside.len(), |_| ())?;
    frames.push(("padded", joined(&[&link, &header, &inside, &[0; 13]])));
    tagged(&mut frames, EtherType::IPV4, &joined(&[&header, &inside]))?;
    Ok(frames)
}

/// Well-formed IPv6 frames.
pub(crate) fn ipv6_frames() -> Result<Vec<Frame>> {
    let link = ethernet(EtherType::IPV6);
    let mut frames: Vec<Frame> = Vec::new();
    for (name, protocol, inside) in insides(IpNumber::IPV6_ICMP, 128)? {
        frames.push((
            name,
            joined(&[&link, &ipv6(protocol, inside.len())?, &inside]),
        ));
    }
    let tcp = tcp_segment(&timestamps()[..3], 20)?;
    let options = |next, length: usize| -> Result<Vec<u8>> {
        // PadN options only.
        let mut bytes = vec![0; length];
        (bytes[0], bytes[1]) = (1, u8::try_from(length - 2)?);
        Ok(Ipv6RawExtHeader::new_raw(next, &bytes)?.to_bytes().to_vec())
    };
    let short = options(IpNumber::TCP, 6)?;
    let long = options(IpNumber::TCP, 22)?;
    for (name, first, extensions) in [
        (
            "destination options",
            IpNumber::IPV6_DESTINATION_OPTIONS,
            &short,
        ),
        (
            "24 bytes of hop-by-hop options",
            IpNumber::IPV6_HEADER_HOP_BY_HOP,
            &long,
        ),
    ] {
        let header = ipv6(first, extensions.len() + tcp.len())?;
        frames.push((name, joined(&[&link, &header, extensions, &tcp])));
    }
    let udp = udp_segment(64)?;
    for (name, offset, more) in [
        ("first fragment", 0, true),
        ("middle fragment", 9, true),
        ("last fragment", 1000, false),
    ] {
        let offset = IpFragOffset::try_new(offset)?;
        let fragment = Ipv6FragmentHeader::new(IpNumber::UDP, offset, more, 0xdead_beef);
        let fragment = fragment.to_bytes();
        let hop = options(IpNumber::IPV6_FRAGMENTATION_HEADER, 6)?;
        let length = hop.len() + fragment.len() + udp.len();
        let header = ipv6(IpNumber::IPV6_HEADER_HOP_BY_HOP, length)?;
        frames.push((name, joined(&[&link, &header, &hop, &fragment, &udp])));
    }
    let header = ipv6(IpNumber::UDP, udp.len())?;
    tagged(&mut frames, EtherType::IPV6, &joined(&[&header, &udp]))?;
    Ok(frames)
}

fn tagged(frames: &mut Vec<Frame>, ether_type: EtherType, inside: &[u8]) -> Result<()> {
    let single = [
        ethernet(EtherType::VLAN_TAGGED_FRAME),
        tag(ether_type, 291)?,
    ];
    frames.push(("one tag", joined(&[&single.concat(), inside])));
    let double = [
        ethernet(EtherType::PROVIDER_BRIDGING),
        tag(EtherType::VLAN_TAGGED_FRAME, 1110)?,
        tag(ether_type, 292)?,
    ];
    frames.push(("two tags", joined(&[&double.concat(), inside])));
    Ok(())
}

/// Frames whose headers are cut short or contradict themselves, of both versions.
pub(crate) fn broken_frames() -> Result<Vec<Frame>> {
    let (four, six) = (ethernet(EtherType::IPV4), ethernet(EtherType::IPV6));
    let tcp = tcp_segment(&[], 30)?;
    let whole = joined(&[&four, &ipv4(IpNumber::TCP, tcp.len(), |_| ())?, &tcp]);
    let whole6 = joined(&[&six, &ipv6(IpNumber::TCP, tcp.len())?, &tcp]);
    let mut short_header = whole.clone();
    short_header[14] = 0x43;
    let mut short_offset = whole.clone();
    short_offset[14 + 20 + 12] = 0x20 | (short_offset[14 + 20 + 12] & 1);
    let mut long_options = whole.clone();
    long_options[14] = 0x4f;
    long_options.truncate(14 + 40);
    let hop = ipv6(IpNumber::IPV6_HEADER_HOP_BY_HOP, 8)?;
    Ok(vec![
        ("IPv4 cut in its header", whole[..14 + 12].to_vec()),
        ("IPv4 header of 12 bytes", short_header),
        ("IPv4 options beyond the end", long_options),
        ("TCP over IPv4 cut", whole[..14 + 20 + 13].to_vec()),
        ("TCP header of 8 bytes", short_offset),
        ("IPv6 cut in its header", whole6[..14 + 30].to_vec()),
        ("TCP over IPv6 cut", whole6[..14 + 40 + 7].to_vec()),
        (
            "IPv6 options beyond the end",
            joined(&[&six, &hop, &[6, 200, 1, 4, 0, 0, 0, 0]]),
        ),
    ])
}

/// A frame that is not IP.
pub(crate) fn arp_frame() -> Vec<u8> {
    let mut frame = ethernet(EtherType::ARP);
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(payload(20));
    frame
}
