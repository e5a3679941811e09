//! From outputs of the analyses to the report.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use vpnbench_common::catalog::{ProbeId, Tap, probe_row};

use super::model::{
    self, Capture, Change, CommandStatus, Daemon, Environment, Flow, Loss, Outer, Report,
    Retransmits, Run, Tunnel,
};
use super::tcp;
use crate::analysis::flows::FlowCount;
use crate::analysis::taps::TapCount;
use crate::analysis::{Context, Outputs, Problem, Severity, address, seconds, threads};
use crate::explain::{Given, explain};
use crate::trace::model as trace;

/// Parts that this version does not compute.
const NOT_ANALYSED: [&str; 0] = [];

/// What is known of the recording as a file.
#[derive(Debug, Clone, Default)]
pub struct Recording {
    /// Size in bytes; `None` if the events did not come from a trace.
    pub bytes: Option<u64>,
    /// Whether it ends before its end frame.
    pub truncated: bool,
    /// What was wrong with the file.
    pub problems: Vec<Problem>,
    /// What the caller knows about the run that the trace does not tell.
    pub given: Given,
}

/// Composes the report of one trace.
#[must_use]
pub fn build(
    context: &Context<'_>,
    outputs: Outputs,
    found: Vec<Problem>,
    recording: Recording,
) -> Report {
    let tunnels: Vec<Tunnel> = context
        .start
        .tunnels
        .iter()
        .map(|one| tunnel(context, one, &outputs.flows, &outputs.taps))
        .collect();
    let capture = capture(context, &outputs, &recording);
    let findings = explain(context, &outputs, &recording.given);
    let mut problems = recording.problems;
    problems.extend(unseen(context, &capture));
    problems.extend(found);
    problems.sort_by_key(|problem| std::cmp::Reverse(problem.severity));
    let retransmits = &outputs.retransmits;
    let mut books = retransmits.books.clone();
    books.extend(outputs.drops.books.iter().cloned());
    books.extend(outputs.interfaces.books.iter().cloned());
    let losses = losses(context, &outputs);
    Report {
        schema: model::SCHEMA.to_owned(),
        run: run(context, &outputs),
        capture,
        tunnel: tunnels.first().cloned(),
        tunnels,
        flows: flows(context, &outputs),
        tcp_flows: tcp::flows(context, &outputs.tcp_flows, &outputs.retransmits.causes),
        what_if: tcp::what_if(&outputs.what_if),
        retransmits: retransmissions(context, &outputs),
        stages: outputs.pairing.stages,
        waterfalls: outputs.pairing.waterfalls,
        losses,
        ledger: Some(outputs.pairing.ledger),
        reordering: outputs.reordering.taps,
        reordering_beliefs: outputs.reordering.beliefs,
        coalescing: outputs.coalescing,
        threads: outputs.threads.threads,
        findings,
        cpu: super::cpu::cpu(context, outputs.stacks.as_ref()),
        daemon_limits: outputs.threads.limits,
        wakings: outputs.threads.wakings,
        taps: outputs.taps,
        stalls: outputs.stalls,
        interfaces: outputs.interfaces.interfaces,
        syscalls: outputs.syscalls,
        benchmark: outputs.benchmark,
        books,
        problems,
        not_analysed: NOT_ANALYSED.map(str::to_owned).to_vec(),
    }
}

fn run(context: &Context<'_>, outputs: &Outputs) -> Run {
    let start = context.start;
    let status = context.end.and_then(|end| end.command_status.as_ref());
    Run {
        id: start.run_id.clone(),
        started_at: start.started_at.clone(),
        duration_s: threads::duration(context, outputs.span),
        end_reason: context.end.map(|end| end.reason.clone()),
        command: start.command.clone(),
        command_status: status.map(|status| CommandStatus {
            code: status.code,
            signal: status.signal,
            duration_s: seconds(status.ended_ns.saturating_sub(status.started_ns)),
            cpu_s: status.cpu_s,
        }),
        host: start.host.hostname.clone(),
        kernel: start.host.kernel_release.clone(),
        machine: start.host.machine.clone(),
        cpus: start.host.cpus,
        tool_version: start.tool_version.clone(),
        environment: environment(context),
        changes: context
            .changes
            .iter()
            .map(|change| Change {
                time_s: context.seconds_since_start(change.time_ns),
                what: change.what.clone(),
            })
            .collect(),
    }
}

fn environment(context: &Context<'_>) -> Environment {
    let start = &context.start.environment;
    let mut result = Environment {
        tools: start.tools.clone(),
        missing: start.missing.clone(),
        ..Environment::default()
    };
    for namespace in &start.namespaces {
        let name = context.namespace_name(namespace.netns);
        if let Some(algorithm) = namespace.sysctls.get("net.ipv4.tcp_congestion_control") {
            result
                .congestion_control
                .insert(name.clone(), algorithm.clone());
        }
        let offloads = namespace
            .links
            .iter()
            .map(|link| (link.name.clone(), link.offloads.clone()));
        result.offloads.insert(name.clone(), offloads.collect());
        let kinds =
            |link: &trace::Link| link.qdiscs.iter().map(|qdisc| qdisc.kind.clone()).collect();
        let qdiscs = namespace
            .links
            .iter()
            .map(|link| (link.name.clone(), kinds(link)));
        result.qdiscs.insert(name.clone(), qdiscs.collect());
        result.sysctls.insert(name, namespace.sysctls.clone());
    }
    result
}

fn capture(context: &Context<'_>, outputs: &Outputs, recording: &Recording) -> Capture {
    let counted = |id: u8| {
        context
            .end
            .and_then(|end| end.counts.iter().find(|one| one.id == id))
    };
    let lost = |id: u8| {
        let blocks = context.lost.get(&id).copied().unwrap_or(0);
        blocks.max(counted(id).map_or(0, |count| count.lost))
    };
    let probes: Vec<model::Probe> = context
        .start
        .probes
        .iter()
        .map(|probe| model::Probe {
            name: probe.name.clone(),
            kind: probe.kind.clone(),
            attached: probe.attached,
            reason: probe.reason.clone(),
            events: outputs.events_by_probe.get(&probe.id).copied().unwrap_or(0),
            lost: lost(probe.id),
            ns_per_event: counted(probe.id).and_then(|count| count.ns_per_run),
        })
        .collect();
    let mut ids: Vec<u8> = context.lost.keys().copied().collect();
    ids.extend(
        context
            .end
            .into_iter()
            .flat_map(|end| &end.counts)
            .map(|count| count.id),
    );
    ids.sort_unstable();
    ids.dedup();
    let lost = ids.into_iter().map(lost).sum();
    let damaged = recording
        .problems
        .iter()
        .any(|problem| problem.severity != Severity::Info);
    Capture {
        complete: context.end.is_some() && lost == 0 && !recording.truncated && !damaged,
        events: outputs.span.events,
        lost,
        bytes: recording.bytes,
        probes,
        tool_cpu_s: context
            .end
            .filter(|end| end.reason != trace::CAPTURED)
            .map(|end| end.tool_cpu_s),
        kernel_cost: super::cost::kernel(context, outputs),
    }
}

/// What could not be seen: an end that is missing, probes that were not attached, lost events.
fn unseen(context: &Context<'_>, capture: &Capture) -> Vec<Problem> {
    let mut problems = Vec::new();
    if context.end.is_none() {
        let message = "the recording did not end in order: counters at the end are missing, so nothing can be reconciled";
        problems.push(Problem::data_loss("capture", message));
    }
    let mut replaced: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut not_captured = Vec::new();
    for probe in &capture.probes {
        let shows = context.probe_doc(&probe.name);
        let reason = probe.reason.as_deref().unwrap_or("no reason recorded");
        if !probe.attached && reason == trace::NOT_IN_CAPTURES {
            not_captured.push(shows);
            continue;
        }
        let unneeded = [trace::NOT_ASKED_FOR, trace::COVERED].contains(&reason);
        if !probe.attached && context.has_stand_in(&probe.name) && !unneeded {
            replaced.entry(reason).or_default().push(&probe.name);
        } else if !probe.attached && !unneeded {
            let message = format!("not seen: {shows} ({} not attached: {reason})", probe.name);
            problems.push(Problem::info("capture", message));
        }
        if probe.lost > 0 {
            let message = format!(
                "{} events of {} were lost: counts of \"{shows}\" are lower bounds",
                probe.lost, probe.name
            );
            problems.push(Problem::data_loss("capture", message));
        }
    }
    if !not_captured.is_empty() {
        let message = format!("no capture shows: {}", not_captured.join("; "));
        problems.push(Problem::info("capture", message));
    }
    for (reason, names) in replaced {
        let names = names.join(", ");
        let message = format!("second-tier probes not accepted by this kernel: {names} ({reason})");
        problems.push(Problem::info("capture", message));
    }
    for count in context.end.into_iter().flat_map(|end| &end.counts) {
        if count.skipped > 0 {
            let name = probe_row(count.id).map_or("a probe", |row| row.name);
            let message = format!(
                "the kernel skipped {} runs of {name} that would have interrupted themselves; whether they saw anything watched is unknown",
                count.skipped
            );
            problems.push(Problem::info("capture", message));
        }
    }
    for (part, missing) in context
        .end
        .into_iter()
        .flat_map(|end| &end.environment.missing)
        .map(|text| ("environment", text))
    {
        problems.push(Problem::info(part, missing.clone()));
    }
    problems
}

fn tunnel(
    context: &Context<'_>,
    tunnel: &trace::Tunnel,
    flows: &[FlowCount],
    taps: &[TapCount],
) -> Tunnel {
    let socket = main_socket(&tunnel.sockets, flows);
    let device = tunnel.outer_devices.iter().rev().max_by_key(|device| {
        let own = taps.iter().filter(|tap| tap.netns == device.netns);
        let sent = own.filter(|tap| tap.tap == Tap::OuterTx.name());
        let named = sent.filter(|tap| tap.device.as_deref() == Some(&device.name));
        named.map(|tap| tap.units).sum::<u64>()
    });
    let known = socket.is_some() || !tunnel.remotes.is_empty() || !tunnel.outer_devices.is_empty();
    Tunnel {
        interface: tunnel.interface.clone(),
        namespace: context.namespace_name(tunnel.netns),
        kind: kind_name(tunnel.kind).to_owned(),
        mtu: (tunnel.mtu > 0).then_some(tunnel.mtu),
        daemon: tunnel.daemon.as_ref().map(|daemon| Daemon {
            pid: daemon.pid,
            comm: daemon.comm.clone(),
            threads: daemon.threads,
        }),
        outer: known.then(|| Outer {
            protocol: socket.map(|socket| address::protocol(socket.ip_proto)),
            local: socket
                .map(|socket| SocketAddr::new(socket.local, socket.local_port).to_string()),
            remotes: remotes(socket, flows).unwrap_or_else(|| tunnel.remotes.clone()),
            interface: device.map(|device| device.name.clone()),
        }),
    }
}

/// The outer socket through which most packets went, both ways. A daemon can have several: for
/// discovery, for control, per peer. Among idle ones it is the first that does not only listen.
fn main_socket<'a>(
    sockets: &'a [trace::OuterSocket],
    flows: &[FlowCount],
) -> Option<&'a trace::OuterSocket> {
    let packets = |socket: &trace::OuterSocket| -> u64 {
        let own = flows.iter().filter(|flow| far_end(socket, flow).is_some());
        own.map(|flow| flow.segments).sum()
    };
    // Of several maxima the last one wins, hence the reversed order.
    let busiest = sockets.iter().rev().max_by_key(|socket| packets(socket));
    busiest
        .filter(|socket| packets(socket) > 0)
        .or_else(|| sockets.iter().find(|socket| !socket.listening))
        .or(sockets.first())
}

/// With whom a socket without a remote of its own exchanged packets, by their number; `None` where that is not
/// known, or the socket has one.
fn remotes(socket: Option<&trace::OuterSocket>, flows: &[FlowCount]) -> Option<Vec<String>> {
    let socket = socket.filter(|socket| socket.remote.is_none())?;
    let mut found: BTreeMap<SocketAddr, u64> = BTreeMap::new();
    for flow in flows {
        if let Some(far) = far_end(socket, flow) {
            *found.entry(far).or_default() += flow.segments;
        }
    }
    let mut found: Vec<(SocketAddr, u64)> = found.into_iter().collect();
    found.sort_by_key(|(_, segments)| std::cmp::Reverse(*segments));
    let names: Vec<String> = found.iter().map(|(far, _)| far.to_string()).collect();
    (!names.is_empty()).then_some(names)
}

/// The other end of an outer flow, if a socket is this one.
fn far_end(socket: &trace::OuterSocket, flow: &FlowCount) -> Option<SocketAddr> {
    if flow.netns != socket.netns || flow.protocol != address::protocol(socket.ip_proto) {
        return None;
    }
    let (near, far) = match flow.tap.as_str() {
        tap if tap == Tap::OuterTx.name() => (&flow.src, &flow.dst),
        tap if tap == Tap::OuterRx.name() => (&flow.dst, &flow.src),
        _ => return None,
    };
    let far: SocketAddr = far.parse().ok()?;
    let near: SocketAddr = near.parse().ok()?;
    let remote = socket.remote.map(|(ip, port)| SocketAddr::new(ip, port));
    let mine = near.port() == socket.local_port && remote.is_none_or(|remote| far == remote);
    mine.then_some(far)
}

fn kind_name(kind: trace::TunnelKind) -> &'static str {
    match kind {
        trace::TunnelKind::Tun => "tun",
        trace::TunnelKind::Tap => "tap",
        trace::TunnelKind::KernelWireguard => "kernel-wireguard",
        trace::TunnelKind::KernelOther => "kernel-other",
        trace::TunnelKind::Captured => "captured",
    }
}

fn flows(context: &Context<'_>, outputs: &Outputs) -> Vec<Flow> {
    let observed = context.attached(ProbeId::TcpRetransmitSkb);
    let sent_again: BTreeMap<(u32, &str, &str), u64> = outputs
        .retransmits
        .flows
        .iter()
        .map(|row| {
            (
                (row.netns, row.local.as_str(), row.remote.as_str()),
                row.segments,
            )
        })
        .collect();
    let hands_over = [Tap::TunTx.name(), Tap::OuterTx.name()];
    let senders = tcp::by_ends(&outputs.tcp_flows);
    let rows = outputs.flows.iter().map(|row| {
        let tcp = observed && row.protocol == "tcp" && hands_over.contains(&row.tap.as_str());
        let key = (row.netns, row.src.as_str(), row.dst.as_str());
        let sender = senders
            .get(&key)
            .filter(|_| hands_over.contains(&row.tap.as_str()));
        Flow {
            src: row.src.clone(),
            dst: row.dst.clone(),
            protocol: row.protocol.clone(),
            tap: row.tap.clone(),
            namespace: context.namespace_name(row.netns),
            packets: row.segments,
            units: row.units,
            bytes: row.bytes,
            payload_bytes: row.payload_bytes,
            throughput_bps: row.throughput_bps,
            retransmits: tcp.then(|| sent_again.get(&key).copied().unwrap_or(0)),
            rtt_us: sender.and_then(|one| tcp::rtt(one)),
            limited_by: sender.and_then(|one| tcp::limited_by(one)),
        }
    });
    rows.collect()
}

fn losses(context: &Context<'_>, outputs: &Outputs) -> Vec<Loss> {
    let rows = outputs.drops.drops.iter().map(|row| Loss {
        stage: row.stage.clone(),
        reason: row.reason.clone(),
        units: row.units,
        packets: row.segments,
        bytes: row.bytes,
        method: "kernel-reason".to_owned(),
        device: row.device.clone(),
        place: row.place.clone(),
        namespace: context.namespace_name(row.netns),
    });
    rows.chain(outputs.pairing.losses.iter().cloned()).collect()
}

fn retransmissions(context: &Context<'_>, outputs: &Outputs) -> Retransmits {
    let output = &outputs.retransmits;
    let observed = context.attached(ProbeId::TcpRetransmitSkb);
    let entries = context.attached(ProbeId::TcpCongStateSet);
    let episodes = output
        .episodes
        .iter()
        .map(|(name, count)| ((*name).to_owned(), *count));
    Retransmits {
        total: observed.then_some(output.total),
        by_cause: observed.then_some(output.by_cause),
        failed: observed.then_some(output.failed),
        episodes: entries.then(|| episodes.collect()),
        spurious: tcp::spurious(output),
        flows: output.flows.clone(),
        reconciliation: output.books.clone(),
    }
}

impl Context<'_> {
    /// Whether the probe that stands in for another one is attached.
    fn has_stand_in(&self, name: &str) -> bool {
        let mut probes = self.start.probes.iter();
        probes
            .find(|probe| probe.name == name)
            .and_then(|probe| probe_row(probe.id)?.fallback)
            .is_some_and(|fallback| self.attached(fallback))
    }

    /// What a probe shows, in the catalog's words.
    fn probe_doc(&self, name: &str) -> &'static str {
        let id = self
            .start
            .probes
            .iter()
            .find(|probe| probe.name == name)
            .map(|probe| probe.id);
        id.and_then(probe_row)
            .map_or("what this probe shows", |row| row.doc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(local_port: u16, remote: Option<&str>, listening: bool) -> trace::OuterSocket {
        let remote = remote.map(|text| text.parse::<SocketAddr>().unwrap());
        trace::OuterSocket {
            ip_proto: 17,
            local: "0.0.0.0".parse().unwrap(),
            local_port,
            remote: remote.map(|end| (end.ip(), end.port())),
            netns: 1,
            inode: u64::from(local_port),
            listening,
        }
    }

    fn flow(tap: Tap, src: &str, dst: &str, segments: u64) -> FlowCount {
        FlowCount {
            src: src.to_owned(),
            dst: dst.to_owned(),
            protocol: "udp".to_owned(),
            tap: tap.name().to_owned(),
            netns: 1,
            units: 1,
            segments,
            bytes: 0,
            payload_bytes: 0,
            throughput_bps: None,
        }
    }

    #[test]
    fn the_busiest_outer_socket_is_shown() {
        let sockets = [
            socket(1, None, true),
            socket(2, None, false),
            socket(3, Some("10.0.0.2:9"), false),
            socket(3, Some("10.0.0.3:9"), false),
        ];
        let chosen = |flows: &[FlowCount]| {
            let chosen = main_socket(&sockets, flows).unwrap();
            (
                chosen.local_port,
                chosen.remote.map(|(ip, _)| ip.to_string()),
            )
        };
        assert_eq!(
            chosen(&[]),
            (2, None),
            "nothing seen: the first that does not only listen"
        );
        let mut flows = vec![
            flow(Tap::OuterTx, "10.0.0.1:3", "10.0.0.2:9", 5),
            flow(Tap::OuterTx, "10.0.0.1:3", "10.0.0.3:9", 3),
            flow(Tap::OuterRx, "10.0.0.3:9", "10.0.0.1:3", 4),
            flow(Tap::TunTx, "10.0.0.1:1", "10.0.0.2:9", 99),
        ];
        assert_eq!(chosen(&flows), (3, Some("10.0.0.3".to_owned())));
        flows.push(FlowCount {
            netns: 2,
            ..flow(Tap::OuterTx, "10.0.0.1:2", "10.0.0.2:9", 99)
        });
        assert_eq!(
            chosen(&flows),
            (3, Some("10.0.0.3".to_owned())),
            "another host's"
        );
        assert!(main_socket(&[], &flows).is_none());
    }
}
