//! Sections on the way of a packet: where it spends its time, the books, reordering.

use std::io::{self, Write};

use super::super::model::{LedgerStage, Report, StageTime};
use super::super::table::{Align, Screen, Table, wrap};
use super::super::units::{count, duration, percent, signed};
use super::plural;

/// Directions shown in full.
const DIRECTIONS: usize = 2;
/// Confidence below which a stage says how sure its pairs are.
const SURE: f64 = 0.95;
/// Share of the one-way time from which a stage is pointed at.
const MOST: f64 = 0.4;
/// Reordering rows shown.
const ROWS: usize = 6;

/// Times between taps, the direction with most packets first.
pub(super) fn stages(report: &Report, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let title = "WHERE A PACKET SPENDS ITS TIME";
    let directions = directions(&report.stages);
    if directions.is_empty() {
        return Ok(());
    }
    for (number, direction) in directions.iter().take(DIRECTIONS).enumerate() {
        let rows: Vec<&StageTime> = report
            .stages
            .iter()
            .filter(|stage| stage.direction == *direction)
            .collect();
        let heading = if number == 0 {
            format!("{title}   {direction}")
        } else {
            format!("AND BACK   {direction}")
        };
        direction_table(report, &rows).write(&heading, screen, out)?;
        for row in rows {
            if let Some(error) = row.uncertainty_us {
                let text = format!(
                    "{}: each time may be off by {}, as the hosts have clocks of their own",
                    label(report, row),
                    duration(error / 1e6)
                );
                writeln!(
                    out,
                    "  {}",
                    screen.faint(&wrap(&text, screen.width.saturating_sub(4), 2))
                )?;
            }
            if let Some(confidence) = row.confidence.filter(|sure| *sure < SURE) {
                let text = format!(
                    "{}: the far end confirms {} of the pairs made by {}",
                    label(report, row),
                    percent(confidence),
                    row.method.replace('-', " ")
                );
                writeln!(
                    out,
                    "  {}",
                    screen.faint(&wrap(&text, screen.width.saturating_sub(4), 2))
                )?;
            }
        }
    }
    if directions.len() > DIRECTIONS {
        let more = plural((directions.len() - DIRECTIONS) as u64, "more direction");
        writeln!(out, " {more} in the JSON report")?;
    }
    writeln!(out)
}

fn directions(stages: &[StageTime]) -> Vec<&str> {
    let mut found: Vec<(&str, f64)> = Vec::new();
    for stage in stages {
        // Time spent, not packets: acknowledgements are as many as what they acknowledge.
        let weight = stage.packets as f64;
        match found.iter_mut().find(|(name, _)| *name == stage.direction) {
            Some((_, sum)) => *sum = sum.max(weight),
            None => found.push((&stage.direction, weight)),
        }
    }
    found.sort_by(|a, b| b.1.total_cmp(&a.1));
    found.into_iter().map(|(name, _)| name).collect()
}

fn direction_table(report: &Report, rows: &[&StageTime]) -> Table {
    let mut table = Table::new(&[
        ("", Align::Text),
        ("packets", Align::Number),
        ("p50", Align::Number),
        ("p99", Align::Number),
        ("max", Align::Number),
        ("backlog", Align::Number),
        ("", Align::Text),
    ]);
    let total: f64 = rows.iter().map(|row| row.mean_us).sum();
    for row in rows {
        let share = if total > 0.0 {
            row.mean_us / total
        } else {
            0.0
        };
        let backlog = row
            .backlog_max_packets
            .map_or("-".to_owned(), |packets| format!("{} pkt", count(packets)));
        table.row(vec![
            label(report, row),
            count(row.packets),
            duration(row.p50_us / 1e6),
            duration(row.p99_us / 1e6),
            duration(row.max_us / 1e6),
            backlog,
            if share >= MOST {
                format!("<- {} of one-way time", percent(share))
            } else {
                String::new()
            },
        ]);
    }
    table
}

/// What a stage is to people.
fn label(report: &Report, stage: &StageTime) -> String {
    let inside = || match report.tunnel.as_ref() {
        Some(tunnel) => match &tunnel.daemon {
            Some(daemon) => format!("inside {}", daemon.comm),
            None if tunnel.kind == "captured" => "inside the tunnel".to_owned(),
            None => "inside the tunnel (kernel)".to_owned(),
        },
        None => "inside the daemon".to_owned(),
    };
    match stage.name.as_str() {
        "tun-qdisc" => "qdisc of the tunnel device".to_owned(),
        "tun-queue" => "TUN queue".to_owned(),
        "daemon-send" => inside(),
        "outer-qdisc" => format!("qdisc of the outer device{}", kinds(report)),
        "wire" => "wire".to_owned(),
        "outer-socket" => "outer socket".to_owned(),
        "daemon-receive" => format!("{}, receiving", inside()),
        "to-tcp" if stage.from == "outer.rx" => "device to TCP".to_owned(),
        "to-tcp" => "TUN to TCP".to_owned(),
        other => other.to_owned(),
    }
}

/// ` (netem)` if an outer device has one, as that is where its time goes.
fn kinds(report: &Report) -> &'static str {
    let outer = report.interfaces.iter().filter(|one| one.role == "outer");
    let netem = |one: &super::super::model::Interface| {
        let devices = report.run.environment.qdiscs.get(&one.namespace);
        let kinds = devices.and_then(|devices| devices.get(&one.device));
        kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind == "netem"))
    };
    if outer.into_iter().any(netem) {
        " (netem)"
    } else {
        ""
    }
}

/// The ledger: one line if it balances without a loss, else its rows that have something to say.
pub(super) fn ledger(report: &Report, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let Some(ledger) = report
        .ledger
        .as_ref()
        .filter(|ledger| !ledger.stages.is_empty())
    else {
        return Ok(());
    };
    let lost: u64 = ledger.stages.iter().map(|stage| stage.lost).sum();
    let unexplained: u64 = ledger
        .stages
        .iter()
        .map(|stage| stage.unexplained.unsigned_abs())
        .sum();
    let text = format!(
        "over {}: {} lost, {} unexplained",
        plural(ledger.stages.len() as u64, "stage"),
        count(lost),
        count(unexplained)
    );
    let verdict = match ledger.balanced {
        Some(true) => screen.good("balanced"),
        Some(false) => screen.bad("not balanced"),
        None => screen.warn("unknown"),
    };
    writeln!(out, "{}  {verdict} {text}", screen.title("LEDGER"))?;
    let telling: Vec<&LedgerStage> = ledger.stages.iter().filter(|stage| tells(stage)).collect();
    if !telling.is_empty() {
        ledger_table(&telling).write_rows(screen, out)?;
    }
    if let Some(reason) = ledger.reason.as_ref().filter(|_| ledger.balanced.is_none()) {
        writeln!(out, " {}", wrap(reason, screen.width.saturating_sub(2), 1))?;
    }
    for row in ledger.structure.iter().filter(|row| row.lost > 0) {
        writeln!(
            out,
            " {}",
            wrap(&structure(row), screen.width.saturating_sub(4), 3)
        )?;
    }
    writeln!(out)
}

/// Whether a stage has more to say than that what went in came out.
fn tells(stage: &LedgerStage) -> bool {
    stage.lost + stage.duplicated + stage.unseen + stage.inside > 0 || stage.unexplained != 0
}

fn ledger_table(rows: &[&LedgerStage]) -> Table {
    let mut columns = vec![
        ("stage", Align::Text),
        ("direction", Align::Text),
        ("in", Align::Number),
        ("out", Align::Number),
        ("lost", Align::Number),
        ("twice", Align::Number),
        ("own", Align::Number),
        ("inside", Align::Number),
        ("unexplained", Align::Number),
    ];
    // Only a kernel that runs no program on top of some tasks has any.
    let unseen = rows.iter().any(|row| row.unseen > 0);
    if unseen {
        columns.push(("unseen", Align::Number));
    }
    let mut table = Table::new(&columns);
    for row in rows {
        let mut cells = vec![
            row.name.clone(),
            row.direction.clone(),
            count(row.entered),
            count(row.left),
            count(row.lost),
            count(row.duplicated),
            count(row.originated),
            count(row.inside),
            if row.unexplained == 0 {
                "0".to_owned()
            } else {
                signed(row.unexplained)
            },
        ];
        if unseen {
            cells.push(count(row.unseen));
        }
        table.row(cells);
    }
    table
}

fn structure(row: &crate::analysis::ledger::LossStructure) -> String {
    let mut parts = vec![format!(
        "{} of {} {} packets lost ({}) {}",
        count(row.lost),
        count(row.packets),
        row.level,
        percent(row.ratio),
        row.direction
    )];
    if let Some(mean) = row.run_mean {
        parts.push(format!(
            "in {} of {mean:.1} on average, {} at most",
            plural(row.runs, "run"),
            count(row.run_max)
        ));
    }
    if let Some((arrives, vanishes)) = row.size_threshold_bytes.zip(row.size_lost_bytes) {
        parts.push(format!(
            "those of {vanishes} bytes and more, up to {arrives} arrive"
        ));
    }
    if let Some(period) = row.period_ms {
        parts.push(format!("every {}", duration(period / 1e3)));
    }
    parts.join(", ")
}

/// Taps with reordering.
pub(super) fn reordering(report: &Report, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let title = screen.title("REORDERING");
    if report.reordering.iter().all(|row| row.packets == 0) {
        return Ok(());
    }
    let mut some: Vec<_> = report
        .reordering
        .iter()
        .filter(|row| row.reordered > 0)
        .collect();
    if some.is_empty() {
        return writeln!(out, "{title}   none at any tap\n");
    }
    // Rows stay in the order of the path; the ones with most packets decide which are shown.
    let mut sizes: Vec<u64> = some.iter().map(|row| row.reordered).collect();
    sizes.sort_unstable_by_key(|size| std::cmp::Reverse(*size));
    let least = sizes.get(ROWS - 1).copied().unwrap_or(0);
    some.retain(|row| row.reordered >= least);
    let mut table = Table::new(&[
        ("tap", Align::Text),
        ("packets from > to", Align::Text),
        ("packets", Align::Number),
        ("late", Align::Number),
        ("added here", Align::Number),
        ("extent p50", Align::Number),
        ("p99", Align::Number),
        ("by p99", Align::Number),
    ]);
    let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| count(value as u64));
    for row in some.iter().take(ROWS) {
        table.row(vec![
            format!("{} in {}", row.tap, row.namespace),
            row.direction.clone(),
            count(row.packets),
            percent(row.ratio),
            row.added.map_or("-".to_owned(), signed),
            number(row.extent_p50),
            number(row.extent_p99),
            row.late_time_us_p99
                .map_or("-".to_owned(), |us| duration(us / 1e6)),
        ]);
    }
    table.write("REORDERING", screen, out)?;
    writeln!(out)
}
