//! Follows a daemon that restarts or opens new sockets, and a device that comes back: looks again
//! whenever a device appears or goes, or a watched process starts, ends or touches a socket.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use vpnbench_common::settings::{PortKey, process};

use super::clock::monotonic_ns;
use super::drain::Signals;
use crate::probe::discover::{self, LinkChange, LinkEvent, LinkWatch, Plan};
use crate::probe::filter::Filter;
use crate::trace::model::{Change, TunnelKind, WatchedDevice};

/// Longest time between a hint and the look it asks for; also bounds how often it looks.
const PACE: Duration = Duration::from_millis(20);

/// How long watched devices may all be gone before a recording without a command ends: daemons
/// under a service manager are back within seconds.
const RETURN: Duration = Duration::from_secs(10);

/// What the thread owns.
pub(super) struct Follow {
    /// What is watched now.
    pub(super) plan: Plan,
    /// The kernel-side filter.
    pub(super) filter: Filter,
    /// Where changes go to be stored.
    pub(super) changes: Sender<Change>,
    /// Shared flags.
    pub(super) signals: Arc<Signals>,
    /// Plain sentences for the user.
    pub(super) notes: Sender<String>,
}

/// Subscribes to the devices of every watched namespace.
#[must_use]
pub(super) fn watch_links(plan: &Plan) -> (Receiver<LinkEvent>, Vec<LinkWatch>) {
    let (sender, events) = mpsc::channel();
    // A namespace that cannot be subscribed is still looked at when its processes change.
    let watches = plan
        .netns
        .iter()
        .filter_map(|netns| netns.watch_links(sender.clone()).ok())
        .collect();
    (events, watches)
}

impl Follow {
    /// Runs until the recording stops; returns the filter and the last plan.
    pub(super) fn run(mut self, events: &Receiver<LinkEvent>) -> (Filter, Plan) {
        let mut ports: BTreeSet<PortKey> = self.plan.ports.iter().copied().collect();
        let mut gone_since: Option<Instant> = None;
        while !self.signals.stop.load(Ordering::Acquire) {
            let mut look = match events.recv_timeout(PACE) {
                Ok(event) => self.heard(&event),
                Err(RecvTimeoutError::Timeout) => false,
                // No namespace could be subscribed: hints still come from the drain thread.
                Err(RecvTimeoutError::Disconnected) => {
                    std::thread::sleep(PACE);
                    false
                }
            };
            while let Ok(event) = events.try_recv() {
                look |= self.heard(&event);
            }
            look |= self.signals.rediscover.swap(false, Ordering::AcqRel);
            if look {
                self.look(&mut ports);
                gone_since = self
                    .devices_gone()
                    .then(|| gone_since.unwrap_or_else(Instant::now));
            }
            let gone = gone_since.is_some_and(|since| since.elapsed() >= RETURN);
            self.signals.devices_gone.store(gone, Ordering::Release);
        }
        (self.filter, self.plan)
    }

    /// Whether no watched tunnel exists, or no watched device where there is no tunnel: the wire
    /// outlives a tunnel and says nothing without it.
    fn devices_gone(&self) -> bool {
        let plan = &self.plan;
        if plan.tunnels.is_empty() {
            plan.devices.iter().all(|device| device.ifindex == 0)
        } else {
            plan.tunnels.iter().all(|tunnel| tunnel.ifindex == 0)
        }
    }

    /// Says what happened to a watched device; returns whether to look again.
    fn heard(&mut self, event: &LinkEvent) -> bool {
        let watched = self
            .plan
            .devices
            .iter()
            .any(|device| device.netns == event.netns && device.name == event.name);
        if watched && event.change == LinkChange::Removed {
            self.store(
                vec![format!("device {} was removed", event.name)],
                Vec::new(),
            );
        }
        watched || event.change == LinkChange::Added || event.change == LinkChange::Overrun
    }

    fn look(&mut self, ports: &mut BTreeSet<PortKey>) {
        let mut next = discover::rediscover(&self.plan);
        keep_kernel_threads(&self.plan, &mut next);
        let mut what = discover::diff(&self.plan, &next);
        let mut devices: Vec<WatchedDevice> = Vec::new();
        for device in &next.devices {
            // A device that is gone stays in the plan with index 0.
            if device.ifindex != 0 && !self.plan.devices.contains(device) {
                match self.filter.watch_device(device) {
                    Ok(()) => devices.push(device.clone()),
                    Err(error) => what.push(error.to_string()),
                }
            }
        }
        for port in &next.ports {
            if ports.insert(*port)
                && let Err(error) = self.filter.watch_port(*port)
            {
                what.push(error.to_string());
            }
        }
        for process in &next.processes {
            if !self.plan.processes.contains(process)
                && let Err(error) = self.filter.watch_process(process.0, process.1)
            {
                what.push(error.to_string());
            }
        }
        self.plan = next;
        self.store(what, devices);
    }

    fn store(&self, what: Vec<String>, devices: Vec<WatchedDevice>) {
        if what.is_empty() && devices.is_empty() {
            return;
        }
        for sentence in &what {
            // The receiver ends with the recording.
            let _ = self.notes.send(sentence.clone());
        }
        let change = Change {
            time_ns: monotonic_ns(),
            what: what.join("; "),
            tunnels: self.plan.tunnels.clone(),
            devices,
        };
        let _ = self.changes.send(change);
    }
}

/// ksoftirqd and threaded NAPI do the path's work as threads of their own. WireGuard in the kernel does it in
/// work queues (drivers/net/wireguard/device.c: wg-crypt-*), which any kworker may serve; new ones are
/// children of kthreadd.
pub(super) fn add_kernel_threads(plan: &mut Plan) {
    let in_work_queues = plan
        .tunnels
        .iter()
        .any(|tunnel| tunnel.kind == TunnelKind::KernelWireguard);
    for pid in discover::process::pids() {
        let Some(comm) = discover::process::comm(pid) else {
            continue;
        };
        let serves = in_work_queues && (comm.starts_with("kworker/") || comm == "kthreadd");
        let of_path = comm.starts_with("ksoftirqd/") || comm.starts_with("napi/") || serves;
        if of_path && !plan.processes.iter().any(|(known, _)| *known == pid) {
            plan.processes.push((pid, process::KERNEL));
        }
    }
}

/// Threads of the kernel are not the daemon's: discovery does not find them again.
fn keep_kernel_threads(old: &Plan, next: &mut Plan) {
    let kernel = old
        .processes
        .iter()
        .filter(|(_, role)| *role == process::KERNEL);
    next.processes.extend(kernel);
}
