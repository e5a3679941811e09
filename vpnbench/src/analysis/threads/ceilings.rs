//! How much each thread could carry, and what holds it up.
//!
//! Saturation: the thread is running or runnable while packets wait in a queue that it drains. Its ceiling is
//! the measured rate / that share of the time: were it the only limit, it could do so all the time. With a core of
//! its own it would not wait for one: then the share in which it ran counts. Of the ceilings the lowest is the next
//! limit, that of the cores included.

use std::collections::{BTreeMap, BTreeSet};

use super::Threads;
use super::calls::Place;
use super::duties::Assigned;
use super::model::{
    DaemonLimits, Duty, Limit, SATURATED_SHARE, Serialisation, StageCost, ThreadTime,
};
use super::rows::with_work;
use super::scheduling::{RUNNABLE, RUNNING, Thread};
use super::work::Desk;
use crate::analysis::seconds;

/// Limits listed.
const LISTED: usize = 16;
/// Threads that ran with work for less than this share of the time are no limit worth a figure.
const WORKING_LEAST: f64 = 0.001;

/// From here on threads wait for one another too much ([`Serialisation::wait_share`]).
const WAIT_SHARE: f64 = 0.2;
/// Up to here sends count as one at a time ([`Serialisation::send_overlap_share`]).
const OVERLAP_SHARE: f64 = 0.02;
/// From here on threads take turns ([`Serialisation::send_alternation`]). The parking of a run-time's
/// threads looks like waiting too, but leaves the sends with one thread for long.
const TURNS_SHARE: f64 = 0.25;

/// Packets a second both ways and bits a second of the busier direction.
fn rates(desk: &Desk, window_ns: u64) -> (f64, f64) {
    let window = seconds(window_ns);
    let packets = (desk.packets_out + desk.packets_in) as f64 / window;
    let bits = desk.bytes_out.max(desk.bytes_in) as f64 * 8.0 / window;
    (packets, bits)
}

/// Saturation and ceiling of one thread.
pub(super) fn saturation(
    row: &mut ThreadTime,
    thread: &Thread,
    assigned: &Assigned,
    desk: &Desk,
    window_ns: u64,
) {
    if window_ns == 0 || assigned.drains == 0 {
        return;
    }
    let working = with_work(thread, RUNNING, assigned.drains);
    let waiting = with_work(thread, RUNNABLE, assigned.drains);
    let share = |ns: u64| (ns as f64 / window_ns as f64).min(1.0);
    row.saturated_share = Some(share(working + waiting));
    row.working_share = Some(share(working));
    row.idle_cpu_s = Some((row.cpu_s - seconds(working)).max(0.0));
    if let Some(packets) = row.packets.filter(|packets| *packets > 0) {
        row.ns_per_packet = Some(working as f64 / packets as f64);
        row.ns_per_byte = row.bytes.map(|bytes| working as f64 / bytes as f64);
    }
    if share(working) >= WORKING_LEAST {
        let (packets, bits) = rates(desk, window_ns);
        row.ceiling_packets_per_s = Some(packets / share(working + waiting));
        row.ceiling_bps = Some(bits / share(working + waiting));
        row.own_core_packets_per_s = Some(packets / share(working));
    }
}

/// A daemon as a whole.
pub(super) fn limits(
    threads: &Threads,
    desk: &Desk,
    window_ns: u64,
    own: &[(&ThreadTime, &Thread)],
    cpus: u32,
) -> DaemonLimits {
    let (packets_per_s, bps) = if window_ns > 0 {
        rates(desk, window_ns)
    } else {
        (0.0, 0.0)
    };
    let cpu_s: f64 = own.iter().map(|(row, _)| row.cpu_s).sum();
    let packets = desk.packets_out + desk.packets_in;
    let sums = |pick: fn(&StageCost) -> f64| -> f64 {
        own.iter().flat_map(|(row, _)| &row.stages).map(pick).sum()
    };
    let calls = sums(|stage| stage.calls.unwrap_or(0) as f64);
    let in_calls = sums(|stage| {
        if stage.calls.is_some() {
            stage.cpu_s
        } else {
            0.0
        }
    });
    let waiting: u64 = own
        .iter()
        .map(|(_, thread)| with_work(thread, RUNNABLE, usize::MAX))
        .sum();
    let of_window = |ns: u64| match window_ns {
        0 => 0.0,
        window_ns => ns as f64 / window_ns as f64,
    };
    let mut ceilings: Vec<Limit> = own.iter().filter_map(|(row, _)| limit(row)).collect();
    ceilings.extend(cores(desk, (packets_per_s, bps), (cpu_s, window_ns), cpus));
    ceilings.sort_by(|a, b| a.ceiling_packets_per_s.total_cmp(&b.ceiling_packets_per_s));
    ceilings.truncate(LISTED);
    let saturated = ceilings
        .iter()
        .filter(|one| one.tid.is_some() && one.saturated_share >= SATURATED_SHARE);
    let bottleneck = saturated.max_by(|a, b| a.saturated_share.total_cmp(&b.saturated_share));
    let main = own.iter().find(|(row, _)| row.tid == desk.tgid);
    let main = main.or(own.first());
    DaemonLimits {
        pid: desk.tgid,
        comm: main.map_or_else(|| "?".to_owned(), |(row, _)| row.comm.clone()),
        window_s: seconds(window_ns),
        packets_out: desk.packets_out,
        packets_in: desk.packets_in,
        packets_per_s,
        bps,
        cpu_s,
        ns_per_packet: (packets > 0).then(|| cpu_s * 1e9 / packets as f64),
        calls_per_packet: (packets > 0).then(|| calls / packets as f64),
        call_share: (cpu_s > 0.0).then(|| in_calls / cpu_s),
        stages: stages(own, desk),
        waiting_for_core: of_window(waiting),
        starved_share: of_window(desk.starved_ns).min(1.0),
        attended_share: of_window(desk.attended_ns).min(1.0),
        pooled: is_pooled(own),
        bottleneck: bottleneck.cloned(),
        ceilings,
        serialisation: serialisation(threads, desk, window_ns, own),
    }
}

/// Whether two threads begin the same way of packets.
fn is_pooled(own: &[(&ThreadTime, &Thread)]) -> bool {
    [Duty::TunReader, Duty::OuterReceiver].iter().any(|duty| {
        let with = own.iter().filter(|(row, _)| row.duties.contains(duty));
        with.count() > 1
    })
}

/// Stages of all threads together. Code between calls is passed by all packets of its way.
fn stages(own: &[(&ThreadTime, &Thread)], desk: &Desk) -> Vec<StageCost> {
    let mut sums: BTreeMap<&str, StageCost> = BTreeMap::new();
    let mut moving: BTreeMap<&str, f64> = BTreeMap::new();
    for stage in own.iter().flat_map(|(row, _)| &row.stages) {
        let sum = sums.entry(&stage.stage).or_default();
        sum.stage.clone_from(&stage.stage);
        sum.cpu_s += stage.cpu_s;
        let add = |one: Option<u64>, other: Option<u64>| match (one, other) {
            (Some(one), Some(other)) => Some(one + other),
            (one, other) => one.or(other),
        };
        sum.calls = add(sum.calls, stage.calls);
        sum.would_block = add(sum.would_block, stage.would_block);
        sum.packets = add(sum.packets, stage.packets);
        sum.bytes = add(sum.bytes, stage.bytes);
        if let (Some(packets), Some(mean)) = (stage.packets, stage.batch_mean) {
            *moving.entry(&stage.stage).or_default() += packets as f64 / mean;
        }
    }
    let mut rows: Vec<StageCost> = sums.into_values().collect();
    for row in &mut rows {
        match row.stage.as_str() {
            "daemon-send" => row.packets = Some(desk.packets_out),
            "daemon-receive" => row.packets = Some(desk.packets_in),
            _ => {}
        }
        let per = |count: Option<u64>| {
            let count = count.filter(|count| *count > 0)?;
            Some(row.cpu_s * 1e9 / count as f64)
        };
        let moved = moving.get(row.stage.as_str()).copied();
        let each = |count: Option<u64>| Some(count? as f64 / moved?);
        (row.ns_per_packet, row.ns_per_byte) = (per(row.packets), per(row.bytes));
        (row.batch_mean, row.bytes_per_call) = (each(row.packets), each(row.bytes));
        let (calls, packets) = (row.calls, row.packets.filter(|packets| *packets > 0));
        row.calls_per_packet = calls
            .zip(packets)
            .map(|(calls, packets)| calls as f64 / packets as f64);
    }
    rows.sort_by(|a, b| b.cpu_s.total_cmp(&a.cpu_s));
    rows
}

fn limit(row: &ThreadTime) -> Option<Limit> {
    let stage = row.stages.iter().filter(|stage| stage.stage != "softirq");
    let stage = stage.max_by(|a, b| a.cpu_s.total_cmp(&b.cpu_s));
    Some(Limit {
        pid: row.pid,
        tid: Some(row.tid),
        comm: row.comm.clone(),
        duties: row.duties.clone(),
        stage: stage.map(|stage| stage.stage.clone()),
        saturated_share: row.saturated_share?,
        working_share: row.working_share?,
        ceiling_packets_per_s: row.ceiling_packets_per_s?,
        ceiling_bps: row.ceiling_bps?,
        own_core_packets_per_s: row.own_core_packets_per_s?,
    })
}

/// All cores, if they did nothing but this daemon's work.
fn cores(
    desk: &Desk,
    (packets, bits): (f64, f64),
    (cpu_s, window_ns): (f64, u64),
    cpus: u32,
) -> Option<Limit> {
    let share = cpu_s / (seconds(window_ns) * f64::from(cpus.max(1)));
    (share.is_finite() && share >= WORKING_LEAST).then(|| Limit {
        pid: desk.tgid,
        tid: None,
        comm: "cores".to_owned(),
        saturated_share: share.min(1.0),
        working_share: share.min(1.0),
        ceiling_packets_per_s: packets / share,
        ceiling_bps: bits / share,
        own_core_packets_per_s: packets / share,
        ..Limit::default()
    })
}

/// Threads of one duty that end each other's futex waits while there is work.
fn serialisation(
    threads: &Threads,
    desk: &Desk,
    window_ns: u64,
    own: &[(&ThreadTime, &Thread)],
) -> Option<Serialisation> {
    let duties: BTreeSet<Duty> = own.iter().flat_map(|(row, _)| row.duties.clone()).collect();
    let duties = duties.into_iter().filter(|duty| *duty != Duty::Control);
    let found = duties.filter_map(|duty| among(threads, desk, window_ns, own, duty));
    found.max_by(|a, b| a.wait_with_work_s.total_cmp(&b.wait_with_work_s))
}

/// Threads with this duty that wait for one another.
fn among(
    threads: &Threads,
    desk: &Desk,
    window_ns: u64,
    own: &[(&ThreadTime, &Thread)],
    duty: Duty,
) -> Option<Serialisation> {
    let mut found = Serialisation {
        duty: Some(duty),
        ..Serialisation::default()
    };
    let mut involved = BTreeSet::new();
    for (waker, _) in own {
        for (woken, _) in own {
            let peers = waker.duties.contains(&duty) && woken.duties.contains(&duty);
            if waker.tid == woken.tid || !peers {
                continue;
            }
            let Some(pair) = threads.pairs.get(&(waker.tid, woken.tid)) else {
                continue;
            };
            if pair.futex == 0 {
                continue;
            }
            involved.extend([waker.tid, woken.tid]);
            found.waits += pair.futex;
            found.wait_s += seconds(pair.futex_ns);
            found.wait_with_work_s += seconds(pair.futex_with_work_ns);
        }
    }
    let sends = threads.sends.get(&desk.tgid);
    if let Some(sends) = sends {
        let share = |part: u64, all: u64| (all > 0).then(|| part as f64 / all as f64);
        found.send_overlap_share = share(sends.overlap_ns, sends.busy_ns);
        found.send_alternation = share(sends.turns, sends.calls.saturating_sub(1));
    }
    if found.waits == 0 || window_ns == 0 {
        return None;
    }
    let sending = |(_, thread): &&(&ThreadTime, &Thread)| {
        thread.calls.sums[Place::OuterSend as usize].packets > 0
    };
    found.sending_threads = own.iter().filter(sending).count() as u64;
    let time = involved.len() as f64 * seconds(window_ns);
    found.wait_share = found.wait_with_work_s / time;
    found.serialised = found.sending_threads >= 2
        && found.wait_share >= WAIT_SHARE
        && found
            .send_overlap_share
            .is_some_and(|share| share <= OVERLAP_SHARE)
        && found
            .send_alternation
            .is_some_and(|share| share >= TURNS_SHARE);
    found.threads = involved.into_iter().collect();
    Some(found)
}
