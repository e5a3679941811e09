//! Finds what to watch: route -> tunnel device -> daemon -> outer sockets -> outer devices.
//!
//! [`discover`] needs the rights of set-up (it may have to enter namespaces); [`rediscover`] works
//! with [`KEPT_BY_DISCOVERY`](super::netns::KEPT_BY_DISCOVERY) and the namespaces that are open.

use std::net::{IpAddr, SocketAddr};

use vpnbench_common::settings::{PortKey, process as role};

use super::netns::{Netns, NetnsSpec};
use crate::trace::model::{Tunnel, WatchedDevice};

mod build;
mod choice;
pub mod command;
mod diff;
mod error;
mod keep;
pub mod link;
pub(crate) mod netlink;
mod outer;
pub mod process;
pub mod route;
mod scene;
mod select;
pub mod socket;
pub mod watch;
pub mod wireguard;

pub use diff::diff;
pub use error::Error;
pub use watch::{LinkChange, LinkEvent, LinkWatch};

use build::Builder;
use scene::Scene;
use select::Pick;

/// What the user said about the tunnel; all of it may be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    /// Tunnel device: a name, several separated by commas, `*` at the end for any ending.
    pub tun: Option<String>,
    /// Outer side: a device, several separated by commas (one for each namespace), or `ADDR:PORT`
    /// of an outer socket. A named device is taken as a wire, whatever its kind.
    pub outer: Option<String>,
    /// Process that holds the tunnel device.
    pub pid: Option<u32>,
    /// Name of that process.
    pub comm: Option<String>,
    /// Namespaces to look in, one tunnel each; empty means the current one.
    pub netns: Vec<NetnsSpec>,
    /// Address of the other end outside the tunnel.
    pub peer: Option<IpAddr>,
    /// Benchmark command; its destination leads to the tunnel.
    pub command: Vec<String>,
}

impl Selector {
    fn outer_address(&self) -> Option<SocketAddr> {
        self.outer.as_ref()?.parse().ok()
    }

    /// Names of outer devices.
    fn outer_devices(&self) -> Vec<&str> {
        let named = self.outer.as_deref();
        let named = named.filter(|_| self.outer_address().is_none());
        named.into_iter().flat_map(|all| all.split(',')).collect()
    }
}

/// What to watch.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// What it was made from.
    pub selector: Selector,
    /// Tunnels, the one of the benchmark first; a tunnel that carries another's outer packets
    /// follows it.
    pub tunnels: Vec<Tunnel>,
    /// Devices, each once. A tunnel that carries another's outer packets has the role "tunnel".
    pub devices: Vec<WatchedDevice>,
    /// Local ports of the daemons' outer sockets.
    pub ports: Vec<PortKey>,
    /// Processes and their roles, see [`vpnbench_common::settings::process`].
    pub processes: Vec<(u32, u32)>,
    /// Namespaces of all devices and sockets above, that of the benchmark first.
    pub netns: Vec<Netns>,
    /// Address that the benchmark talks to.
    pub destination: Option<IpAddr>,
    /// What the user should know about how this was found.
    pub notes: Vec<String>,
}

/// Finds what a selector means.
pub fn discover(selector: &Selector) -> Result<Plan, Error> {
    let mut scene = Scene::new();
    let selection = select::select(&mut scene, selector)?;
    let mut builder = Builder::new(&mut scene, selector);
    for pick in &selection.picks {
        match pick {
            Pick::Tunnel(candidate) => builder.tunnel(candidate, 0)?,
            Pick::Bare { netns, link } => builder.bare(*netns, link)?,
        }
    }
    let scopes = selection.scopes.clone();
    if let Some(address) = selector.outer_address() {
        builder.outer_address(address, scopes.first().copied())?;
    }
    let mut plan = builder.finish();
    finish(&mut scene, &mut plan, &scopes);
    plan.selector = selector.clone();
    plan.destination = selection.destination;
    Ok(plan)
}

/// Looks again at what a plan watches: daemons that restarted, sockets and devices that came or
/// went. What is gone stays in the plan without daemon (and with interface index 0), so that its
/// return is seen; what cannot be read stays as it was, with a note. Cheap while the daemons hold
/// their devices; all processes are searched only when one does not.
pub fn rediscover(plan: &Plan) -> Plan {
    let mut scene = Scene::again(plan);
    let mut builder = Builder::new(&mut scene, &plan.selector);
    for old in &plan.tunnels {
        if let Err(error) = again(&mut builder, old, plan) {
            builder.scene.note(error.to_string());
            builder.gone(old, plan);
        }
    }
    builder.keep_bare(plan);
    let scopes: Vec<u32> = plan.netns.iter().map(Netns::inum).collect();
    if let Some(address) = plan.selector.outer_address()
        && let Err(error) = builder.outer_address(address, scopes.first().copied())
    {
        builder.scene.note(error.to_string());
    }
    let mut next = builder.finish();
    finish(&mut scene, &mut next, &scopes);
    next.selector = plan.selector.clone();
    next.destination = plan.destination;
    next
}

fn again(builder: &mut Builder<'_>, old: &Tunnel, plan: &Plan) -> Result<(), Error> {
    let link = builder.scene.link(old.netns, &old.interface)?;
    let candidate = builder.scene.candidate(old.netns, link);
    builder.tunnel(&candidate, 0)?;
    builder.keep_ports_of(old, plan);
    Ok(())
}

/// Adds the namespaces and notes that all steps together led to.
fn finish(scene: &mut Scene, plan: &mut Plan, scopes: &[u32]) {
    let sockets = plan
        .tunnels
        .iter()
        .flat_map(|tunnel| &tunnel.sockets)
        .map(|socket| socket.netns);
    let wanted = scopes
        .iter()
        .copied()
        .chain(plan.devices.iter().map(|device| device.netns));
    let mut inums: Vec<u32> = Vec::new();
    for inum in wanted.chain(sockets) {
        if !inums.contains(&inum) {
            inums.push(inum);
        }
    }
    plan.netns = scene.handles(&inums);
    plan.ports.sort_unstable();
    plan.ports.dedup();
    plan.processes.sort_unstable();
    plan.processes.dedup();
    plan.notes = scene.take_notes();
}

/// Role number of a daemon, for [`Plan::processes`].
const DAEMON: u32 = role::DAEMON;
