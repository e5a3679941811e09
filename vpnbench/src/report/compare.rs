//! Reports as sides of a comparison, and the comparison for people.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::model::{LedgerStage, Report, TcpFlow};
use super::sight;
use super::table::{Align, Screen, Table, wrap};
use super::units::{duration, rate};
use crate::analysis::benchmark::{Benchmark, Way};
use crate::analysis::interfaces::Interface;
use crate::analysis::statistics;
use crate::explain::compare::conditions::Difference;
use crate::explain::compare::decompose::Part;
use crate::explain::compare::side::{Counted, ThreadFacts};
use crate::explain::compare::{Comparison, Pair, RunFacts, Verdict};
use crate::explain::loss::LOST_RATIO;

/// Conditions shown before the rest is counted.
const CONDITIONS: usize = 10;
/// Parts shown before the rest is summed up.
const PARTS: usize = 8;

/// Intervals of a benchmark are joined until they last so long, in s: a little under what it means by a second.
const SECOND: f64 = 0.9;

/// What a comparison needs of a report.
#[must_use]
pub fn run_facts(report: &Report) -> RunFacts {
    let result = report.benchmark.as_ref();
    let kind = result.map_or("", |result| result.load());
    let flow = main_flow(report);
    let direction = direction(report, flow);
    let datagrams = ["udp", "stream", "quic"].contains(&kind);
    let latency = ["ping", "connect", "reconnect"].contains(&kind);
    let measured = result.and_then(|result| {
        result
            .rtt_mean_us
            .or(result.rtt_us.and_then(|rtt| rtt.p50))
            .filter(|_| latency)
    });
    let tcp = flow.filter(|_| !datagrams && !latency);
    let thread = thread(report).filter(|_| !latency);
    RunFacts {
        throughput_bps: result
            .and_then(|result| result.throughput_bps_received)
            .or(tcp.and_then(|flow| flow.throughput_bps)),
        within: result.and_then(|result| within(result, datagrams, latency)),
        rtt_us: measured.or(tcp.and_then(|flow| Some(flow.rtt_us?.mean))),
        latency,
        window_bytes: tcp.and_then(|flow| window(report, flow)),
        thread: thread.as_ref().map(|(facts, _)| *facts),
        thread_stages_ns: thread.map_or_else(BTreeMap::new, |(_, stages)| stages),
        offered_bps: result
            .and_then(|result| result.throughput_bps_sent)
            .filter(|_| datagrams),
        survival: survival(report, &direction),
        stages_us: stages(report, &direction),
        reductions: reductions(report, &direction),
        counts: counts(report),
        conditions: conditions(report),
        findings: report
            .supported()
            .map(|finding| finding.id.clone())
            .collect(),
        remedies: report
            .supported()
            .filter_map(|finding| Some((finding.id.clone(), finding.remedy.clone()?)))
            .collect(),
        sight: sight::of(report),
    }
}

/// Counts that people compare, with what was sent beside them.
fn counts(report: &Report) -> BTreeMap<(&'static str, &'static str), Counted> {
    let mut all = BTreeMap::new();
    let mut add = |name, of, count: u64, sent: u64| {
        let counted = Counted {
            count: count as f64,
            of: sent as f64,
        };
        all.insert((name, of), counted);
    };
    let senders = report.flows.iter();
    let senders = senders.filter_map(|flow| Some((flow.retransmits?, flow.packets)));
    let (again, sent) = senders.fold((0, 0), |sums, one| (sums.0 + one.0, sums.1 + one.1));
    if sent > 0 {
        add("retransmissions", "segments sent", again, sent);
    }
    let packets = report.benchmark.as_ref().and_then(|result| result.packets);
    if let Some((lost, sent)) = packets.and_then(|packets| Some((packets.lost?, packets.sent?))) {
        add("lost datagrams", "datagrams sent", lost, sent);
    }
    all
}

/// Standard deviation from second to second.
fn within(result: &Benchmark, datagrams: bool, latency: bool) -> Option<f64> {
    let any = |way: Way| result.intervals.iter().any(|one| one.way == way);
    // The figure of a benchmark that goes both ways is the one of what the client sends.
    let received = any(Way::Received) && !any(Way::Sent);
    let way = if received { Way::Received } else { Way::Sent };
    let mut seconds = Vec::new();
    let (mut length, mut sum) = (0.0, 0.0);
    for one in result.intervals.iter().filter(|one| one.way == way) {
        let value = match (latency, datagrams && !received) {
            (true, _) => one.rtt_us,
            (_, true) => one.arrived_bps,
            _ => one.throughput_bps,
        };
        let lasts = one.end_s - one.start_s;
        (length, sum) = (length + lasts, sum + lasts * value?);
        if length >= SECOND {
            seconds.push(sum / length);
            (length, sum) = (0.0, 0.0);
        }
    }
    Some(statistics::variance(&seconds)?.sqrt())
}

fn main_flow(report: &Report) -> Option<&TcpFlow> {
    let inner = |flow: &&TcpFlow| {
        let taps = ["tun.tx", "outer.tx"];
        let tap = taps[usize::from(report.tunnels.is_empty())];
        report
            .flows
            .iter()
            .any(|row| row.tap == tap && row.src == flow.src && row.dst == flow.dst)
    };
    report
        .tcp_flows
        .iter()
        .filter(inner)
        .max_by_key(|flow| flow.acked_bytes)
}

/// Mean window of all senders of the main one's namespace together, bytes.
fn window(report: &Report, main: &TcpFlow) -> Option<f64> {
    let like = |flow: &&TcpFlow| {
        flow.namespace == main.namespace && 20 * flow.acked_bytes >= main.acked_bytes
    };
    let windows = report.tcp_flows.iter().filter(like);
    let windows = windows.map(|flow| Some(flow.cwnd_mean? * f64::from(flow.mss)));
    windows.sum()
}

/// The thread of a daemon that was saturated most, and its CPU ns per packet by stage.
fn thread(report: &Report) -> Option<(ThreadFacts, BTreeMap<String, f64>)> {
    let found = report.daemon_limits.iter();
    let found = found.filter_map(|daemon| Some((daemon, daemon.bottleneck.as_ref()?)));
    let (daemon, limit) =
        found.max_by(|a, b| a.1.saturated_share.total_cmp(&b.1.saturated_share))?;
    let thread = report
        .threads
        .iter()
        .find(|one| Some(one.tid) == limit.tid && one.pid == limit.pid)?;
    let packets = daemon.packets_per_s * daemon.window_s;
    if packets <= 0.0 {
        return None;
    }
    let stages = thread.stages.iter();
    let stages = stages.map(|stage| (stage.stage.clone(), stage.cpu_s * 1e9 / packets));
    let facts = ThreadFacts {
        working: limit.working_share,
        cost_s: limit.working_share / daemon.packets_per_s,
    };
    Some((facts, stages.collect()))
}

/// `SENDER > RECEIVER` of the load.
fn direction(report: &Report, flow: Option<&TcpFlow>) -> String {
    let rows = report.ledger.iter().flat_map(|ledger| &ledger.stages);
    let begins =
        |row: &&LedgerStage| flow.is_none_or(|flow| row.direction.starts_with(&flow.namespace));
    let most = rows.filter(begins).max_by_key(|row| row.bytes.entered);
    most.map_or(String::new(), |row| row.direction.clone())
}

fn survival(report: &Report, direction: &str) -> BTreeMap<String, f64> {
    let rows = report.ledger.iter().flat_map(|ledger| &ledger.stages);
    let rows = rows.filter(|row| row.direction == direction && row.entered > 0);
    rows.map(|row| (row.name.clone(), 1.0 - row.lost as f64 / row.entered as f64))
        .collect()
}

/// Mean time by stage, both ways added: a round trip passes each once in each direction.
fn stages(report: &Report, direction: &str) -> BTreeMap<String, f64> {
    let back = direction
        .split_once(" > ")
        .map(|(a, b)| format!("{b} > {a}"));
    let mut sums: BTreeMap<String, f64> = BTreeMap::new();
    for stage in &report.stages {
        if stage.direction == direction || Some(&stage.direction) == back.as_ref() {
            *sums.entry(stage.name.clone()).or_default() += stage.mean_us;
        }
    }
    sums
}

/// What makes senders reduce their windows, as a share of the packets sent: losses by their place, and
/// spurious retransmissions.
fn reductions(report: &Report, direction: &str) -> BTreeMap<String, f64> {
    const PLACES: [(&str, &str); 5] = [
        ("path-loss", "loss on the wire"),
        ("tunnel-loss", "loss in the daemon"),
        ("tun-queue-overflow", "loss in tun-queue"),
        ("outer-receive-overflow", "loss in outer-socket"),
        ("outer-send-drop", "loss in outer-qdisc"),
    ];
    let ratio = |id: &str| {
        let finding = report.findings.iter().find(|finding| finding.id == id)?;
        let lost = finding
            .evidence
            .iter()
            .find(|one| one.metric == LOST_RATIO)?;
        lost.value
    };
    let mut all: BTreeMap<String, f64> = PLACES
        .iter()
        .filter_map(|(id, name)| Some(((*name).to_owned(), ratio(id)?)))
        .collect();
    let rows = report.ledger.iter().flat_map(|ledger| &ledger.stages);
    let sent = rows
        .filter(|row| row.direction == direction)
        .map(|row| row.entered)
        .max();
    let spurious = report.retransmits.spurious.as_ref();
    if let (Some(sent), Some(spurious)) = (sent.filter(|sent| *sent > 0), spurious) {
        let share = spurious.count as f64 / sent as f64;
        all.insert("spurious retransmissions".to_owned(), share);
    }
    all
}

/// Conditions by name, with places by their role, since names of devices and namespaces differ between runs.
fn conditions(report: &Report) -> BTreeMap<String, String> {
    let run = &report.run;
    let mut all = BTreeMap::new();
    let mut add = |name: &str, value: String| {
        all.insert(name.to_owned(), value);
    };
    add("kernel", run.kernel.clone());
    add("machine", run.machine.clone());
    add("cpus", run.cpus.to_string());
    add("vpnbench", run.tool_version.clone());
    for (tool, version) in &run.environment.tools {
        add(&format!("version.{tool}"), version.clone());
    }
    if let Some(result) = &report.benchmark {
        add("benchmark.tool", result.tool.clone());
        add("benchmark.kind", result.kind.clone());
        add(
            "benchmark.version",
            result.version.clone().unwrap_or_default(),
        );
        add(
            "benchmark.streams",
            result
                .streams
                .map_or("unknown".to_owned(), |n| n.to_string()),
        );
        add("benchmark.direction", way(result).to_owned());
        if let Some(seconds) = result.duration_s {
            add("benchmark.duration_s", format!("{seconds:.1}"));
        }
    }
    if let Some(tunnel) = &report.tunnel {
        add("tunnel.kind", tunnel.kind.clone());
        if let Some(mtu) = tunnel.mtu {
            add("tunnel.mtu", mtu.to_string());
        }
        add(
            "tunnel.daemon",
            tunnel
                .daemon
                .as_ref()
                .map_or("kernel".to_owned(), |one| one.comm.clone()),
        );
    }
    for (place, role) in places(report) {
        let environment = &run.environment;
        let sysctls = environment.sysctls.get(&place).into_iter().flatten();
        for (name, value) in sysctls.filter(|(name, _)| compared(name)) {
            add(&format!("{role}.sysctl.{name}"), value.clone());
        }
        for (device, part) in devices(report, &place) {
            let offloads = environment
                .offloads
                .get(&place)
                .and_then(|all| all.get(&device));
            for (feature, on) in offloads.into_iter().flatten() {
                add(&format!("{role}.{part}.{feature}"), on.to_string());
            }
            let qdiscs = environment
                .qdiscs
                .get(&place)
                .and_then(|all| all.get(&device));
            if let Some(qdiscs) = qdiscs {
                add(&format!("{role}.{part}.qdisc"), qdiscs.join(","));
            }
        }
    }
    all
}

/// Which way the load goes.
fn way(result: &Benchmark) -> &'static str {
    let any = |way: Way| result.intervals.iter().any(|one| one.way == way);
    match (result.reverse.is_some(), any(Way::Sent), any(Way::Received)) {
        (true, ..) | (_, true, true) => "both ways",
        (_, true, _) => "from the client",
        (_, _, true) => "to the client",
        _ => "unknown",
    }
}

/// Sysctls that change by themselves are no condition.
fn compared(name: &str) -> bool {
    let moving = [
        "file-nr",
        "random",
        "pty.nr",
        "ns_last_pid",
        "dentry-state",
        "inode-nr",
        "inode-state",
    ];
    !moving.iter().any(|part| name.contains(part))
}

/// Watched namespaces and what to call them: by their order, which is that of the benchmark first.
fn places(report: &Report) -> Vec<(String, String)> {
    let mut names: Vec<&String> = report.run.environment.sysctls.keys().collect();
    names.sort();
    let named = |(number, name): (usize, &String)| (name.clone(), format!("host {}", number + 1));
    names.into_iter().enumerate().map(named).collect()
}

/// The devices of a namespace by their role; of several in one role the one that carried most: a daemon's control
/// connection may go by another than its tunnel.
fn devices(report: &Report, place: &str) -> Vec<(String, String)> {
    let bytes = |one: &Interface| {
        let counters = one.counters.as_ref();
        counters.map_or(0, |sums| sums.rx_bytes.saturating_add(sums.tx_bytes))
    };
    let mut busiest: BTreeMap<&str, &Interface> = BTreeMap::new();
    for one in report
        .interfaces
        .iter()
        .filter(|one| one.namespace == place)
    {
        let first = busiest.entry(&one.role).or_insert(one);
        if bytes(one) > bytes(first) {
            *first = one;
        }
    }
    let all = busiest.into_iter();
    all.map(|(role, one)| (one.device.clone(), role.to_owned()))
        .collect()
}

/// Writes a comparison for people: conditions, verdict, decomposition, experiment.
///
/// # Errors
/// When the writer fails.
pub fn write(comparison: &Comparison, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let mut table = Table::new(&[
        ("side", Align::Text),
        ("runs", Align::Number),
        ("mean", Align::Number),
        ("95 % from", Align::Number),
        ("to", Align::Number),
        ("findings", Align::Text),
    ]);
    for side in &comparison.sides {
        let text = |value: f64| figure_text(&side.figure, value);
        let interval = side.summary.and_then(|summary| summary.mean_interval);
        table.row(vec![
            side.name.clone(),
            side.runs.to_string(),
            side.summary
                .map_or("-".to_owned(), |summary| text(summary.mean)),
            interval.map_or("-".to_owned(), |ends| text(ends.low)),
            interval.map_or("-".to_owned(), |ends| text(ends.high)),
            side.findings
                .iter()
                .take(3)
                .cloned()
                .collect::<Vec<_>>()
                .join(", "),
        ]);
    }
    table.write("COMPARED", screen, out)?;
    let figure = comparison
        .sides
        .first()
        .map_or("", |side| side.figure.as_str());
    for pair in &comparison.pairs {
        writeln!(out)?;
        write_pair(pair, figure, screen, out)?;
    }
    Ok(())
}

fn figure_text(figure: &str, value: f64) -> String {
    match figure {
        name if name.contains("_bps") && value < 0.0 => format!("-{}", rate(-value)),
        name if name.contains("_bps") => rate(value),
        _ if value < 0.0 => format!("-{}", duration(-value / 1e6)),
        _ => duration(value / 1e6),
    }
}

fn write_pair(pair: &Pair, figure: &str, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let wide = screen.width.saturating_sub(4);
    writeln!(
        out,
        "{}",
        screen.title(&format!("{} BESIDE {}", pair.changed, pair.base))
    )?;
    if let Some(twice) = &pair.same_run {
        return sight::write(twice, screen, out);
    }
    write_conditions(&pair.conditions, screen, out)?;
    let verdict = match pair.verdict {
        Verdict::Differs => screen.bad("a difference"),
        Verdict::NoDifference => screen.good("no difference"),
        Verdict::Unknown => screen.warn("not known"),
    };
    let mut text = pair.summary.clone();
    if let Some(g) = pair.effect_size {
        text = format!("{text}; Hedges' g {g:.1}");
    }
    writeln!(out, " {verdict}: {}", wrap(&text, wide, 3))?;
    parts(&pair.parts, figure, screen, out)?;
    for count in pair.counts.iter().filter(|count| count.by_volume) {
        let text = format!(
            "{}: {:.0} beside {:.0}, because {} was sent: {:.3} and {:.3} % of {} (audit-not-normalised)",
            count.name,
            count.changed,
            count.base,
            if count.changed > count.base {
                "more"
            } else {
                "less"
            },
            100.0 * count.changed_ratio,
            100.0 * count.base_ratio,
            count.of
        );
        writeln!(out, " {}", wrap(&screen.warn(&text), wide, 3))?;
    }
    for (what, ids) in [
        ("only there", &pair.findings_gained),
        ("not there", &pair.findings_lost),
    ] {
        if !ids.is_empty() {
            writeln!(out, " findings {what}: {}", wrap(&ids.join(", "), wide, 3))?;
        }
    }
    if let Some(experiment) = &pair.experiment {
        writeln!(
            out,
            " {}",
            wrap(&format!("to confirm: {experiment}"), wide, 3)
        )?;
    }
    Ok(())
}

fn write_conditions(all: &[Difference], screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let unequal: Vec<&Difference> = all.iter().filter(|one| !one.subject).collect();
    if unequal.is_empty() {
        return writeln!(out, " conditions: equal but for the tunnel");
    }
    let title = format!(
        "{} conditions differ beside the tunnel (audit-unequal-conditions)",
        unequal.len()
    );
    writeln!(out, " {}", screen.warn(&title))?;
    for one in unequal.iter().take(CONDITIONS) {
        let text = format!(
            "{}: {} and {}",
            one.name,
            one.base.join(" or "),
            one.changed.join(" or ")
        );
        let text = match one.is_direction() {
            true => format!("{text} (audit-direction-mix)"),
            false => text,
        };
        writeln!(out, "   {}", wrap(&text, screen.width.saturating_sub(5), 5))?;
    }
    if unequal.len() > CONDITIONS {
        writeln!(out, "   and {} more", unequal.len() - CONDITIONS)?;
    }
    Ok(())
}

fn parts(parts: &[Part], figure: &str, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    if parts.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&[
        ("part", Align::Text),
        ("of the difference", Align::Number),
        ("95 % from", Align::Number),
        ("to", Align::Number),
    ]);
    let end = |value: Option<f64>| value.map_or("-".to_owned(), |value| figure_text(figure, value));
    for part in parts.iter().take(PARTS) {
        table.row(vec![
            part.name.clone(),
            figure_text(figure, part.contribution),
            end(part.interval.map(|ends| ends.low)),
            end(part.interval.map(|ends| ends.high)),
        ]);
    }
    let rest: f64 = parts.iter().skip(PARTS).map(|part| part.contribution).sum();
    if parts.len() > PARTS {
        let name = format!("{} smaller ones", parts.len() - PARTS);
        table.row(vec![
            name,
            figure_text(figure, rest),
            "-".to_owned(),
            "-".to_owned(),
        ]);
    }
    let sum = parts.iter().map(|part| part.contribution).sum();
    table.row(vec![
        "together".to_owned(),
        figure_text(figure, sum),
        "-".to_owned(),
        "-".to_owned(),
    ]);
    table.write_rows(screen, out)
}
