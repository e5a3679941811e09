//! What several recordings say of themselves, as one.

use std::collections::BTreeSet;

use super::clock::{Aligned, Mapping};
use super::tag::Tag;
use crate::trace::Summary;
use crate::trace::model::{
    Change, CommandOutput, Daemon, DeviceRef, End, Environment, Namespace, OuterSocket, ProbeCount,
    Start, StatisticsWindows, Symbols, Tunnel, UnrecordedCount, WatchedDevice,
};

/// Namespaces that a recording names.
pub(super) fn namespaces(start: &Start) -> BTreeSet<u32> {
    let named = start.environment.namespaces.iter().map(|one| one.netns);
    let devices = start.devices.iter().map(|one| one.netns);
    named.chain(devices).collect()
}

/// Puts tag and clock on what a recording says of itself.
pub(super) struct Marked<'a> {
    pub(super) tag: &'a Tag,
    pub(super) clock: &'a Aligned,
}

impl Marked<'_> {
    fn time(&self, time_ns: u64) -> u64 {
        match time_ns {
            0 => 0,
            time => self.clock.mapping.of(time),
        }
    }

    pub(super) fn start(&self, mut start: Start) -> Start {
        start.clock.monotonic_ns = self.time(start.clock.monotonic_ns);
        start.tunnels = start
            .tunnels
            .into_iter()
            .map(|one| self.tunnel(one))
            .collect();
        start.devices = start
            .devices
            .into_iter()
            .map(|one| self.device(one))
            .collect();
        start.environment = self.environment(start.environment, &start.host.hostname);
        start
    }

    fn device(&self, mut device: WatchedDevice) -> WatchedDevice {
        device.netns = self.tag.netns(device.netns);
        device
    }

    fn tunnel(&self, tunnel: Tunnel) -> Tunnel {
        Tunnel {
            netns: self.tag.netns(tunnel.netns),
            daemon: tunnel.daemon.map(|daemon| Daemon {
                pid: self.tag.process(daemon.pid),
                netns: self.tag.netns(daemon.netns),
                ..daemon
            }),
            sockets: tunnel
                .sockets
                .into_iter()
                .map(|socket| OuterSocket {
                    netns: self.tag.netns(socket.netns),
                    ..socket
                })
                .collect(),
            outer_devices: tunnel
                .outer_devices
                .into_iter()
                .map(|device| DeviceRef {
                    netns: self.tag.netns(device.netns),
                    ..device
                })
                .collect(),
            ..tunnel
        }
    }

    fn environment(&self, mut environment: Environment, host: &str) -> Environment {
        environment.time_ns = self.time(environment.time_ns);
        for namespace in &mut environment.namespaces {
            self.namespace(namespace, host);
        }
        for thread in &mut environment.threads {
            thread.tgid = self.tag.process(thread.tgid);
            thread.tid = self.tag.process(thread.tid);
        }
        for core in &mut environment.cores {
            core.cpu = self.tag.core(core.cpu);
        }
        environment
    }

    fn namespace(&self, namespace: &mut Namespace, host: &str) {
        namespace.netns = self.tag.netns(namespace.netns);
        namespace.clock_uncertainty_ns = self.clock.uncertainty_ns.map(|ns| ns.ceil() as u64);
        if namespace.name.is_none() {
            namespace.name = Some(host.to_owned());
        }
    }

    /// What is read behind the events.
    pub(super) fn summary(&self, mut summary: Summary) -> Summary {
        let host = summary.start.host.hostname.clone();
        summary.end = summary.end.map(|end| self.end(end, &host));
        let changes = summary.changes.into_iter().map(|change| Change {
            time_ns: self.time(change.time_ns),
            what: change.what,
            tunnels: change
                .tunnels
                .into_iter()
                .map(|one| self.tunnel(one))
                .collect(),
            devices: change
                .devices
                .into_iter()
                .map(|one| self.device(one))
                .collect(),
        });
        summary.changes = changes.collect();
        for socket in &mut summary.sockets {
            socket.netns = self.tag.netns(socket.netns);
        }
        let symbols = std::mem::take(&mut summary.symbols);
        summary.symbols = Symbols {
            kernel: symbols
                .kernel
                .into_iter()
                .map(|(address, name)| (self.tag.address(address), name))
                .collect(),
            user: symbols
                .user
                .into_iter()
                .map(|(process, names)| (self.tag.process(process), names))
                .collect(),
            build_ids: symbols.build_ids,
        };
        summary
    }

    fn end(&self, end: End, host: &str) -> End {
        let mut end = end;
        end.clock.monotonic_ns = self.time(end.clock.monotonic_ns);
        end.environment = self.environment(end.environment, host);
        if let Some(status) = &mut end.command_status {
            status.started_ns = self.time(status.started_ns);
            status.ended_ns = self.time(status.ended_ns);
        }
        end.command_output = end.command_output.map(|output| self.output(output));
        let unrecorded = end.unrecorded.into_iter().map(|count| UnrecordedCount {
            netns: self.tag.netns(count.netns),
            ..count
        });
        end.unrecorded = unrecorded.collect();
        end
    }

    fn output(&self, mut output: CommandOutput) -> CommandOutput {
        for chunk in &mut output.chunks {
            chunk.time_ns = self.time(chunk.time_ns);
        }
        output
    }
}

/// Names of namespaces that stand twice get the number of their recording.
fn distinct(namespaces: &mut [Namespace], number: usize, taken: &BTreeSet<String>) {
    for namespace in namespaces {
        if let Some(name) = &mut namespace.name
            && taken.contains(name)
        {
            *name = format!("{name}#{}", number + 1);
        }
    }
}

fn names(environment: &Environment) -> BTreeSet<String> {
    let all = environment.namespaces.iter();
    all.filter_map(|one| one.name.clone()).collect()
}

/// One start frame of several.
pub(super) fn starts(all: Vec<Start>) -> Start {
    let mut all = all.into_iter();
    let mut joined = all.next().unwrap_or_default();
    let mut hosts = vec![joined.host.hostname.clone()];
    for (number, mut next) in all.enumerate() {
        let taken = names(&joined.environment);
        distinct(&mut next.environment.namespaces, number + 1, &taken);
        joined.run_id = format!("{}+{}", joined.run_id, next.run_id);
        if !hosts.contains(&next.host.hostname) {
            hosts.push(next.host.hostname.clone());
        }
        if joined.command.is_empty() {
            joined.command = next.command;
        }
        joined.tunnels.extend(next.tunnels);
        joined.devices.extend(next.devices);
        for probe in &mut joined.probes {
            let other = next.probes.iter().find(|other| other.id == probe.id);
            // What one of them does not see is not seen.
            if let Some(other) = other.filter(|other| probe.attached && !other.attached) {
                probe.attached = false;
                probe.reason.clone_from(&other.reason);
            }
        }
        joined.drop_reasons.extend(next.drop_reasons);
        joined.keep_payload = joined.keep_payload.min(next.keep_payload);
        // The earliest start counts, as one moment on all clocks of the first recording.
        let now = joined.clock.monotonic_ns;
        let earlier = now.saturating_sub(next.clock.monotonic_ns);
        joined.clock.monotonic_ns -= earlier;
        joined.clock.realtime_ns = joined.clock.realtime_ns.saturating_sub(earlier);
        joined.clock.boottime_ns = joined.clock.boottime_ns.saturating_sub(earlier);
        add(&mut joined.environment, next.environment);
    }
    joined.host.hostname = hosts.join(", ");
    joined
}

fn add(joined: &mut Environment, next: Environment) {
    joined.namespaces.extend(next.namespaces);
    joined.threads.extend(next.threads);
    joined.cores.extend(next.cores);
    joined.tools.extend(next.tools);
    joined.missing.extend(next.missing);
}

/// One summary of several; the ends must all be there for the whole to have ended in order.
pub(super) fn summaries(start: Start, all: Vec<Summary>) -> Summary {
    let mut joined = Summary {
        start,
        ..Summary::default()
    };
    let mut ends = Vec::new();
    let count = all.len();
    for summary in all {
        ends.extend(summary.end);
        joined.changes.extend(summary.changes);
        joined.sockets.extend(summary.sockets);
        joined.symbols.kernel.extend(summary.symbols.kernel);
        joined.symbols.user.extend(summary.symbols.user);
        joined.symbols.build_ids.extend(summary.symbols.build_ids);
        for (probe, lost) in summary.lost {
            *joined.lost.entry(probe).or_default() += lost;
        }
        joined.blocks += summary.blocks;
        joined.missing_frames += summary.missing_frames;
        joined.events += summary.events;
        joined.bytes += summary.bytes;
        joined.truncated |= summary.truncated;
        joined.problems.extend(summary.problems);
    }
    joined.changes.sort_by_key(|change| change.time_ns);
    if ends.len() == count {
        joined.end = self::ends(ends);
    }
    joined
}

fn ends(all: Vec<End>) -> Option<End> {
    let mut all = all.into_iter();
    let mut joined = all.next()?;
    for (number, mut next) in all.enumerate() {
        let taken = names(&joined.environment);
        distinct(&mut next.environment.namespaces, number + 1, &taken);
        joined.clock.monotonic_ns = joined.clock.monotonic_ns.max(next.clock.monotonic_ns);
        if joined.command_status.is_none() {
            joined.command_status = next.command_status;
            joined.command_output = next.command_output;
        }
        for count in next.counts {
            match joined.counts.iter_mut().find(|one| one.id == count.id) {
                Some(one) => {
                    one.events += count.events;
                    one.lost += count.lost;
                    one.skipped += count.skipped;
                    together(one, &count);
                }
                None => joined.counts.push(count),
            }
        }
        joined.unrecorded.extend(next.unrecorded);
        joined.tool_cpu_s += next.tool_cpu_s;
        let both = joined.bpf_statistics.zip(next.bpf_statistics);
        joined.bpf_statistics = both.map(|(a, b)| a && b);
        joined.bpf_windows = windows(joined.bpf_windows, next.bpf_windows);
        joined.softirq_s.extend(next.softirq_s);
        add(&mut joined.environment, next.environment);
    }
    Some(joined)
}

/// Runs of a program on two machines, and what one of them took.
fn together(one: &mut ProbeCount, other: &ProbeCount) {
    let time = |count: &ProbeCount| Some(count.ns_per_run? * count.runs? as f64);
    let sum = time(one).zip(time(other)).map(|(a, b)| a + b);
    one.runs = one.runs.zip(other.runs).map(|(a, b)| a + b);
    one.ns_per_run = sum.zip(one.runs).map(|(ns, runs)| ns / runs.max(1) as f64);
}

/// The windows of two recordings; the statistics of one without any were on all the time.
fn windows(
    one: Option<StatisticsWindows>,
    other: Option<StatisticsWindows>,
) -> Option<StatisticsWindows> {
    let (Some(a), Some(b)) = (one, other) else {
        return one.or(other);
    };
    Some(StatisticsWindows {
        count: a.count.min(b.count),
        share: a.share.min(b.share),
        variance_s2: a.variance_s2.zip(b.variance_s2).map(|(a, b)| a + b),
    })
}

/// The wall clock of a recording as that of the first: what must do where no packets tell.
pub(super) fn by_wall_clock(first: &Start, start: &Start) -> Mapping {
    let utc = i128::from(first.clock.realtime_ns) - i128::from(first.clock.monotonic_ns);
    let own = i128::from(start.clock.realtime_ns) - i128::from(start.clock.monotonic_ns);
    let base = i128::from(start.clock.monotonic_ns) + own - utc;
    match u64::try_from(base) {
        Ok(base) => Mapping::shifted(start.clock.monotonic_ns, base),
        Err(_) => Mapping::SAME,
    }
}
