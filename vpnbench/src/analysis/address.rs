//! Addresses and protocols of records, as text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The address in a record; `None` for anything but IPv4 and IPv6.
#[must_use]
pub fn ip(version: u8, bytes: &[u8; 16]) -> Option<IpAddr> {
    match version {
        4 => Some(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into()),
        6 => Some(Ipv6Addr::from(*bytes).into()),
        _ => None,
    }
}

/// `address:port` in the usual notation, the bare address without a port, `?` if unknown.
#[must_use]
pub fn endpoint(version: u8, bytes: &[u8; 16], port: Option<u16>) -> String {
    match (ip(version, bytes), port) {
        (Some(ip), Some(port)) => SocketAddr::new(ip, port).to_string(),
        (Some(ip), None) => ip.to_string(),
        (None, _) => "?".to_owned(),
    }
}

/// Name of an IP protocol number; the number itself where it has no short name.
#[must_use]
pub fn protocol(number: u8) -> String {
    let name = match number {
        1 => "icmp",
        4 => "ipip",
        6 => "tcp",
        17 => "udp",
        41 => "ipv6",
        47 => "gre",
        50 => "esp",
        58 => "icmpv6",
        132 => "sctp",
        136 => "udplite",
        _ => return number.to_string(),
    };
    name.to_owned()
}

/// Whether the protocol has ports in the usual place.
#[must_use]
pub fn has_ports(protocol: u8) -> bool {
    matches!(protocol, 6 | 17 | 132 | 136)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_both_families() {
        let mut four = [0; 16];
        four[..4].copy_from_slice(&[10, 2, 0, 1]);
        assert_eq!(endpoint(4, &four, Some(5201)), "10.2.0.1:5201");
        assert_eq!(endpoint(4, &four, None), "10.2.0.1");
        let six = Ipv6Addr::LOCALHOST.octets();
        assert_eq!(endpoint(6, &six, Some(53)), "[::1]:53");
        assert_eq!(endpoint(0, &six, Some(53)), "?");
        assert_eq!(protocol(17), "udp");
        assert_eq!(protocol(200), "200");
    }
}
