//! The report for people: one screen, reading the model only.

mod path;
pub mod threads;
mod why;

use std::io::{self, Write};

use super::model::{Loss, Report, Severity, TapCount};
use super::table::{Align, Screen, Table, wrap};
use super::terminal_tcp;
use super::units::{bytes, count, duration, percent, rate, signed};

pub(super) use why::value as evidence_value;

/// Rows of a table before the rest is summed up in a line.
const ROWS: usize = 8;
/// Notes before the rest is counted.
const NOTES: usize = 12;

/// Writes the whole report.
///
/// # Errors
/// When the writer fails.
pub fn write(report: &Report, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    header(report, screen, out)?;
    why::write(report, screen, out)?;
    path::stages(report, screen, out)?;
    path::ledger(report, screen, out)?;
    path::reordering(report, screen, out)?;
    taps(report, screen, out)?;
    retransmits(report, screen, out)?;
    terminal_tcp::senders(report, screen, out)?;
    terminal_tcp::what_if(report, screen, out)?;
    drops(report, screen, out)?;
    books(report, screen, out)?;
    threads::write(report, screen, out)?;
    capture(report, screen, out)?;
    notes(report, screen, out)
}

fn header(report: &Report, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    for tunnel in &report.tunnels {
        let mut parts = vec![tunnel.interface.clone(), kind(&tunnel.kind).to_owned()];
        match &tunnel.daemon {
            Some(daemon) => parts.push(format!(
                "{} (pid {}, {})",
                daemon.comm,
                daemon.pid,
                plural(daemon.threads.into(), "thread")
            )),
            None if tunnel.kind.starts_with("kernel") || tunnel.kind == "captured" => {}
            None => parts.push("no daemon found".to_owned()),
        }
        if let Some(mtu) = tunnel.mtu {
            parts.push(format!("mtu {mtu}"));
        }
        writeln!(out, "{}   {}", screen.title("tunnel"), parts.join(", "))?;
        if let Some(outer) = &tunnel.outer {
            let local = outer.local.as_deref().unwrap_or("?");
            let remotes = match outer.remotes.as_slice() {
                [] => "?".to_owned(),
                [one] => one.clone(),
                [first, rest @ ..] => format!("{first} and {} more", rest.len()),
            };
            let on = outer
                .interface
                .as_deref()
                .map_or(String::new(), |name| format!(" on {name}"));
            let protocol = outer.protocol.as_deref().unwrap_or("?");
            writeln!(
                out,
                "{}    {protocol} {local} > {remotes}{on}",
                screen.title("outer")
            )?;
        }
    }
    if report.tunnels.is_empty() {
        writeln!(out, "{}   none: bare link", screen.title("tunnel"))?;
    }
    run_line(report, screen, out)
}

fn run_line(report: &Report, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let run = &report.run;
    let mut parts = Vec::new();
    if !run.command.is_empty() {
        parts.push(run.command.join(" "));
    }
    parts.push(
        run.duration_s
            .map_or("unknown duration".to_owned(), duration),
    );
    if let Some(status) = &run.command_status {
        match (status.code, status.signal) {
            (Some(0), _) => {}
            (Some(code), _) => parts.push(screen.bad(&format!("failed with status {code}"))),
            (_, Some(signal)) => parts.push(screen.bad(&format!("ended by signal {signal}"))),
            _ => {}
        }
    }
    let mut algorithms: Vec<&str> = run
        .environment
        .congestion_control
        .values()
        .map(String::as_str)
        .collect();
    algorithms.dedup();
    if let [one] = algorithms[..] {
        parts.push(format!("{one} by default"));
    }
    parts.push(match run.kernel.as_str() {
        // A capture does not say.
        "" => run.host.clone(),
        kernel => format!("{} on Linux {kernel}", run.host),
    });
    writeln!(out, "{}      {}", screen.title("run"), parts.join(", "))?;
    for change in &run.changes {
        let line = format!("{} after {}", change.what, duration(change.time_s));
        writeln!(
            out,
            "{}  {}",
            screen.warn("changed"),
            wrap(&line, screen.width.saturating_sub(9), 9)
        )?;
    }
    writeln!(out)
}

fn kind(kind: &str) -> &str {
    match kind {
        "tun" => "TUN",
        "tap" => "TAP",
        "kernel-wireguard" => "WireGuard in the kernel",
        "kernel-other" => "tunnel in the kernel",
        other => other,
    }
}

fn taps(report: &Report, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let mut table = Table::new(&[
        ("tap", Align::Text),
        ("device", Align::Text),
        ("units", Align::Number),
        ("segments", Align::Number),
        ("bytes", Align::Number),
        ("payload", Align::Number),
        ("rate", Align::Number),
    ]);
    let several = several_namespaces(report);
    for tap in &report.taps {
        table.row(vec![
            tap.tap.clone(),
            place(tap, several),
            count(tap.units),
            count(tap.segments),
            tap.bytes.map_or("-".to_owned(), bytes),
            tap.payload_bytes.map_or("-".to_owned(), bytes),
            tap.throughput_bps.map_or("-".to_owned(), rate),
        ]);
    }
    if table.is_empty() {
        writeln!(out, "{}   no packet passed a tap\n", screen.title("TAPS"))
    } else {
        table.write("TAPS", screen, out)?;
        writeln!(out)
    }
}

/// Whether devices of the same name may need telling apart.
fn several_namespaces(report: &Report) -> bool {
    let mut all: Vec<&str> = report
        .taps
        .iter()
        .map(|tap| tap.namespace.as_str())
        .collect();
    all.extend(report.interfaces.iter().map(|one| one.namespace.as_str()));
    all.windows(2).any(|pair| pair[0] != pair[1])
}

fn place(tap: &TapCount, several: bool) -> String {
    let device = match (&tap.device, tap.port) {
        (Some(device), _) => device.clone(),
        (None, Some(port)) => format!("port {port}"),
        (None, None) => "-".to_owned(),
    };
    if several {
        format!("{device} in {}", tap.namespace)
    } else {
        device
    }
}

fn retransmits(report: &Report, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let title = screen.title("RETRANSMITS");
    let (Some(total), Some(by_cause)) = (report.retransmits.total, report.retransmits.by_cause)
    else {
        return writeln!(out, "{title}   not observed\n");
    };
    let mut causes: Vec<(&str, u64)> = by_cause
        .rows()
        .into_iter()
        .filter(|(_, segments)| *segments > 0)
        .collect();
    causes.sort_by_key(|(_, segments)| std::cmp::Reverse(*segments));
    let texts: Vec<String> = causes
        .iter()
        .map(|(name, segments)| {
            format!("{} {}", cause_name(name), count(*segments)).replace(' ', "\u{a0}")
        })
        .collect();
    let by = if texts.is_empty() {
        String::new()
    } else {
        format!(": {}", texts.join(", "))
    };
    let line = if total == 0 {
        "none".to_owned()
    } else {
        format!("{}{by}", plural(total, "segment"))
    };
    writeln!(
        out,
        "{title}   {}",
        wrap(&line, screen.width.saturating_sub(14), 14)
    )?;
    terminal_tcp::spurious(report, screen, out)?;
    for flow in report.retransmits.flows.iter().take(ROWS / 2) {
        writeln!(
            out,
            " {} > {}   {}",
            flow.local,
            flow.remote,
            count(flow.segments)
        )?;
    }
    writeln!(out)
}

pub(super) fn cause_name(field: &str) -> &str {
    match field {
        "rto" => "timeout",
        "after_rto" => "after a timeout",
        "tlp" => "tail loss probe",
        "rack" => "RACK",
        "dupack" => "dupack threshold",
        "rack_timer" => "RACK timer",
        "syn" => "SYN",
        "pmtu" => "path MTU",
        other => other,
    }
}

fn drops(report: &Report, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let probe = report
        .capture
        .probes
        .iter()
        .find(|probe| probe.name == "kfree_skb");
    if !probe.is_some_and(|probe| probe.attached) {
        return writeln!(out, "{}   not observed\n", screen.title("DROPS"));
    }
    if report.losses.is_empty() {
        return writeln!(out, "{}   none\n", screen.title("DROPS"));
    }
    let mut table = Table::new(&[
        ("stage", Align::Text),
        ("device", Align::Text),
        ("reason", Align::Text),
        ("place", Align::Text),
        ("units", Align::Number),
        ("segments", Align::Number),
        ("bytes", Align::Number),
    ]);
    let several = several_namespaces(report);
    for loss in report.losses.iter().take(ROWS) {
        let device = loss.device.as_deref().unwrap_or("-");
        let place = if several {
            format!("{device} in {}", loss.namespace)
        } else {
            device.to_owned()
        };
        table.row(vec![
            loss.stage.clone(),
            place,
            loss.reason.clone(),
            place_of(loss),
            count(loss.units),
            count(loss.packets),
            bytes(loss.bytes),
        ]);
    }
    table.write("DROPS", screen, out)?;
    if report.losses.len() > ROWS {
        let units: u64 = report.losses[ROWS..].iter().map(|loss| loss.units).sum();
        let places = report.losses.len() - ROWS;
        writeln!(out, " and {} at {places} more", plural(units, "unit"))?;
    }
    writeln!(out)
}

/// The function that dropped; what the books prove happened at no place in the kernel.
fn place_of(loss: &Loss) -> String {
    match &loss.place {
        Some(place) => place.clone(),
        None if loss.method == "kernel-reason" => "?".to_owned(),
        None => "by the books".to_owned(),
    }
}

fn books(report: &Report, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let compared = report
        .books
        .iter()
        .filter(|line| line.agrees.is_some())
        .count();
    let agree = report
        .books
        .iter()
        .filter(|line| line.agrees == Some(true))
        .count();
    let title = screen.title("BOOKS");
    let rest = report.books.len() - compared;
    let rest = if rest > 0 {
        format!("; {rest} could not be compared")
    } else {
        String::new()
    };
    if compared == 0 {
        return writeln!(
            out,
            "{title}   nothing could be reconciled with the kernel's counters{rest}\n"
        );
    }
    let text = format!("reconciled {agree} of {compared} with the kernel's counters");
    let text = if agree == compared {
        screen.good(&text)
    } else {
        screen.bad(&text)
    };
    writeln!(out, "{title}   {text}{rest}")?;
    for line in report
        .books
        .iter()
        .filter(|line| line.agrees == Some(false))
    {
        let (kernel, own) = (line.kernel.unwrap_or(0), line.vpnbench.unwrap_or(0));
        let difference = line.difference.unwrap_or(0);
        let note = line
            .note
            .as_deref()
            .map_or(String::new(), |note| format!("; {note}"));
        let text = format!(
            "{} ({}): kernel {}, vpnbench {}, difference {}{note}",
            line.counter,
            line.place,
            count(kernel),
            count(own),
            signed(difference)
        );
        writeln!(out, " {}", wrap(&text, screen.width.saturating_sub(4), 3))?;
    }
    writeln!(out)
}

fn capture(report: &Report, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let capture = &report.capture;
    let state = if capture.complete {
        screen.good("complete")
    } else {
        screen.bad("incomplete")
    };
    let mut parts = vec![format!(
        "{}, {} lost",
        plural(capture.events, "event"),
        count(capture.lost)
    )];
    if let (Some(cpu), Some(run)) = (capture.tool_cpu_s, report.run.duration_s) {
        parts.push(format!("vpnbench used {} of one core", percent(cpu / run)));
    }
    if let (Some(cost), Some(run)) = (&capture.kernel_cost, report.run.duration_s) {
        let share = cost.share_of_workload.map_or(String::new(), |share| {
            format!(", both {} of the workload's CPU time", percent(share))
        });
        let sampled = cost.sampled_share.filter(|share| *share < 1.0);
        let sampled = sampled.map_or(String::new(), |share| {
            format!(" in {} of the time", percent(share))
        });
        parts.push(format!(
            "its programs in the kernel {} ({}{sampled}){share}",
            percent(cost.cpu_s / run),
            cost.method
        ));
    } else if capture.tool_cpu_s.is_some() {
        parts.push("what its programs in the kernel took is not recorded".to_owned());
    }
    if let Some(size) = capture.bytes {
        parts.push(format!("trace {}", bytes(size)));
    }
    writeln!(
        out,
        "{} {state}: {}",
        screen.title("CAPTURE"),
        // The title and the state before it are up to 20 columns.
        wrap(&parts.join("; "), screen.width.saturating_sub(21), 8)
    )
}

fn notes(report: &Report, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    for problem in report.problems.iter().take(NOTES) {
        let mark = match problem.severity {
            Severity::Info => screen.faint("note"),
            Severity::DataLoss => screen.warn("loss"),
            Severity::Error => screen.bad("error"),
        };
        writeln!(
            out,
            " {mark}  {}",
            wrap(&problem.message, screen.width.saturating_sub(8), 7)
        )?;
    }
    if report.problems.len() > NOTES {
        let more = report.problems.len() - NOTES;
        writeln!(
            out,
            " {}  {} in the JSON report",
            screen.faint("note"),
            plural(more as u64, "more note")
        )?;
    }
    Ok(())
}

fn plural(number: u64, noun: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{} {noun}{ending}", count(number))
}
