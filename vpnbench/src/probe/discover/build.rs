//! Turns chosen devices into a plan: daemon, outer sockets, outer devices, ports.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use vpnbench_common::settings::PortKey;

use super::error::Error;
use super::link::Link;
use super::process::{self, Holder};
use super::route::Way;
use super::scene::{Candidate, Scene};
use super::wireguard::{self, Outer};
use super::{DAEMON, Plan, Selector, socket};
use crate::trace::model::{DeviceRef, OuterSocket, Tunnel, TunnelKind, WatchedDevice};

/// A tunnel inside a tunnel is followed this deep.
const DEPTH_MAX: u32 = 4;

/// Outer devices per tunnel while its remotes are unknown; the kernel's table is small.
const GUESSES_MAX: usize = 6;

pub(super) struct Builder<'a> {
    pub(super) scene: &'a mut Scene,
    selector: &'a Selector,
    plan: Plan,
}

/// Where the outer packets of a tunnel go, as far as known.
#[derive(Default)]
struct Outside {
    /// Namespace of the outer side.
    netns: u32,
    remotes: BTreeSet<(u32, SocketAddr)>,
    mark: Option<u32>,
    /// Some sockets may send anywhere.
    open: bool,
}

impl<'a> Builder<'a> {
    pub(super) fn new(scene: &'a mut Scene, selector: &'a Selector) -> Self {
        Self { scene, selector, plan: Plan::default() }
    }

    pub(super) fn finish(self) -> Plan {
        self.plan
    }

    /// Adds a tunnel, and those that carry its outer packets.
    pub(super) fn tunnel(&mut self, candidate: &Candidate, depth: u32) -> Result<(), Error> {
        let (netns, link) = (candidate.netns, &candidate.link);
        let known = |tunnel: &Tunnel| tunnel.netns == netns && tunnel.interface == link.name;
        if self.plan.tunnels.iter().any(known) {
            return Ok(());
        }
        let kind = link.tunnel.unwrap_or_default();
        let (daemon, mut sockets) = self.daemon(candidate);
        let asked = self.wireguard(candidate, &sockets);
        let outer_netns = self.outer_netns(candidate, &sockets, daemon.as_ref());
        if let (TunnelKind::KernelWireguard, Some(outer)) = (kind, &asked) {
            sockets.extend(kernel_sockets(outer, outer_netns));
        }
        let outside = outside(outer_netns, link, &sockets, asked.as_ref());
        let outer_links = self.outer_devices(candidate, &outside)?;
        let tunnel = Tunnel {
            interface: link.name.clone(),
            ifindex: link.ifindex,
            netns,
            kind,
            mtu: link.mtu,
            tun_flags: tun_flags(candidate),
            queues: queues(candidate),
            daemon: daemon.as_ref().map(|holder| process::describe(holder.pid)),
            outer_devices: outer_links.iter().map(|(place, link)| link.reference(*place)).collect(),
            remotes: outside.remotes.iter().map(|(_, address)| address.to_string()).collect(),
            sockets,
        };
        self.watch_tunnel(candidate, &tunnel);
        self.plan.tunnels.push(tunnel);
        self.carriers(link, &outer_links, depth)
    }

    /// Follows outer devices that are tunnels themselves.
    fn carriers(&mut self, link: &Link, outer: &[(u32, Link)], depth: u32) -> Result<(), Error> {
        for (place, carrier) in outer.iter().filter(|(_, carrier)| carrier.tunnel.is_some()) {
            if depth >= DEPTH_MAX {
                self.scene.note(format!("{}: more than {DEPTH_MAX} tunnels inside each other", carrier.name));
                continue;
            }
            self.scene.note(format!("outer packets of {} go through the tunnel {}", link.name, carrier.name));
            let candidate = self.scene.candidate(*place, carrier.clone());
            self.tunnel(&candidate, depth + 1)?;
        }
        Ok(())
    }

    /// The process that owns a device, and the outer sockets of all that hold it.
    fn daemon(&mut self, candidate: &Candidate) -> (Option<Holder>, Vec<OuterSocket>) {
        let (netns, link) = (candidate.netns, &candidate.link);
        let inside: Vec<IpAddr> = link.addresses.iter().map(|&(address, _)| address).collect();
        let mut sockets: Vec<OuterSocket> = Vec::new();
        let mut best: Option<((usize, u64), &Holder)> = None;
        for holder in &candidate.holders {
            self.plan.processes.push((holder.pid, DAEMON));
            let mut own = self.scene.sockets_of(holder.pid, netns);
            own.retain(|socket| socket::is_outer(socket, if socket.netns == netns { &inside } else { &[] }));
            // Of a parent and its child with the same descriptors the busy one is the daemon.
            let rank = (own.len(), process::cpu_ticks(holder.pid));
            if best.is_none_or(|(other, _)| rank > other) {
                best = Some((rank, holder));
            }
            sockets.extend(own);
        }
        sockets.sort_by_key(|socket| (socket.netns, socket.ip_proto, socket.local_port, socket.inode));
        sockets.dedup_by_key(|socket| socket.inode);
        let daemon = best.map(|(_, holder)| holder.clone());
        self.note_daemon(candidate, daemon.as_ref(), &sockets);
        (daemon, sockets)
    }

    fn note_daemon(&mut self, candidate: &Candidate, daemon: Option<&Holder>, sockets: &[OuterSocket]) {
        let name = &candidate.link.name;
        match daemon {
            None if candidate.link.tun.is_some() => {
                self.scene.note(format!("no process holds {name} open: packets sent into it are lost"));
            }
            Some(holder) if sockets.is_empty() => {
                self.scene.note(format!("pid {}, which holds {name}, has no UDP or TCP socket to the outside", holder.pid));
            }
            Some(holder) if candidate.holders.len() > 1 => {
                let pids: Vec<String> = candidate.holders.iter().map(|one| one.pid.to_string()).collect();
                self.scene.note(format!("{name} is held by pids {}; pid {} is taken as its daemon", pids.join(", "), holder.pid));
            }
            _ => {}
        }
    }

    /// Asks WireGuard for its peers.
    fn wireguard(&mut self, candidate: &Candidate, sockets: &[OuterSocket]) -> Option<Outer> {
        let name = candidate.link.name.clone();
        if candidate.link.tunnel == Some(TunnelKind::KernelWireguard) {
            let netns = self.scene.netns(candidate.netns)?;
            let device = name.clone();
            return match netns.run(move || wireguard::kernel(&device)) {
                Ok(outer) => Some(outer),
                Err(error) => {
                    self.scene.note(format!("the kernel does not tell the peers of {name}: {error}"));
                    None
                }
            };
        }
        // The name may be that of another namespace's device: the port tells whose answer it is.
        let fits = |port| sockets.iter().any(|socket| socket.ip_proto == 17 && socket.local_port == port);
        wireguard::daemon(&name).ok().filter(|outer| fits(outer.listen_port))
    }

    fn outer_netns(&mut self, candidate: &Candidate, sockets: &[OuterSocket], daemon: Option<&Holder>) -> u32 {
        if let Some(id) = candidate.link.link_netnsid {
            match self.scene.peer_netns(candidate.netns, id) {
                Some(inum) => return inum,
                None => self.scene.note(format!(
                    "the outer side of {} is in another namespace that cannot be entered", candidate.link.name
                )),
            }
        }
        let socket = sockets.first().map(|socket| socket.netns);
        socket.or_else(|| daemon?.process_netns).unwrap_or(candidate.netns)
    }

    /// Devices by which outer packets leave.
    fn outer_devices(&mut self, candidate: &Candidate, outside: &Outside) -> Result<Vec<(u32, Link)>, Error> {
        if let Some(name) = self.selector.outer_device() {
            // A tunnel inside a tunnel has an outer device of its own.
            if self.plan.tunnels.is_empty() || !self.selector.netns.is_empty() {
                return Ok(vec![(outside.netns, self.scene.link(outside.netns, name)?)]);
            }
        }
        let mut found: Vec<(u32, Link)> = Vec::new();
        let peer = self.selector.peer.filter(|_| self.plan.tunnels.is_empty());
        let mut ways: Vec<(u32, IpAddr)> =
            outside.remotes.iter().map(|(netns, address)| (*netns, address.ip())).collect();
        ways.extend(peer.map(|address| (outside.netns, address)));
        ways.dedup();
        for (netns, address) in ways {
            if let Some(link) = self.outer_device(candidate, netns, address, outside.mark)?
                && !found.iter().any(|(place, other)| *place == netns && other.ifindex == link.ifindex)
            {
                found.push((netns, link));
            }
        }
        if found.is_empty() || (outside.open && peer.is_none()) {
            self.guess_outer(candidate, outside, &mut found)?;
        }
        Ok(found)
    }

    fn outer_device(
        &mut self,
        candidate: &Candidate,
        netns: u32,
        address: IpAddr,
        mark: Option<u32>,
    ) -> Result<Option<Link>, Error> {
        let own = [candidate.link.ifindex];
        let avoid: &[u32] = if netns == candidate.netns { &own } else { &[] };
        match self.scene.way(netns, address, mark, avoid) {
            Some(Ok(Way::Device(index))) if !avoid.contains(&index) => self.scene.link_by_index(netns, index),
            Some(Ok(Way::Local)) => {
                Ok(self.scene.links(netns)?.into_iter().find(|link| link.loopback))
            }
            _ => {
                let name = &candidate.link.name;
                self.scene.note(format!("no route to the remote {address} of {name} outside the tunnel"));
                Ok(None)
            }
        }
    }

    /// All devices that can reach somebody, while it is not known whom the tunnel talks to.
    fn guess_outer(
        &mut self,
        candidate: &Candidate,
        outside: &Outside,
        found: &mut Vec<(u32, Link)>,
    ) -> Result<(), Error> {
        let before = found.len();
        for link in self.scene.links(outside.netns)? {
            let usable = link.up && !link.loopback && link.tunnel.is_none() && link.controller.is_none();
            let listed = found.iter().any(|(place, other)| *place == outside.netns && other.ifindex == link.ifindex);
            if usable && !listed && !link.addresses.is_empty() && found.len() < GUESSES_MAX {
                found.push((outside.netns, link));
            }
        }
        if found.len() > before || found.is_empty() {
            let name = &candidate.link.name;
            let guesses: Vec<&str> = found[before..].iter().map(|(_, link)| link.name.as_str()).collect();
            self.scene.note(if found.is_empty() {
                format!("no device of the outer side of {name} is up; name it with --outer IFACE")
            } else {
                format!("not all remotes of {name} are known yet: also watching {} (--peer ADDR or --outer IFACE names it)", guesses.join(", "))
            });
        }
        Ok(())
    }

    fn watch_tunnel(&mut self, candidate: &Candidate, tunnel: &Tunnel) {
        self.watch(&candidate.link.reference(candidate.netns), "tunnel", false);
        self.plan.ports.extend(tunnel.sockets.iter().map(port_key));
        // Encapsulations without ports, or with a source port per flow, cannot be told apart.
        let filter = tunnel.kind != TunnelKind::KernelOther && !tunnel.sockets.is_empty();
        for device in &tunnel.outer_devices {
            self.watch(device, "outer", filter);
        }
    }

    /// Lists a device once: as a tunnel if it is one, unfiltered if anyone needs all of it.
    fn watch(&mut self, device: &DeviceRef, role: &str, port_filter: bool) {
        let same = |other: &&mut WatchedDevice| other.netns == device.netns && other.name == device.name;
        if let Some(other) = self.plan.devices.iter_mut().find(same) {
            if role == "tunnel" {
                other.role = role.to_owned();
            }
            other.port_filter &= port_filter;
            return;
        }
        self.plan.devices.push(WatchedDevice {
            name: device.name.clone(),
            netns: device.netns,
            ifindex: device.ifindex,
            role: role.to_owned(),
            l2_len: device.l2_len,
            port_filter,
        });
    }

    /// Adds a device without tunnel; all its packets are wanted.
    pub(super) fn bare(&mut self, netns: u32, link: &Link) -> Result<(), Error> {
        let named = self.selector.outer_device().map(str::to_owned);
        let link = match &named {
            Some(name) => self.scene.link(netns, name)?,
            None => link.clone(),
        };
        self.watch(&link.reference(netns), "outer", false);
        let name = &link.name;
        self.scene.note(format!("no tunnel on this path: watching the bare device {name}"));
        Ok(())
    }

    /// Adds what `--outer ADDR:PORT` names: the port, and the device by the route.
    pub(super) fn outer_address(&mut self, address: SocketAddr, scope: Option<u32>) -> Result<(), Error> {
        let tunnel = self.plan.tunnels.first();
        let socket = tunnel.and_then(|tunnel| tunnel.sockets.first()).map(|socket| socket.netns);
        let outer = tunnel.and_then(|tunnel| tunnel.outer_devices.first()).map(|device| device.netns);
        let Some(netns) = socket.or(outer).or(scope) else { return Ok(()) };
        self.plan.ports.extend([17, 6].map(|ip_proto| PortKey { netns, port: address.port(), ip_proto }));
        let ip = address.ip();
        let link = match self.scene.way(netns, ip, None, &[]) {
            Some(Ok(Way::Device(index))) => self.scene.link_by_index(netns, index)?,
            Some(Ok(Way::Local)) => self.scene.owner(netns, ip)?,
            Some(Err(source)) => {
                let netns = self.scene.label(netns);
                return Err(Error::Unroutable { destination: ip, netns, source });
            }
            None => None,
        };
        let Some(link) = link else { return Ok(()) };
        let device = link.reference(netns);
        self.watch(&device, "outer", true);
        if let Some(tunnel) = self.plan.tunnels.first_mut()
            && !tunnel.outer_devices.contains(&device)
        {
            tunnel.outer_devices.push(device);
        }
        Ok(())
    }

    /// Keeps a tunnel whose device is gone, so that its return is seen.
    pub(super) fn gone(&mut self, old: &Tunnel, plan: &Plan) {
        let tunnel = Tunnel { ifindex: 0, daemon: None, queues: None, sockets: Vec::new(), ..old.clone() };
        for device in &plan.devices {
            let outer = tunnel.outer_devices.iter().any(|one| one.netns == device.netns && one.name == device.name);
            if outer || (device.netns == old.netns && device.name == old.interface) {
                let reference = DeviceRef {
                    name: device.name.clone(),
                    ifindex: device.ifindex,
                    netns: device.netns,
                    l2_len: device.l2_len,
                };
                self.watch(&reference, &device.role, device.port_filter);
            }
        }
        self.plan.ports.extend(plan.ports.iter().copied());
        self.plan.tunnels.push(tunnel);
    }

    /// Between two lives of a daemon its old ports and outer devices stay in place: without them
    /// the filter would let everything or nothing pass until the next look.
    pub(super) fn keep_ports_of(&mut self, old: &Tunnel, plan: &Plan) {
        let same = |tunnel: &&mut Tunnel| tunnel.netns == old.netns && tunnel.interface == old.interface;
        let Some(tunnel) = self.plan.tunnels.iter_mut().find(same) else { return };
        if !tunnel.sockets.is_empty() || old.kind != tunnel.kind {
            return;
        }
        tunnel.outer_devices.clone_from(&old.outer_devices);
        tunnel.remotes.clone_from(&old.remotes);
        for device in &old.outer_devices {
            let filter = plan.devices.iter().any(|one| one.netns == device.netns && one.name == device.name && one.port_filter);
            if let Some(now) = self.plan.devices.iter_mut().find(|one| one.netns == device.netns && one.name == device.name) {
                now.port_filter = filter;
            } else {
                self.watch(device, "outer", filter);
            }
        }
        self.plan.ports.extend(plan.ports.iter().copied());
    }

    /// Keeps devices that are watched without a tunnel.
    pub(super) fn keep_bare(&mut self, plan: &Plan) {
        let of_tunnel = |device: &WatchedDevice| {
            plan.tunnels.iter().flat_map(|tunnel| &tunnel.outer_devices)
                .any(|one| one.netns == device.netns && one.name == device.name)
        };
        for device in plan.devices.iter().filter(|device| device.role == "outer" && !of_tunnel(device)) {
            let now = self.scene.link(device.netns, &device.name).ok();
            let reference = DeviceRef {
                name: device.name.clone(),
                ifindex: now.map_or(0, |link| link.ifindex),
                netns: device.netns,
                l2_len: device.l2_len,
            };
            self.watch(&reference, "outer", device.port_filter);
        }
    }
}

fn port_key(socket: &OuterSocket) -> PortKey {
    PortKey { netns: socket.netns, port: socket.local_port, ip_proto: u16::from(socket.ip_proto) }
}

/// Device flags. `TUNGETIFF` tells all but one: it uses the bit of `IFF_NO_PI` to say that the queue
/// has no filter, and one more for a detached queue. Netlink knows that one, and not all others.
fn tun_flags(candidate: &Candidate) -> Option<u32> {
    const DETACHED: u32 = 0x0400;
    const NO_PI: u32 = libc::IFF_NO_PI as u32;
    let (by_netlink, _) = candidate.link.tun?;
    let by_queue = candidate.holders.iter().find_map(|holder| holder.flags);
    Some(by_queue.map_or(by_netlink, |flags| flags & !(NO_PI | DETACHED) | by_netlink & NO_PI))
}

/// Queues that processes hold. A child with its parent's descriptors adds none.
fn queues(candidate: &Candidate) -> Option<u32> {
    let (_, told) = candidate.link.tun?;
    let held = candidate.holders.iter().map(|holder| holder.queues).max();
    Some(told.max(1).min(held.map_or(0, |held| held.max(told))))
}

fn kernel_sockets(outer: &Outer, netns: u32) -> Vec<OuterSocket> {
    let socket = |local: IpAddr| OuterSocket {
        ip_proto: 17,
        local,
        local_port: outer.listen_port,
        remote: None,
        netns,
        inode: 0,
        listening: false,
    };
    if outer.listen_port == 0 { Vec::new() } else { vec![socket(IpAddr::from([0; 4]))] }
}

fn outside(netns: u32, link: &Link, sockets: &[OuterSocket], asked: Option<&Outer>) -> Outside {
    let mut remotes: BTreeSet<(u32, SocketAddr)> = sockets
        .iter()
        .filter_map(|socket| socket.remote.map(|(ip, port)| (socket.netns, SocketAddr::new(ip, port))))
        .collect();
    let endpoints = asked.into_iter().flat_map(|outer| &outer.endpoints);
    remotes.extend(endpoints.map(|end| (netns, SocketAddr::new(socket::plain(end.ip()), end.port()))));
    remotes.extend(link.remote.map(|address| (netns, SocketAddr::new(address, 0))));
    let known = asked.is_some_and(|outer| !outer.endpoints.is_empty());
    let open = !known && sockets.iter().any(|socket| socket.ip_proto == 17 && socket.remote.is_none());
    let mark = asked.map(|outer| outer.fwmark).filter(|&mark| mark != 0);
    Outside { netns, remotes, mark, open }
}
