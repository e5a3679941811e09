//! Which hosts there are.

use vpnbench_common::catalog::ProbeId;

use super::Pairing;
use super::host::Host;
use crate::trace::model::{Start, TunnelKind};

/// Hosts (namespaces) kept.
const HOSTS_MAX: usize = 256;

impl Pairing {
    /// What the start frame says about the tunnels: which are in the kernel, and which probes are
    /// missing. Optional; without it every tunnel is taken to have a daemon.
    pub fn begin(&mut self, start: &Start) {
        let in_kernel = |kind| !matches!(kind, TunnelKind::Tun | TunnelKind::Tap);
        let tunnels = start.tunnels.iter().filter(|one| in_kernel(one.kind));
        self.kernel_tunnels = tunnels.map(|one| one.netns).collect();
        let devices = start.devices.iter().filter(|one| one.role == "tunnel");
        let tunnels = start.tunnels.iter().map(|one| one.netns);
        self.tunnels = tunnels.chain(devices.map(|one| one.netns)).collect();
        let namespaces = start.environment.namespaces.iter();
        let captured = namespaces.filter(|one| one.captured);
        self.captured = captured.map(|one| one.netns).collect();
        self.alone = self.captured.len() == 1 && start.environment.namespaces.len() == 1;
        let attached = |id: ProbeId| {
            start
                .probes
                .iter()
                .any(|one| one.id == id as u8 && one.attached)
        };
        self.without_recv = !attached(ProbeId::SkbConsumeUdp) && !attached(ProbeId::SockRecvLength);
    }

    /// The number of a host; `None` if there are too many.
    #[inline]
    pub(super) fn host(&mut self, netns: u32) -> Option<u16> {
        match self.last_host {
            Some((last, host)) if last == netns => Some(host),
            _ => self.other_host(netns),
        }
    }

    fn other_host(&mut self, netns: u32) -> Option<u16> {
        if let Some(host) = self.by_netns.get(&netns) {
            self.last_host = Some((netns, *host));
            return Some(*host);
        }
        if self.hosts.len() >= HOSTS_MAX {
            self.uncounted += 1;
            return None;
        }
        let host = self.hosts.len() as u16;
        self.by_netns.insert(netns, host);
        let mut one = Host::new(netns);
        one.in_kernel = self.kernel_tunnels.contains(&netns);
        one.has_tunnel = self.tunnels.contains(&netns);
        one.without_recv = one.in_kernel || self.without_recv;
        one.captured = self.captured.contains(&netns);
        self.hosts.push(one);
        Some(host)
    }
}
