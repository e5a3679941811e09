//! The devices of a wire: what stands where in which namespace.
//!
//! | | pair | ring, and anything in the middle |
//! | --- | --- | --- |
//! | none, netem | veth pair `wire-a` - `wire-b` | each `wire-X` is a veth to a port of the bridge `hub` |
//! | embedded on egress | TAP devices `wire-X`, one process | the same |
//! | netem in the middle | as the ring, but between `wire-X` and `hub` a bridge `in-X` and a further veth, whose outgoing end `up-X` has the netem | the same |
//! | embedded in the middle | each `wire-X` is a veth to the bridge `in-X`, whose other port is the TAP `tap-X` | the same |
//!
//! Bridges and everything in the middle are in a namespace of their own, `vb-ID-mid`.

use std::path::{Path, PathBuf};

use super::super::error::Result;
use super::super::hosts::{self, Host, Hosts};
use super::super::netlink;
use super::super::undo::Undo;

/// Units that a TAP device's queue takes until the wire reads them. The default, 500, is the kind
/// of queue that would drop packets nobody asked it to drop.
const TAP_QUEUE: u32 = 10_000;

/// Joins the hosts by veth alone: two directly, more through a bridge. Returns the namespace of
/// the bridge.
pub(super) fn veth(hosts: &Hosts, undo: &mut Undo, id: &str) -> Result<Option<PathBuf>> {
    if hosts.others.is_empty() {
        let (a, b) = (&hosts.a, &hosts.b);
        netlink::add_veth(&a.netns, &a.device, &b.netns, &b.device)?;
        return Ok(None);
    }
    let middle = middle(undo, id)?;
    netlink::add_bridge(&middle, "hub")?;
    for host in hosts.iter() {
        lead_into(host, &middle, "hub")?;
    }
    Ok(Some(middle))
}

/// Joins the hosts through bridges such that what leaves a host passes a device of its own, named
/// by [`uplink`], on its way to the others.
pub(super) fn uplinks(hosts: &Hosts, undo: &mut Undo, id: &str) -> Result<PathBuf> {
    let middle = middle(undo, id)?;
    netlink::add_bridge(&middle, "hub")?;
    for host in hosts.iter() {
        let entry = entry(host);
        netlink::add_bridge(&middle, &entry)?;
        lead_into(host, &middle, &entry)?;
        let hub_port = format!("hub-{}", host.label);
        netlink::add_veth(&middle, &uplink(host), &middle, &hub_port)?;
        netlink::enslave(&middle, &uplink(host), &entry)?;
        netlink::enslave(&middle, &hub_port, "hub")?;
    }
    Ok(middle)
}

/// Leads each host into a bridge of its own, where a TAP device can be added by [`finish_tap`].
pub(super) fn entries(hosts: &Hosts, undo: &mut Undo, id: &str) -> Result<PathBuf> {
    let middle = middle(undo, id)?;
    for host in hosts.iter() {
        netlink::add_bridge(&middle, &entry(host))?;
        lead_into(host, &middle, &entry(host))?;
    }
    Ok(middle)
}

/// Prepares a TAP device that the embedded wire has created: in the middle, or as a host's own.
pub(super) fn finish_tap(host: &Host, middle: Option<&Path>) -> Result<()> {
    let netns = middle.unwrap_or(&host.netns);
    let device = tap(host, middle.is_some());
    netlink::set_queue_length(netns, &device, TAP_QUEUE)?;
    match middle {
        Some(middle) => netlink::enslave(middle, &device, &entry(host)),
        None => Ok(()),
    }
}

/// Name of the TAP device at which a host's packets enter the embedded wire.
pub(super) fn tap(host: &Host, in_the_middle: bool) -> String {
    if in_the_middle {
        format!("tap-{}", host.label)
    } else {
        host.device.clone()
    }
}

/// Name of the device in the middle that everything a host sends goes out by.
pub(super) fn uplink(host: &Host) -> String {
    format!("up-{}", host.label)
}

fn entry(host: &Host) -> String {
    format!("in-{}", host.label)
}

fn middle(undo: &mut Undo, id: &str) -> Result<PathBuf> {
    undo.create_bare_namespace(&format!("vb-{id}-mid"))
}

/// A veth from a host to a bridge.
fn lead_into(host: &Host, middle: &Path, bridge: &str) -> Result<()> {
    let port = format!("to-{}", host.label);
    netlink::add_veth(&host.netns, &host.device, middle, &port)?;
    netlink::enslave(middle, &port, bridge)
}

/// Gives a host's wire device its addresses and brings it up.
pub(super) fn bring_up(host: &Host) -> Result<()> {
    let addresses = hosts::addresses(host.ipv4, host.ipv6);
    netlink::bring_up(&host.netns, &host.device, None, &addresses)
}
