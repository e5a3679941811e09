//! Two hosts as network namespaces, joined by a veth pair.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use super::error::{LabError, Result};
use super::undo::Undo;
use super::{netlink, netns};

/// Prefix lengths of the addresses on wires and tunnels.
pub(crate) const IPV4_PREFIX: u8 = 24;
/// See [`IPV4_PREFIX`].
pub(crate) const IPV6_PREFIX: u8 = 64;

/// One end of the wire.
#[derive(Debug, Clone)]
pub struct Host {
    /// Name of its namespace, for `ip netns exec`.
    pub name: String,
    /// The namespace's file.
    pub netns: PathBuf,
    /// Its physical (outer) device.
    pub device: String,
    /// Address on the wire.
    pub ipv4: Ipv4Addr,
    /// Address on the wire, where the kernel has IPv6.
    pub ipv6: Option<Ipv6Addr>,
}

/// Both ends. The client is always `a`.
#[derive(Debug, Clone)]
pub struct Hosts {
    /// The client's host.
    pub a: Host,
    /// The server's host.
    pub b: Host,
}

/// Creates both hosts and the wire; nothing of it touches the caller's namespace.
pub(crate) fn create(undo: &mut Undo, id: &str) -> Result<Hosts> {
    let has_ipv6 = Path::new("/proc/sys/net/ipv6").exists();
    let hosts = Hosts {
        a: host(id, "a", 1, has_ipv6),
        b: host(id, "b", 2, has_ipv6),
    };
    for host in [&hosts.a, &hosts.b] {
        undo.create_namespace(&host.name)?;
        netns::run_in(&host.netns, || set_sysctls(has_ipv6))?;
        netlink::bring_up(&host.netns, "lo", None, &[])?;
    }
    let (a, b) = (&hosts.a, &hosts.b);
    netlink::add_veth(&a.netns, &a.device, &b.device, &b.netns)?;
    for host in [a, b] {
        netlink::bring_up(
            &host.netns,
            &host.device,
            None,
            &addresses(host.ipv4, host.ipv6),
        )?;
    }
    Ok(hosts)
}

fn host(id: &str, side: &str, number: u8, has_ipv6: bool) -> Host {
    let name = format!("vb-{id}-{side}");
    Host {
        netns: netns::path(&name),
        name,
        device: format!("wire-{side}"),
        ipv4: Ipv4Addr::new(10, 99, 0, number),
        ipv6: has_ipv6.then(|| Ipv6Addr::new(0xfd00, 0x99, 0, 0, 0, 0, 0, number.into())),
    }
}

/// Addresses with their prefix lengths, as `netlink::bring_up` takes them.
pub(crate) fn addresses(ipv4: Ipv4Addr, ipv6: Option<Ipv6Addr>) -> Vec<(IpAddr, u8)> {
    let mut addresses = vec![(IpAddr::V4(ipv4), IPV4_PREFIX)];
    addresses.extend(ipv6.map(|ipv6| (IpAddr::V6(ipv6), IPV6_PREFIX)));
    addresses
}

/// Settings of a fresh namespace; runs inside it, before it has devices.
fn set_sysctls(has_ipv6: bool) -> Result<()> {
    if has_ipv6 {
        for scope in ["all", "default"] {
            // Duplicate address detection keeps an address unusable for a second or two, and
            // router solicitations are traffic nobody asked for.
            sysctl(&format!("ipv6/conf/{scope}/accept_dad"), "0")?;
            sysctl(&format!("ipv6/conf/{scope}/router_solicitations"), "0")?;
        }
    }
    // A host's default may be bbr, through a lossy userspace tunnel another experiment altogether.
    // Outside the first namespace the kernel refuses a default that is not generally allowed here
    // (tcp_allowed_congestion_control); then only the benchmark's own option pins it.
    if cubic_is_available() {
        let _refused = sysctl("ipv4/tcp_congestion_control", "cubic");
    }
    Ok(())
}

/// Whether TCP can use cubic here.
pub(crate) fn cubic_is_available() -> bool {
    fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control")
        .is_ok_and(|available| available.split_whitespace().any(|name| name == "cubic"))
}

fn sysctl(name: &str, value: &str) -> Result<()> {
    let path = Path::new("/proc/sys/net").join(name);
    fs::write(&path, value).map_err(LabError::file("writing", &path))
}
