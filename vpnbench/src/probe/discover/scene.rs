//! The machine as one discovery sees it: namespaces, devices, holders and sockets, each read once
//! and only when asked for.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::net::IpAddr;

use super::error::Error;
use super::link::{self, Link};
use super::process::{self, Holder};
use super::route::{self, Way};
use super::socket::{self, TCP, UDP};
use super::{Plan, Selector};
use crate::probe::netns::{self, Found, Netns};
use crate::trace::model::{OuterSocket, Tunnel, TunnelKind};

/// A tunnel device and the processes that hold it.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) netns: u32,
    pub(super) link: Link,
    pub(super) holders: Vec<Holder>,
}

pub(super) struct Scene {
    found: OnceCell<BTreeMap<u32, Found>>,
    /// Whether namespaces that are not open may be entered.
    enter: bool,
    open: BTreeMap<u32, Netns>,
    links: BTreeMap<u32, Vec<Link>>,
    /// By namespace and protocol.
    sockets: BTreeMap<(u32, u8), BTreeMap<u64, OuterSocket>>,
    holders: Vec<Holder>,
    /// Outer devices of an earlier look that were no tunnels, by namespace and name.
    plain: Vec<(u32, String)>,
    notes: Vec<String>,
}

impl Scene {
    /// Looks at the whole machine.
    pub(super) fn new() -> Self {
        Self::with(&[], process::tun_holders(), true)
    }

    /// Looks again at what a plan watches, within the namespaces that it has open. All processes
    /// are searched only if a daemon no longer holds its device.
    pub(super) fn again(plan: &Plan) -> Self {
        let pids = plan.processes.iter().map(|&(pid, _)| pid);
        let mut holders: Vec<Holder> = pids.flat_map(process::tun_held_by).collect();
        let still = |tunnel: &Tunnel| {
            let held =
                |holder: &Holder, pid| holder.pid == pid && holder.device == tunnel.interface;
            let daemon = tunnel.daemon.as_ref().map(|daemon| daemon.pid);
            daemon.is_some_and(|pid| holders.iter().any(|holder| held(holder, pid)))
        };
        let of_process =
            |tunnel: &&Tunnel| matches!(tunnel.kind, TunnelKind::Tun | TunnelKind::Tap);
        if !plan.tunnels.iter().filter(of_process).all(still) {
            holders = process::tun_holders();
        }
        let outer = plan.devices.iter().filter(|device| device.role == "outer");
        Self {
            plain: outer
                .map(|device| (device.netns, device.name.clone()))
                .collect(),
            ..Self::with(&plan.netns, holders, false)
        }
    }

    fn with(open: &[Netns], holders: Vec<Holder>, enter: bool) -> Self {
        Self {
            found: OnceCell::new(),
            enter,
            open: open
                .iter()
                .map(|netns| (netns.inum(), netns.clone()))
                .collect(),
            links: BTreeMap::new(),
            sockets: BTreeMap::new(),
            holders,
            plain: Vec::new(),
            notes: Vec::new(),
        }
    }

    pub(super) fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    pub(super) fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    pub(super) fn adopt(&mut self, netns: &Netns) {
        self.open
            .entry(netns.inum())
            .or_insert_with(|| netns.clone());
    }

    fn found(&self) -> &BTreeMap<u32, Found> {
        self.found.get_or_init(netns::all)
    }

    /// All namespaces that can be looked into, the open ones first.
    pub(super) fn namespaces(&self) -> Vec<u32> {
        let mut inums: Vec<u32> = self.open.keys().copied().collect();
        if self.enter {
            let closed = self
                .found()
                .keys()
                .filter(|inum| !self.open.contains_key(inum));
            inums.extend(closed);
        }
        inums
    }

    pub(super) fn label(&self, inum: u32) -> String {
        if let Some(netns) = self.open.get(&inum) {
            return netns.label();
        }
        let name = self.found().get(&inum).and_then(|found| found.name.clone());
        name.unwrap_or_else(|| format!("net:[{inum}]"))
    }

    /// Handle of a namespace, opened if possible.
    pub(super) fn netns(&mut self, inum: u32) -> Option<Netns> {
        if !self.open.contains_key(&inum) && self.enter {
            let netns = match Netns::open_found(self.found().get(&inum)?) {
                // The file may have come to mean another namespace since it was listed.
                Ok(netns) if netns.inum() == inum => netns,
                Ok(_) => return None,
                Err(error) => {
                    self.note(error.to_string());
                    return None;
                }
            };
            self.open.insert(inum, netns);
        }
        self.open.get(&inum).cloned()
    }

    /// Devices of a namespace; empty if it cannot be entered.
    pub(super) fn links(&mut self, inum: u32) -> Result<Vec<Link>, Error> {
        if let Some(links) = self.links.get(&inum) {
            return Ok(links.clone());
        }
        let Some(netns) = self.netns(inum) else {
            return Ok(Vec::new());
        };
        let links = netns.run(link::links).map_err(|source| Error::Netlink {
            what: "devices",
            netns: netns.label(),
            source,
        })?;
        self.links.insert(inum, links.clone());
        Ok(links)
    }

    pub(super) fn link(&mut self, inum: u32, name: &str) -> Result<Link, Error> {
        let links = self.links(inum)?;
        links
            .iter()
            .find(|link| link.name == name)
            .cloned()
            .ok_or_else(|| Error::UnknownDevice {
                name: name.to_owned(),
                netns: self.label(inum),
                existing: links.iter().map(|link| link.name.clone()).collect(),
            })
    }

    /// The outer device of a namespace that the user named: of several names the one that is there.
    pub(super) fn named_outer(&mut self, inum: u32, selector: &Selector) -> Result<Link, Error> {
        let names = selector.outer_devices();
        let links = self.links(inum)?;
        let here = links
            .iter()
            .find(|link| names.contains(&link.name.as_str()));
        match here {
            Some(link) => Ok(link.clone()),
            None => self.link(inum, &names.join(",")),
        }
    }

    pub(super) fn link_by_index(&mut self, inum: u32, index: u32) -> Result<Option<Link>, Error> {
        Ok(self
            .links(inum)?
            .into_iter()
            .find(|link| link.ifindex == index))
    }

    /// The device that carries an address of the namespace itself.
    pub(super) fn owner(&mut self, inum: u32, address: IpAddr) -> Result<Option<Link>, Error> {
        let carries = |link: &Link| link.addresses.iter().any(|&(own, _)| own == address);
        let links = self.links(inum)?;
        Ok(links
            .iter()
            .find(|link| carries(link))
            .or(links.iter().find(|link| link.loopback))
            .cloned())
    }

    /// The way to an address from a namespace; `avoid` is a tunnel that cannot carry its own
    /// outer packets.
    pub(super) fn way(
        &mut self,
        inum: u32,
        destination: IpAddr,
        mark: Option<u32>,
        avoid: &[u32],
    ) -> Option<std::io::Result<Way>> {
        let netns = self.netns(inum)?;
        let avoid = avoid.to_vec();
        Some(netns.run(move || match route::lookup(destination, mark)? {
            Way::Device(device) if avoid.contains(&device) => {
                let around = route::lookup_around(destination, &avoid)?;
                Ok(Way::Device(around.unwrap_or(device)))
            }
            way => Ok(way),
        }))
    }

    /// Tunnels of a namespace.
    pub(super) fn tunnels(&mut self, inum: u32) -> Result<Vec<Candidate>, Error> {
        let links = self.links(inum)?;
        let tunnels = links.into_iter().filter(|link| link.tunnel.is_some());
        Ok(tunnels.map(|link| self.candidate(inum, link)).collect())
    }

    pub(super) fn candidate(&mut self, netns: u32, link: Link) -> Candidate {
        let holders = if link.tun.is_some() {
            self.holders_of(netns, &link.name)
        } else {
            Vec::new()
        };
        Candidate {
            netns,
            link,
            holders,
        }
    }

    /// Processes that hold a device. Where the kernel did not tell a holder's namespace, its own
    /// must do.
    fn holders_of(&mut self, netns: u32, name: &str) -> Vec<Holder> {
        let same: Vec<Holder> = self
            .holders
            .iter()
            .filter(|holder| holder.device == name)
            .cloned()
            .collect();
        let place = |holder: &Holder| holder.netns.or(holder.process_netns);
        let mut here: Vec<Holder> = same
            .iter()
            .filter(|holder| place(holder) == Some(netns))
            .cloned()
            .collect();
        let unsure = |holder: &&Holder| holder.netns.is_none();
        if here.is_empty() && same.len() == 1 {
            here = same.iter().filter(unsure).cloned().collect();
        }
        if here.iter().any(|holder| holder.netns.is_none()) {
            self.note(format!(
                "the kernel did not tell in which namespace the {name} of its holder lives; matched by name"
            ));
        }
        here
    }

    pub(super) fn holders_with(&self, pid: u32) -> bool {
        self.holders.iter().any(|holder| holder.pid == pid)
    }

    /// The TCP and UDP sockets of a process, wherever they are. Its own namespace and `likely`
    /// are searched first; other namespaces only while sockets are missing.
    pub(super) fn sockets_of(&mut self, pid: u32, likely: u32) -> Vec<OuterSocket> {
        let mut missing = socket::inodes(pid);
        let mut order: Vec<u32> = process::netns(pid).into_iter().chain([likely]).collect();
        order.extend(self.namespaces());
        let mut sockets = Vec::new();
        for inum in order {
            for protocol in [UDP, TCP] {
                if !missing.iter().any(|&(wanted, _)| wanted == protocol) {
                    continue;
                }
                let Some(table) = self.socket_table(inum, protocol) else {
                    continue;
                };
                let found: Vec<OuterSocket> = missing
                    .iter()
                    .filter_map(|(_, inode)| table.get(inode).cloned())
                    .collect();
                missing.retain(|(_, inode)| !table.contains_key(inode));
                sockets.extend(found);
            }
        }
        sockets
    }

    /// Those of them that can carry a device's packets outside.
    pub(super) fn outer_sockets_of(&mut self, pid: u32, candidate: &Candidate) -> Vec<OuterSocket> {
        let (netns, link) = (candidate.netns, &candidate.link);
        let inside: Vec<IpAddr> = link.addresses.iter().map(|&(address, _)| address).collect();
        let mut sockets = self.sockets_of(pid, netns);
        sockets.retain(|one| socket::is_outer(one, if one.netns == netns { &inside } else { &[] }));
        sockets
    }

    /// Whether what a tunnel device is given goes on by outer sockets. A TUN or TAP device whose
    /// holders have none is where the kernel hands packets over for good: to a virtual machine, or
    /// to a wire in a program; it stays that at a second look, which does not ask all processes. One
    /// that nobody holds may yet get its daemon back.
    pub(super) fn sends_on(&mut self, candidate: &Candidate) -> bool {
        let (netns, name) = (candidate.netns, &candidate.link.name);
        if self
            .plain
            .iter()
            .any(|(place, plain)| *place == netns && plain == name)
        {
            return false;
        }
        let holders = &candidate.holders;
        holders.is_empty()
            || holders.iter().any(|holder| {
                let sockets = self.outer_sockets_of(holder.pid, candidate);
                sockets.iter().any(|socket| !socket.listening)
            })
    }

    fn socket_table(&mut self, inum: u32, protocol: u8) -> Option<&BTreeMap<u64, OuterSocket>> {
        let key = (inum, protocol);
        if !self.sockets.contains_key(&key) {
            let table = self.netns(inum)?.run(move || socket::table(inum, protocol));
            self.sockets.insert(key, table);
        }
        self.sockets.get(&key)
    }

    /// The namespace that a device refers to by a number, if it is one of the known.
    pub(super) fn peer_netns(&mut self, inum: u32, id: i32) -> Option<u32> {
        let here = self.netns(inum)?;
        self.namespaces().into_iter().find(|&other| {
            let Some(netns) = self.netns(other) else {
                return false;
            };
            here.run(move || link::netns_id(netns.file()))
                .ok()
                .flatten()
                == Some(id)
        })
    }

    /// Gives the named namespaces to the plan.
    pub(super) fn handles(&mut self, wanted: &[u32]) -> Vec<Netns> {
        wanted.iter().filter_map(|&inum| self.netns(inum)).collect()
    }
}
