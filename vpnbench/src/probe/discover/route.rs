//! Which device a packet leaves by. The functions ask the namespace of the calling thread.

use std::io;
use std::net::IpAddr;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteType,
};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::netlink;

/// Where packets to an address go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Out of this device.
    Device(u32),
    /// The address is one of this namespace's own.
    Local,
}

/// Looks up the route to an address, for packets with a firewall mark if one is given.
pub fn lookup(destination: IpAddr, mark: Option<u32>) -> io::Result<Way> {
    let mut message = RouteMessage::default();
    message.header.address_family = family(destination);
    message.header.destination_prefix_length = bits(destination);
    // Without it the answer does not name the table it came from and kernels before 4.4 differ.
    message.header.flags = RouteFlags::LookupTable;
    message
        .attributes
        .push(RouteAttribute::Destination(destination.into()));
    if let Some(mark) = mark {
        message.attributes.push(RouteAttribute::Mark(mark));
    }
    let answer = netlink::request(NETLINK_ROUTE, RouteNetlinkMessage::GetRoute(message))?;
    let route = answer
        .messages
        .into_iter()
        .find_map(|message| match message {
            RouteNetlinkMessage::NewRoute(route) => Some(route),
            _ => None,
        });
    let route = route.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    match (route.header.kind, out_device(&route)) {
        (RouteType::Local, _) => Ok(Way::Local),
        (_, Some(device)) => Ok(Way::Device(device)),
        _ => Err(io::ErrorKind::NetworkUnreachable.into()),
    }
}

/// The most specific route of the main table to an address that avoids a device. Policy routing
/// leads marked packets of a VPN around the tunnel; where the mark is unknown this is their way.
pub fn lookup_around(destination: IpAddr, avoid: &[u32]) -> io::Result<Option<u32>> {
    let usable = main_routes(family(destination))?
        .into_iter()
        .filter_map(|route| {
            let device = out_device(&route).filter(|device| !avoid.contains(device))?;
            covers(&route, destination).then_some((
                route.header.destination_prefix_length,
                priority(&route),
                device,
            ))
        });
    let best = usable.max_by_key(|&(length, priority, _)| (length, std::cmp::Reverse(priority)));
    Ok(best.map(|(_, _, device)| device))
}

/// Unicast routes of the main table of one family.
pub(crate) fn main_routes(family: AddressFamily) -> io::Result<Vec<RouteMessage>> {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    let answer = netlink::dump(NETLINK_ROUTE, RouteNetlinkMessage::GetRoute(message))?;
    let routes = answer
        .messages
        .into_iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewRoute(route)
                if route.header.table == RouteHeader::RT_TABLE_MAIN =>
            {
                Some(route)
            }
            _ => None,
        });
    Ok(routes
        .filter(|route| route.header.kind != RouteType::Local)
        .collect())
}

/// Device of a route, or of the first path of a multipath route.
pub(crate) fn out_device(route: &RouteMessage) -> Option<u32> {
    route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Oif(device) => Some(*device),
            RouteAttribute::MultiPath(paths) => paths.first().map(|path| path.interface_index),
            _ => None,
        })
}

fn priority(route: &RouteMessage) -> u32 {
    let found = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Priority(priority) => Some(*priority),
            _ => None,
        });
    found.unwrap_or_default()
}

fn covers(route: &RouteMessage, address: IpAddr) -> bool {
    let network = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(network) => ip(network),
            _ => None,
        });
    let length = u32::from(route.header.destination_prefix_length);
    match (network, address) {
        (None, _) => length == 0,
        (Some(IpAddr::V4(network)), IpAddr::V4(address)) => {
            (network.to_bits() ^ address.to_bits()).leading_zeros() >= length
        }
        (Some(IpAddr::V6(network)), IpAddr::V6(address)) => {
            (network.to_bits() ^ address.to_bits()).leading_zeros() >= length
        }
        _ => false,
    }
}

/// The IP address in a route attribute.
pub(crate) fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_cover() {
        let route = |network: &str, length| {
            let mut route = RouteMessage::default();
            route.header.destination_prefix_length = length;
            if let Ok(network) = network.parse::<IpAddr>() {
                route
                    .attributes
                    .push(RouteAttribute::Destination(network.into()));
            }
            route
        };
        let is = |network: &str, length, address: &str| {
            covers(&route(network, length), address.parse().unwrap())
        };
        assert!(is("10.0.0.0", 8, "10.1.2.3") && !is("10.0.0.0", 8, "11.1.2.3"));
        assert!(is("", 0, "1.2.3.4") && is("", 0, "::1"));
        assert!(is("fd00::", 64, "fd00::1") && !is("fd00::", 64, "fd00:0:0:1::1"));
        assert!(is("1.2.3.4", 32, "1.2.3.4") && !is("1.2.3.4", 32, "1.2.3.5"));
    }

    #[test]
    fn loopback_is_local() {
        assert_eq!(
            lookup("127.0.0.1".parse().unwrap(), None).unwrap(),
            Way::Local
        );
    }
}
