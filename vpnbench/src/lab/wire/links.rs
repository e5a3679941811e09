//! The devices of a wire: veth pairs, and bridges where more than two meet.

use super::super::error::Result;
use super::super::hosts::{self, Host, Hosts};
use super::super::netlink;
use super::super::undo::Undo;

/// Joins the hosts without any impairment: two by a veth pair, more through a bridge in a
/// namespace of its own.
pub(super) fn plain(hosts: &Hosts, undo: &mut Undo, id: &str) -> Result<()> {
    if hosts.others.is_empty() {
        let (a, b) = (&hosts.a, &hosts.b);
        netlink::add_veth(&a.netns, &a.device, &b.netns, &b.device)?;
    } else {
        let hub = undo.create_bare_namespace(&format!("vb-{id}-hub"))?;
        netlink::add_bridge(&hub, "hub")?;
        for host in hosts.iter() {
            let port = format!("to-{}", host.label);
            netlink::add_veth(&host.netns, &host.device, &hub, &port)?;
            netlink::enslave(&hub, &port, "hub")?;
        }
    }
    hosts.iter().try_for_each(bring_up)
}

/// Gives a host's wire device its addresses and brings it up.
pub(super) fn bring_up(host: &Host) -> Result<()> {
    let addresses = hosts::addresses(host.ipv4, host.ipv6);
    netlink::bring_up(&host.netns, &host.device, None, &addresses)
}
