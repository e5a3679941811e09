//! pcapng (draft-ietf-opsawg-pcapng): one interface per tap and device, packets with the headers that the trace has
//! of them, and a comment with what else is known: segments of the unit, and why TCP sent it again. Payload
//! is not in traces, so packets are cut behind their headers; lengths are those on the wire.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Write};

use etherparse::{
    IpFragOffset, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, TcpHeader, TcpOptionElement,
    UdpHeader,
};
use vpnbench_common::catalog::Tap;
use vpnbench_common::event::{self, packet_flags};

use super::Names;
use crate::trace::Event;

const TCP: u8 = 6;
const UDP: u8 = 17;
/// `LINKTYPE_RAW`
const RAW: u16 = 101;
/// Longest length an IPv4 header can state.
const IP4_MAX: u32 = 65_535;
/// Retransmissions that wait for their packet; the oldest are given up.
const WAITING_MAX: usize = 4096;

type Key = (u32, [u8; 16], u16, [u8; 16], u16, u32);

/// Writes a trace's packets.
#[derive(Debug, Default)]
pub struct Packets {
    interfaces: HashMap<(u8, u32, u32), u32>,
    /// Retransmissions whose packet was not seen yet: the state in which TCP sent it again.
    again: HashMap<Key, &'static str>,
    /// In the order they came; those whose packet came are still there.
    order: VecDeque<Key>,
    /// Packets that were written.
    pub written: u64,
    /// Packets of which the trace has no headers.
    pub left_out: u64,
}

fn block(kind: u32, body: &[u8], out: &mut dyn Write) -> io::Result<()> {
    let padded = body.len().next_multiple_of(4);
    let length = (padded as u32 + 12).to_le_bytes();
    out.write_all(&kind.to_le_bytes())?;
    out.write_all(&length)?;
    out.write_all(body)?;
    out.write_all(&[0; 3][..padded - body.len()])?;
    out.write_all(&length)
}

fn option(code: u16, value: &[u8], body: &mut Vec<u8>) {
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

impl Packets {
    /// Writes the file's header.
    ///
    /// # Errors
    ///
    /// What the writer refuses.
    pub fn begin(out: &mut dyn Write) -> io::Result<Packets> {
        let mut body = 0x1a2b_3c4du32.to_le_bytes().to_vec();
        body.extend([1, 0, 0, 0]);
        body.extend(u64::MAX.to_le_bytes());
        // shb_userappl
        let version = concat!("vpnbench ", env!("CARGO_PKG_VERSION"));
        option(4, version.as_bytes(), &mut body);
        option(0, &[], &mut body);
        block(0x0a0d_0d0a, &body, out)?;
        Ok(Packets::default())
    }

    /// Takes one event; packets are written.
    ///
    /// # Errors
    ///
    /// What the writer refuses.
    pub fn add(&mut self, event: &Event<'_>, names: &Names, out: &mut dyn Write) -> io::Result<()> {
        match event {
            Event::Packet(packet) => self.packet(packet, names, out),
            Event::Retransmit(again) => {
                let key = (
                    again.netns,
                    again.laddr,
                    again.lport,
                    again.raddr,
                    again.rport,
                    again.seq,
                );
                if self.again.insert(key, super::state_of(again)).is_none() {
                    self.order.push_back(key);
                }
                while self.order.len() > WAITING_MAX {
                    let oldest = self.order.pop_front();
                    oldest.and_then(|key| self.again.remove(&key));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn interface(
        &mut self,
        packet: &event::Packet,
        names: &Names,
        out: &mut dyn Write,
    ) -> io::Result<u32> {
        let key = (packet.tap, packet.netns, packet.ifindex);
        if let Some(number) = self.interfaces.get(&key) {
            return Ok(*number);
        }
        let tap = Tap::from_number(packet.tap).map_or("packet", Tap::name);
        let device = names
            .device(packet.netns, packet.ifindex)
            .unwrap_or_default();
        let host = names.namespace(packet.netns).unwrap_or("?");
        let mut body = RAW.to_le_bytes().to_vec();
        body.extend([0; 6]);
        option(2, format!("{host}:{tap}").as_bytes(), &mut body);
        option(
            3,
            format!("{tap} of {device} in {host}").as_bytes(),
            &mut body,
        );
        option(9, &[9], &mut body);
        option(0, &[], &mut body);
        block(1, &body, out)?;
        let number = self.interfaces.len() as u32;
        self.interfaces.insert(key, number);
        Ok(number)
    }

    fn packet(
        &mut self,
        packet: &event::Packet,
        names: &Names,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let on_wire = packet.len.saturating_sub(packet.l2_len.into());
        let Some(bytes) = headers(packet, on_wire).filter(|bytes| bytes.len() as u32 <= on_wire)
        else {
            self.left_out += 1;
            return Ok(());
        };
        let interface = self.interface(packet, names, out)?;
        let time = names.utc_ns(packet.header.time_ns) as u64;
        let mut body = interface.to_le_bytes().to_vec();
        body.extend(((time >> 32) as u32).to_le_bytes());
        body.extend((time as u32).to_le_bytes());
        body.extend((bytes.len() as u32).to_le_bytes());
        body.extend(on_wire.to_le_bytes());
        body.extend(&bytes);
        body.resize(body.len().next_multiple_of(4), 0);
        let tap = Tap::from_number(packet.tap);
        let mut comment = tap.map_or("", Tap::name).to_owned();
        if packet.gso_segs > 1 {
            comment += &format!(
                "; {} segments of {} bytes",
                packet.gso_segs, packet.gso_size
            );
        }
        if let Some(state) = self.resent(packet) {
            comment += &format!("; TCP sends it again {state}");
        }
        option(1, comment.as_bytes(), &mut body);
        let leaves = matches!(
            tap,
            Some(Tap::TunQueue | Tap::TunTx | Tap::OuterQueue | Tap::OuterTx)
        );
        option(2, &(if leaves { 2u32 } else { 1 }).to_le_bytes(), &mut body);
        option(0, &[], &mut body);
        self.written += 1;
        block(6, &body, out)
    }

    fn resent(&mut self, packet: &event::Packet) -> Option<&'static str> {
        if packet.ip_proto != TCP || self.again.is_empty() {
            return None;
        }
        let key = (
            packet.netns,
            packet.saddr,
            packet.sport,
            packet.daddr,
            packet.dport,
            packet.seq,
        );
        self.again.remove(&key)
    }
}

/// The headers of a packet, as far as the record has them.
fn headers(packet: &event::Packet, on_wire: u32) -> Option<Vec<u8>> {
    if packet.flags & packet_flags::TRUNCATED != 0 {
        return None;
    }
    let mut transport = Vec::new();
    if !packet.is_later_fragment() {
        match packet.ip_proto {
            TCP => tcp(packet, &mut transport)?,
            UDP => {
                let header = UdpHeader {
                    source_port: packet.sport,
                    destination_port: packet.dport,
                    // A unit of several datagrams has no length that fits; 0 is for those (RFC 2675).
                    length: u16::try_from(packet.payload_len + 8).unwrap_or(0),
                    checksum: 0,
                };
                transport.extend(header.to_bytes());
            }
            _ => {}
        }
    }
    let mut bytes = Vec::new();
    match packet.ip_version {
        4 => {
            let address = |bytes: &[u8; 16]| [bytes[0], bytes[1], bytes[2], bytes[3]];
            let payload = u16::try_from(on_wire.min(IP4_MAX).saturating_sub(20)).ok()?;
            let mut header = Ipv4Header::new(
                payload,
                packet.ttl,
                IpNumber(packet.ip_proto),
                address(&packet.saddr),
                address(&packet.daddr),
            )
            .ok()?;
            header.identification = packet.ip_id as u16;
            header.dont_fragment = packet.frag & 0x4000 != 0;
            header.more_fragments = packet.frag & 0x2000 != 0;
            header.fragment_offset = IpFragOffset::try_new(packet.frag & 0x1fff).ok()?;
            header.dscp = etherparse::IpDscp::try_new(packet.tos >> 2).ok()?;
            header.ecn = etherparse::IpEcn::try_new(packet.tos & 3).ok()?;
            header.header_checksum = header.calc_header_checksum();
            header.write(&mut bytes).ok()?;
        }
        6 => {
            let header = Ipv6Header {
                traffic_class: packet.tos,
                flow_label: Ipv6FlowLabel::ZERO,
                payload_length: u16::try_from(on_wire.saturating_sub(40)).unwrap_or(0),
                next_header: IpNumber(packet.ip_proto),
                hop_limit: packet.ttl,
                source: packet.saddr,
                destination: packet.daddr,
            };
            header.write(&mut bytes).ok()?;
        }
        _ => return None,
    }
    bytes.extend(transport);
    Some(bytes)
}

fn tcp(packet: &event::Packet, out: &mut Vec<u8>) -> Option<()> {
    let mut header = TcpHeader::new(packet.sport, packet.dport, packet.seq, packet.window);
    let flag = |bit: u16| packet.tcp_flags & bit != 0;
    (header.fin, header.syn, header.rst) = (flag(1), flag(2), flag(4));
    (header.psh, header.ack, header.urg) = (flag(8), flag(16), flag(32));
    (header.ece, header.cwr, header.ns) = (flag(64), flag(128), flag(256));
    header.acknowledgment_number = packet.ack;
    // The header is as long as it was; of its options only the timestamp is known.
    let length = usize::from(packet.l4_len).saturating_sub(20).min(40);
    if packet.flags & packet_flags::TIMESTAMPS != 0 && length >= 12 {
        let stamp = [
            TcpOptionElement::Noop,
            TcpOptionElement::Noop,
            TcpOptionElement::Timestamp(packet.tsval, packet.tsecr),
        ];
        header.set_options(&stamp).ok()?;
    }
    let mut options = header.options.as_slice().to_vec();
    options.resize(length.next_multiple_of(4), 1);
    header.set_options_raw(&options).ok()?;
    header.write(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable;

    #[test]
    fn headers_are_those_of_the_record() {
        let mut packet = event::Packet::zeroed();
        (packet.ip_version, packet.ip_proto, packet.ttl) = (4, TCP, 64);
        (packet.sport, packet.dport, packet.seq) = (1, 2, 3);
        (packet.l4_len, packet.payload_len) = (32, 1000);
        (packet.tcp_flags, packet.flags) = (0x18, packet_flags::TIMESTAMPS);
        (packet.tsval, packet.tsecr) = (5, 6);
        let bytes = headers(&packet, 1052).expect("headers");
        assert_eq!(bytes.len(), 52);
        let found = etherparse::LaxSlicedPacket::from_ip(&bytes).expect("parses");
        let Some(etherparse::TransportSlice::Tcp(tcp)) = found.transport else {
            panic!("{found:?}");
        };
        assert_eq!(
            (tcp.sequence_number(), tcp.psh(), tcp.ack()),
            (3, true, true)
        );
        let stamp = tcp.options_iterator().flatten().last();
        assert_eq!(stamp, Some(TcpOptionElement::Timestamp(5, 6)));
    }
}
