//! A second witness of the packets: the kernel's own trace events, beside the programs on the same
//! tracepoints.
//!
//! A kernel may keep tracing programs from running on top of some of its tasks. The kernel that
//! this suite was written on does so for process 1 and says nothing about it, neither as a miss of
//! the program nor as an error: a softirq that happens to interrupt one of its threads is invisible
//! to every program, and its packets are missing. Trace events are recorded there all the same. So
//! what a tap did not see must be, packet by packet, what the witness saw on top of tasks of which
//! no program of the recording ever saw anything. On a kernel that hides nothing that is nothing,
//! and the counts must be equal.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;
use vpnbench_common::catalog::Tap;

use crate::netns::unique;

/// Room for events on each processor.
const BUFFER_KIB: &str = "16384";

/// Trace events, and what selects those of a device.
const EVENTS: [&str; 3] = ["net_dev_queue", "net_dev_start_xmit", "netif_receive_skb"];
const RETRANSMITS: [&str; 2] = ["tcp_retransmit_skb", "tcp_retransmit_synack"];

/// One event, as its line says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fired {
    /// CLOCK_MONOTONIC in ns, exact to a microsecond.
    pub time_ns: u64,
    /// Its name.
    pub event: String,
    /// The task that ran, or was interrupted.
    pub tid: u32,
    /// Device, empty without one.
    pub device: String,
    /// Bytes of the skb.
    pub len: u64,
    /// Segments, at least 1.
    pub segments: u64,
    /// Everything after the name of the event.
    pub text: String,
}

/// Trace events that are being recorded.
#[derive(Debug)]
pub struct Witness {
    // Removed in this order.
    instance: Instance,
    _mounted: Mounted,
}

#[derive(Debug)]
struct Instance(PathBuf);

#[derive(Debug)]
struct Mounted(TempDir);

impl Drop for Mounted {
    fn drop(&mut self) {
        // Nothing else is there to be done about it.
        let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

impl Witness {
    /// Starts to record the events of devices of these names (`*` stands for anything), which should be
    /// nobody else's. None if this kernel has no trace events: then nothing may be missing.
    ///
    /// # Errors
    /// When the kernel has them and does not record them.
    pub fn start(devices: &BTreeSet<String>) -> Result<Option<Self>> {
        Self::start_beside(devices, &BTreeSet::new(), &BTreeSet::new())
    }

    /// As [`Witness::start`], and of devices whose names others use too what happens on top of some
    /// tasks.
    ///
    /// # Errors
    /// When the kernel has them and does not record them.
    pub fn start_beside(
        devices: &BTreeSet<String>,
        shared: &BTreeSet<String>,
        tasks: &BTreeSet<u32>,
    ) -> Result<Option<Self>> {
        let directory = tempfile::tempdir()?;
        let none: Option<&str> = None;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        if mount(none, directory.path(), Some("tracefs"), flags, none).is_err() {
            return Ok(None);
        }
        let mounted = Mounted(directory);
        let path = mounted.0.path().join("instances").join(unique("vbt"));
        fs::create_dir(&path).context("a trace instance")?;
        let instance = Instance(path);
        let any = |parts: Vec<String>| format!("({})", parts.join(" || "));
        let named = |names: &BTreeSet<String>| {
            any(names
                .iter()
                .map(|one| format!("name ~ \"{one}\""))
                .collect())
        };
        let mut filter = named(devices);
        if !shared.is_empty() && !tasks.is_empty() {
            let on_top = tasks.iter().map(|tid| format!("common_pid == {tid}"));
            let on_top = any(on_top.collect());
            filter = format!("{filter} || ({} && {on_top})", named(shared));
        }
        instance.write("buffer_size_kb", BUFFER_KIB)?;
        instance.write("trace_clock", "mono")?;
        for event in EVENTS {
            instance.write(&format!("events/net/{event}/filter"), &filter)?;
            instance.write(&format!("events/net/{event}/enable"), "1")?;
        }
        for event in RETRANSMITS {
            instance.write(&format!("events/tcp/{event}/enable"), "1")?;
        }
        Ok(Some(Self {
            instance,
            _mounted: mounted,
        }))
    }

    /// Ends the recording; all events.
    ///
    /// # Errors
    /// When events were lost or cannot be read.
    pub fn finish(self) -> Result<Vec<Fired>> {
        self.instance.write("tracing_on", "0")?;
        for entry in fs::read_dir(self.instance.0.join("per_cpu"))? {
            let stats = fs::read_to_string(entry?.path().join("stats"))?;
            ensure!(
                stats.lines().any(|line| line == "overrun: 0"),
                "trace events were lost: {stats}"
            );
        }
        let text = fs::read_to_string(self.instance.0.join("trace"))?;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(parse).collect()
    }
}

impl Instance {
    fn write(&self, name: &str, value: &str) -> Result<()> {
        let path: PathBuf = Path::new(&self.0).join(name);
        fs::write(&path, value).with_context(|| path.display().to_string())
    }
}

/// `  task name-123  [001] b..1.  5604.690566: net_dev_start_xmit: dev=t0 ... len=48 ...`
fn parse(line: &str) -> Result<Fired> {
    let parts = || {
        let (task, rest) = line.split_once(" [")?;
        let tid = task.trim_end().rsplit_once('-')?.1.parse().ok()?;
        let (before, rest) = rest.split_once(": ")?;
        let seconds: f64 = before.rsplit(' ').next()?.parse().ok()?;
        let (event, text) = rest.split_once(": ")?;
        Some((tid, (seconds * 1e9) as u64, event, text))
    };
    let (tid, time_ns, event, text) = parts().with_context(|| format!("trace event: {line}"))?;
    let field = |name: &str| {
        let mut words = text.split_whitespace();
        words.find_map(|word| word.strip_prefix(name))
    };
    let number = |name: &str| field(name).and_then(|value| value.parse().ok());
    Ok(Fired {
        time_ns,
        event: event.to_owned(),
        tid,
        device: field("dev=").unwrap_or_default().to_owned(),
        len: number("len=").unwrap_or(0),
        segments: number("gso_segs=").unwrap_or(0).max(1),
        text: text.to_owned(),
    })
}

/// Packets that no program could see.
#[derive(Debug, Default)]
pub struct Hidden(Vec<Fired>);

impl Hidden {
    /// Of all events, those on top of tasks other than the ones that programs did see.
    #[must_use]
    pub fn new(mut events: Vec<Fired>, visible: &BTreeSet<u32>) -> Self {
        events.retain(|event| !visible.contains(&event.tid));
        Self(events)
    }

    /// Units, bytes and segments at a tap of a device with `l2_len` bytes of link-layer header.
    #[must_use]
    pub fn at(&self, tap: Tap, device: &str, l2_len: u64) -> [u64; 3] {
        let (event, l2_len) = match tap {
            Tap::TunQueue | Tap::OuterQueue => ("net_dev_queue", 0),
            Tap::TunTx | Tap::OuterTx => ("net_dev_start_xmit", 0),
            // The event counts from the network header on.
            Tap::TunWrite | Tap::OuterRx => ("netif_receive_skb", l2_len),
            _ => return [0; 3],
        };
        let of_tap = self.0.iter();
        let of_tap = of_tap.filter(|one| one.event == event && one.device == device);
        of_tap.fold([0; 3], |[units, bytes, segments], one| {
            [units + 1, bytes + one.len + l2_len, segments + one.segments]
        })
    }

    /// Retransmissions to an address, in skb units: the event does not say how many segments.
    #[must_use]
    pub fn retransmissions(&self, to: std::net::IpAddr) -> u64 {
        let field = match to {
            std::net::IpAddr::V4(_) => format!("daddr={to} "),
            std::net::IpAddr::V6(_) => format!("daddrv6={to} "),
        };
        let of_address = self.0.iter();
        let of_address = of_address
            .filter(|one| RETRANSMITS.contains(&&*one.event) && one.text.contains(&field));
        of_address.count() as u64
    }

    /// Events.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether everything could be seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
