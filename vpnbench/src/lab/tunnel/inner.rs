//! What an inner packet is: for the truth log, and to tell acknowledgements from data.

use std::net::IpAddr;

use etherparse::{InternetSlice, SlicedPacket, TransportSlice};
use serde::{Deserialize, Serialize};

/// An inner packet's identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inner {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Protocol number of what IP carries.
    pub protocol: u8,
    /// Source port of TCP and UDP.
    pub source_port: Option<u16>,
    /// Destination port of TCP and UDP.
    pub destination_port: Option<u16>,
    /// Identification of IPv4.
    pub ip_id: Option<u16>,
    /// TCP sequence number.
    pub tcp_sequence: Option<u32>,
    /// Bytes of TCP or UDP payload.
    pub payload: Option<u32>,
}

impl Inner {
    /// Reads the headers of an IP packet; none if it is no IP packet.
    pub(super) fn parse(packet: &[u8]) -> Option<Inner> {
        let sliced = SlicedPacket::from_ip(packet).ok()?;
        let (source, destination, protocol, ip_id): (IpAddr, IpAddr, u8, Option<u16>) =
            match sliced.net.as_ref()? {
                InternetSlice::Ipv4(ip) => {
                    let header = ip.header();
                    let addresses = (header.source_addr(), header.destination_addr());
                    let id = header.identification();
                    (
                        addresses.0.into(),
                        addresses.1.into(),
                        ip.payload_ip_number().0,
                        Some(id),
                    )
                }
                InternetSlice::Ipv6(ip) => {
                    let header = ip.header();
                    let addresses = (header.source_addr(), header.destination_addr());
                    (
                        addresses.0.into(),
                        addresses.1.into(),
                        ip.payload().ip_number.0,
                        None,
                    )
                }
                _ => return None,
            };
        let length = |payload: &[u8]| u32::try_from(payload.len()).ok();
        let (ports, tcp_sequence, payload) = match &sliced.transport {
            Some(TransportSlice::Tcp(tcp)) => (
                Some((tcp.source_port(), tcp.destination_port())),
                Some(tcp.sequence_number()),
                length(tcp.payload()),
            ),
            Some(TransportSlice::Udp(udp)) => (
                Some((udp.source_port(), udp.destination_port())),
                None,
                length(udp.payload()),
            ),
            _ => (None, None, None),
        };
        Some(Inner {
            source,
            destination,
            protocol,
            source_port: ports.map(|ports| ports.0),
            destination_port: ports.map(|ports| ports.1),
            ip_id,
            tcp_sequence,
            payload,
        })
    }

    /// Whether this is TCP without payload: an acknowledgement, or SYN, FIN, RST.
    pub(super) fn is_bare_tcp(&self) -> bool {
        self.tcp_sequence.is_some() && self.payload == Some(0)
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    #[test]
    fn reads_both_families() {
        let mut packet = Vec::new();
        let builder = PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).tcp(1, 2, 77, 1000);
        assert!(builder.write(&mut packet, &[]).is_ok());
        let Some(inner) = Inner::parse(&packet) else {
            panic!("not read")
        };
        assert!(inner.is_bare_tcp());
        assert_eq!((inner.source_port, inner.tcp_sequence), (Some(1), Some(77)));

        packet.clear();
        let builder = PacketBuilder::ipv6([1; 16], [2; 16], 64).udp(3, 4);
        assert!(builder.write(&mut packet, b"hello").is_ok());
        let Some(inner) = Inner::parse(&packet) else {
            panic!("not read")
        };
        assert!(!inner.is_bare_tcp());
        assert_eq!(
            (inner.protocol, inner.payload, inner.ip_id),
            (17, Some(5), None)
        );
        assert_eq!(Inner::parse(b"nonsense"), None);
    }
}
