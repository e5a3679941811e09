//! CPU time of a daemon's threads under load.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};

use crate::hosts::Family;
use crate::recorder::record_with;
use crate::traffic::iperf3;
use crate::wireguard::Pair;

/// Largest difference, of the kernel's own figure.
const TOLERANCE: f64 = 0.005;
/// Threads that ran less are compared in the sum only: what they did while recording started and
/// ended is not small beside it.
const BUSY_NS: u64 = 100_000_000;

/// Most transfers.
const TRANSFERS: usize = 20;

/// Runtime and run delay in ns.
type Times = (u64, u64);

pub(crate) fn cpu_time(family: Family) -> Result<()> {
    let pair = Pair::new(family)?;
    let [a, b] = &pair.hosts;
    let to = family.address(98, 2);
    let selectors = pair.selectors();
    let selectors: Vec<&str> = selectors.iter().map(String::as_str).collect();
    // Recording begins and ends between two readings each; the daemons hardly run then.
    let outside = all(&pair)?;
    let mut window = None;
    let recorded = record_with(&pair.daemons(), &[a, b], &selectors, || {
        let before = all(&pair)?;
        // How much work it takes until a thread has worked long depends on how many share it.
        for _ in 0..TRANSFERS {
            iperf3(a, b, to, 24 << 20)?;
            let now = all(&pair)?;
            let ran = |(tid, now): (&u32, &Times)| now.0 - at(&before, *tid).0 >= BUSY_NS;
            if now.iter().any(ran) {
                break;
            }
        }
        crate::accounts::settled(&[a, b])?;
        window = Some((before, all(&pair)?));
        Ok(())
    })?;
    let (before, after) = window.context("no readings")?;
    let later = all(&pair)?;
    let mut least = (0, 0);
    let mut most = (0, 0);
    let mut seen = (0.0, 0.0);
    let mut busy = 0;
    for (&tid, now) in &after {
        // A thread that began while recording had used nothing before.
        let (early, then) = (at(&outside, tid), at(&before, tid));
        let end = later.get(&tid).copied().unwrap_or(*now);
        let run = (now.0 - then.0, end.0 - early.0);
        let wait = (now.1 - then.1, end.1 - early.1);
        let Some(thread) = recorded.report.threads.iter().find(|one| one.tid == tid) else {
            ensure!(run.0 == 0, "thread {tid} is not in the report");
            continue;
        };
        ensure!(thread.role == "daemon", "{thread:?}");
        least = (least.0 + run.0, least.1 + wait.0);
        most = (most.0 + run.1, most.1 + wait.1);
        seen = (seen.0 + thread.cpu_s, seen.1 + thread.runqueue_wait_s);
        if run.0 >= BUSY_NS {
            busy += 1;
            near(tid, "on a CPU", run, thread.cpu_s)?;
            near(tid, "waiting", wait, thread.runqueue_wait_s)?;
        }
    }
    ensure!(busy > 0, "no thread was busy");
    near(0, "on a CPU, all", (least.0, most.0), seen.0)?;
    near(0, "waiting, all", (least.1, most.1), seen.1)?;
    let [least, most] = [least, most].map(|(run, wait)| (run as f64 / 1e9, wait as f64 / 1e9));
    crate::say(&format!(
        "  {busy} busy of {} threads: schedstat {:.6} to {:.6} s, seen {:.6} s; waiting {:.6} to {:.6} s, seen {:.6} s",
        after.len(),
        least.0,
        most.0,
        seen.0,
        least.1,
        most.1,
        seen.1
    ));
    Ok(())
}

fn at(readings: &BTreeMap<u32, Times>, tid: u32) -> Times {
    readings.get(&tid).copied().unwrap_or_default()
}

/// Whether a figure is what the kernel counted, between the inner and the outer readings.
fn near(tid: u32, what: &str, (least, most): Times, seen_s: f64) -> Result<()> {
    let (least, most) = (least as f64 / 1e9, most as f64 / 1e9);
    ensure!(
        (least * (1.0 - TOLERANCE)..=most * (1.0 + TOLERANCE)).contains(&seen_s),
        "thread {tid} {what}: schedstat {least} to {most} s, seen {seen_s} s"
    );
    Ok(())
}

/// /proc/PID/task/TID/schedstat of both daemons.
fn all(pair: &Pair) -> Result<BTreeMap<u32, Times>> {
    let mut threads = BTreeMap::new();
    for end in &pair.ends {
        for entry in fs::read_dir(format!("/proc/{}/task", end.pid()))? {
            let entry = entry?;
            let tid = entry.file_name().to_string_lossy().parse()?;
            let text = fs::read_to_string(entry.path().join("schedstat"))?;
            let mut numbers = text.split_whitespace().map(str::parse);
            let (run, wait) = (numbers.next(), numbers.next());
            let (run, wait) = run.zip(wait).context("schedstat")?;
            threads.insert(tid, (run?, wait?));
        }
    }
    Ok(threads)
}
