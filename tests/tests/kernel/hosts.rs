//! Quiet namespaces: no neighbour, router or group message that a test did not ask for.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vpnbench::probe::netns::{Netns, NetnsSpec};
use vpnbench_tests::netns::{Namespace, unique, wait_for};

use crate::accounts::silent;

/// The wire between two hosts, by a name that nobody else on the machine uses.
pub(crate) fn wire() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| unique("vd"))
}

/// IP version of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V4 => "v4",
            Self::V6 => "v6",
        }
    }

    /// 4 or 6.
    pub(crate) fn version(self) -> u8 {
        match self {
            Self::V4 => 4,
            Self::V6 => 6,
        }
    }

    /// Address of a host on a network.
    pub(crate) fn address(self, network: u8, host: u8) -> IpAddr {
        match self {
            Self::V4 => IpAddr::from([10, network, 0, host]),
            Self::V6 => {
                let network = u16::from(network);
                IpAddr::from([0xfd00, 0, 0, network, 0, 0, 0, u16::from(host)])
            }
        }
    }

    /// The address with the length of its network.
    pub(crate) fn with_prefix(self, network: u8, host: u8) -> String {
        let length = match self {
            Self::V4 => 24,
            Self::V6 => 64,
        };
        format!("{}/{length}", self.address(network, host))
    }

    /// Bytes of the network header.
    pub(crate) fn header(self) -> u64 {
        match self {
            Self::V4 => 20,
            Self::V6 => 40,
        }
    }
}

/// A namespace with a thread inside.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) namespace: Namespace,
    pub(crate) netns: Netns,
}

impl Host {
    pub(crate) fn new(family: Family) -> Result<Self> {
        let namespace = Namespace::new()?;
        let netns = Netns::open(&NetnsSpec::Name(namespace.name.clone()))?;
        let host = Self { namespace, netns };
        let without_v6 = if family == Family::V4 { "1" } else { "0" };
        for scope in ["all", "default"] {
            for (name, value) in [
                ("disable_ipv6", without_v6),
                ("accept_dad", "0"),
                ("accept_ra", "0"),
                ("router_solicitations", "0"),
                ("mldv1_unsolicited_report_interval", "1"),
                ("mldv2_unsolicited_report_interval", "1"),
            ] {
                host.set(&format!("net/ipv6/conf/{scope}/{name}"), value)?;
            }
        }
        Ok(host)
    }

    pub(crate) fn inum(&self) -> u32 {
        self.netns.inum()
    }

    pub(crate) fn name(&self) -> &str {
        &self.namespace.name
    }

    /// Runs `ip` here.
    pub(crate) fn ip(&self, arguments: &str) -> Result<String> {
        self.namespace.ip(arguments)
    }

    /// Runs something on a thread that is here.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        self.netns.run(job)
    }

    /// Sets a sysctl.
    pub(crate) fn set(&self, name: &str, value: &str) -> Result<()> {
        let (path, value) = (PathBuf::from("/proc/sys").join(name), value.to_owned());
        let written = self.run({
            let path = path.clone();
            move || std::fs::write(path, value)
        });
        written.with_context(|| path.display().to_string())
    }

    /// A UDP socket here.
    pub(crate) fn udp(&self, address: IpAddr, port: u16) -> Result<UdpSocket> {
        let bound = self.run(move || UdpSocket::bind(SocketAddr::new(address, port)));
        bound.with_context(|| format!("{address} port {port}"))
    }

    /// Brings a device up with an address.
    pub(crate) fn up(&self, device: &str, family: Family, network: u8, host: u8) -> Result<()> {
        let address = family.with_prefix(network, host);
        let nodad = if family == Family::V6 { "nodad" } else { "" };
        self.ip(&format!("addr add {address} dev {device} {nodad}"))?;
        self.ip(&format!("link set {device} up"))?;
        Ok(())
    }

    /// Waits until the kernel has taken note that a device is up, which it does once a second.
    pub(crate) fn wait_until_up(&self, device: &str) -> Result<()> {
        let show = format!("-o link show {device}");
        let up = wait_for(Duration::from_secs(5), || {
            self.ip(&show).is_ok_and(|line| {
                !line.contains("state DOWN") && !line.contains("state LOWERLAYERDOWN")
            })
        });
        ensure!(up, "{device} does not come up");
        Ok(())
    }

    /// Makes a neighbour known for good.
    pub(crate) fn neighbour(&self, device: &str, address: IpAddr, hardware: &str) -> Result<()> {
        self.ip(&format!(
            "neigh replace {address} lladdr {hardware} dev {device} nud permanent"
        ))?;
        Ok(())
    }
}

/// The kernel tells of a link's change up to a second later (net/core/link_watch.c, `linkwatch_schedule_work`), and
/// then IPv6 reports its multicast groups once more (net/ipv6/addrconf.c, `NETDEV_CHANGE`): more than that.
const LINK_WATCH: Duration = Duration::from_millis(1200);

/// Two hosts on a wire, addresses 1 and 2 of network 99.
pub(crate) fn wired(family: Family) -> Result<[Host; 2]> {
    let (a, b) = (Host::new(family)?, Host::new(family)?);
    let hardware = ["02:00:00:00:63:01", "02:00:00:00:63:02"];
    a.ip(&format!(
        "link add {0} address {1} type veth peer name {0} address {2} netns {3}",
        wire(),
        hardware[0],
        hardware[1],
        b.name()
    ))?;
    for (host, number) in [(&a, 1), (&b, 2)] {
        host.up(wire(), family, 99, number)?;
        let other = 3 - number;
        let address = family.address(99, other);
        host.neighbour(wire(), address, hardware[usize::from(other) - 1])?;
    }
    a.wait_until_up(wire())?;
    b.wait_until_up(wire())?;
    if family == Family::V6 {
        silent(&[&a, &b], LINK_WATCH)?;
    }
    Ok([a, b])
}
