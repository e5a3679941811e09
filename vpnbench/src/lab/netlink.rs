//! Links and addresses through netlink, inside a namespace.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use futures_util::TryStreamExt;
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::link::LinkAttribute;
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVeth, LinkWireguard, RouteMessageBuilder};

use super::error::{LabError, Result};
use super::netns;

type Outcome<T> = std::result::Result<T, rtnetlink::Error>;

/// What a device has moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Into the network stack.
    pub(crate) received: u64,
    /// Out of the network stack.
    pub(crate) sent: u64,
    /// Packets dropped on their way out, super-packets counted once.
    pub(crate) not_sent: u64,
}

/// Creates a veth pair with its ends in two namespaces.
pub(crate) fn add_veth(netns: &Path, near: &str, far_netns: &Path, far: &str) -> Result<()> {
    let file = std::fs::File::open(far_netns).map_err(LabError::file("opening", far_netns))?;
    let far_fd = std::os::fd::AsRawFd::as_raw_fd(&file);
    request(netns, "creating veth pair", near, async move |handle| {
        handle
            .link()
            .add(LinkVeth::new(near, far).build())
            .execute()
            .await?;
        let moved = LinkUnspec::new_with_name(far).setns_by_fd(far_fd).build();
        handle.link().set(moved).execute().await
    })
}

/// Creates a bridge without spanning tree, which forwards at once, and brings it up.
pub(crate) fn add_bridge(netns: &Path, name: &str) -> Result<()> {
    request(netns, "creating bridge", name, async move |handle| {
        // Snooping would hold back multicast, IPv6 neighbour discovery included, until the bridge
        // has seen who wants it.
        let bridge = LinkBridge::new(name).mcast_snooping(false).up().build();
        handle.link().add(bridge).execute().await
    })
}

/// Makes a device a port of a bridge and brings it up.
pub(crate) fn enslave(netns: &Path, port: &str, bridge: &str) -> Result<()> {
    request(netns, "adding a bridge port", port, async move |handle| {
        let bridge = link(&handle, bridge).await?.0;
        let change = LinkUnspec::new_with_name(port).controller(bridge).up();
        handle.link().set(change.build()).execute().await
    })
}

/// Sets how many packets a device's queue takes.
pub(crate) fn set_queue_length(netns: &Path, device: &str, length: u32) -> Result<()> {
    let operation = "setting the queue length of";
    request(netns, operation, device, async move |handle| {
        let change = LinkUnspec::new_with_name(device).txqueuelen(length);
        handle.link().set(change.build()).execute().await
    })
}

/// Limits how many segments a super-packet that leaves by a device may have.
pub(crate) fn set_gso_max_segs(netns: &Path, device: &str, segments: u32) -> Result<()> {
    request(
        netns,
        "setting gso_max_segs of",
        device,
        async move |handle| {
            let change = LinkUnspec::new_with_name(device)
                .append_extra_attribute(LinkAttribute::GsoMaxSegs(segments));
            handle.link().set(change.build()).execute().await
        },
    )
}

/// Number of a device.
pub(crate) fn index(netns: &Path, device: &str) -> Result<u32> {
    request(netns, "looking for", device, async move |handle| {
        Ok(link(&handle, device).await?.0)
    })
}

/// Gives a device its addresses and brings it up.
pub(crate) fn bring_up(
    netns: &Path,
    device: &str,
    mtu: Option<u32>,
    addresses: &[(IpAddr, u8)],
) -> Result<()> {
    request(netns, "configuring", device, async move |handle| {
        let index = link(&handle, device).await?.0;
        for (address, prefix) in addresses {
            handle
                .address()
                .add(index, *address, *prefix)
                .execute()
                .await?;
        }
        let mut change = LinkUnspec::new_with_index(index).up();
        if let Some(mtu) = mtu {
            change = change.mtu(mtu);
        }
        handle.link().set(change.build()).execute().await
    })
}

/// Creates a WireGuard device. A kernel without WireGuard makes the run a skipped one.
pub(crate) fn add_wireguard(netns: &Path, device: &str) -> Result<()> {
    let mut unknown = false;
    let outcome = request(netns, "creating WireGuard device", device, async |handle| {
        let added = handle
            .link()
            .add(LinkWireguard::new(device).build())
            .execute()
            .await;
        if let Err(rtnetlink::Error::NetlinkError(error)) = &added {
            unknown = error.raw_code() == -libc::EOPNOTSUPP;
        }
        added
    });
    if unknown {
        let what = "the kernel's wireguard module not found (modprobe wireguard)";
        return Err(LabError::Skipped(what.to_owned()));
    }
    outcome
}

/// A device's addresses.
pub(crate) fn addresses(netns: &Path, device: &str) -> Result<Vec<IpAddr>> {
    request(netns, "reading addresses of", device, async move |handle| {
        let index = link(&handle, device).await?.0;
        let mut found = Vec::new();
        let mut messages = handle
            .address()
            .get()
            .set_link_index_filter(index)
            .execute();
        while let Some(message) = messages.try_next().await? {
            let mut attributes = message.attributes.iter();
            let address = attributes.find_map(|attribute| match attribute {
                // On point-to-point devices `Address` would be the peer's.
                AddressAttribute::Local(address) => Some(*address),
                _ => None,
            });
            let mut attributes = message.attributes.iter();
            let address = address.or_else(|| {
                attributes.find_map(|attribute| match attribute {
                    AddressAttribute::Address(address) => Some(*address),
                    _ => None,
                })
            });
            found.extend(address);
        }
        Ok(found)
    })
}

/// Routes a single address through a gateway on a device's network.
pub(crate) fn add_host_route(
    netns: &Path,
    to: Ipv4Addr,
    gateway: Ipv4Addr,
    device: &str,
) -> Result<()> {
    request(netns, "adding a route on", device, async move |handle| {
        let index = link(&handle, device).await?.0;
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(to, 32)
            .gateway(gateway)
            .output_interface(index)
            .build();
        handle.route().add(route).execute().await
    })
}

/// A device's byte counters.
pub(crate) fn counters(netns: &Path, device: &str) -> Result<Counters> {
    request(netns, "reading counters of", device, async move |handle| {
        Ok(link(&handle, device).await?.1)
    })
}

/// Whether a device exists.
pub(crate) fn exists(netns: &Path, device: &str) -> Result<bool> {
    request(netns, "looking for", device, async move |handle| {
        Ok(link(&handle, device).await.is_ok())
    })
}

async fn link(handle: &Handle, device: &str) -> Outcome<(u32, Counters)> {
    let mut links = handle.link().get().match_name(device).execute();
    let message = links
        .try_next()
        .await?
        .ok_or(rtnetlink::Error::RequestFailed)?;
    let counters = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::Stats64(stats) => Some(Counters {
                received: stats.rx_bytes,
                sent: stats.tx_bytes,
                not_sent: stats.tx_dropped,
            }),
            _ => None,
        });
    Ok((
        message.header.index,
        counters.unwrap_or(Counters {
            received: 0,
            sent: 0,
            not_sent: 0,
        }),
    ))
}

fn request<T: Send>(
    netns: &Path,
    operation: &'static str,
    device: &str,
    work: impl AsyncFnOnce(Handle) -> Outcome<T> + Send,
) -> Result<T> {
    netns::run_in(netns, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(LabError::failed("starting", "the netlink client"))?;
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection()
                .map_err(LabError::failed("opening", "a netlink socket"))?;
            tokio::spawn(connection);
            work(handle)
                .await
                .map_err(LabError::failed(operation, device))
        })
    })
}
