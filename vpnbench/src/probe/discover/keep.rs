//! What stays in a plan while its daemon or device is away.

use super::Plan;
use super::build::Builder;
use crate::trace::model::{DeviceRef, Tunnel, TunnelKind, WatchedDevice};

impl Builder<'_> {
    /// Keeps a tunnel whose device is gone, so that its return is seen.
    pub(super) fn gone(&mut self, old: &Tunnel, plan: &Plan) {
        if self.lists(old.netns, &old.interface) {
            return;
        }
        let tunnel = Tunnel {
            ifindex: 0,
            daemon: None,
            queues: None,
            sockets: Vec::new(),
            ..old.clone()
        };
        for device in &plan.devices {
            let outer = tunnel
                .outer_devices
                .iter()
                .any(|one| one.netns == device.netns && one.name == device.name);
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
        let same =
            |tunnel: &&mut Tunnel| tunnel.netns == old.netns && tunnel.interface == old.interface;
        let Some(tunnel) = self.plan.tunnels.iter_mut().find(same) else {
            return;
        };
        // In between: it had sockets, or nobody held it. Kernel encapsulations never have any.
        let between = !old.sockets.is_empty() || old.daemon.is_none();
        if !tunnel.sockets.is_empty() || tunnel.kind == TunnelKind::KernelOther || !between {
            return;
        }
        tunnel.outer_devices.clone_from(&old.outer_devices);
        tunnel.remotes.clone_from(&old.remotes);
        for device in &old.outer_devices {
            let filter = plan
                .devices
                .iter()
                .any(|one| one.netns == device.netns && one.name == device.name && one.port_filter);
            if let Some(now) = self
                .plan
                .devices
                .iter_mut()
                .find(|one| one.netns == device.netns && one.name == device.name)
            {
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
            plan.tunnels
                .iter()
                .flat_map(|tunnel| &tunnel.outer_devices)
                .any(|one| one.netns == device.netns && one.name == device.name)
        };
        for device in plan
            .devices
            .iter()
            .filter(|device| device.role == "outer" && !of_tunnel(device))
        {
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
