//! Decides which tunnels, or bare devices, are meant.

use std::net::IpAddr;

use super::choice::{self, matches, process_text};
use super::command::{self, Target};
use super::error::Error;
use super::link::Link;
use super::process;
use super::route::Way;
use super::scene::{Candidate, Scene};
use super::{Selector, command::resolve};
use crate::probe::netns::{Netns, NetnsSpec};

/// A thing to watch.
pub(super) enum Pick {
    Tunnel(Candidate),
    Bare { netns: u32, link: Link },
}

pub(super) struct Selection {
    pub(super) picks: Vec<Pick>,
    /// Namespaces looked in, that of the benchmark first.
    pub(super) scopes: Vec<u32>,
    pub(super) destination: Option<IpAddr>,
}

pub(super) fn select(scene: &mut Scene, selector: &Selector) -> Result<Selection, Error> {
    let target = command::read(&selector.command);
    let scopes = scopes(scene, selector, &target)?;
    let Some(&first) = scopes.first() else {
        return Err(Error::NoTunnel(String::new()));
    };
    let explicit = !selector.netns.is_empty() || target.netns.is_some();
    let named = selector.tun.is_some() || selector.pid.is_some() || selector.comm.is_some();
    let destination = destination(scene, first, &target, named || selector.outer.is_some())?;
    let mut chooser = Chooser {
        scene,
        selector,
        destination,
    };
    let mut picks = Vec::new();
    if named {
        chooser.check_names()?;
        // A wrapper only says where the command runs; its tunnel can be behind another hop.
        if !selector.netns.is_empty() {
            for &scope in &scopes {
                picks.push(Pick::Tunnel(chooser.named(&[scope])?));
            }
        } else {
            picks.push(Pick::Tunnel(chooser.named_anywhere(first)?));
        }
    } else if destination.is_some() {
        for &scope in &scopes {
            picks.push(chooser.routed(scope, scope == first)?);
        }
    } else if !selector.outer_devices().is_empty() {
        for &scope in &scopes {
            let link = chooser.scene.named_outer(scope, selector)?;
            picks.push(Pick::Bare { netns: scope, link });
        }
    } else if selector.outer.is_none() {
        if explicit {
            for &scope in &scopes {
                picks.push(Pick::Tunnel(chooser.only(&[scope])?));
            }
        } else {
            picks.push(Pick::Tunnel(chooser.only_anywhere(first)?));
        }
    }
    Ok(Selection {
        picks,
        scopes,
        destination,
    })
}

/// Namespaces to look in: that of the command first, then those named by the user.
fn scopes(scene: &mut Scene, selector: &Selector, target: &Target) -> Result<Vec<u32>, Error> {
    let mut specs: Vec<&NetnsSpec> = target.netns.iter().chain(&selector.netns).collect();
    if specs.is_empty() {
        specs.push(&NetnsSpec::Current);
    }
    let mut inums = Vec::new();
    for spec in specs {
        let netns = Netns::open(spec)?;
        scene.adopt(&netns);
        if !inums.contains(&netns.inum()) {
            inums.push(netns.inum());
        }
    }
    Ok(inums)
}

/// Address of the command's destination. With another selector an unresolved one is no error.
fn destination(
    scene: &mut Scene,
    scope: u32,
    target: &Target,
    optional: bool,
) -> Result<Option<IpAddr>, Error> {
    /// Words of an unknown command that are tried as host names; each may take a name server's
    /// time.
    const GUESSES: usize = 4;
    let Some(netns) = scene.netns(scope) else {
        return Ok(None);
    };
    let tries = if target.known { 1 } else { GUESSES };
    for host in target.hosts.iter().take(tries) {
        let (name, v6) = (host.clone(), target.v6);
        if let Some(address) = netns.run(move || resolve(&name, v6)) {
            return Ok(Some(address));
        }
    }
    match target.hosts.first() {
        Some(host) if target.known && !optional => Err(Error::Unresolved(host.clone())),
        _ => {
            if let Some(tool) = target.tool.as_ref().filter(|_| !optional) {
                scene.note(format!("the command ({tool}) names no destination"));
            }
            Ok(None)
        }
    }
}

struct Chooser<'a> {
    scene: &'a mut Scene,
    selector: &'a Selector,
    destination: Option<IpAddr>,
}

impl Chooser<'_> {
    /// Reports a process that does not exist, or has no tunnel, before devices are searched.
    fn check_names(&self) -> Result<(), Error> {
        if let Some(pid) = self.selector.pid {
            if !process::exists(pid) {
                return Err(Error::NoProcess(pid));
            }
            if !self.scene.holders_with(pid) {
                return Err(Error::HoldsNoTun(process_text(pid), String::new()));
            }
        }
        if let Some(name) = &self.selector.comm {
            let named: Vec<u32> = process::pids()
                .into_iter()
                .filter(|&pid| process::is_named(pid, name))
                .collect();
            let Some(&pid) = named.first() else {
                return Err(Error::NoComm(name.clone()));
            };
            if !named.iter().any(|&pid| self.scene.holders_with(pid)) {
                return Err(Error::HoldsNoTun(process_text(pid), String::new()));
            }
        }
        Ok(())
    }

    /// The tunnel with the given names in these namespaces.
    fn named(&mut self, scopes: &[u32]) -> Result<Candidate, Error> {
        let found = self.matching(scopes)?;
        if !found.is_empty() {
            return self.one(found);
        }
        let scope = scopes[0];
        let place = format!(" in netns {}", self.scene.label(scope));
        match (&self.selector.tun, self.selector.pid, &self.selector.comm) {
            (_, Some(pid), _) => Err(Error::HoldsNoTun(process_text(pid), self.qualifier(place))),
            (_, _, Some(comm)) => Err(Error::HoldsNoTun(comm.clone(), self.qualifier(place))),
            (Some(name), ..) => {
                let link = self.scene.link(scope, name)?;
                Err(Error::NotATunnel {
                    name: link.name,
                    netns: self.scene.label(scope),
                    kind: link
                        .kind
                        .map_or_else(|| "hardware".to_owned(), |kind| format!("a {kind} device")),
                })
            }
            _ => Err(Error::NoTunnel(place)),
        }
    }

    fn qualifier(&self, place: String) -> String {
        self.selector
            .tun
            .as_ref()
            .map_or(place.clone(), |name| format!(" {name}{place}"))
    }

    /// The tunnel with the given names: in the benchmark's namespace, or else anywhere.
    fn named_anywhere(&mut self, first: u32) -> Result<Candidate, Error> {
        let here = self.matching(&[first])?;
        if !here.is_empty() {
            return self.one(here);
        }
        let everywhere = self.scene.namespaces();
        let found = self.matching(&everywhere)?;
        if found.is_empty() {
            return self.named(&[first]);
        }
        let candidate = self.one(found)?;
        self.note_elsewhere(&candidate);
        Ok(candidate)
    }

    fn note_elsewhere(&mut self, candidate: &Candidate) {
        let place = self.scene.label(candidate.netns);
        self.scene.note(format!(
            "{} is in netns {place}, not in this one",
            candidate.link.name
        ));
    }

    fn matching(&mut self, scopes: &[u32]) -> Result<Vec<Candidate>, Error> {
        let selector = self.selector;
        let mut found = Vec::new();
        for &scope in scopes {
            found.extend(self.scene.tunnels(scope)?.into_iter().filter(|candidate| {
                let held = |test: &dyn Fn(u32) -> bool| {
                    candidate.holders.iter().any(|holder| test(holder.pid))
                };
                selector
                    .tun
                    .as_ref()
                    .is_none_or(|pattern| matches(pattern, &candidate.link.name))
                    && selector.pid.is_none_or(|pid| held(&|holder| holder == pid))
                    && selector
                        .comm
                        .as_ref()
                        .is_none_or(|name| held(&|pid| process::is_named(pid, name)))
            }));
        }
        Ok(found)
    }

    /// The only tunnel in use in these namespaces.
    fn only(&mut self, scopes: &[u32]) -> Result<Candidate, Error> {
        let found = self.in_use(scopes)?;
        if found.is_empty() {
            let place = scopes
                .first()
                .map(|&scope| self.scene.label(scope))
                .unwrap_or_default();
            return Err(Error::NoTunnel(format!("in netns {place}")));
        }
        self.one(found)
    }

    fn only_anywhere(&mut self, first: u32) -> Result<Candidate, Error> {
        let here = self.in_use(&[first])?;
        if let Some(lone) = self.lone(&here) {
            return Ok(lone);
        }
        let everywhere = self.scene.namespaces();
        let found = self.in_use(&everywhere)?;
        if found.is_empty() {
            return Err(Error::NoTunnel("on this machine".to_owned()));
        }
        let candidate = self.one(found)?;
        if candidate.netns != first {
            self.note_elsewhere(&candidate);
        }
        Ok(candidate)
    }

    fn in_use(&mut self, scopes: &[u32]) -> Result<Vec<Candidate>, Error> {
        let mut found = Vec::new();
        for &scope in scopes {
            let tunnels = self.scene.tunnels(scope)?;
            found.extend(tunnels.into_iter().filter(|candidate| {
                candidate.link.up && !candidate.link.is_fallback() && candidate.link.name != "lo"
            }));
        }
        Ok(found)
    }

    /// The only one, or of several in one namespace the only one that sends on what it is given.
    fn lone(&mut self, found: &[Candidate]) -> Option<Candidate> {
        let first = found.first()?;
        if found.len() == 1 {
            return Some(first.clone());
        }
        let together = found.iter().all(|one| one.netns == first.netns);
        let mut tunnels = found
            .iter()
            .filter(|one| together && self.scene.sends_on(one));
        let lone = tunnels.next()?;
        tunnels.next().is_none().then(|| lone.clone())
    }

    /// One of several: the lone one, or the one that the destination is routed into.
    fn one(&mut self, mut found: Vec<Candidate>) -> Result<Candidate, Error> {
        if found.len() > 1 {
            if let Some(destination) = self.destination {
                let routed = |scene: &mut Scene, candidate: &Candidate| {
                    let way = scene.way(candidate.netns, destination, None, &[]);
                    matches!(way, Some(Ok(Way::Device(index))) if index == candidate.link.ifindex)
                };
                if let Some(at) = (0..found.len()).find(|&at| routed(self.scene, &found[at])) {
                    return Ok(found.swap_remove(at));
                }
            }
            if let Some(lone) = self.lone(&found) {
                return Ok(lone);
            }
            return Err(choice::ambiguous(self.scene, &found));
        }
        found.pop().ok_or_else(|| Error::NoTunnel(String::new()))
    }

    /// Follows the route to the destination. Only the benchmark's own namespace must have one:
    /// the other end may know the address as its own, or not at all.
    fn routed(&mut self, scope: u32, must: bool) -> Result<Pick, Error> {
        let Some(destination) = self.destination else {
            return Ok(Pick::Tunnel(self.only(&[scope])?));
        };
        let link = match self.scene.way(scope, destination, None, &[]) {
            Some(Ok(Way::Device(index))) => self.scene.link_by_index(scope, index)?,
            Some(Ok(Way::Local)) => {
                let owner = self.scene.owner(scope, destination)?;
                if must {
                    self.note_own_address(scope, destination);
                }
                // Packets to an own address pass the loopback device, not the tunnel.
                if must {
                    self.scene
                        .links(scope)?
                        .into_iter()
                        .find(|link| link.loopback)
                } else {
                    owner
                }
            }
            Some(Err(source)) if must => {
                let netns = self.scene.label(scope);
                return Err(Error::Unroutable {
                    destination,
                    netns,
                    source,
                });
            }
            _ => None,
        };
        match link {
            Some(link) => Ok(self.behind(scope, link)?),
            None => Ok(Pick::Tunnel(self.only(&[scope])?)),
        }
    }

    fn note_own_address(&mut self, scope: u32, destination: IpAddr) {
        let place = self.scene.label(scope);
        self.scene.note(format!(
            "{destination} is an address of netns {place} itself: packets to it pass the loopback device only"
        ));
    }

    /// The device of a route: a tunnel, a bridge with a tunnel in it, or a bare device. A TAP device
    /// that the user calls the outer one is no tunnel.
    fn behind(&mut self, scope: u32, link: Link) -> Result<Pick, Error> {
        if self.selector.outer_devices().contains(&link.name.as_str()) {
            return Ok(Pick::Bare { netns: scope, link });
        }
        if link.tunnel.is_some() {
            return Ok(Pick::Tunnel(self.scene.candidate(scope, link)));
        }
        let mut members = self.scene.tunnels(scope)?;
        members.retain(|member| member.link.controller == Some(link.ifindex));
        if members.len() == 1 {
            let member = members.remove(0);
            self.scene.note(format!(
                "the route leads into {}, whose member {} is the tunnel",
                link.name, member.link.name
            ));
            return Ok(Pick::Tunnel(member));
        }
        Ok(Pick::Bare { netns: scope, link })
    }
}
