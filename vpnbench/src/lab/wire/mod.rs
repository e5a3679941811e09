//! What joins the hosts: devices, and the impairments of `tc netem` on the way.
//!
//! `start` builds it before the tunnel; [`Wire::check`] says whether it still stands,
//! [`Wire::account`] what it really did.

mod account;
mod delay;
mod embedded;
mod hold;
mod impairment;
mod links;
mod netem;
mod offload;
mod queue;
mod random;
mod request;
mod spec;
mod tables;
mod truth;
mod values;

use std::path::{Path, PathBuf};

pub use account::{
    Count, Difference, EgressAccount, HostAccount, NetemAccount, Spread, WireAccount,
};
pub(super) use embedded::{NAME, run};
pub use impairment::{Distribution, Impairment};
pub use spec::{Backend, DirectionSpec, InvalidKey, Model, Place, Profile, Unit, WireSpec};
pub use truth::{
    FATE_JUMPED, FATE_LOST, FATE_OVER_LIMIT, FATE_SENT, FATE_UNDELIVERABLE, FATE_WAITING,
    TruthRecord, read_truth,
};
pub use values::{Percent, Rate, Time};

use super::error::{LabError, Result};
use super::hosts::{Host, Hosts};
use super::netlink;
use super::process::Process;
use super::undo::Undo;
use embedded::{Embedded, PortSettings, Settings};

/// The devices between the hosts, ready to carry packets.
#[derive(Debug)]
pub struct Wire {
    spec: WireSpec,
    backend: Backend,
    seed: u64,
    hosts: Vec<Host>,
    embedded: Option<Embedded>,
    /// Namespace of what stands between the hosts, if anything does.
    middle: Option<PathBuf>,
    notes: Vec<String>,
}

/// What [`start`] needs beside the settings.
pub(crate) struct Setup<'a> {
    /// The run's id.
    pub(crate) id: &'a str,
    /// The hosts, without wire devices.
    pub(crate) hosts: &'a Hosts,
    /// Where everything is entered that has to be removed.
    pub(crate) undo: &'a mut Undo,
    /// Where the wire's own random draws start.
    pub(crate) seed: u64,
    /// Where logs are kept, the truth log included.
    pub(crate) logs: &'a Path,
}

/// Joins the hosts, gives their wire devices addresses and brings them up.
pub(crate) fn start(spec: &WireSpec, mut setup: Setup<'_>) -> Result<Wire> {
    spec.validate()
        .map_err(LabError::failed("checking", "the wire's settings"))?;
    let backend = choose(spec)?;
    let mut wire = Wire {
        spec: spec.clone(),
        backend,
        seed: setup.seed,
        hosts: setup.hosts.iter().cloned().collect(),
        embedded: None,
        middle: None,
        notes: Vec::new(),
    };
    match backend {
        Backend::Netem => wire.start_netem(&mut setup)?,
        Backend::Embedded => wire.start_embedded(&mut setup)?,
        Backend::None | Backend::Auto => {
            wire.middle = links::veth(setup.hosts, setup.undo, setup.id)?;
        }
    }
    setup.hosts.iter().try_for_each(links::bring_up)?;
    Ok(wire)
}

/// Decides what `auto` means here.
fn choose(spec: &WireSpec) -> Result<Backend> {
    Ok(match spec.backend {
        Backend::Auto if spec.is_plain() && spec.truth.is_none() => Backend::None,
        Backend::Auto
            if spec.model == Model::Exact || spec.truth.is_some() || spec.limits_size() =>
        {
            Backend::Embedded
        }
        Backend::Auto if netem::is_available()? => Backend::Netem,
        Backend::Auto => Backend::Embedded,
        Backend::Netem if !netem::is_available()? => {
            let reason = "this kernel has no sch_netem (modprobe sch_netem); backend = \"embedded\" does without";
            return Err(LabError::Skipped(format!(
                "wire.backend = \"netem\": {reason}"
            )));
        }
        chosen => chosen,
    })
}

/// Whether this kernel has netem.
///
/// # Errors
/// When it cannot be tried out: not permitted, for example.
pub fn netem_is_available() -> Result<bool> {
    netem::is_available()
}

impl Wire {
    fn start_netem(&mut self, setup: &mut Setup<'_>) -> Result<()> {
        let in_the_middle = self.spec.place == Place::Middle;
        self.middle = if in_the_middle {
            Some(links::uplinks(setup.hosts, setup.undo, setup.id)?)
        } else {
            links::veth(setup.hosts, setup.undo, setup.id)?
        };
        let whole = self.spec.offload() && self.spec.unit == Unit::Skb;
        for host in &self.hosts {
            if !whole && (in_the_middle || !self.spec.offload()) {
                // The host's kernel cuts super-packets after its own queue, before the next hop.
                offload::switch_off(&host.netns, &host.device)?;
            }
            if self.spec.unit == Unit::Packet && !in_the_middle {
                netlink::set_gso_max_segs(&host.netns, &host.device, 1)?;
            }
            let (netns, device) = self.netem_at(host);
            let impairment = self.spec.impairment(host.number);
            netem::add(netns, &device, &impairment, self.seed_of(host))?;
        }
        if self.spec.unit == Unit::Packet && !in_the_middle {
            self.notes.push(
                "netem on the sender's egress acts before the kernel cuts super-packets: TCP is kept to one segment per unit by gso_max_segs=1, but UDP_SEGMENT batches stay whole units; place = \"middle\" cuts those too".to_owned(),
            );
        }
        self.notes.push(
            "netem's statistics mix units: sent counts segments, dropped counts units, and loss is not told from the limit".to_owned(),
        );
        Ok(())
    }

    /// Namespace and device where the netem of what leaves a host sits.
    fn netem_at<'a>(&'a self, host: &'a Host) -> (&'a Path, String) {
        match &self.middle {
            Some(middle) if self.spec.place == Place::Middle => (middle, links::uplink(host)),
            _ => (&host.netns, host.device.clone()),
        }
    }

    fn start_embedded(&mut self, setup: &mut Setup<'_>) -> Result<()> {
        if !Path::new("/dev/net/tun").exists() {
            let reason = "/dev/net/tun not found (modprobe tun), which the embedded wire needs";
            return Err(LabError::Skipped(reason.to_owned()));
        }
        let in_the_middle = self.spec.place == Place::Middle;
        if in_the_middle {
            self.middle = Some(links::entries(setup.hosts, setup.undo, setup.id)?);
            if !self.spec.offload() {
                for host in &self.hosts {
                    offload::switch_off(&host.netns, &host.device)?;
                }
            }
        }
        self.notes.extend(match self.spec.place {
            Place::Egress => Some("the embedded wire on a host's egress is a TAP device, which takes packets out of the host's books at once: TCP does not see its original still queued and does not hold retransmissions back (TCPSpuriousRtxHostQueues stays 0), nor does TCP small queues limit what waits; place = \"host\" has that, and netem on egress"),
            Place::Host => Some("packets wait in the sending host before its wire device, where no tap of this program is; segments of super-packets that wait are reckoned from the flow's last at the device"),
            Place::Middle => None,
        }.map(str::to_owned));
        let settings = self.settings(setup);
        // The process touches the file system and its devices only; its own namespace is no matter.
        let log = setup.logs.join("wire.log");
        let embedded = Embedded::start(setup.undo, &settings, &setup.hosts.a.netns, log)?;
        for host in &self.hosts {
            links::finish_tap(host, self.middle.as_deref())?;
            if self.is_in_the_host(host) {
                if self.spec.unit == Unit::Packet {
                    // As with netem: TCP makes no super-packets, so that its original is what waits.
                    netlink::set_gso_max_segs(&host.netns, &host.device, 1)?;
                }
                hold::add(host)?;
            }
        }
        self.embedded = Some(embedded);
        Ok(())
    }

    fn settings(&self, setup: &Setup<'_>) -> Settings {
        let in_the_middle = self.middle.is_some();
        let port = |host: &Host| PortSettings {
            label: host.label.clone(),
            number: host.number,
            netns: self.middle.clone().unwrap_or_else(|| host.netns.clone()),
            device: links::tap(host, in_the_middle),
            impairment: self.spec.impairment(host.number),
            in_the_host: self.is_in_the_host(host),
            seed: self.seed_of(host),
        };
        Settings {
            ports: self.hosts.iter().map(port).collect(),
            unit: self.spec.unit,
            model: self.spec.model,
            offload: self.spec.offload(),
            socket: setup.undo.directory().join("wire.sock"),
            account: setup.logs.join("wire.json"),
            truth: self.spec.truth.as_ref().map(|name| setup.logs.join(name)),
        }
    }

    /// Whether what a host sends waits in it; without an impairment nothing waits.
    fn is_in_the_host(&self, host: &Host) -> bool {
        self.spec.place == Place::Host && !self.spec.impairment(host.number).is_none()
    }

    /// Whether packets wait in their hosts, before the devices that a recorder sees.
    pub(super) fn holds_in_hosts(&self) -> bool {
        self.backend == Backend::Embedded && self.spec.place == Place::Host
    }

    /// Each host's draws start elsewhere, so that the directions are independent.
    fn seed_of(&self, host: &Host) -> u64 {
        self.seed.wrapping_add(u64::from(host.number) << 32)
    }

    /// What acts; never [`Backend::Auto`].
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// The embedded wire's process, which the run depends on like on a daemon.
    #[must_use]
    pub fn process(&self) -> Option<&Process> {
        self.embedded.as_ref().map(Embedded::process)
    }

    /// Fails once the wire's process has ended: from then on no packet passes.
    pub fn check(&self) -> Result<()> {
        match &self.embedded {
            Some(embedded) if embedded.process().has_ended() => Err(embedded.ended()),
            _ => Ok(()),
        }
    }

    /// What the wire did so far. Fails when its process has ended.
    pub fn account(&self) -> Result<WireAccount> {
        let report = self.embedded.as_ref().map(Embedded::report).transpose()?;
        let hosts = self.hosts.iter().map(|host| {
            let egress = report.as_ref().map(|report| &report.egress);
            let own = egress.and_then(|all| all.iter().find(|(label, _)| *label == host.label));
            Ok(HostAccount {
                host: host.label.clone(),
                configured: self.spec.impairment(host.number),
                embedded: own.map(|(_, account)| account.clone()),
                netem: self.netem_account(host)?,
                dropped_before: self.dropped_before(host),
            })
        });
        Ok(WireAccount {
            backend: self.backend,
            place: self.spec.place,
            unit: self.spec.unit,
            model: self.spec.model,
            seed: self.seed,
            hosts: hosts.collect::<Result<_>>()?,
            cpu_ns: report.map(|report| report.cpu_ns),
            notes: self.notes.clone(),
        })
    }

    fn netem_account(&self, host: &Host) -> Result<Option<NetemAccount>> {
        if self.backend != Backend::Netem {
            return Ok(None);
        }
        let (netns, device) = self.netem_at(host);
        netem::account(netns, &device).map(Some)
    }

    /// Drops of the TAP device's queue: units that never reached the embedded wire.
    fn dropped_before(&self, host: &Host) -> Option<u64> {
        self.embedded.as_ref()?;
        let netns = self.middle.as_ref().unwrap_or(&host.netns);
        let device = links::tap(host, self.middle.is_some());
        netlink::counters(netns, &device)
            .ok()
            .map(|counters| counters.not_sent)
    }
}
