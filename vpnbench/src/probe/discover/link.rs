//! Devices, addresses and routes of a namespace, as far as discovery needs them.
//!
//! The functions at the bottom ask the namespace of the calling thread: run them in a `Netns`.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::Nla;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoTun, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::netlink;
use crate::trace::model::{DeviceRef, TunnelKind};

/// A device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Interface index.
    pub ifindex: u32,
    /// Name.
    pub name: String,
    /// Kind as the kernel calls it (`tun`, `veth`, `wireguard` ..), None for hardware.
    pub kind: Option<String>,
    /// What kind of tunnel it is, None if it is not one.
    pub tunnel: Option<TunnelKind>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// The loopback device.
    pub loopback: bool,
    /// Bytes of link-layer header.
    pub l2_len: u32,
    /// Bridge or bond of which it is a member.
    pub controller: Option<u32>,
    /// TUN flags as far as netlink tells them, and queues, if a TUN or TAP.
    pub tun: Option<(u32, u32)>,
    /// Namespace id of the outer side, where it is not the device's own.
    pub link_netnsid: Option<i32>,
    /// Remote endpoint of a kernel tunnel that has a fixed one.
    pub remote: Option<IpAddr>,
    /// Addresses with prefix length.
    pub addresses: Vec<(IpAddr, u8)>,
}

impl Link {
    /// The device as the trace refers to it.
    pub fn reference(&self, netns: u32) -> DeviceRef {
        DeviceRef {
            name: self.name.clone(),
            ifindex: self.ifindex,
            netns,
            l2_len: self.l2_len,
        }
    }

    /// Devices which the kernel creates by itself with a tunnel module. Nobody uses them.
    pub fn is_fallback(&self) -> bool {
        const NAMES: &[&str] = &[
            "tunl0", "gre0", "gretap0", "erspan0", "sit0", "ip6tnl0", "ip6gre0", "ip_vti0",
            "ip6_vti0",
        ];
        NAMES.contains(&self.name.as_str())
    }
}

/// Devices of the calling thread's namespace with their addresses, by index.
pub fn links() -> io::Result<Vec<Link>> {
    let mut links: Vec<Link> = link_messages()?.iter().map(from_message).collect();
    for (ifindex, address, prefix) in addresses()? {
        if let Some(link) = links.iter_mut().find(|link| link.ifindex == ifindex) {
            link.addresses.push((address, prefix));
        }
    }
    links.sort_by_key(|link| link.ifindex);
    Ok(links)
}

/// All devices as netlink reports them.
pub(crate) fn link_messages() -> io::Result<Vec<LinkMessage>> {
    let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let answer = netlink::dump(NETLINK_ROUTE, request)?;
    let links = answer
        .messages
        .into_iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewLink(link) => Some(link),
            _ => None,
        });
    Ok(links.collect())
}

/// All addresses: interface index, address, prefix length.
pub(crate) fn addresses() -> io::Result<Vec<(u32, IpAddr, u8)>> {
    let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let answer = netlink::dump(NETLINK_ROUTE, request)?;
    let found = answer
        .messages
        .into_iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewAddress(address) => Some(address),
            _ => None,
        });
    Ok(found
        .filter_map(|message| local_address(&message))
        .collect())
}

/// On a point-to-point link `IFA_ADDRESS` is the other side and `IFA_LOCAL` is ours.
fn local_address(message: &AddressMessage) -> Option<(u32, IpAddr, u8)> {
    let pick = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| {
        message.attributes.iter().find_map(wanted)
    };
    let local = pick(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let any = pick(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    Some((
        message.header.index,
        local.or(any)?,
        message.header.prefix_len,
    ))
}

/// Name of a device in a netlink message.
pub(crate) fn name_of(message: &LinkMessage) -> Option<&str> {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.as_str()),
            _ => None,
        })
}

/// Kind of a device in a netlink message.
pub(crate) fn kind_of(message: &LinkMessage) -> Option<&InfoKind> {
    infos(message).find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind),
        _ => None,
    })
}

fn infos(message: &LinkMessage) -> impl Iterator<Item = &LinkInfo> {
    let list = message
        .attributes
        .iter()
        .filter_map(|attribute| match attribute {
            LinkAttribute::LinkInfo(infos) => Some(infos),
            _ => None,
        });
    list.flatten()
}

fn from_message(message: &LinkMessage) -> Link {
    let kind = kind_of(message);
    let data = infos(message).find_map(|info| match info {
        LinkInfo::Data(data) => Some(data),
        _ => None,
    });
    let tun = match data {
        Some(InfoData::Tun(attributes)) => Some(tun_attributes(attributes)),
        _ => None,
    };
    let mut link = Link {
        ifindex: message.header.index,
        name: name_of(message).unwrap_or_default().to_owned(),
        kind: kind.map(ToString::to_string),
        tunnel: kind.and_then(|kind| tunnel_kind(kind, tun.map_or(0, |(flags, _)| flags))),
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        loopback: message.header.flags.contains(LinkFlags::Loopback),
        l2_len: l2_len(message.header.link_layer_type),
        controller: None,
        tun,
        link_netnsid: None,
        remote: data.and_then(tunnel_remote),
        addresses: Vec::new(),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Controller(index) => link.controller = Some(*index),
            LinkAttribute::LinkNetNsId(id) => link.link_netnsid = Some(*id),
            _ => {}
        }
    }
    link
}

/// Bytes in front of the network header at the taps of such a device.
fn l2_len(kind: LinkLayerType) -> u32 {
    match kind {
        LinkLayerType::Ether | LinkLayerType::Loopback => 14,
        _ => 0,
    }
}

fn tunnel_kind(kind: &InfoKind, tun_flags: u32) -> Option<TunnelKind> {
    const IFF_TAP: u32 = libc::IFF_TAP as u32;
    Some(match kind {
        InfoKind::Tun if tun_flags & IFF_TAP != 0 => TunnelKind::Tap,
        InfoKind::Tun => TunnelKind::Tun,
        InfoKind::Wireguard => TunnelKind::KernelWireguard,
        InfoKind::Vxlan
        | InfoKind::Geneve
        | InfoKind::GreTap
        | InfoKind::GreTap6
        | InfoKind::GreTun
        | InfoKind::GreTun6
        | InfoKind::IpIp
        | InfoKind::Ip6Tnl
        | InfoKind::SitTun
        | InfoKind::Vti
        | InfoKind::Vti6
        | InfoKind::Gtp
        | InfoKind::Xfrm
        | InfoKind::ErSpan
        | InfoKind::Ip6ErSpan
        | InfoKind::BareUdp
        | InfoKind::Amt => TunnelKind::KernelOther,
        InfoKind::Other(name) if name == "ovpn" => TunnelKind::KernelOther,
        _ => return None,
    })
}

/// Flags and number of queues from `IFLA_TUN_*`. `IFF_NAPI` and `IFF_ONE_QUEUE` are not told.
fn tun_attributes(attributes: &[InfoTun]) -> (u32, u32) {
    const TYPE: u16 = 3;
    const PI: u16 = 4;
    const VNET_HDR: u16 = 5;
    const PERSIST: u16 = 6;
    const MULTI_QUEUE: u16 = 7;
    const NUM_QUEUES: u16 = 8;
    let (mut flags, mut queues) = (0, 1);
    for attribute in attributes {
        let mut value = vec![0; attribute.value_len()];
        attribute.emit_value(&mut value);
        let byte = u32::from(value.first().copied().unwrap_or_default());
        let set = |bit: libc::c_int| if byte != 0 { bit as u32 } else { 0 };
        match attribute.kind() {
            TYPE => flags |= byte,
            PI if byte == 0 => flags |= libc::IFF_NO_PI as u32,
            VNET_HDR => flags |= set(libc::IFF_VNET_HDR),
            PERSIST => flags |= set(0x0800),
            MULTI_QUEUE => flags |= set(libc::IFF_MULTI_QUEUE),
            NUM_QUEUES => {
                queues = value.try_into().map_or(queues, u32::from_ne_bytes);
            }
            _ => {}
        }
    }
    (flags, queues)
}

fn tunnel_remote(data: &InfoData) -> Option<IpAddr> {
    use netlink_packet_route::link::{InfoGeneve, InfoGre, InfoGre6, InfoIpTunnel, InfoVxlan};
    let found: Option<IpAddr> = match data {
        InfoData::Vxlan(list) => list.iter().find_map(|entry| match entry {
            InfoVxlan::Group(address) => Some((*address).into()),
            InfoVxlan::Group6(address) => Some((*address).into()),
            _ => None,
        }),
        InfoData::Geneve(list) => list.iter().find_map(|entry| match entry {
            InfoGeneve::Remote(address) => Some((*address).into()),
            InfoGeneve::Remote6(address) => Some((*address).into()),
            _ => None,
        }),
        InfoData::GreTun(list) | InfoData::GreTap(list) => {
            list.iter().find_map(|entry| match entry {
                InfoGre::Remote(address) => Some((*address).into()),
                _ => None,
            })
        }
        InfoData::GreTun6(list) | InfoData::GreTap6(list) => {
            list.iter().find_map(|entry| match entry {
                InfoGre6::Remote(address) => Some((*address).into()),
                _ => None,
            })
        }
        InfoData::IpTunnel(list) => list.iter().find_map(|entry| match entry {
            InfoIpTunnel::Remote(address) => Some(*address),
            _ => None,
        }),
        _ => None,
    };
    found.filter(|address| !address.is_unspecified() && !address.is_multicast())
}

/// The number by which the calling thread's namespace knows another, if it has one.
pub(crate) fn netns_id(other: &std::fs::File) -> io::Result<Option<i32>> {
    use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
    use std::os::fd::AsRawFd;
    let mut message = NsidMessage::default();
    message
        .attributes
        .push(NsidAttribute::Fd(other.as_raw_fd() as u32));
    let answer = netlink::request(NETLINK_ROUTE, RouteNetlinkMessage::GetNsId(message))?;
    let attributes = answer
        .messages
        .into_iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewNsId(id) => Some(id.attributes),
            _ => None,
        });
    Ok(attributes.flatten().find_map(|attribute| match attribute {
        NsidAttribute::Id(id) => Some(id).filter(|&id| id >= 0),
        _ => None,
    }))
}
