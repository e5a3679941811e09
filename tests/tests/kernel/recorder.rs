//! One recording by the real program, between two moments of silence.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use vpnbench::report::model::{Report, TapCount};
use vpnbench::trace::{Event, Reader};
use vpnbench_common::catalog::Tap;
use vpnbench_common::event::{
    Drop as Dropped, Packet, Payload, Retransmit, SockDrop, SynAckRetransmit, Taken,
};
use vpnbench_tests::binary;
use vpnbench_tests::netns::wait_for;
use vpnbench_tests::witness::{Hidden, Witness};

use crate::accounts::{Account, Link, read_all, settled};
use crate::hosts::{Host, wire};

/// How long starting or ending may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Events of a trace that tests look at.
#[derive(Debug, Default)]
pub(crate) struct Events {
    pub(crate) packets: Vec<Packet>,
    pub(crate) taken: Vec<Taken>,
    pub(crate) drops: Vec<Dropped>,
    pub(crate) sock_drops: Vec<SockDrop>,
    pub(crate) retransmits: Vec<Retransmit>,
    pub(crate) synacks: Vec<SynAckRetransmit>,
    pub(crate) payloads: Vec<Payload>,
    /// Tasks on top of which programs ran.
    pub(crate) tasks: BTreeSet<u32>,
}

impl Events {
    fn add(&mut self, event: Event<'_>) {
        self.tasks.insert(event.header().tid);
        match event {
            Event::Packet(event) => self.packets.push(*event),
            Event::Taken(event) => self.taken.push(*event),
            Event::Drop(event) => self.drops.push(*event),
            Event::SockDrop(event) => self.sock_drops.push(*event),
            Event::Retransmit(event) => self.retransmits.push(*event),
            Event::SynAckRetransmit(event) => self.synacks.push(*event),
            Event::Payload(event) => self.payloads.push(*event),
            _ => {}
        }
    }

    /// Packets at a tap of a namespace, in the order of time.
    pub(crate) fn at(&self, host: &Host, tap: Tap) -> impl Iterator<Item = &Packet> {
        let netns = host.inum();
        self.packets
            .iter()
            .filter(move |packet| packet.netns == netns && packet.tap == tap as u8)
    }
}

/// Units, bytes and perhaps segments: seen at a tap, and counted by the kernel.
pub(crate) type Row<const N: usize> = ([u64; N], [u64; N]);

/// A recording that has ended, with what the kernel counted meanwhile, host by host.
#[derive(Debug)]
pub(crate) struct Recorded {
    pub(crate) report: Report,
    pub(crate) events: Events,
    pub(crate) drop_reasons: std::collections::BTreeMap<u32, String>,
    pub(crate) accounts: Vec<Account>,
    /// What no program could see.
    pub(crate) hidden: Hidden,
}

/// Records what `traffic` does on the hosts.
pub(crate) fn record(
    hosts: &[&Host],
    arguments: &[&str],
    traffic: impl FnOnce() -> Result<()>,
) -> Result<Recorded> {
    record_with(&[], hosts, arguments, traffic)
}

/// Records what `traffic` does on the hosts, with daemons that may send of themselves: a keepalive ten
/// seconds after the last packet, say, which is within the start or the end of a recording on a slow machine.
/// They are stopped at these times.
pub(crate) fn record_with(
    daemons: &[u32],
    hosts: &[&Host],
    arguments: &[&str],
    traffic: impl FnOnce() -> Result<()>,
) -> Result<Recorded> {
    let stopped = Stopped::new(daemons, hosts)?;
    let before = settled(hosts)?;
    let devices: BTreeSet<String> = before
        .iter()
        .flat_map(|account| account.links.keys().cloned())
        .filter(|name| name != "lo")
        .collect();
    let witness = Witness::start(&devices)?;
    let recorder = Recorder::start(arguments)?;
    quiet(&before, &read_all(hosts)?, "while recording started")?;
    drop(stopped);
    traffic()?;
    let _stopped = Stopped::new(daemons, hosts)?;
    let end = settled(hosts)?;
    let (report, events, drop_reasons) = recorder.finish()?;
    let witnessed = witness.map_or(Ok(Vec::new()), Witness::finish)?;
    quiet(&end, &read_all(hosts)?, "while recording ended")?;
    let hidden = Hidden::new(witnessed, &events.tasks);
    ensure!(
        report.capture.lost == 0,
        "{} events lost",
        report.capture.lost
    );
    ensure!(report.capture.complete, "incomplete: {:?}", report.problems);
    if hidden.is_empty() {
        // Other devices may be among them, used by tasks that no program sees.
        let own = |place: &str| hosts.iter().any(|host| host.name() == place);
        for line in report.books.iter().filter(|line| own(&line.place)) {
            ensure!(line.agrees != Some(false), "the books disagree: {line:?}");
        }
    } else {
        crate::say(&format!("  {} events on top of hidden tasks", hidden.len()));
    }
    Ok(Recorded {
        report,
        events,
        drop_reasons,
        hidden,
        accounts: end
            .iter()
            .zip(&before)
            .map(|(after, before)| after.since(before))
            .collect(),
    })
}

/// Processes that do not run until this is dropped.
struct Stopped<'a>(&'a [u32]);

impl Stopped<'_> {
    /// Lets them finish what they have begun first; without any there is nothing to wait for.
    fn new<'a>(daemons: &'a [u32], hosts: &[&Host]) -> Result<Stopped<'a>> {
        if !daemons.is_empty() {
            settled(hosts)?;
        }
        let stopped = Stopped(daemons);
        stopped.send(Signal::SIGSTOP)?;
        Ok(stopped)
    }

    fn send(&self, signal: Signal) -> Result<()> {
        for pid in self.0 {
            kill(Pid::from_raw(pid.cast_signed()), signal).context("a daemon has ended")?;
        }
        Ok(())
    }
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.send(Signal::SIGCONT) {
            crate::say(&format!("  {error:#}"));
        }
    }
}

/// Traffic at the edges would be counted on one side only.
fn quiet(one: &[Account], other: &[Account], when: &str) -> Result<()> {
    for (one, other) in one.iter().zip(other) {
        let (one, other) = (&one.links, &other.links);
        ensure!(one == other, "traffic {when}: {one:?} then {other:?}");
    }
    Ok(())
}

impl Recorded {
    /// Holds what was seen at a tap on some hosts, against what the kernel counted there. What is
    /// missing must be what only the witness saw: usually nothing.
    pub(crate) fn agree<const N: usize>(
        &self,
        tap: Tap,
        device: &str,
        rows: &[Row<N>],
    ) -> Result<()> {
        // Only the wire carries Ethernet and is used by tasks that may be hidden.
        let l2_len = if device == wire() { 14 } else { 0 };
        let hidden = self.hidden.at(tap, device, l2_len);
        let mut missing = [0; N];
        for (seen, counted) in rows {
            for (index, sum) in missing.iter_mut().enumerate() {
                let (seen, counted) = (seen[index], counted[index]);
                ensure!(
                    seen <= counted,
                    "{} of {device}: seen {seen}, counted {counted}",
                    tap.name()
                );
                *sum += counted - seen;
            }
        }
        ensure!(
            missing == hidden[..N],
            "{} of {device}: (seen, counted) {rows:?}, hidden {hidden:?}; {:?}",
            tap.name(),
            self.report.problems
        );
        Ok(())
    }

    /// Units and bytes at a tap of a device, zero if nothing passed.
    pub(crate) fn tap(&self, host: &Host, device: &str, tap: Tap) -> (u64, u64) {
        self.row(host, device, tap)
            .map_or((0, 0), |row| (row.units, row.bytes.unwrap_or(0)))
    }

    /// The row of a tap.
    pub(crate) fn row(&self, host: &Host, device: &str, tap: Tap) -> Option<&TapCount> {
        self.report.taps.iter().find(|row| {
            row.netns == host.inum()
                && row.tap == tap.name()
                && row.device.as_deref() == Some(device)
        })
    }

    /// Units and bytes at a tap: recorded, and with what the filter left out. The report's sums
    /// must be those of the events.
    pub(crate) fn seen(&self, host: &Host, device: &str, tap: Tap) -> Result<(u64, u64)> {
        let interface = self
            .report
            .interfaces
            .iter()
            .find(|one| one.netns == host.inum() && one.device == device)
            .with_context(|| format!("{device} is not in the report"))?;
        let Some(seen) = interface.seen.iter().find(|one| one.tap == tap.name()) else {
            return Ok((0, 0));
        };
        ensure!(
            seen.units == seen.recorded_units + seen.filtered_units + seen.lost_units
                && seen.lost_units == 0,
            "{seen:?}"
        );
        ensure!(
            seen.recorded_units == self.tap(host, device, tap).0,
            "{seen:?}, taps {:?}",
            self.report.taps
        );
        Ok((seen.units, seen.bytes.context("no bytes")?))
    }

    /// Recorded and filtered units at a tap.
    pub(crate) fn parts(&self, host: &Host, device: &str, tap: Tap) -> (u64, u64) {
        let interface = self
            .report
            .interfaces
            .iter()
            .find(|one| one.netns == host.inum() && one.device == device);
        let seen = interface.and_then(|one| one.seen.iter().find(|seen| seen.tap == tap.name()));
        seen.map_or((0, 0), |seen| (seen.recorded_units, seen.filtered_units))
    }

    /// Holds the report's copy of the counters against the test's own.
    pub(crate) fn same_counters(&self, host: &Host, device: &str, own: Link) -> Result<()> {
        let interface = self
            .report
            .interfaces
            .iter()
            .find(|one| one.netns == host.inum() && one.device == device)
            .with_context(|| format!("{device} is not in the report"))?;
        let counters = interface.counters.context("no counters")?;
        let theirs = Link {
            rx_bytes: counters.rx_bytes,
            rx_packets: counters.rx_packets,
            rx_dropped: counters.rx_dropped,
            tx_bytes: counters.tx_bytes,
            tx_packets: counters.tx_packets,
            tx_dropped: counters.tx_dropped,
        };
        ensure!(theirs == own, "{device}: {theirs:?}, but {own:?}");
        Ok(())
    }

    /// Sums of the packet events themselves at a tap.
    pub(crate) fn summed(&self, host: &Host, tap: Tap) -> (u64, u64) {
        self.events.at(host, tap).fold((0, 0), |sum, packet| {
            (sum.0 + 1, sum.1 + u64::from(packet.len))
        })
    }

    /// Drops in a namespace for a reason: units and bytes.
    pub(crate) fn drops(&self, host: &Host, reason: &str) -> (u64, u64) {
        let reason = self
            .drop_reasons
            .iter()
            .find(|(_, name)| *name == reason)
            .map(|(number, _)| *number);
        let drops = self.events.drops.iter();
        drops
            .filter(|drop| drop.netns == host.inum() && Some(drop.reason) == reason)
            .fold((0, 0), |sum, drop| (sum.0 + 1, sum.1 + u64::from(drop.len)))
    }
}

/// A running recorder; ended when dropped.
struct Recorder {
    child: Child,
    directory: TempDir,
    said: Receiver<String>,
    reader: Option<JoinHandle<()>>,
    log: Vec<String>,
}

impl Recorder {
    /// Starts it and waits until it says that it records.
    fn start(arguments: &[&str]) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let path = |name: &str| directory.path().join(name);
        let mut child = binary::vpnbench()
            .args(["-v", "attach", "--report", "json", "--report-file"])
            .arg(path("report.json"))
            .arg("-o")
            .arg(path("trace.vbt"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let output = child.stderr.take().context("no stderr")?;
        let (send, said) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        let mut recorder = Self {
            child,
            directory,
            said,
            reader: Some(reader),
            log: Vec::new(),
        };
        recorder.wait_until_recording()?;
        Ok(recorder)
    }

    fn wait_until_recording(&mut self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.said.recv_timeout(left) {
                Ok(line) if line.contains(": recording to ") => return Ok(()),
                Ok(line) => self.log.push(line),
                Err(RecvTimeoutError::Timeout) => bail!("not recording: {}", self.log.join("\n")),
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("the recorder ended: {}", self.log.join("\n"))
                }
            }
        }
    }

    /// Ends it as Ctrl-C does, and reads what it wrote.
    fn finish(mut self) -> Result<(Report, Events, std::collections::BTreeMap<u32, String>)> {
        // The child is not reaped yet, so its id still means it.
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT)?;
        let mut status = None;
        wait_for(PATIENCE, || {
            status = self.child.try_wait().ok().flatten();
            status.is_some()
        });
        let status = status.context("the recorder does not end")?;
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        self.log.extend(self.said.try_iter());
        ensure!(status.success(), "{status}: {}", self.log.join("\n"));
        let report = std::fs::read(self.directory.path().join("report.json"))?;
        let report: Report = serde_json::from_slice(&report)?;
        let reader = Reader::open(&self.directory.path().join("trace.vbt"))?;
        let drop_reasons = reader.start().drop_reasons.clone();
        let mut events = Events::default();
        let summary = reader.for_each(|event| events.add(event))?;
        ensure!(summary.problems.is_empty(), "{:?}", summary.problems);
        Ok((report, events, drop_reasons))
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
