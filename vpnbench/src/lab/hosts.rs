//! The hosts of a run as network namespaces. What joins them is the business of `wire`.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::{LabError, Result};
use super::scenario::set_sysctl;
use super::undo::Undo;
use super::{netlink, netns};

/// Prefix lengths of the addresses on wires and tunnels.
pub(crate) const IPV4_PREFIX: u8 = 24;
/// See [`IPV4_PREFIX`].
pub(crate) const IPV6_PREFIX: u8 = 64;

/// Which hosts there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TopologyKind {
    /// Client a and server b.
    #[default]
    Pair,
    /// The study's three hosts lom, yuki and luna, all on one segment. "Ring" is how its
    /// benchmarks pair them: lom to yuki, yuki to luna, luna to lom.
    Ring,
}

/// The `[topology]` section of a scenario.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "snake_case")]
pub struct Topology {
    /// Which hosts there are.
    pub kind: TopologyKind,
    /// Whether they have IPv6 addresses, where the kernel has IPv6 at all.
    pub ipv6: bool,
}

impl Default for Topology {
    fn default() -> Topology {
        Topology {
            kind: TopologyKind::Pair,
            ipv6: true,
        }
    }
}

impl Topology {
    /// Short names of the hosts, in order.
    #[must_use]
    pub fn labels(&self) -> &'static [&'static str] {
        match self.kind {
            TopologyKind::Pair => &["a", "b"],
            TopologyKind::Ring => &["lom", "yuki", "luna"],
        }
    }
}

/// One host.
#[derive(Debug, Clone)]
pub struct Host {
    /// Its short name within the run: a, b, lom, yuki, luna.
    pub label: String,
    /// 1 for the first host; the last number of its addresses.
    pub number: u8,
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

/// All hosts. In a pair the client is always `a`; in a ring `a` is lom and `b` yuki.
#[derive(Debug, Clone)]
pub struct Hosts {
    /// The client's host.
    pub a: Host,
    /// The server's host.
    pub b: Host,
    /// The third host of a ring.
    pub others: Vec<Host>,
}

impl Hosts {
    /// Every host, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Host> {
        [&self.a, &self.b].into_iter().chain(&self.others)
    }

    /// The host with that short name.
    #[must_use]
    pub fn get(&self, label: &str) -> Option<&Host> {
        self.iter().find(|host| host.label == label)
    }

    /// Client and server of each link that a benchmark over all hosts uses: a to b, and in a ring
    /// each host to the next, the last to the first.
    #[must_use]
    pub fn links(&self) -> Vec<(&Host, &Host)> {
        let hosts: Vec<&Host> = self.iter().collect();
        if hosts.len() == 2 {
            return vec![(hosts[0], hosts[1])];
        }
        let next = hosts.iter().cycle().skip(1);
        hosts.iter().copied().zip(next.copied()).collect()
    }
}

/// Whether the kernel has IPv6.
pub(crate) fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

/// Creates the hosts' namespaces, without devices but `lo`; nothing of it touches the caller's.
pub(crate) fn create(undo: &mut Undo, id: &str, topology: &Topology) -> Result<Hosts> {
    let has_ipv6 = has_ipv6();
    let labels = topology.labels();
    let mut hosts = (1..).zip(labels).map(|(number, label)| {
        let host = host(id, label, number, has_ipv6 && topology.ipv6);
        undo.create_namespace(&host.name)?;
        netns::run_in(&host.netns, || set_sysctls(has_ipv6, topology.ipv6))?;
        netlink::bring_up(&host.netns, "lo", None, &[])?;
        Ok(host)
    });
    let mut next = || {
        let missing = || LabError::failed("creating", "the hosts")("a topology has two at least");
        hosts.next().unwrap_or_else(|| Err(missing()))
    };
    let (a, b) = (next()?, next()?);
    let others = hosts.collect::<Result<Vec<Host>>>()?;
    Ok(Hosts { a, b, others })
}

fn host(id: &str, label: &str, number: u8, has_ipv6: bool) -> Host {
    let name = format!("vb-{id}-{label}");
    Host {
        label: label.to_owned(),
        number,
        netns: netns::path(&name),
        name,
        device: format!("wire-{label}"),
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
fn set_sysctls(has_ipv6: bool, uses_ipv6: bool) -> Result<()> {
    if has_ipv6 {
        for scope in ["all", "default"] {
            // Duplicate address detection keeps an address unusable for a second or two, and
            // router solicitations are traffic nobody asked for.
            set_sysctl(&format!("net.ipv6.conf.{scope}.accept_dad"), "0")?;
            set_sysctl(&format!("net.ipv6.conf.{scope}.router_solicitations"), "0")?;
            if !uses_ipv6 {
                set_sysctl(&format!("net.ipv6.conf.{scope}.disable_ipv6"), "1")?;
            }
        }
    }
    // A host's default may be bbr, through a lossy userspace tunnel another experiment altogether.
    // Outside the first namespace the kernel refuses a default that is not generally allowed here
    // (tcp_allowed_congestion_control); then only the benchmark's own option pins it.
    if cubic_is_available() {
        let _refused = set_sysctl("net.ipv4.tcp_congestion_control", "cubic");
    }
    Ok(())
}

/// Whether TCP can use cubic here.
pub(crate) fn cubic_is_available() -> bool {
    congestion_is_available("cubic")
}

/// Whether TCP can use this congestion control here.
pub(crate) fn congestion_is_available(name: &str) -> bool {
    fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control")
        .is_ok_and(|available| available.split_whitespace().any(|one| one == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_links_each_host_to_the_next() {
        let at = |label, number| host("0", label, number, true);
        let pair = Hosts {
            a: at("a", 1),
            b: at("b", 2),
            others: Vec::new(),
        };
        let names = |hosts: &Hosts| -> Vec<(String, String)> {
            let links = hosts.links();
            links
                .iter()
                .map(|(from, to)| (from.label.clone(), to.label.clone()))
                .collect()
        };
        assert_eq!(names(&pair), [("a".to_owned(), "b".to_owned())]);
        let ring = Hosts {
            a: at("lom", 1),
            b: at("yuki", 2),
            others: vec![at("luna", 3)],
        };
        let expected = [("lom", "yuki"), ("yuki", "luna"), ("luna", "lom")];
        let expected = expected.map(|(from, to)| (from.to_owned(), to.to_owned()));
        assert_eq!(names(&ring), expected);
        assert_eq!(ring.get("luna").map(|host| host.number), Some(3));
    }
}
