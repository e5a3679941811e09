//! The outer side of a tunnel: to whom its packets go and by which devices they leave.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use vpnbench_common::settings::PortKey;

use super::build::Builder;
use super::error::Error;
use super::link::Link;
use super::process::Holder;
use super::route::Way;
use super::scene::Candidate;
use super::socket;
use super::wireguard::Outer;
use crate::trace::model::{OuterSocket, TunnelKind};

/// Outer devices per tunnel while its remotes are unknown; the kernel's table is small.
const GUESSES_MAX: usize = 6;

/// Where the outer packets of a tunnel go, as far as known.
#[derive(Default)]
pub(super) struct Outside {
    /// Namespace of the outer side.
    netns: u32,
    pub(super) remotes: BTreeSet<(u32, SocketAddr)>,
    mark: Option<u32>,
    /// Addresses of their own to which sockets without a remote are bound.
    locals: BTreeSet<(u32, IpAddr)>,
    /// Some sockets may send anywhere.
    open: bool,
}

impl Builder<'_> {
    pub(super) fn outer_netns(
        &mut self,
        candidate: &Candidate,
        sockets: &[OuterSocket],
        daemon: Option<&Holder>,
    ) -> u32 {
        if let Some(id) = candidate.link.link_netnsid {
            match self.scene.peer_netns(candidate.netns, id) {
                Some(inum) => return inum,
                None => self.scene.note(format!(
                    "the outer side of {} is in another namespace that cannot be entered",
                    candidate.link.name
                )),
            }
        }
        let socket = sockets.first().map(|socket| socket.netns);
        socket
            .or_else(|| daemon?.process_netns)
            .unwrap_or(candidate.netns)
    }

    /// Devices by which outer packets leave.
    pub(super) fn outer_devices(
        &mut self,
        candidate: &Candidate,
        outside: &Outside,
    ) -> Result<Vec<(u32, Link)>, Error> {
        // A tunnel inside a tunnel has an outer device of its own.
        if !self.selector.outer_devices().is_empty()
            && (self.plan.tunnels.is_empty() || !self.selector.netns.is_empty())
        {
            let link = self.scene.named_outer(outside.netns, self.selector)?;
            return Ok(vec![(outside.netns, link)]);
        }
        let mut found: Vec<(u32, Link)> = Vec::new();
        let peer = self.selector.peer.filter(|_| self.plan.tunnels.is_empty());
        let mut ways: Vec<(u32, IpAddr)> = outside
            .remotes
            .iter()
            .map(|(netns, address)| (*netns, address.ip()))
            .collect();
        ways.extend(peer.map(|address| (outside.netns, address)));
        ways.dedup();
        for (netns, address) in ways {
            if let Some(link) = self.outer_device(candidate, netns, address, outside.mark)? {
                add(&mut found, netns, link);
            }
        }
        let mut open = outside.open;
        for &(netns, local) in &outside.locals {
            match self.carrier(candidate, netns, local)? {
                Some(link) => add(&mut found, netns, link),
                None => open = true,
            }
        }
        if found.is_empty() || (open && peer.is_none()) {
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
            Some(Ok(Way::Device(index))) if !avoid.contains(&index) => {
                self.scene.link_by_index(netns, index)
            }
            Some(Ok(Way::Local)) => Ok(self
                .scene
                .links(netns)?
                .into_iter()
                .find(|link| link.loopback)),
            _ => {
                let name = &candidate.link.name;
                self.scene.note(format!(
                    "no route to the remote {address} of {name} outside the tunnel"
                ));
                Ok(None)
            }
        }
    }

    /// The device with the address that a socket is bound to: what it sends has that address, and what is
    /// sent to it comes there.
    fn carrier(
        &mut self,
        candidate: &Candidate,
        netns: u32,
        local: IpAddr,
    ) -> Result<Option<Link>, Error> {
        let own = |link: &Link| netns == candidate.netns && link.ifindex == candidate.link.ifindex;
        let carries = |link: &Link| link.addresses.iter().any(|&(one, _)| one == local);
        let mut links = self.scene.links(netns)?.into_iter();
        Ok(links.find(|link| link.up && carries(link) && !own(link)))
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
            let up = link.up && !link.loopback && !link.addresses.is_empty();
            let usable = up && link.controller.is_none() && self.is_wire(candidate, outside, &link);
            if usable && found.len() < GUESSES_MAX {
                add(found, outside.netns, link);
            }
        }
        if found.len() > before || found.is_empty() {
            let name = &candidate.link.name;
            let guesses: Vec<&str> = found[before..]
                .iter()
                .map(|(_, link)| link.name.as_str())
                .collect();
            self.scene.note(if found.is_empty() {
                format!("no device of the outer side of {name} is up; name it with --outer IFACE")
            } else {
                format!("not all remotes of {name} are known yet: also watching {} (--peer ADDR or --outer IFACE names it)", guesses.join(", "))
            });
        }
        Ok(())
    }

    /// Whether a device is no tunnel. A TAP device may be a wire in a program, or a virtual machine's.
    fn is_wire(&mut self, candidate: &Candidate, outside: &Outside, link: &Link) -> bool {
        let own = outside.netns == candidate.netns && link.ifindex == candidate.link.ifindex;
        match link.tunnel {
            None => true,
            Some(TunnelKind::Tap) if !own => {
                let other = self.scene.candidate(outside.netns, link.clone());
                !self.scene.sends_on(&other)
            }
            Some(_) => false,
        }
    }

    /// Adds what `--outer ADDR:PORT` names: the port, and the device by the route.
    pub(super) fn outer_address(
        &mut self,
        address: SocketAddr,
        scope: Option<u32>,
    ) -> Result<(), Error> {
        let tunnel = self.plan.tunnels.first();
        let socket = tunnel
            .and_then(|tunnel| tunnel.sockets.first())
            .map(|socket| socket.netns);
        let outer = tunnel
            .and_then(|tunnel| tunnel.outer_devices.first())
            .map(|device| device.netns);
        let Some(netns) = socket.or(outer).or(scope) else {
            return Ok(());
        };
        self.plan.ports.extend([17, 6].map(|ip_proto| PortKey {
            netns,
            port: address.port(),
            ip_proto,
        }));
        let ip = address.ip();
        let link = match self.scene.way(netns, ip, None, &[]) {
            Some(Ok(Way::Device(index))) => self.scene.link_by_index(netns, index)?,
            Some(Ok(Way::Local)) => self.scene.owner(netns, ip)?,
            Some(Err(source)) => {
                let netns = self.scene.label(netns);
                return Err(Error::Unroutable {
                    destination: ip,
                    netns,
                    source,
                });
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
}

/// Adds a device unless it is listed.
fn add(found: &mut Vec<(u32, Link)>, netns: u32, link: Link) {
    let same = |(place, other): &(u32, Link)| *place == netns && other.ifindex == link.ifindex;
    if !found.iter().any(same) {
        found.push((netns, link));
    }
}

/// The socket of WireGuard in the kernel, which no table lists.
pub(super) fn kernel_sockets(outer: &Outer, netns: u32) -> Vec<OuterSocket> {
    let socket = |local: IpAddr| OuterSocket {
        ip_proto: 17,
        local,
        local_port: outer.listen_port,
        remote: None,
        netns,
        inode: 0,
        listening: false,
    };
    if outer.listen_port == 0 {
        Vec::new()
    } else {
        vec![socket(IpAddr::from([0; 4]))]
    }
}

pub(super) fn outside(
    netns: u32,
    link: &Link,
    sockets: &[OuterSocket],
    asked: Option<&Outer>,
) -> Outside {
    let mut remotes: BTreeSet<(u32, SocketAddr)> = sockets
        .iter()
        .filter_map(|socket| {
            socket
                .remote
                .map(|(ip, port)| (socket.netns, SocketAddr::new(ip, port)))
        })
        .collect();
    let endpoints = asked.into_iter().flat_map(|outer| &outer.endpoints);
    remotes
        .extend(endpoints.map(|end| (netns, SocketAddr::new(socket::plain(end.ip()), end.port()))));
    remotes.extend(
        link.remote
            .map(|address| (netns, SocketAddr::new(address, 0))),
    );
    let known = asked.is_some_and(|outer| !outer.endpoints.is_empty());
    let without = |socket: &&OuterSocket| socket.ip_proto == 17 && socket.remote.is_none();
    let without = sockets.iter().filter(without).filter(|_| !known);
    let (free, bound): (Vec<&OuterSocket>, Vec<&OuterSocket>) =
        without.partition(|socket| socket.local.is_unspecified());
    let locals = bound
        .iter()
        .map(|socket| (socket.netns, socket.local))
        .collect();
    let mark = asked.map(|outer| outer.fwmark).filter(|&mark| mark != 0);
    Outside {
        netns,
        remotes,
        mark,
        locals,
        open: !free.is_empty(),
    }
}
