//! The TCP sections of the report for people.

use std::io::{self, Write};

use super::model::{Report, TcpFlow};
use super::table::{Align, Screen, Table, wrap};
use super::units::{count, duration, percent, rate};

/// Senders shown.
const ROWS: usize = 6;
/// Bytes below which a sender is not worth a row: acknowledgements of a handshake and the like.
const SMALL: u64 = 10_000;

/// How many retransmissions were spurious, and how that is known.
pub(super) fn spurious(report: &Report, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let Some(found) = &report.retransmits.spurious else {
        return Ok(());
    };
    let share = match found.ratio {
        Some(ratio) => format!("{} spurious ({})", count(found.count), percent(ratio)),
        None => format!("at least {} spurious", count(found.count)),
    };
    let evidence = &found.evidence;
    let proofs = [
        ("original seen arriving", evidence.original_seen),
        ("DSACK", evidence.dsack),
        ("timestamps", evidence.timestamps),
        ("undone", evidence.undo),
    ];
    let proofs: Vec<String> = proofs
        .iter()
        .filter_map(|(name, number)| Some(format!("{name} {}", count((*number)?))))
        .collect();
    let mut text = format!("{share}: {}", proofs.join(", "));
    let mut causes: Vec<(&str, u64)> = found.by_cause.rows().to_vec();
    causes.retain(|(_, number)| *number > 0);
    causes.sort_by_key(|(_, number)| std::cmp::Reverse(*number));
    if !causes.is_empty() {
        let names: Vec<String> = causes
            .iter()
            .map(|(name, number)| {
                format!("{} {}", super::terminal::cause_name(name), count(*number))
            })
            .collect();
        text = format!("{text}; by cause: {}", names.join(", "));
    }
    if found.unknown > 0 {
        text = format!("{text}; {} unknown", count(found.unknown));
    }
    writeln!(out, " {}", wrap(&text, screen.width.saturating_sub(4), 3))
}

/// Senders and what held them back.
pub(super) fn senders(report: &Report, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let shown: Vec<&TcpFlow> = report
        .tcp_flows
        .iter()
        .filter(|flow| flow.acked_bytes >= SMALL)
        .collect();
    if shown.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&[
        ("sender", Align::Text),
        ("rate", Align::Number),
        ("RTT p50", Align::Number),
        ("p99", Align::Number),
        ("cwnd", Align::Number),
        ("limited by", Align::Text),
        ("recovery", Align::Number),
        ("timeouts", Align::Number),
    ]);
    for flow in shown.iter().take(ROWS) {
        let micros = |value: f64| duration(value / 1e6);
        table.row(vec![
            format!("{} > {}", flow.src, flow.dst),
            flow.throughput_bps.map_or("-".to_owned(), rate),
            flow.rtt_us.map_or("-".to_owned(), |rtt| micros(rtt.p50)),
            flow.rtt_us.map_or("-".to_owned(), |rtt| micros(rtt.p99)),
            flow.cwnd_mean
                .map_or("-".to_owned(), |cwnd| format!("{cwnd:.0}")),
            limit(flow),
            duration(flow.times.recovery_s),
            duration(flow.times.loss_s + flow.times.rto_wait_s),
        ]);
    }
    table.write("SENDERS", screen, out)?;
    if shown.len() > ROWS {
        writeln!(out, " and {} more", count((shown.len() - ROWS) as u64))?;
    }
    writeln!(out)
}

/// The largest share, and a second one if it is a quarter or more.
fn limit(flow: &TcpFlow) -> String {
    let Some(shares) = flow.limited_by else {
        return "-".to_owned();
    };
    let mut all = [
        ("cwnd", shares.cwnd),
        ("rwnd", shares.rwnd),
        ("sndbuf", shares.sndbuf),
        ("app", shares.app),
        ("other", shares.other),
    ];
    all.sort_by(|one, other| other.1.total_cmp(&one.1));
    let name = |(name, share): (&str, f64)| format!("{name} {}", percent(share));
    if all[1].1 >= 0.25 {
        format!("{}, {}", name(all[0]), name(all[1]))
    } else {
        name(all[0])
    }
}

/// What other settings would have done.
pub(super) fn what_if(report: &Report, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let Some(first) = report.what_if.first() else {
        return Ok(());
    };
    let mut table = Table::new(&[
        ("change", Align::Text),
        ("retransmits", Align::Number),
        ("spurious", Align::Number),
        ("rate", Align::Number),
        ("between", Align::Text),
    ]);
    for row in &report.what_if {
        let predicted = &row.predicted;
        let range = predicted
            .throughput_low_bps
            .zip(predicted.throughput_high_bps)
            .filter(|(low, high)| low < high);
        table.row(vec![
            row.change.clone(),
            predicted.retransmits.map_or("-".to_owned(), count),
            predicted.spurious.map_or("-".to_owned(), count),
            predicted.throughput_bps.map_or("-".to_owned(), rate),
            range.map_or(String::new(), |(low, high)| {
                format!("{} and {}", rate(low), rate(high))
            }),
        ]);
    }
    table.write("WHAT IF", screen, out)?;
    writeln!(
        out,
        " {}",
        wrap(&first.basis, screen.width.saturating_sub(4), 3)
    )?;
    let mut said: Vec<&str> = Vec::new();
    for row in &report.what_if {
        for part in row.kernel.split("; ").filter(|part| !part.is_empty()) {
            if !said.contains(&part) {
                said.push(part);
            }
        }
    }
    let text = said.join("; ");
    writeln!(out, " {}\n", wrap(&text, screen.width.saturating_sub(4), 3))
}
