//! From what was followed to the rows of the report.

use std::collections::BTreeMap;

use vpnbench_common::catalog::ProbeId;

use super::calls::{Descriptor, Place, Sums};
use super::duties::{self, Assigned};
use super::model::{Blocked, OnCpu, StageCost, ThreadSecond, ThreadTime, Waking};
use super::scheduling::{RUNNABLE, RUNNING, Thread};
use super::work::{Act, Desk, MASKS};
use super::{Output, Span, Threads, ceilings, duration, role_name};
use crate::analysis::syscalls::{self, Wait};
use crate::analysis::{Context, seconds};
use crate::trace::model::Thread as Snapshot;

/// Pairs of threads in the report.
const WAKINGS: usize = 64;
const SECOND_NS: u64 = 1_000_000_000;

/// What the rows have in common.
struct Common<'a> {
    context: &'a Context<'a>,
    before: BTreeMap<u32, &'a Snapshot>,
    after: BTreeMap<u32, &'a Snapshot>,
    duration_s: Option<f64>,
    softirqs: bool,
}

/// All rows, and the limits of each daemon that carried packets.
pub(super) fn finish(mut threads: Threads, context: &Context<'_>, span: Span) -> Output {
    let common = Common {
        context,
        before: snapshot(Some(&context.start.environment.threads)),
        after: snapshot(context.end.map(|end| &end.environment.threads)),
        duration_s: duration(context, span),
        softirqs: context.attached(ProbeId::SoftirqExit),
    };
    let mut rows: Vec<ThreadTime> = threads
        .all
        .iter()
        .map(|thread| common.row(thread))
        .collect();
    let mut limits = Vec::new();
    let desks = std::mem::take(&mut threads.desks.all);
    for desk in &desks {
        let of_process: Vec<usize> = (0..threads.all.len())
            .filter(|at| threads.all[*at].tgid == desk.tgid)
            .collect();
        let Some(first_ns) = desk.first_ns.filter(|_| !of_process.is_empty()) else {
            continue;
        };
        let window_ns = desk.last_ns.max(first_ns) - first_ns;
        let assigned = duties::assign(&threads, &of_process);
        for (at, assigned) in of_process.iter().zip(&assigned) {
            packets(&mut rows[*at], &threads.all[*at], assigned, desk);
            ceilings::saturation(&mut rows[*at], &threads.all[*at], assigned, desk, window_ns);
        }
        let own = of_process.iter().zip(&assigned);
        let own: Vec<(&ThreadTime, &Thread)> =
            own.map(|(at, _)| (&rows[*at], &threads.all[*at])).collect();
        let limit = ceilings::limits(&threads, desk, window_ns, &own, context.start.host.cpus);
        limits.push(limit);
    }
    let names: BTreeMap<u32, String> = rows.iter().map(|row| (row.tid, row.comm.clone())).collect();
    let wakings = wakings(&threads, &names);
    let mut sums = (0.0, 0.0, 0);
    for row in &rows {
        if let Some(kernel) = row.schedstat_cpu_s {
            sums = (sums.0 + kernel, sums.1 + row.cpu_s, sums.2 + 1);
        }
    }
    rows.sort_by(|a, b| b.cpu_s.total_cmp(&a.cpu_s).then(a.tid.cmp(&b.tid)));
    Output {
        threads: rows,
        difference_ratio: (sums.0 > 0.0).then(|| (sums.0 - sums.1) / sums.0),
        compared: sums.2,
        limits,
        wakings,
    }
}

impl Common<'_> {
    fn row(&self, thread: &Thread) -> ThreadTime {
        let before = match thread.born {
            Some(_) => None,
            None => self.before.get(&thread.tid).copied(),
        };
        let after = match thread.ended {
            true => None,
            false => self.after.get(&thread.tid).copied(),
        };
        let snapshot = before.map(|one| (one.runtime_ns, one.run_delay_ns));
        let baseline = thread.born.or(snapshot).or(thread.first);
        let spent = |pick: fn((u64, u64)) -> u64| match (baseline, thread.last) {
            (Some(first), Some(last)) => pick(last).saturating_sub(pick(first)),
            _ => 0,
        };
        let cpu_s = seconds(spent(|pair| pair.0) + thread.tail_ns);
        let schedstat = after.and_then(|after| {
            let first = thread.born.or(snapshot)?.0;
            after.runtime_ns.checked_sub(first).map(seconds)
        });
        let comm = thread.comm.clone();
        let comm = comm.or(after.or(before).map(|one| one.comm.clone()));
        let role = thread.role.map(|role| role_name(role).to_owned());
        let role = role.or(before.or(after).map(|one| one.role.clone()));
        let mut cores: Vec<OnCpu> = thread
            .cores
            .iter()
            .map(|(&cpu, &ns)| OnCpu {
                cpu,
                cpu_s: seconds(ns),
            })
            .collect();
        cores.sort_by(|a, b| b.cpu_s.total_cmp(&a.cpu_s));
        ThreadTime {
            pid: thread.tgid,
            tid: thread.tid,
            comm: comm.unwrap_or_else(|| "?".to_owned()),
            role: role.unwrap_or_else(|| "other".to_owned()),
            cpu_s,
            cpu_share: self.duration_s.map(|duration| cpu_s / duration),
            runqueue_wait_s: seconds(spent(|pair| pair.1)),
            blocked_s: blocked(thread, &self.context.start.host.machine),
            softirq_s: self.softirqs.then(|| seconds(thread.softirq_ns)),
            switches: thread.switches,
            preemptions: thread.preemptions,
            migrations: thread.migrations,
            cores,
            schedstat_cpu_s: schedstat,
            schedstat_difference_ratio: schedstat
                .filter(|kernel| *kernel > 0.0)
                .map(|kernel| (kernel - cpu_s) / kernel),
            stages: stages(thread, cpu_s),
            seconds: self.seconds(thread),
            ..ThreadTime::default()
        }
    }

    fn seconds(&self, thread: &Thread) -> Vec<ThreadSecond> {
        let first = self.context.start.clock.monotonic_ns / SECOND_NS;
        let row = |(&second, cell): (&u64, &super::scheduling::Cell)| ThreadSecond {
            second: u32::try_from(second.saturating_sub(first)).unwrap_or(u32::MAX),
            cpu_s: seconds(cell.ns[RUNNING]),
            runnable_s: seconds(cell.ns[RUNNABLE]),
            blocked_s: seconds(cell.ns[super::scheduling::ASLEEP]),
            saturated_s: seconds(cell.saturated_ns),
            packets: cell.packets,
        };
        thread.seconds.iter().map(row).collect()
    }
}

fn snapshot(threads: Option<&Vec<Snapshot>>) -> BTreeMap<u32, &Snapshot> {
    threads
        .into_iter()
        .flatten()
        .map(|thread| (thread.tid, thread))
        .collect()
}

fn blocked(thread: &Thread, machine: &str) -> Blocked {
    let mut blocked = Blocked::default();
    for (&(call, descriptor), &ns) in &thread.slept {
        let nr = u32::try_from(call).ok();
        let wait = nr.map_or(Wait::Other, |nr| syscalls::wait(machine, nr));
        let name = nr.and_then(|nr| syscalls::name(machine, nr));
        let time = seconds(ns);
        match wait {
            Wait::Futex => blocked.futex += time,
            Wait::Read => blocked.read += time,
            Wait::Poll => blocked.poll += time,
            Wait::Other => blocked.other += time,
        }
        match (wait, descriptor, name) {
            (Wait::Read, Descriptor::Tun, _) => blocked.tun_read += time,
            (Wait::Read, Descriptor::Socket, _) => blocked.socket += time,
            (_, _, Some("io_uring_enter")) => blocked.io_uring += time,
            (_, _, Some("nanosleep" | "clock_nanosleep")) => blocked.sleep += time,
            (Wait::Other, _, Some(name)) if name.starts_with("send") || name.contains("write") => {
                blocked.send += time;
            }
            _ => {}
        }
    }
    blocked
}

/// Stages by recorded calls; what is beyond them is `other`.
fn stages(thread: &Thread, cpu_s: f64) -> Vec<StageCost> {
    let mut stages: Vec<StageCost> = Place::ALL
        .into_iter()
        .map(|place| (place, &thread.calls.sums[place as usize]))
        .filter(|(place, sums)| sums.cpu_ns > 0 || sums.calls > 0 || *place == Place::Other)
        .map(|(place, sums)| stage(place, sums))
        .collect();
    let sum: f64 = stages.iter().map(|stage| stage.cpu_s).sum();
    if let Some(other) = stages.last_mut() {
        other.cpu_s += (cpu_s - sum).max(0.0);
    }
    stages.retain(|stage| stage.cpu_s > 0.0 || stage.calls.is_some());
    stages.sort_by(|a, b| b.cpu_s.total_cmp(&a.cpu_s));
    stages
}

fn stage(place: Place, sums: &Sums) -> StageCost {
    let cpu_s = seconds(sums.cpu_ns);
    let moved: u64 = sums.batches.values().sum();
    let per = |count: u64| (count > 0).then(|| sums.cpu_ns as f64 / count as f64);
    StageCost {
        stage: place.name().to_owned(),
        cpu_s,
        calls: place.is_call().then_some(sums.calls),
        would_block: place.is_call().then_some(sums.would_block),
        packets: (sums.packets > 0).then_some(sums.packets),
        bytes: (sums.bytes > 0).then_some(sums.bytes),
        ns_per_packet: per(sums.packets),
        ns_per_byte: per(sums.bytes),
        batch_p50: median(&sums.batches),
        batch_mean: (moved > 0).then(|| sums.packets as f64 / moved as f64),
        bytes_per_call: (moved > 0).then(|| sums.bytes as f64 / moved as f64),
        calls_per_packet: (sums.packets > 0 && place.is_call())
            .then(|| sums.calls as f64 / sums.packets as f64),
    }
}

fn median(batches: &BTreeMap<u32, u64>) -> Option<f64> {
    let total: u64 = batches.values().sum();
    let mut seen = 0;
    batches.iter().find_map(|(size, count)| {
        seen += count;
        (2 * seen >= total).then_some(f64::from(*size))
    })
}

/// Packets, bytes, batch, and the code between calls by the way the packets go.
fn packets(row: &mut ThreadTime, thread: &Thread, assigned: &Assigned, desk: &Desk) {
    row.duties.clone_from(&assigned.duties);
    let act = |act: Act| thread.acts[act as usize];
    let out = act(Act::TunRead).max(act(Act::OuterSend));
    let inward = act(Act::OuterReceive).max(act(Act::TunWrite));
    if out + inward > 0 {
        row.packets = Some(out + inward);
        let bytes = |act: Act| thread.calls.sums[act as usize].bytes;
        let pick = |inner: u64, outer: u64| if inner > 0 { inner } else { outer };
        let both = pick(bytes(Act::TunRead), bytes(Act::OuterSend))
            + pick(bytes(Act::TunWrite), bytes(Act::OuterReceive));
        row.bytes = Some(both).filter(|bytes| *bytes > 0);
    }
    let fed = [
        Place::TunRead,
        Place::OuterReceive,
        Place::OuterSend,
        Place::TunWrite,
    ];
    let fed = fed.map(|place| &thread.calls.sums[place as usize]);
    let front = fed[..2].iter().max_by_key(|sums| sums.packets);
    let back = fed[2..].iter().max_by_key(|sums| sums.packets);
    let busiest = front.filter(|sums| sums.packets > 0).or(back);
    row.batch_p50 = busiest.and_then(|sums| median(&sums.batches));
    // A thread without calls of its own on the path: its code is the daemon's work on the packets.
    if row.duties == [super::Duty::CryptoWorker] {
        let ways = assigned.ways;
        let name = match (ways.out, ways.inward) {
            (true, false) => Some((Place::DaemonSend.name(), desk.packets_out)),
            (false, true) => Some((Place::DaemonReceive.name(), desk.packets_in)),
            _ => None,
        };
        let other = row.stages.iter_mut();
        if let (Some((name, _)), Some(other)) = (
            name,
            { other }.find(|stage| stage.stage == Place::Other.name()),
        ) {
            name.clone_into(&mut other.stage);
        }
    }
    for stage in &mut row.stages {
        let passed = match stage.stage.as_str() {
            "daemon-send" => out,
            "daemon-receive" => inward,
            _ => continue,
        };
        if passed > 0 {
            stage.packets = Some(passed);
            stage.ns_per_packet = Some(stage.cpu_s * 1e9 / passed as f64);
        }
    }
}

/// ns in a state while one of these queues held something.
pub(super) fn with_work(thread: &Thread, state: usize, drains: usize) -> u64 {
    (1..2 * MASKS)
        .filter(|mask| mask & drains != 0)
        .map(|mask| thread.spent[state][mask])
        .sum()
}

fn wakings(threads: &Threads, names: &BTreeMap<u32, String>) -> Vec<Waking> {
    let name = |tid: u32| match tid {
        0 => "interrupt".to_owned(),
        _ => names.get(&tid).cloned().unwrap_or_else(|| "?".to_owned()),
    };
    let mut rows: Vec<Waking> = threads
        .pairs
        .iter()
        .map(|(&(waker, woken), pair)| Waking {
            waker_tid: waker,
            waker: name(waker),
            woken_tid: woken,
            woken: name(woken),
            pid: threads.process(woken),
            count: pair.count,
            futex: pair.futex,
            futex_wait_s: seconds(pair.futex_ns),
            futex_wait_with_work_s: seconds(pair.futex_with_work_ns),
        })
        .collect();
    rows.sort_by_key(|row| (std::cmp::Reverse(row.count), row.waker_tid, row.woken_tid));
    rows.truncate(WAKINGS);
    rows
}
