//! A table for each interval.

use std::io::{self, Write};

use super::moment::{DaemonMoment, Moment, ThreadMoment};
use crate::report::table::{Align, Screen, Table, wrap};
use crate::report::terminal::threads::duties_or_role;
use crate::report::units::{count, percent, rate};

/// Threads in one table.
const ROWS: usize = 12;
/// Threads that were on a core for a smaller share are left out.
const LEAST: f64 = 0.000_5;

/// Writes what happened since the last table.
///
/// # Errors
/// When the writer fails.
pub fn write(moment: &Moment, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let mut parts = vec![format!("{:.1} s", moment.time_s)];
    parts.extend(moment.daemons.iter().map(|one| daemon(one, moment)));
    if moment.lost_events > 0 {
        parts.push(format!("{} events lost", count(moment.lost_events)));
    }
    let text = wrap(&parts.join("; "), screen.width.saturating_sub(2), 3);
    writeln!(out, "{}", screen.title(&text))?;
    let busy: Vec<&ThreadMoment> = moment
        .threads
        .iter()
        .filter(|one| one.on_core_share >= LEAST)
        .collect();
    let mut table = Table::new(&[
        ("thread", Align::Text),
        ("does", Align::Text),
        ("tid", Align::Number),
        ("core", Align::Number),
        ("on core", Align::Number),
        ("waits", Align::Number),
        ("asleep in", Align::Text),
        ("packets/s", Align::Number),
        ("ns/packet", Align::Number),
        ("saturated", Align::Number),
    ]);
    for thread in busy.iter().take(ROWS) {
        table.row(cells(thread).to_vec());
    }
    table.write_rows(screen, out)?;
    if busy.len() > ROWS {
        let rest: f64 = busy[ROWS..].iter().map(|one| one.on_core_share).sum();
        let more = busy.len() - ROWS;
        writeln!(out, " and {more} more with {} of a core", percent(rest))?;
    }
    writeln!(out)
}

/// One line of JSON.
///
/// # Errors
/// When the writer fails.
pub fn write_json(moment: &Moment, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, moment).map_err(io::Error::from)?;
    out.write_all(b"\n")
}

/// A daemon in one sentence.
#[must_use]
pub fn daemon(one: &DaemonMoment, moment: &Moment) -> String {
    let mut text = format!(
        "{} ({}) {} packets/s, {}",
        one.comm,
        one.pid,
        count(one.packets_per_s.round() as u64),
        rate(one.bps)
    );
    let saturated = moment
        .threads
        .iter()
        .find(|thread| Some(thread.tid) == one.saturated_tid);
    if let Some(thread) = saturated {
        let share = percent(thread.saturated_share.unwrap_or(0.0));
        text.push_str(&format!(
            ", {} ({}) saturated {share}",
            thread.comm, thread.tid
        ));
    }
    if one.waiting_for_core >= 0.05 {
        text.push_str(&format!(
            ", {:.2} threads wait for a core",
            one.waiting_for_core
        ));
    }
    if one.serialised {
        text.push_str(", its threads take turns");
    }
    text
}

/// A thread's figures in the order of the table's columns.
#[must_use]
pub fn cells(thread: &ThreadMoment) -> [String; 10] {
    let dash = || "-".to_owned();
    let whole = |number: f64| count(number.round() as u64);
    [
        thread.comm.clone(),
        duties_or_role(&thread.duties, &thread.role),
        thread.tid.to_string(),
        thread.core.map_or_else(dash, |core| core.to_string()),
        percent(thread.on_core_share),
        percent(thread.runnable_share),
        thread.blocked_in.clone().unwrap_or_else(dash),
        thread.packets_per_s.map_or_else(dash, whole),
        thread.ns_per_packet.map_or_else(dash, whole),
        thread.saturated_share.map_or_else(dash, percent),
    ]
}
