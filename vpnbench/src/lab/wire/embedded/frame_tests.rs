//! Segmentation against an independent parser (etherparse), which knows the checksums.

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};

use super::*;

const SIZE: usize = 1000;
/// VIRTIO_NET_HDR_F_NEEDS_CSUM
const FLAG_NEEDS_CSUM: u8 = 1;

/// A super-packet of `payload` bytes as the kernel hands it over.
fn super_packet(is_ipv6: bool, protocol: u8, payload: usize) -> Frame {
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let data: Vec<u8> = (0..payload).map(|at| (at * 7 + at / 251) as u8).collect();
    let mut frame = Vec::new();
    let ip = match is_ipv6 {
        true => ethernet.ipv6([0xfd; 16], [0xfe; 16], 64),
        false => ethernet.ipv4([10, 99, 0, 1], [10, 99, 0, 2], 64),
    };
    if protocol == TCP {
        let mut tcp = etherparse::TcpHeader::new(4000, 5201, u32::MAX - 1500, 500);
        (tcp.ack, tcp.psh, tcp.cwr) = (true, true, true);
        tcp.acknowledgment_number = 77;
        ip.tcp_header(tcp).write(&mut frame, &data).unwrap();
    } else {
        ip.udp(4000, 5201).write(&mut frame, &data).unwrap();
    }
    let start = ETHERNET + if is_ipv6 { 40 } else { 20 };
    if !is_ipv6 {
        put(&mut frame, ETHERNET + 4, 0xfffe); // the identification wraps
    }
    let (gso, offset) = match (protocol, is_ipv6) {
        (UDP, _) => (GSO_UDP_L4, 6_u16),
        (_, true) => (GSO_TCPV6 | GSO_ECN, 16),
        (_, false) => (GSO_TCPV4, 16),
    };
    let mut bytes = vec![FLAG_NEEDS_CSUM, gso];
    for word in [0, SIZE as u16, start as u16, offset] {
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    bytes.extend_from_slice(&frame);
    Frame::whole(bytes)
}

#[test]
fn each_segment_is_a_packet_with_right_lengths_and_checksums() {
    for is_ipv6 in [false, true] {
        for protocol in [TCP, UDP] {
            for payload in [SIZE + 1, 2 * SIZE, 5 * SIZE + 333, 40 * SIZE + 1] {
                let whole = super_packet(is_ipv6, protocol, payload);
                let size = whole.size();
                let original = whole.ethernet().to_vec();
                let segments = whole.segments().unwrap();
                assert_eq!(segments.len(), payload.div_ceil(SIZE));
                assert_eq!(size.segments as usize, segments.len());
                let bytes: usize = segments
                    .iter()
                    .map(|segment| segment.ethernet().len())
                    .sum();
                assert_eq!(size.bytes as usize, bytes);
                let mut data = Vec::new();
                for (index, segment) in segments.iter().enumerate() {
                    data.extend(check(segment, index, segments.len()));
                }
                assert_eq!(data, original[original.len() - payload..]);
            }
        }
    }
}

/// Checks one segment and returns its payload.
fn check(segment: &Frame, index: usize, count: usize) -> Vec<u8> {
    assert_eq!(segment.bytes()[..VNET_HEADER], [0; VNET_HEADER]);
    let packet = SlicedPacket::from_ethernet(segment.ethernet()).unwrap();
    let net = packet.net.as_ref().unwrap();
    if let NetSlice::Ipv4(ip) = net {
        let header = ip.header().to_header();
        assert_eq!(header.calc_header_checksum(), header.header_checksum);
        assert_eq!(header.identification, 0xfffe_u16.wrapping_add(index as u16));
    }
    match packet.transport.unwrap() {
        TransportSlice::Tcp(tcp) => {
            let header = tcp.to_header();
            let expected = (u32::MAX - 1500).wrapping_add((index * SIZE) as u32);
            assert_eq!(header.sequence_number, expected);
            assert_eq!((header.psh, header.cwr), (index == count - 1, index == 0));
            let checksum = match net {
                NetSlice::Ipv4(ip) => {
                    header.calc_checksum_ipv4(&ip.header().to_header(), tcp.payload())
                }
                NetSlice::Ipv6(ip) => {
                    header.calc_checksum_ipv6(&ip.header().to_header(), tcp.payload())
                }
                NetSlice::Arp(_) => panic!("an ARP packet"),
            };
            assert_eq!(checksum.unwrap(), header.checksum);
            tcp.payload().to_vec()
        }
        TransportSlice::Udp(udp) => {
            let header = udp.to_header();
            let checksum = match net {
                NetSlice::Ipv4(ip) => {
                    header.calc_checksum_ipv4(&ip.header().to_header(), udp.payload())
                }
                NetSlice::Ipv6(ip) => {
                    header.calc_checksum_ipv6(&ip.header().to_header(), udp.payload())
                }
                NetSlice::Arp(_) => panic!("an ARP packet"),
            };
            assert_eq!(checksum.unwrap(), header.checksum);
            udp.payload().to_vec()
        }
        _ => panic!("another transport"),
    }
}

#[test]
fn a_single_packet_stays_as_it_is() {
    let mut bytes = super_packet(false, TCP, 500).into_buffer();
    bytes[1] = GSO_NONE;
    assert_uncut(&Frame::whole(bytes));
}

fn assert_uncut(frame: &Frame) {
    assert!(frame.segments().is_none());
    assert_eq!(frame.size().segments, 1);
}

#[test]
fn headers_that_contradict_themselves_are_not_cut() {
    for (at, value) in [(6, 0xffff_u16), (6, 3), (4, 0)] {
        let mut bytes = super_packet(false, TCP, 5000).into_buffer();
        bytes[at..at + 2].copy_from_slice(&value.to_ne_bytes());
        assert_uncut(&Frame::whole(bytes));
    }
    assert!(Frame::new(vec![0; 100], VNET_HEADER + 13).is_err());
    assert!(Frame::new(vec![0; 100], 101).is_err());
    assert_eq!(
        Frame::whole(vec![0; VNET_HEADER + ETHERNET]).identity(),
        Identity::default()
    );
}

#[test]
fn identities_tell_packets_apart() {
    let tcp = super_packet(false, TCP, 2 * SIZE).segments().unwrap();
    let identity = tcp[1].identity();
    assert_eq!(
        (identity.source_port, identity.destination_port),
        (4000, 5201)
    );
    assert_eq!((identity.ip_id, identity.tcp_ack), (0xffff, 77));
    assert_eq!(identity.tcp_seq, (u32::MAX - 1500).wrapping_add(1000));
    let addresses = identity
        .addresses
        .map(|(from, to)| (from.to_string(), to.to_string()));
    assert_eq!(
        addresses,
        Some(("10.99.0.1".to_owned(), "10.99.0.2".to_owned()))
    );
    let udp = super_packet(true, UDP, SIZE + 1).segments().unwrap();
    let expected: [u8; 8] = std::array::from_fn(|at| (at * 7) as u8);
    assert_eq!(udp[0].identity().udp_payload, u64::from_be_bytes(expected));
}
