//! Who does the work: threads, what they cost, and which of them is the limit.

use std::io::{self, Write};

use crate::analysis::threads::{Blocked, DaemonLimits, Duty, Limit, ThreadTime};
use crate::report::model::{CoreTime, Report};
use crate::report::table::{Align, Screen, Table, wrap};
use crate::report::units::{count, duration, percent, rate};

/// Threads shown.
const ROWS: usize = 10;
/// Threads that did less than this are summed up.
const LEAST_S: f64 = 0.000_5;

/// The section of the report, and all of `vpnbench threads`.
///
/// # Errors
/// When the writer fails.
pub fn write(report: &Report, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let probe = report
        .capture
        .probes
        .iter()
        .find(|probe| probe.name == "sched_switch");
    if !probe.is_some_and(|probe| probe.attached) {
        let title = screen.title("WHO DOES THE WORK");
        return writeln!(out, "{title}   not observed\n");
    }
    let busy: Vec<&ThreadTime> = report
        .threads
        .iter()
        .filter(|thread| thread.cpu_s >= LEAST_S)
        .collect();
    if busy.is_empty() {
        let title = screen.title("WHO DOES THE WORK");
        return writeln!(out, "{title}   no watched thread ran\n");
    }
    table(&busy, screen, out)?;
    if busy.len() > ROWS {
        let time: f64 = busy[ROWS..].iter().map(|thread| thread.cpu_s).sum();
        let more = busy.len() - ROWS;
        writeln!(out, " and {more} more with {}", duration(time))?;
    }
    for limits in &report.daemon_limits {
        limit_lines(limits, screen, out)?;
    }
    cores(report, screen, out)?;
    writeln!(out)
}

/// What `/proc/stat` says about the cores beside the watched threads.
fn cores(report: &Report, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let all = report.cpu.as_ref().map_or(&[][..], |cpu| &cpu.cores);
    let sum = |pick: fn(&CoreTime) -> f64| all.iter().map(pick).sum::<f64>();
    let busy = sum(|one| one.user_s + one.system_s + one.irq_s + one.softirq_s);
    if busy <= 0.0 {
        return Ok(());
    }
    let watched: f64 = report.threads.iter().map(|one| one.cpu_s).sum();
    let whole = busy + sum(|one| one.idle_s + one.steal_s);
    let stolen = match sum(|one| one.steal_s) {
        time if time > 0.0 => format!(", {} taken by the hypervisor", duration(time)),
        _ => String::new(),
    };
    let text = format!(
        "cores by /proc/stat: busy {} of {}{stolen}; watched threads {}, all else {}",
        duration(busy),
        duration(whole),
        duration(watched),
        duration((busy - watched).max(0.0))
    );
    writeln!(out, " {}", wrap(&text, screen.width.saturating_sub(4), 3))
}

/// Who wakes whom, most often first.
///
/// # Errors
/// When the writer fails.
pub fn wakings(report: &Report, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let mut table = Table::new(&[
        ("waker", Align::Text),
        ("wakes", Align::Text),
        ("times", Align::Number),
        ("out of a futex", Align::Number),
        ("slept in it", Align::Number),
        ("with work waiting", Align::Number),
    ]);
    for one in report.wakings.iter().take(ROWS) {
        let waker = match one.waker_tid {
            0 => "an interrupt".to_owned(),
            tid => format!("{} ({tid})", one.waker),
        };
        table.row(vec![
            waker,
            format!("{} ({})", one.woken, one.woken_tid),
            count(one.count),
            count(one.futex),
            duration(one.futex_wait_s),
            duration(one.futex_wait_with_work_s),
        ]);
    }
    if table.is_empty() {
        return Ok(());
    }
    table.write("WHO WAKES WHOM", screen, out)?;
    writeln!(out)
}

fn table(busy: &[&ThreadTime], screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let mut table = Table::new(&[
        ("thread", Align::Text),
        ("does", Align::Text),
        ("tid", Align::Number),
        ("core", Align::Number),
        ("waits for one", Align::Number),
        ("asleep in", Align::Text),
        ("ns/packet", Align::Number),
        ("batch", Align::Number),
        ("saturated", Align::Number),
    ]);
    for thread in busy.iter().take(ROWS) {
        let dash = || "-".to_owned();
        table.row(vec![
            thread.comm.clone(),
            duties_or_role(&thread.duties, &thread.role),
            thread.tid.to_string(),
            thread.cpu_share.map_or_else(dash, percent),
            duration(thread.runqueue_wait_s),
            asleep(&thread.blocked_s),
            thread
                .ns_per_packet
                .map_or_else(dash, |ns| count(ns.round() as u64)),
            thread
                .batch_p50
                .map_or_else(dash, |batch| count(batch as u64)),
            thread.saturated_share.map_or_else(dash, percent),
        ]);
    }
    table.write("WHO DOES THE WORK", screen, out)
}

/// Duties of a daemon's thread, the role of its process for others.
pub(in crate::report) fn duties_or_role(duties: &[Duty], role: &str) -> String {
    if duties.is_empty() {
        return role.to_owned();
    }
    if duties.len() == 4 {
        return "all of it".to_owned();
    }
    let names: Vec<&str> = duties.iter().map(|duty| duty.name()).collect();
    names.join("+")
}

/// What it slept in most, and for how long.
fn asleep(blocked: &Blocked) -> String {
    let most = blocked
        .kinds()
        .into_iter()
        .max_by(|a, b| a.1.total_cmp(&b.1));
    match most {
        Some((name, time)) if time >= LEAST_S => format!("{name} {}", duration(time)),
        _ => "-".to_owned(),
    }
}

fn limit_lines(limits: &DaemonLimits, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let who = format!("{} (pid {})", limits.comm, limits.pid);
    let mut parts = vec![format!(
        "{} packets/s, {}",
        count(limits.packets_per_s.round() as u64),
        rate(limits.bps)
    )];
    if let Some(ns) = limits.ns_per_packet {
        parts.push(format!("{} ns of CPU each", count(ns.round() as u64)));
    }
    if let Some(calls) = limits.calls_per_packet {
        parts.push(format!("{calls:.2} calls each"));
    }
    match &limits.bottleneck {
        Some(limit) => parts.push(format!(
            "limit: {}, saturated {}{}",
            thread_name(limit),
            percent(limit.saturated_share),
            limit
                .stage
                .as_ref()
                .map_or_else(String::new, |stage| format!(", mostly in {stage}"))
        )),
        None => parts.push("no thread is saturated".to_owned()),
    }
    let first = limits.bottleneck.as_ref();
    if let Some(limit) = first.or(limits.ceilings.first()) {
        parts.push(format!("ceiling {}", ceiling(limit)));
    }
    let next = limits
        .ceilings
        .iter()
        .find(|one| first.is_none_or(|first| first.tid != one.tid));
    if let (Some(next), true) = (next, first.is_some()) {
        parts.push(format!("then {} at {}", thread_name(next), ceiling(next)));
    }
    if limits.waiting_for_core >= 0.05 {
        parts.push(format!(
            "{:.2} of its threads waited for a core with work on average",
            limits.waiting_for_core
        ));
    }
    if let Some(found) = limits.serialisation.as_ref().filter(|one| one.serialised) {
        parts.push(format!(
            "{} threads take turns: {} of their time in {} waits for one another",
            found.threads.len(),
            percent(found.wait_share),
            count(found.waits)
        ));
    }
    let text = format!("{who}: {}", parts.join("; "));
    writeln!(out, " {}", wrap(&text, screen.width.saturating_sub(4), 3))
}

fn thread_name(limit: &Limit) -> String {
    match limit.tid {
        Some(tid) => format!("{} ({tid})", limit.comm),
        None => "all cores".to_owned(),
    }
}

fn ceiling(limit: &Limit) -> String {
    format!(
        "{} packets/s, {}",
        count(limit.ceiling_packets_per_s.round() as u64),
        rate(limit.ceiling_bps)
    )
}
