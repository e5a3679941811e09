//! Hosts and devices of an import: numbers for the records, and what the trace says of them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use vpnbench_common::catalog::{PROBES, ProbeId, Tap};

use super::direction::Near;
use super::file::CaptureFile;
use super::plan::Place;
use super::stream::DeviceKey;
use crate::trace::FORMAT_VERSION;
use crate::trace::model::{
    Change, Clock, DeviceRef, Environment, INFERRED, Link, NOT_IN_CAPTURES, Namespace, OuterSocket,
    ProbeStatus, Start, Tunnel, TunnelKind, WatchedDevice,
};

/// Beginnings of the names of tunnel devices.
const TUNNEL_NAMES: [&str; 12] = [
    "tun",
    "wg",
    "utun",
    "tailscale",
    "ts",
    "nebula",
    "zt",
    "tinc",
    "ygg",
    "ovpn",
    "gre",
    "vxlan",
];

/// What a device is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Tunnel,
    Outer,
}

/// A device's numbers in records.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) netns: u32,
    pub(super) ifindex: u32,
    pub(super) role: Role,
}

struct Device {
    host: usize,
    /// Its packets were found inside of others.
    inside: bool,
    name: String,
    found: Found,
    l2_len: u32,
}

/// Hosts and devices.
pub(super) struct Places {
    names: Vec<String>,
    devices: Vec<Device>,
    by_key: BTreeMap<(usize, DeviceKey), usize>,
    /// Devices that the start frame has.
    at_start: usize,
    /// The last one that was asked for.
    last: Option<(usize, DeviceKey, Found)>,
}

impl Places {
    pub(super) fn new(names: Vec<String>) -> Places {
        Places {
            names,
            devices: Vec::new(),
            by_key: BTreeMap::new(),
            at_start: 0,
            last: None,
        }
    }

    /// Names of hosts.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// The device of a packet of a file.
    #[inline]
    pub(super) fn find(
        &mut self,
        file: usize,
        host: usize,
        place: Place,
        key: DeviceKey,
        described: &CaptureFile,
    ) -> Found {
        match &self.last {
            Some((last_file, last_key, found)) if *last_file == file && *last_key == key => *found,
            _ => self.look_up(file, host, place, key, described),
        }
    }

    /// The same of a device other than that of the packet before.
    #[inline(never)]
    fn look_up(
        &mut self,
        file: usize,
        host: usize,
        place: Place,
        key: DeviceKey,
        described: &CaptureFile,
    ) -> Found {
        let number = match self.by_key.get(&(file, key)) {
            Some(number) => *number,
            None => self.add(file, host, place, key, described),
        };
        let found = self.devices[number].found;
        self.last = Some((file, key, found));
        found
    }

    fn add(
        &mut self,
        file: usize,
        host: usize,
        place: Place,
        key: DeviceKey,
        described: &CaptureFile,
    ) -> usize {
        let stated = described
            .interface(key.interface)
            .and_then(|one| one.name.clone())
            .filter(|name| key.ifindex == 0 && name != "any" && !name.is_empty());
        let role = match place {
            _ if key.inside.is_some() => Role::Tunnel,
            Place::Inner | Place::Tap(Tap::TunTx | Tap::TunWrite) => Role::Tunnel,
            Place::Outer | Place::Tap(_) => Role::Outer,
            Place::Unknown => {
                let name = stated.as_deref().unwrap_or("");
                let named = TUNNEL_NAMES.iter().any(|begin| {
                    name.strip_prefix(begin)
                        .is_some_and(|rest| rest.chars().all(|one| one.is_ascii_digit()))
                });
                if key.bare || named {
                    Role::Tunnel
                } else {
                    Role::Outer
                }
            }
        };
        let of_host = self.devices.iter().filter(|device| device.host == host);
        let ifindex = of_host.clone().count() as u32 + 1;
        let same_role = of_host.filter(|device| device.found.role == role).count();
        let stated = match key.inside {
            Some(encapsulation) => Some(format!("{}{same_role}", encapsulation.name())),
            None => stated,
        };
        let name = stated.unwrap_or_else(|| match (key.ifindex, key.loopback) {
            (0, true) => "lo".to_owned(),
            (0, false) => {
                let kind = if role == Role::Tunnel { "tun" } else { "outer" };
                format!("{kind}{same_role}")
            }
            (index, _) => format!("if{index}"),
        });
        self.devices.push(Device {
            host,
            inside: key.inside.is_some(),
            name,
            found: Found {
                netns: netns(host),
                ifindex,
                role,
            },
            l2_len: if key.bare { 0 } else { 14 },
        });
        let number = self.devices.len() - 1;
        self.by_key.insert((file, key), number);
        number
    }

    /// Whether a tunnel device of a host was captured itself.
    pub(super) fn has_tunnel_device(&self, host: usize) -> bool {
        let mut own = self.devices.iter().filter(|one| one.host == host);
        own.any(|one| one.found.role == Role::Tunnel && !one.inside)
    }

    /// The start frame. Devices that are found later are a change.
    pub(super) fn start(
        &mut self,
        first_ns: u64,
        nears: &[Near],
        carriers: &[Option<OuterSocket>],
    ) -> Start {
        self.at_start = self.devices.len();
        let clock = Clock {
            monotonic_ns: first_ns,
            realtime_ns: first_ns,
            boottime_ns: first_ns,
        };
        let began = OffsetDateTime::from_unix_timestamp_nanos(first_ns.into());
        let began = began.ok().and_then(|time| time.format(&Rfc3339).ok());
        let mut start = Start {
            format_version: FORMAT_VERSION,
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            run_id: format!("capture-{first_ns}"),
            started_at: began.unwrap_or_default(),
            clock,
            tunnels: self.tunnels(carriers),
            devices: self.devices.iter().map(Device::watched).collect(),
            probes: probes(),
            environment: self.environment(first_ns, nears),
            ..Start::default()
        };
        start.host.hostname = self.names.join(", ");
        start
    }

    fn environment(&self, first_ns: u64, nears: &[Near]) -> Environment {
        let namespaces = self.names.iter().zip(nears).enumerate();
        let namespaces = namespaces.map(|(host, (name, near))| {
            let addresses = near.addresses().map(|(address, _)| ip(address).to_string());
            let devices = self.devices.iter().filter(|one| one.host == host);
            let mut links: Vec<Link> = devices.map(Device::link).collect();
            if let Some(first) = links.first_mut() {
                first.addresses = addresses.collect();
            }
            Namespace {
                netns: netns(host),
                name: Some(name.clone()),
                links,
                captured: true,
                ..Namespace::default()
            }
        });
        Environment {
            time_ns: first_ns,
            namespaces: namespaces.collect(),
            ..Environment::default()
        }
    }

    fn tunnels(&self, carriers: &[Option<OuterSocket>]) -> Vec<Tunnel> {
        let tunnels = self
            .devices
            .iter()
            .filter(|one| one.found.role == Role::Tunnel);
        tunnels
            .map(|device| {
                let outer = self
                    .devices
                    .iter()
                    .filter(|one| one.host == device.host && one.found.role == Role::Outer);
                let socket = carriers.get(device.host).cloned().flatten();
                let remote = socket.as_ref().and_then(|one| one.remote);
                Tunnel {
                    sockets: socket.into_iter().collect(),
                    remotes: remote
                        .map(|(ip, port)| SocketAddr::new(ip, port).to_string())
                        .into_iter()
                        .collect(),
                    interface: device.name.clone(),
                    ifindex: device.found.ifindex,
                    netns: device.found.netns,
                    kind: TunnelKind::Captured,
                    outer_devices: outer.map(Device::reference).collect(),
                    ..Tunnel::default()
                }
            })
            .collect()
    }

    /// Devices whose first packet came late.
    pub(super) fn changes(&self, time_ns: u64) -> Vec<Change> {
        let late = &self.devices[self.at_start..];
        if late.is_empty() {
            return Vec::new();
        }
        let names: Vec<&str> = late.iter().map(|device| device.name.as_str()).collect();
        vec![Change {
            time_ns,
            what: format!("devices whose packets begin late: {}", names.join(", ")),
            tunnels: Vec::new(),
            devices: late.iter().map(Device::watched).collect(),
        }]
    }
}

/// Number of a host's namespace.
pub(super) fn netns(host: usize) -> u32 {
    host as u32 + 1
}

/// An address of records.
pub(super) fn ip((version, bytes): super::direction::Address) -> IpAddr {
    match version {
        4 => Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into(),
        _ => Ipv6Addr::from(bytes).into(),
    }
}

fn probes() -> Vec<ProbeStatus> {
    let rows = PROBES.iter().map(|row| {
        let (attached, kind, reason) = match row.id {
            ProbeId::NetDevStartXmit | ProbeId::NetifReceiveSkb => (true, "capture", None),
            ProbeId::TcpProbe
            | ProbeId::TcpRetransmitSkb
            | ProbeId::TcpRetransmitSynack
            | ProbeId::TcpCongStateSet => (true, INFERRED, Some("concluded from packets")),
            _ => (false, "capture", Some(NOT_IN_CAPTURES)),
        };
        ProbeStatus {
            id: row.id as u8,
            name: row.name.to_owned(),
            kind: kind.to_owned(),
            attached,
            reason: reason.map(str::to_owned),
        }
    });
    rows.collect()
}

impl Device {
    fn watched(&self) -> WatchedDevice {
        WatchedDevice {
            name: self.name.clone(),
            netns: self.found.netns,
            ifindex: self.found.ifindex,
            role: match self.found.role {
                Role::Tunnel => "tunnel".to_owned(),
                Role::Outer => "outer".to_owned(),
            },
            l2_len: self.l2_len,
            port_filter: false,
        }
    }

    fn link(&self) -> Link {
        Link {
            ifindex: self.found.ifindex,
            name: self.name.clone(),
            ..Link::default()
        }
    }

    fn reference(&self) -> DeviceRef {
        DeviceRef {
            name: self.name.clone(),
            ifindex: self.found.ifindex,
            netns: self.found.netns,
            l2_len: self.l2_len,
        }
    }
}
