//! Headers as the programs read them beside etherparse's reading of the same bytes.

use std::io::Write;
use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use etherparse::{LinkExtSlice, NetSlice, SlicedPacket, TcpOptionElement, TcpSlice, UdpSlice};
use vpnbench_common::catalog::Tap;
use vpnbench_common::event::{Packet, packet_flags};
use vpnbench_tests::tun;

use crate::accounts::settled;
use crate::frames::{self, Frame};
use crate::hosts::{Family, Host};
use crate::recorder::record;
use crate::tunnel::{drain, open, tunnel_device};

/// The other port of the bridge.
const SECOND: &str = "t1";
/// Payload bytes to keep.
const KEPT: usize = 16;

/// What a packet event says about headers, in the order of the frame.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Headers {
    ethertype: u16,
    vlan: Option<u16>,
    ip_version: u8,
    ip_proto: u8,
    tos: u8,
    ttl: u8,
    frag: u16,
    ip_id: u32,
    saddr: [u8; 16],
    daddr: [u8; 16],
    sport: u16,
    dport: u16,
    seq: u32,
    ack: u32,
    tcp_flags: u16,
    window: u16,
    timestamps: Option<(u32, u32)>,
    l4_len: u16,
    payload_len: u32,
}

impl Headers {
    fn of_event(packet: &Packet) -> Self {
        let flag = |bit| packet.flags & bit != 0;
        Self {
            ethertype: packet.ethertype,
            vlan: flag(packet_flags::VLAN).then_some(packet.vlan_tci),
            ip_version: packet.ip_version,
            ip_proto: packet.ip_proto,
            tos: packet.tos,
            ttl: packet.ttl,
            frag: packet.frag,
            ip_id: packet.ip_id,
            saddr: packet.saddr,
            daddr: packet.daddr,
            sport: packet.sport,
            dport: packet.dport,
            seq: packet.seq,
            ack: packet.ack,
            tcp_flags: packet.tcp_flags,
            window: packet.window,
            timestamps: flag(packet_flags::TIMESTAMPS).then_some((packet.tsval, packet.tsecr)),
            l4_len: packet.l4_len,
            payload_len: packet.payload_len,
        }
    }

    /// What etherparse says.
    fn of_frame(frame: &[u8]) -> Result<Self> {
        let parsed = SlicedPacket::from_ethernet(frame)?;
        let mut headers = Self::default();
        let mut ethertype = u16::from_be_bytes([frame[12], frame[13]]);
        for extension in &parsed.link_exts {
            let LinkExtSlice::Vlan(tag) = extension else {
                bail!("not a tag");
            };
            let (tag, bytes) = (tag.to_header(), tag.slice());
            headers
                .vlan
                .get_or_insert(u16::from_be_bytes([bytes[0], bytes[1]]));
            ethertype = tag.ether_type.0;
        }
        headers.ethertype = ethertype;
        let payload = match &parsed.net {
            Some(NetSlice::Ipv4(slice)) => {
                let header = slice.header();
                headers.ip_version = 4;
                headers.tos = header.dcp().value() << 2 | header.ecn().value();
                headers.ttl = header.ttl();
                headers.frag = u16::from(header.dont_fragment()) << 14
                    | u16::from(header.more_fragments()) << 13
                    | header.fragments_offset().value();
                headers.ip_id = u32::from(header.identification());
                headers.saddr[..4].copy_from_slice(&header.source());
                headers.daddr[..4].copy_from_slice(&header.destination());
                slice.payload().clone()
            }
            Some(NetSlice::Ipv6(slice)) => {
                let header = slice.header();
                headers.ip_version = 6;
                headers.tos = header.traffic_class();
                headers.ttl = header.hop_limit();
                headers.saddr = header.source();
                headers.daddr = header.destination();
                for extension in slice.extensions().clone() {
                    if let etherparse::Ipv6ExtensionSlice::Fragment(fragment) = extension {
                        headers.frag = u16::from(fragment.more_fragments()) << 13
                            | fragment.fragment_offset().value();
                        headers.ip_id = fragment.identification();
                    }
                }
                slice.payload().clone()
            }
            _ => return Ok(headers),
        };
        headers.ip_proto = payload.ip_number.0;
        headers.payload_len = u32::try_from(payload.payload.len())?;
        if headers.frag & 0x1fff == 0 {
            headers.transport(payload.payload)?;
        }
        Ok(headers)
    }

    fn transport(&mut self, bytes: &[u8]) -> Result<()> {
        match self.ip_proto {
            17 => {
                // The length in the header of a first fragment is that of the whole datagram.
                let udp = UdpSlice::from_slice_lax(bytes)?;
                (self.sport, self.dport) = (udp.source_port(), udp.destination_port());
                self.l4_len = 8;
            }
            6 => {
                let tcp = TcpSlice::from_slice(bytes)?;
                (self.sport, self.dport) = (tcp.source_port(), tcp.destination_port());
                (self.seq, self.ack) = (tcp.sequence_number(), tcp.acknowledgment_number());
                self.window = tcp.window_size();
                let flags = [
                    tcp.fin(),
                    tcp.syn(),
                    tcp.rst(),
                    tcp.psh(),
                    tcp.ack(),
                    tcp.urg(),
                    tcp.ece(),
                    tcp.cwr(),
                    tcp.ns(),
                ];
                for (bit, set) in flags.into_iter().enumerate() {
                    self.tcp_flags |= u16::from(set) << bit;
                }
                for option in tcp.options_iterator() {
                    if let TcpOptionElement::Timestamp(value, reply) = option? {
                        self.timestamps = Some((value, reply));
                    }
                }
                self.l4_len = u16::from(tcp.data_offset()) * 4;
            }
            1 | 58 => {
                self.dport = u16::from_be_bytes([bytes[0], bytes[1]]);
                self.sport = u16::from_be_bytes([bytes[4], bytes[5]]);
                self.seq = u32::from(u16::from_be_bytes([bytes[6], bytes[7]]));
                self.l4_len = 8;
            }
            _ => {}
        }
        self.payload_len -= u32::from(self.l4_len);
        Ok(())
    }
}

fn well_formed(family: Family) -> Result<Vec<Frame>> {
    match family {
        Family::V4 => frames::ipv4_frames(),
        Family::V6 => frames::ipv6_frames(),
    }
}

/// Frames come in through one port of a bridge and leave by the other: read on both ways.
pub(crate) fn parsing(family: Family) -> Result<()> {
    // The frames are of both versions, but nobody here has an address.
    let host = Host::new(Family::V4)?;
    let (device, second) = (
        tun::open_tap(&host.netns, tunnel_device())?,
        tun::open_tap(&host.netns, SECOND)?,
    );
    nix::fcntl::fcntl(
        &second,
        nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK),
    )?;
    host.ip("link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0")?;
    for port in [tunnel_device(), SECOND] {
        host.ip(&format!("link set {port} master br0"))?;
        host.ip(&format!("link set {port} up"))?;
    }
    host.ip("link set br0 up")?;
    let mut frames = well_formed(family)?;
    frames.push(("ARP", frames::arp_frame()));
    let sound = frames.len();
    frames.extend(frames::broken_frames()?);
    host.wait_until_up("br0")?;
    settled(&[&host])?;
    drain(&second, |_| ())?;
    // The bridge may refuse broken frames, as br_netfilter does.
    for (watched, tap, frames) in [
        (tunnel_device(), Tap::TunWrite, &frames[..]),
        (SECOND, Tap::TunTx, &frames[..sound]),
    ] {
        let arguments = ["--netns", host.name(), "--tun", watched];
        let mut out = Vec::new();
        let recorded = record(&[&host], &arguments, || {
            for (name, frame) in frames {
                (&device).write_all(frame).context(*name)?;
            }
            drain(&second, |frame| out.push(frame.to_vec()))?;
            Ok(())
        })?;
        ensure!(out.len() >= sound, "{} of {} left", out.len(), frames.len());
        for ((name, frame), out) in frames[..sound].iter().zip(&out) {
            // Without padding, where br_netfilter is at work.
            ensure!(frame.starts_with(out), "{name} left as {out:x?}");
        }
        let seen: Vec<&Packet> = recorded.events.at(&host, tap).collect();
        ensure!(
            seen.len() == frames.len(),
            "{} of {}",
            seen.len(),
            frames.len()
        );
        for (number, (packet, (name, frame))) in seen.into_iter().zip(frames).enumerate() {
            let check = if number < sound {
                intact(packet, frame)
            } else {
                broken(packet)
            };
            check.with_context(|| format!("{name} at {}", tap.name()))?;
            let left = out.get(number).filter(|_| tap == Tap::TunTx);
            let length = left.map_or(frame.len(), Vec::len);
            // On the way out the first tag is beside the frame.
            let beside = if tap == Tap::TunTx && packet.flags & packet_flags::VLAN != 0 {
                4
            } else {
                0
            };
            ensure!(packet.len as usize + beside == length, "{name}: {packet:?}");
        }
    }
    crate::say(&format!(
        "  {} frames on two ways, {} of them broken",
        frames.len(),
        frames.len() - sound
    ));
    Ok(())
}

fn intact(packet: &Packet, frame: &[u8]) -> Result<()> {
    let (seen, expected) = (Headers::of_event(packet), Headers::of_frame(frame)?);
    ensure!(seen == expected, "seen {seen:?}, etherparse {expected:?}");
    ensure!(
        packet.flags & packet_flags::TRUNCATED == 0,
        "called truncated"
    );
    ensure!(packet.gso_size == 0 && packet.segments() == 1, "{packet:?}");
    Ok(())
}

/// Says so, and nothing about what is missing.
fn broken(packet: &Packet) -> Result<()> {
    ensure!(
        packet.flags & packet_flags::TRUNCATED != 0,
        "not called truncated: {packet:?}"
    );
    let transport = (
        packet.sport,
        packet.dport,
        packet.seq,
        packet.ack,
        packet.l4_len,
    );
    ensure!(
        transport == (0, 0, 0, 0, 0) && packet.payload_len == 0,
        "{packet:?}"
    );
    Ok(())
}

/// Payload is kept only if asked for.
pub(crate) fn payload(family: Family) -> Result<()> {
    for kept in [0, KEPT] {
        let host = Host::new(family)?;
        let device = open(&host, family, true)?;
        let frames = well_formed(family)?;
        let socket = host.udp(family.address(98, 1), 0)?;
        let target = SocketAddr::new(family.address(98, 2), 4000);
        let text = kept.to_string();
        let arguments = [
            "--netns",
            host.name(),
            "--tun",
            tunnel_device(),
            "--keep-payload",
            &text,
        ];
        let mut out = Vec::new();
        let recorded = record(&[&host], &arguments, || {
            for (name, frame) in &frames {
                (&device).write_all(frame).context(*name)?;
            }
            for size in [0, 1, 15, 16, 17, 1400] {
                socket.send_to(&frames::payload(size), target)?;
            }
            drain(&device, |frame| out.push(frame.to_vec()))?;
            Ok(())
        })?;
        let payloads = &recorded.events.payloads;
        if kept == 0 {
            ensure!(payloads.is_empty(), "{} payloads kept", payloads.len());
            continue;
        }
        let mut compared = 0;
        let written = frames.iter().map(|(_, frame)| frame.as_slice());
        let read = out.iter().map(Vec::as_slice);
        for (tap, own) in [
            (Tap::TunWrite, written.collect::<Vec<_>>()),
            (Tap::TunTx, read.collect()),
        ] {
            let expected: Vec<Vec<u8>> = own
                .into_iter()
                .map(|frame| begin(frame, kept))
                .collect::<Result<Vec<_>>>()?;
            let expected: Vec<Vec<u8>> = expected
                .into_iter()
                .filter(|bytes| !bytes.is_empty())
                .collect();
            let seen = payloads.iter().filter(|one| one.tap == tap as u32);
            let seen: Vec<Vec<u8>> = seen
                .map(|one| one.bytes[..one.len as usize].to_vec())
                .collect();
            ensure!(seen == expected, "{}: {seen:?}, {expected:?}", tap.name());
            compared += seen.len();
            let rest = payloads
                .iter()
                .all(|one| one.bytes[one.len as usize..].iter().all(|byte| *byte == 0));
            ensure!(rest, "bytes behind the payload");
        }
        crate::say(&format!(
            "  {compared} payloads of at most {kept} bytes, none without the option"
        ));
    }
    Ok(())
}

/// The first payload bytes of a frame, by etherparse.
fn begin(frame: &[u8], kept: usize) -> Result<Vec<u8>> {
    let headers = Headers::of_frame(frame)?;
    let parsed = SlicedPacket::from_ethernet(frame)?;
    let inside = match &parsed.net {
        Some(NetSlice::Ipv4(slice)) => slice.payload().payload,
        Some(NetSlice::Ipv6(slice)) => slice.payload().payload,
        _ => return Ok(Vec::new()),
    };
    let payload = &inside[usize::from(headers.l4_len)..];
    Ok(payload[..payload.len().min(kept)].to_vec())
}
