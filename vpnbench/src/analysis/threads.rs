//! CPU time per thread, from the scheduler's own counters at each switch.
//!
//! `prev_runtime_ns` and `prev_run_delay_ns` equal `/proc/PID/task/TID/schedstat` at switch-out,
//! so a thread's time over the run is its last value minus its baseline: the snapshot at the
//! start, its value when it was created, or its first event.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use vpnbench_common::event::{self, task_what};
use vpnbench_common::settings::process;

use super::syscalls::{self, Wait};
use super::{Context, Problem, Span, seconds};
use crate::trace::Event;
use crate::trace::model::Thread as Snapshot;

/// Threads kept.
const THREADS_MAX: usize = 8192;

/// Seconds a thread slept, by the system call it slept in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Blocked {
    /// Waiting for a lock or another thread.
    pub futex: f64,
    /// In read, readv, recv*.
    pub read: f64,
    /// In poll, select, epoll.
    pub poll: f64,
    /// Anywhere else.
    pub other: f64,
}

/// CPU time of one thread.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ThreadTime {
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// Thread name.
    pub comm: String,
    /// "daemon", "benchmark", "kernel" or "other".
    pub role: String,
    /// Seconds on a CPU, up to the thread's last switch.
    pub cpu_s: f64,
    /// `cpu_s` / duration of the recording, of one core.
    pub cpu_share: Option<f64>,
    /// Seconds runnable and waiting for a CPU.
    pub runqueue_wait_s: f64,
    /// Seconds asleep.
    pub blocked_s: Blocked,
    /// Times switched out.
    pub switches: u64,
    /// Of these, preempted.
    pub preemptions: u64,
    /// Seconds on a CPU by schedstat, from snapshot to snapshot; null if the thread is missing in one.
    pub schedstat_cpu_s: Option<f64>,
    /// (`schedstat_cpu_s` - `cpu_s`) / `schedstat_cpu_s`; null without schedstat or without time.
    pub schedstat_difference_ratio: Option<f64>,
    /// Packets handled; not computed yet.
    pub packets: Option<u64>,
    /// `cpu_s` / `packets` in ns; not computed yet.
    pub ns_per_packet: Option<f64>,
    /// Median batch; not computed yet.
    pub batch_p50: Option<f64>,
    /// Share of the run in which the thread was (nearly) always on a CPU; not computed yet.
    pub saturated_share: Option<f64>,
}

/// What the threads came to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Output {
    /// Busiest first.
    pub threads: Vec<ThreadTime>,
    /// (sum of schedstat - sum of vpnbench) / sum of schedstat over the threads in both snapshots.
    pub difference_ratio: Option<f64>,
    /// Threads behind `difference_ratio`.
    pub compared: u64,
}

#[derive(Debug, Clone, Default)]
struct State {
    tgid: u32,
    comm: Option<String>,
    role: Option<u32>,
    /// Runtime and run delay when it was created, if that was seen.
    born: Option<(u64, u64)>,
    /// Runtime and run delay at the first event, less the slice that led to it.
    first: Option<(u64, u64)>,
    last: Option<(u64, u64)>,
    switches: u64,
    preemptions: u64,
    on_since: Option<u64>,
    asleep: Option<(u64, i32)>,
    /// Time off the CPU and system call, until the wait in it is known.
    unsplit: Option<(u64, i32)>,
    blocked_ns: BTreeMap<i32, u64>,
    ended: bool,
}

/// Sums up CPU time per thread.
#[derive(Debug, Default)]
pub struct Threads {
    current: BTreeMap<u32, State>,
    ended: Vec<(u32, State)>,
    uncounted: u64,
}

impl Threads {
    /// Takes one event.
    pub fn observe(&mut self, event: &Event<'_>) {
        match event {
            Event::Switch(switch) => {
                if switch.watched & 1 != 0 {
                    self.switched_out(switch);
                }
                if switch.watched & 2 != 0 {
                    self.switched_in(switch);
                }
            }
            Event::Task(task) => self.task(task),
            _ => {}
        }
    }

    fn state(&mut self, tid: u32, tgid: u32) -> Option<&mut State> {
        if self.current.len() + self.ended.len() >= THREADS_MAX && !self.current.contains_key(&tid)
        {
            self.uncounted += 1;
            return None;
        }
        let state = self.current.entry(tid).or_default();
        if tgid != 0 {
            state.tgid = tgid;
        }
        Some(state)
    }

    fn switched_out(&mut self, switch: &event::Switch) {
        let now = switch.header.time_ns;
        let (runtime, delay) = (switch.prev_runtime_ns, switch.prev_run_delay_ns);
        let Some(state) = self.state(switch.prev_tid, switch.prev_tgid) else {
            return;
        };
        let slice = state
            .on_since
            .take()
            .map_or(0, |since| now.saturating_sub(since));
        let earlier = *state
            .first
            .get_or_insert((runtime.saturating_sub(slice), delay));
        let waited = delay.saturating_sub(state.last.map_or(earlier.1, |last| last.1));
        if let Some((off, syscall)) = state.unsplit.take() {
            *state.blocked_ns.entry(syscall).or_default() += off.saturating_sub(waited);
        }
        state.last = Some((runtime, delay));
        state.switches += 1;
        if switch.preempted != 0 || switch.prev_state == 0 {
            state.preemptions += 1;
            state.asleep = None;
        } else {
            state.asleep = Some((now, switch.prev_syscall));
        }
    }

    fn switched_in(&mut self, switch: &event::Switch) {
        let now = switch.header.time_ns;
        let Some(state) = self.state(switch.next_tid, switch.next_tgid) else {
            return;
        };
        state.on_since = Some(now);
        if let Some((since, syscall)) = state.asleep.take() {
            state.unsplit = Some((now.saturating_sub(since), syscall));
        }
    }

    fn task(&mut self, task: &event::Task) {
        let reborn = task.what == task_what::FORK
            && self
                .current
                .get(&task.target_tid)
                .is_some_and(|state| state.ended);
        if reborn && let Some(state) = self.current.remove(&task.target_tid) {
            self.ended.push((task.target_tid, state));
        }
        let forked = task.what == task_what::FORK && task.child_tgid != 0;
        let tgid = if forked { task.child_tgid } else { task.tgid };
        let Some(state) = self.state(task.target_tid, tgid) else {
            return;
        };
        if task.comm[0] != 0 && (task.what != task_what::EXIT || state.comm.is_none()) {
            state.comm = Some(text(&task.comm));
        }
        if task.role != process::NONE {
            state.role = Some(task.role);
        }
        let counters = (task.runtime_ns, task.run_delay_ns);
        match task.what {
            task_what::FORK => state.born = Some(counters),
            task_what::EXIT => {
                state.first.get_or_insert(counters);
                state.last = Some(counters);
                state.ended = true;
            }
            _ => {}
        }
    }

    /// The threads, busiest first.
    #[must_use]
    pub fn finish(self, context: &Context<'_>, span: Span) -> (Output, Vec<Problem>) {
        let duration = duration(context, span);
        let before = snapshot(Some(&context.start.environment.threads));
        let after = snapshot(context.end.map(|end| &end.environment.threads));
        let machine = &context.start.host.machine;
        let mut sums = (0.0, 0.0, 0);
        let all = self
            .current
            .iter()
            .chain(self.ended.iter().map(|(tid, state)| (tid, state)));
        let mut threads: Vec<ThreadTime> = all
            .map(|(tid, state)| {
                let known = if state.born.is_some() {
                    None
                } else {
                    before.get(tid).copied()
                };
                let later = if state.ended {
                    None
                } else {
                    after.get(tid).copied()
                };
                let row = row(*tid, state, known, later, (duration, machine));
                if let Some(kernel) = row.schedstat_cpu_s {
                    sums = (sums.0 + kernel, sums.1 + row.cpu_s, sums.2 + 1);
                }
                row
            })
            .collect();
        threads.sort_by(|a, b| b.cpu_s.total_cmp(&a.cpu_s).then(a.tid.cmp(&b.tid)));
        let mut problems = Vec::new();
        if self.uncounted > 0 {
            let message = format!(
                "{} events of more than {THREADS_MAX} threads were not counted",
                self.uncounted
            );
            problems.push(Problem::data_loss("threads", message));
        }
        let difference_ratio = (sums.0 > 0.0).then(|| (sums.0 - sums.1) / sums.0);
        (
            Output {
                threads,
                difference_ratio,
                compared: sums.2,
            },
            problems,
        )
    }
}

fn row(
    tid: u32,
    state: &State,
    before: Option<&Snapshot>,
    after: Option<&Snapshot>,
    (duration, machine): (Option<f64>, &str),
) -> ThreadTime {
    let snapshot = before.map(|thread| (thread.runtime_ns, thread.run_delay_ns));
    let baseline = state.born.or(snapshot).or(state.first);
    let spent = |pick: fn((u64, u64)) -> u64| match (baseline, state.last) {
        (Some(first), Some(last)) => pick(last).saturating_sub(pick(first)),
        _ => 0,
    };
    let cpu_s = seconds(spent(|pair| pair.0));
    let schedstat = after.and_then(|after| {
        let first = state.born.or(snapshot)?.0;
        after.runtime_ns.checked_sub(first).map(seconds)
    });
    let comm = state
        .comm
        .clone()
        .or(after.or(before).map(|thread| thread.comm.clone()));
    let role = state.role.map(|role| role_name(role).to_owned());
    ThreadTime {
        pid: state.tgid,
        tid,
        comm: comm.unwrap_or_else(|| "?".to_owned()),
        role: role
            .or(before.or(after).map(|thread| thread.role.clone()))
            .unwrap_or_else(|| "other".to_owned()),
        cpu_s,
        cpu_share: duration.map(|duration| cpu_s / duration),
        runqueue_wait_s: seconds(spent(|pair| pair.1)),
        blocked_s: blocked(&state.blocked_ns, machine),
        switches: state.switches,
        preemptions: state.preemptions,
        schedstat_cpu_s: schedstat,
        schedstat_difference_ratio: schedstat
            .filter(|kernel| *kernel > 0.0)
            .map(|kernel| (kernel - cpu_s) / kernel),
        ..ThreadTime::default()
    }
}

/// Seconds of the recording: between the snapshots' clocks, or up to the last event of a recording
/// that did not end in order.
#[must_use]
pub fn duration(context: &Context<'_>, span: Span) -> Option<f64> {
    let start = context.start.clock.monotonic_ns;
    let end = context
        .end
        .map(|end| end.clock.monotonic_ns)
        .or(span.last_ns)?;
    end.checked_sub(start).filter(|ns| *ns > 0).map(seconds)
}

fn snapshot(threads: Option<&Vec<Snapshot>>) -> BTreeMap<u32, &Snapshot> {
    threads
        .into_iter()
        .flatten()
        .map(|thread| (thread.tid, thread))
        .collect()
}

fn blocked(by_syscall: &BTreeMap<i32, u64>, machine: &str) -> Blocked {
    let mut blocked = Blocked::default();
    for (&nr, &ns) in by_syscall {
        let wait = u32::try_from(nr)
            .ok()
            .map_or(Wait::Other, |nr| syscalls::wait(machine, nr));
        let slot = match wait {
            Wait::Futex => &mut blocked.futex,
            Wait::Read => &mut blocked.read,
            Wait::Poll => &mut blocked.poll,
            Wait::Other => &mut blocked.other,
        };
        *slot += seconds(ns);
    }
    blocked
}

/// Name of a process role (`settings::process`).
#[must_use]
pub fn role_name(role: u32) -> &'static str {
    match role {
        process::DAEMON => "daemon",
        process::BENCHMARK => "benchmark",
        process::KERNEL => "kernel",
        _ => "other",
    }
}

/// A zero-terminated name.
#[must_use]
pub fn text(bytes: &[u8]) -> String {
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
