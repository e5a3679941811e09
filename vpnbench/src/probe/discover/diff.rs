//! What changed between two plans, in sentences.

use std::collections::BTreeSet;

use super::{Plan, socket};
use crate::trace::model::{Daemon, Tunnel};

/// Says what changed from `old` to `new`. Numbers that change all the time (threads) are left out.
pub fn diff(old: &Plan, new: &Plan) -> Vec<String> {
    let mut changes = Vec::new();
    for tunnel in &new.tunnels {
        let same =
            |other: &&Tunnel| other.netns == tunnel.netns && other.interface == tunnel.interface;
        match old.tunnels.iter().find(same) {
            Some(before) => changed(before, tunnel, &mut changes),
            None => changes.push(format!("new tunnel {}", tunnel.interface)),
        }
    }
    for tunnel in &old.tunnels {
        let same =
            |other: &Tunnel| other.netns == tunnel.netns && other.interface == tunnel.interface;
        if !new.tunnels.iter().any(same) {
            changes.push(format!(
                "{} no longer carries outer packets",
                tunnel.interface
            ));
        }
    }
    changes
}

fn changed(old: &Tunnel, new: &Tunnel, changes: &mut Vec<String>) {
    let name = &new.interface;
    match (old.ifindex, new.ifindex) {
        (before, after) if before == after => {}
        (_, 0) => changes.push(format!("device {name} is gone")),
        (0, after) => changes.push(format!("device {name} is back with index {after}")),
        (before, after) => changes.push(format!(
            "device {name} was created again: index {before} -> {after}"
        )),
    }
    changes.extend(daemon(name, old.daemon.as_ref(), new.daemon.as_ref()));
    if old.mtu != new.mtu {
        changes.push(format!("MTU of {name}: {} -> {}", old.mtu, new.mtu));
    }
    if let (Some(before), Some(after)) = (old.queues, new.queues)
        && before != after
    {
        changes.push(format!("queues of {name}: {before} -> {after}"));
    }
    let sockets = |tunnel: &Tunnel| tunnel.sockets.iter().map(socket::text).collect();
    sets(
        sockets(old),
        sockets(new),
        "new outer socket",
        "outer socket closed:",
        changes,
    );
    let remotes = |tunnel: &Tunnel| tunnel.remotes.iter().cloned().collect();
    sets(
        remotes(old),
        remotes(new),
        "new remote",
        "remote gone:",
        changes,
    );
    let devices = |tunnel: &Tunnel| {
        tunnel
            .outer_devices
            .iter()
            .map(|device| device.name.clone())
            .collect()
    };
    sets(
        devices(old),
        devices(new),
        "new outer device",
        "outer device no longer used:",
        changes,
    );
}

fn daemon(device: &str, old: Option<&Daemon>, new: Option<&Daemon>) -> Option<String> {
    match (old, new) {
        (Some(old), Some(new)) if old.pid == new.pid => None,
        (Some(old), Some(new)) if old.comm == new.comm => Some(format!(
            "daemon {} restarted: pid {} -> {}",
            new.comm, old.pid, new.pid
        )),
        (Some(old), Some(new)) => Some(format!(
            "daemon of {device} changed: {} (pid {}) -> {} (pid {})",
            old.comm, old.pid, new.comm, new.pid
        )),
        (Some(old), None) => Some(format!(
            "daemon {} (pid {}) left {device}",
            old.comm, old.pid
        )),
        (None, Some(new)) => Some(format!(
            "daemon {} (pid {}) opened {device}",
            new.comm, new.pid
        )),
        (None, None) => None,
    }
}

fn sets(
    old: BTreeSet<String>,
    new: BTreeSet<String>,
    came: &str,
    went: &str,
    changes: &mut Vec<String>,
) {
    changes.extend(new.difference(&old).map(|one| format!("{came} {one}")));
    changes.extend(old.difference(&new).map(|one| format!("{went} {one}")));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::model::OuterSocket;

    fn plan(pid: u32, port: u16) -> Plan {
        let daemon = Daemon {
            pid,
            comm: "wireguard-go".into(),
            ..Daemon::default()
        };
        let socket = OuterSocket {
            ip_proto: 17,
            local: "10.0.0.1".parse().unwrap(),
            local_port: port,
            remote: None,
            netns: 1,
            inode: 9,
            listening: false,
        };
        let tunnel = Tunnel {
            interface: "wg0".into(),
            ifindex: 3,
            daemon: Some(daemon),
            sockets: vec![socket],
            ..Tunnel::default()
        };
        Plan {
            tunnels: vec![tunnel],
            ..Plan::default()
        }
    }

    #[test]
    fn sentences() {
        assert!(diff(&plan(1, 51820), &plan(1, 51820)).is_empty());
        assert_eq!(
            diff(&plan(4121, 51820), &plan(4177, 51821)),
            [
                "daemon wireguard-go restarted: pid 4121 -> 4177",
                "new outer socket udp 10.0.0.1:51821",
                "outer socket closed: udp 10.0.0.1:51820",
            ]
        );
        let mut gone = plan(1, 51820);
        gone.tunnels[0].daemon = None;
        gone.tunnels[0].ifindex = 0;
        assert_eq!(
            diff(&plan(1, 51820), &gone),
            ["device wg0 is gone", "daemon wireguard-go (pid 1) left wg0"]
        );
        assert_eq!(
            diff(&gone, &plan(2, 51820)),
            [
                "device wg0 is back with index 3",
                "daemon wireguard-go (pid 2) opened wg0"
            ]
        );
        assert_eq!(diff(&Plan::default(), &plan(1, 1)), ["new tunnel wg0"]);
    }
}
