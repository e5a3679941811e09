//! Turns chosen devices into a plan: daemon, outer sockets, outer devices, ports.

use vpnbench_common::settings::PortKey;

use super::error::Error;
use super::link::Link;
use super::outer::{kernel_sockets, outside};
use super::process::{self, Holder};
use super::scene::{Candidate, Scene};
use super::wireguard::{self, Outer};
use super::{DAEMON, Plan, Selector};
use crate::trace::model::{DeviceRef, OuterSocket, Tunnel, TunnelKind, WatchedDevice};

/// A tunnel inside a tunnel is followed this deep.
const DEPTH_MAX: u32 = 4;

pub(super) struct Builder<'a> {
    pub(super) scene: &'a mut Scene,
    pub(super) selector: &'a Selector,
    pub(super) plan: Plan,
}

impl<'a> Builder<'a> {
    pub(super) fn new(scene: &'a mut Scene, selector: &'a Selector) -> Self {
        Self {
            scene,
            selector,
            plan: Plan::default(),
        }
    }

    pub(super) fn finish(self) -> Plan {
        self.plan
    }

    /// Whether the plan has the tunnel already.
    pub(super) fn lists(&self, netns: u32, name: &str) -> bool {
        self.plan
            .tunnels
            .iter()
            .any(|tunnel| tunnel.netns == netns && tunnel.interface == name)
    }

    /// Adds a tunnel, and those that carry its outer packets.
    pub(super) fn tunnel(&mut self, candidate: &Candidate, depth: u32) -> Result<(), Error> {
        let (netns, link) = (candidate.netns, &candidate.link);
        if self.lists(netns, &link.name) {
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
            outer_devices: outer_links
                .iter()
                .map(|(place, link)| link.reference(*place))
                .collect(),
            remotes: outside
                .remotes
                .iter()
                .map(|(_, address)| address.to_string())
                .collect(),
            sockets,
        };
        self.watch_tunnel(candidate, &tunnel);
        self.plan.tunnels.push(tunnel);
        self.carriers(link, &outer_links, depth)
    }

    /// Follows outer devices that are tunnels themselves.
    fn carriers(&mut self, link: &Link, outer: &[(u32, Link)], depth: u32) -> Result<(), Error> {
        for (place, carrier) in outer.iter().filter(|(_, carrier)| carrier.tunnel.is_some()) {
            let candidate = self.scene.candidate(*place, carrier.clone());
            let named = self.selector.outer_devices();
            if named.contains(&carrier.name.as_str()) || !self.scene.sends_on(&candidate) {
                continue;
            }
            if depth >= DEPTH_MAX {
                self.scene.note(format!(
                    "{}: more than {DEPTH_MAX} tunnels inside each other",
                    carrier.name
                ));
                continue;
            }
            self.scene.note(format!(
                "outer packets of {} go through the tunnel {}",
                link.name, carrier.name
            ));
            self.tunnel(&candidate, depth + 1)?;
        }
        Ok(())
    }

    /// The process that owns a device, and the outer sockets of all that hold it.
    fn daemon(&mut self, candidate: &Candidate) -> (Option<Holder>, Vec<OuterSocket>) {
        let mut sockets: Vec<OuterSocket> = Vec::new();
        let mut best: Option<((usize, u64), &Holder)> = None;
        for holder in &candidate.holders {
            self.plan.processes.push((holder.pid, DAEMON));
            let own = self.scene.outer_sockets_of(holder.pid, candidate);
            // Of a parent and its child with the same descriptors the busy one is the daemon.
            let rank = (own.len(), process::cpu_ticks(holder.pid));
            if best.is_none_or(|(other, _)| rank > other) {
                best = Some((rank, holder));
            }
            sockets.extend(own);
        }
        sockets.sort_by_key(|socket| {
            (
                socket.netns,
                socket.ip_proto,
                socket.local_port,
                socket.inode,
            )
        });
        sockets.dedup_by_key(|socket| socket.inode);
        let daemon = best.map(|(_, holder)| holder.clone());
        self.note_daemon(candidate, daemon.as_ref(), &sockets);
        (daemon, sockets)
    }

    fn note_daemon(
        &mut self,
        candidate: &Candidate,
        daemon: Option<&Holder>,
        sockets: &[OuterSocket],
    ) {
        let name = &candidate.link.name;
        match daemon {
            None if candidate.link.tun.is_some() => {
                self.scene.note(format!(
                    "no process holds {name} open: packets sent into it are lost"
                ));
            }
            Some(holder) if sockets.is_empty() => {
                self.scene.note(format!(
                    "pid {}, which holds {name}, has no UDP or TCP socket to the outside",
                    holder.pid
                ));
            }
            Some(holder) if candidate.holders.len() > 1 => {
                let pids: Vec<String> = candidate
                    .holders
                    .iter()
                    .map(|one| one.pid.to_string())
                    .collect();
                self.scene.note(format!(
                    "{name} is held by pids {}; pid {} is taken as its daemon",
                    pids.join(", "),
                    holder.pid
                ));
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
                    self.scene.note(format!(
                        "the kernel does not tell the peers of {name}: {error}"
                    ));
                    None
                }
            };
        }
        // The name may be that of another namespace's device: the port tells whose answer it is.
        let fits = |port| {
            sockets
                .iter()
                .any(|socket| socket.ip_proto == 17 && socket.local_port == port)
        };
        wireguard::daemon(&name)
            .ok()
            .filter(|outer| fits(outer.listen_port))
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
    pub(super) fn watch(&mut self, device: &DeviceRef, role: &str, port_filter: bool) {
        let same =
            |other: &&mut WatchedDevice| other.netns == device.netns && other.name == device.name;
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
        let link = match self.selector.outer_devices().is_empty() {
            false => self.scene.named_outer(netns, self.selector)?,
            true => link.clone(),
        };
        self.watch(&link.reference(netns), "outer", false);
        let name = &link.name;
        self.scene.note(format!(
            "no tunnel on this path: watching the bare device {name}"
        ));
        Ok(())
    }
}

fn port_key(socket: &OuterSocket) -> PortKey {
    PortKey {
        netns: socket.netns,
        port: socket.local_port,
        ip_proto: u16::from(socket.ip_proto),
    }
}

/// Device flags. `TUNGETIFF` tells all but one: it uses the bit of `IFF_NO_PI` to say that the queue
/// has no filter, and one more for a detached queue. Netlink knows that one, and not all others.
fn tun_flags(candidate: &Candidate) -> Option<u32> {
    const DETACHED: u32 = 0x0400;
    const NO_PI: u32 = libc::IFF_NO_PI as u32;
    let (by_netlink, _) = candidate.link.tun?;
    let by_queue = candidate.holders.iter().find_map(|holder| holder.flags);
    Some(by_queue.map_or(by_netlink, |flags| {
        flags & !(NO_PI | DETACHED) | by_netlink & NO_PI
    }))
}

/// Queues that processes hold. A child with its parent's descriptors adds none.
fn queues(candidate: &Candidate) -> Option<u32> {
    let (_, told) = candidate.link.tun?;
    let held = candidate.holders.iter().map(|holder| holder.queues).max();
    Some(told.max(1).min(held.map_or(0, |held| held.max(told))))
}
