//! Which thread is the limit: CPU time, waiting, what for, what each packet costs, and who holds whom
//! up.
//!
//! `prev_runtime_ns` and `prev_run_delay_ns` of a switch equal `/proc/PID/task/TID/schedstat` at switch-out,
//! so a thread's time over the run is its last value minus its baseline: the snapshot at the start, its value
//! when it was created, or its first event; to that comes the time since its last switch if it still runs.
//!
//! [`scheduling`] follows a thread, [`work`] the packets that wait for it, [`calls`] what its system calls move
//! and cost; [`duties`], [`ceilings`] and [`rows`] put them together at the end. docs/threads.md has the
//! formulas.

mod calls;
mod ceilings;
mod duties;
mod model;
mod rows;
mod scheduling;
#[cfg(test)]
mod tests;
mod work;

use rustc_hash::FxHashMap;
use vpnbench_common::catalog::ProbeId;
use vpnbench_common::event::{self, task_what};
use vpnbench_common::settings::process;

use super::syscalls::{self, Wait};
use super::{Context, Problem, Span, seconds};
use crate::trace::Event;
use crate::trace::model::{Start, Thread as Snapshot};
use calls::{Descriptor, Descriptors, Place, Sends};
pub use model::{
    Blocked, DaemonLimits, Duty, Limit, OnCpu, SATURATED_SHARE, Serialisation, StageCost,
    ThreadSecond, ThreadTime, Waking,
};
use scheduling::{State, Thread};
use work::{Act, Desks, Queue};

/// Threads kept.
const THREADS_MAX: usize = 8192;
/// Pairs of threads that wake each other kept.
const PAIRS_MAX: usize = 65_536;
/// Seconds of threads kept, over all of them.
const CELLS_MAX: u64 = 500_000;

/// What the threads came to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Output {
    /// Busiest first.
    pub threads: Vec<ThreadTime>,
    /// (sum of schedstat - sum of vpnbench) / sum of schedstat over the threads in both snapshots.
    pub difference_ratio: Option<f64>,
    /// Threads behind `difference_ratio`.
    pub compared: u64,
    /// One per daemon that carried packets, in the order of the tunnels.
    pub limits: Vec<DaemonLimits>,
    /// Who wakes whom, most often first.
    pub wakings: Vec<Waking>,
}

/// Wake-ups of one pair.
#[derive(Debug, Clone, Copy, Default)]
struct Pair {
    count: u64,
    futex: u64,
    futex_ns: u64,
    futex_with_work_ns: u64,
}

/// Follows the threads.
#[derive(Debug, Clone)]
pub struct Threads {
    all: Vec<Thread>,
    current: FxHashMap<u32, usize>,
    /// Processes of threads that the snapshot at the start knows.
    known: FxHashMap<u32, u32>,
    desks: Desks,
    descriptors: Descriptors,
    sends: FxHashMap<u32, Sends>,
    pairs: FxHashMap<(u32, u32), Pair>,
    machine: String,
    start_ns: u64,
    uncounted: u64,
    room: u64,
}

impl Default for Threads {
    fn default() -> Self {
        Threads {
            all: Vec::new(),
            current: FxHashMap::default(),
            known: FxHashMap::default(),
            desks: Desks::default(),
            descriptors: Descriptors::default(),
            sends: FxHashMap::default(),
            pairs: FxHashMap::default(),
            machine: String::new(),
            start_ns: 0,
            uncounted: 0,
            room: CELLS_MAX,
        }
    }
}

impl Threads {
    /// Threads of a trace that begins with this frame.
    #[must_use]
    pub fn of(start: &Start) -> Threads {
        let threads = &start.environment.threads;
        let mut own = Threads {
            known: threads.iter().map(|one| (one.tid, one.tgid)).collect(),
            machine: start.host.machine.clone(),
            start_ns: start.environment.time_ns.max(start.clock.monotonic_ns),
            ..Threads::default()
        };
        own.desks.begin(start);
        own
    }

    /// Takes one event, in time order.
    #[inline]
    pub fn observe(&mut self, event: &Event<'_>) {
        // Nearly all events are segments and packets: without a daemon there is nothing that could wait for one.
        match event {
            Event::TcpProbe(_) => {}
            Event::Packet(_) | Event::Taken(_) | Event::Drop(_) if self.desks.all.is_empty() => {}
            _ => self.take(event),
        }
    }

    fn take(&mut self, event: &Event<'_>) {
        match event {
            Event::Switch(switch) => {
                if switch.watched & 1 != 0 {
                    self.switched_out(switch);
                }
                if switch.watched & 2 != 0 {
                    self.switched_in(switch);
                }
            }
            Event::Wakeup(wakeup) => self.woken(wakeup),
            Event::Task(task) => self.task(task),
            Event::Syscall(call) => self.call(call),
            Event::Softirq(softirq) => self.softirq(softirq),
            Event::Packet(packet) => {
                let tid = packet.header.tid;
                let touch = self.desks.packet(packet, self.process(tid));
                self.touched(tid, packet.header.time_ns, touch);
            }
            Event::Taken(taken) => {
                let tid = taken.header.tid;
                let touch = self.desks.taken(taken, self.process(tid));
                self.touched(tid, taken.header.time_ns, touch);
            }
            Event::Drop(drop) => self.desks.dropped(drop),
            _ => {}
        }
    }

    fn process(&self, tid: u32) -> u32 {
        let seen = self.current.get(&tid).map(|at| self.all[*at].tgid);
        seen.or_else(|| self.known.get(&tid).copied()).unwrap_or(0)
    }

    fn thread(&mut self, tid: u32, tgid: u32) -> Option<usize> {
        let at = match self.current.get(&tid) {
            Some(at) => *at,
            None if tid == 0 => return None,
            None if self.all.len() >= THREADS_MAX => {
                self.uncounted += 1;
                return None;
            }
            None => {
                self.all.push(Thread::new(tid, tgid));
                self.current.insert(tid, self.all.len() - 1);
                self.all.len() - 1
            }
        };
        if tgid != 0 {
            self.all[at].tgid = tgid;
        }
        Some(at)
    }

    fn enter(&mut self, at: usize, now_ns: u64, state: State) {
        let thread = &mut self.all[at];
        let desk = self.desks.of(thread.tgid);
        thread.enter(now_ns, state, desk, &mut self.room);
    }

    /// A thread that is seen at work without having been switched in has run since the start.
    fn running(&mut self, at: usize, now_ns: u64) {
        if !self.all[at].must_be_running() {
            return;
        }
        let early = self.all[at].born.is_none() && self.known.contains_key(&self.all[at].tid);
        let since = if early {
            self.start_ns.min(now_ns)
        } else {
            now_ns
        };
        self.enter(at, since, State::Running);
    }

    fn switched_out(&mut self, switch: &event::Switch) {
        let Some(at) = self.thread(switch.prev_tid, switch.prev_tgid) else {
            return;
        };
        self.running(at, switch.header.time_ns);
        let state = self.all[at].switched_out(switch);
        self.enter(at, switch.header.time_ns, state);
    }

    fn switched_in(&mut self, switch: &event::Switch) {
        let Some(at) = self.thread(switch.next_tid, switch.next_tgid) else {
            return;
        };
        self.all[at].switched_in(switch);
        self.enter(at, switch.header.time_ns, State::Running);
    }

    fn woken(&mut self, wakeup: &event::Wakeup) {
        let now = wakeup.header.time_ns;
        let Some(at) = self.thread(wakeup.woken_tid, wakeup.woken_tgid) else {
            return;
        };
        let State::Asleep(call) = self.all[at].state else {
            return;
        };
        let thread = &self.all[at];
        let slept = now.saturating_sub(thread.since_ns);
        let with_work = thread.slept_with_work(now, self.desks.of(thread.tgid));
        let waker = match wakeup.in_interrupt {
            0 => wakeup.header.tid,
            _ => 0,
        };
        let key = (waker, wakeup.woken_tid);
        if self.pairs.len() < PAIRS_MAX || self.pairs.contains_key(&key) {
            let pair = self.pairs.entry(key).or_default();
            pair.count += 1;
            let waits = u32::try_from(call).map(|nr| syscalls::wait(&self.machine, nr));
            if waits == Ok(Wait::Futex) {
                pair.futex += 1;
                pair.futex_ns += slept;
                pair.futex_with_work_ns += with_work;
            }
        }
        self.enter(at, now, State::Runnable);
    }

    fn task(&mut self, task: &event::Task) {
        let now = task.header.time_ns;
        let tid = task.target_tid;
        let forked = task.what == task_what::FORK;
        let ended = |at: &usize| self.all[*at].ended;
        if forked && self.current.get(&tid).is_some_and(ended) {
            self.current.remove(&tid);
        }
        let child = forked && task.child_tgid != 0;
        let tgid = if child { task.child_tgid } else { task.tgid };
        // A child has its maker's name at first: it is all there is of a maker that is no part of the tunnel.
        if forked
            && task.comm[0] != 0
            && let Some(maker) = self.thread(task.header.tid, task.tgid)
        {
            let known = &mut self.all[maker].comm;
            known.get_or_insert_with(|| text(&task.comm));
        }
        let Some(at) = self.thread(tid, tgid) else {
            return;
        };
        let thread = &mut self.all[at];
        if task.comm[0] != 0 && (task.what != task_what::EXIT || thread.comm.is_none()) {
            thread.comm = Some(text(&task.comm));
        }
        if task.role != process::NONE {
            thread.role = Some(task.role);
        }
        let counters = (task.runtime_ns, task.run_delay_ns);
        match task.what {
            task_what::FORK => thread.born = Some(counters),
            task_what::EXIT => {
                thread.first.get_or_insert(counters);
                thread.last = Some(counters);
                self.enter(at, now, State::Unknown);
                self.all[at].ended = true;
            }
            _ => {}
        }
    }

    fn touched(&mut self, tid: u32, now_ns: u64, touch: Option<work::Touch>) {
        let Some(touch) = touch else { return };
        let Some(at) = self.thread(tid, 0) else {
            return;
        };
        self.running(at, now_ns);
        let thread = &mut self.all[at];
        thread.acts[touch.act as usize] += u64::from(touch.segments);
        thread.calls.touched(&touch);
        let queue = match touch.act {
            Act::TunRead => Queue::Tun,
            Act::OuterReceive => Queue::Socket,
            Act::OuterSend => Queue::Outward,
            Act::TunWrite => Queue::Inward,
        };
        thread.drains |= 1 << queue as usize;
        let fed = matches!(touch.act, Act::TunRead | Act::OuterReceive);
        if fed {
            let desk = self.desks.of(thread.tgid);
            thread.take_in_hand(now_ns, true, desk, &mut self.room);
        }
        let feeds_itself = match touch.act {
            Act::OuterSend => thread.acts[Act::TunRead as usize] > 0,
            Act::TunWrite => thread.acts[Act::OuterReceive as usize] > 0,
            _ => false,
        };
        if fed || !feeds_itself {
            thread.handled(now_ns, touch.segments, &mut self.room);
        }
    }

    fn call(&mut self, call: &event::Syscall) {
        let now = call.header.time_ns;
        let Some(at) = self.thread(call.header.tid, call.tgid) else {
            return;
        };
        self.running(at, now);
        let way = calls::way(&self.machine, call.nr);
        let inside = self.desks.of(call.tgid).map(|desk| desk.inside());
        let inside = inside.unwrap_or_default();
        let thread = &mut self.all[at];
        let cpu_ns = thread.on_cpu(now);
        let ended = thread
            .calls
            .ended(call, (way, cpu_ns), &mut self.descriptors, inside);
        thread.returned(call.nr as i32, ended.descriptor);
        if ended.place == Place::OuterSend && call.duration_ns != u64::MAX {
            let from = now.saturating_sub(call.duration_ns);
            let sends = self.sends.entry(call.tgid).or_default();
            sends.ended(from, now, call.header.tid);
        }
        if ended.nothing && ended.descriptor != Descriptor::Other {
            let thread = &mut self.all[at];
            let desk = self.desks.of(thread.tgid);
            thread.take_in_hand(now, false, desk, &mut self.room);
        }
        if ended.nothing {
            match ended.place {
                Place::TunRead => self.desks.tun_empty(call.tgid, now),
                Place::OuterReceive => {
                    if let Some(desk) = self.desks.of(call.tgid) {
                        desk.found_nothing(now, Queue::Socket);
                    }
                }
                _ => {}
            }
        }
    }

    fn softirq(&mut self, softirq: &event::Softirq) {
        let Some(at) = self.thread(softirq.header.tid, softirq.tgid) else {
            return;
        };
        let now = softirq.header.time_ns;
        self.running(at, now);
        let thread = &mut self.all[at];
        thread.softirq_ns += softirq.duration_ns;
        let from = now.saturating_sub(softirq.duration_ns);
        thread.calls.interrupted(from, softirq.duration_ns, true);
    }

    /// The threads, busiest first.
    #[must_use]
    pub fn finish(mut self, context: &Context<'_>, span: Span) -> (Output, Vec<Problem>) {
        let mut problems = Vec::new();
        if self.uncounted > 0 {
            let message = format!(
                "{} events of more than {THREADS_MAX} threads were not counted",
                self.uncounted
            );
            problems.push(Problem::data_loss("threads", message));
        }
        let lost = context.lost.get(&(ProbeId::SchedSwitch as u8));
        let lost = lost.copied().unwrap_or(0);
        if lost > 0 {
            let message = format!(
                "{lost} switches of threads were not recorded: what a thread did from one to the next is uncertain"
            );
            problems.push(Problem::data_loss("threads", message));
        }
        let end = context.end.map(|end| match end.environment.time_ns {
            0 => end.clock.monotonic_ns,
            time => time,
        });
        let end_ns = end.or(span.last_ns).unwrap_or(0);
        let at_end = context.end.map(|end| &end.environment.threads);
        for at in 0..self.all.len() {
            let thread = &mut self.all[at];
            // A stretch that no switch ended is real only if none can be missing, and if the thread
            // was watched to the end.
            let there = |all: &Vec<_>| all.iter().any(|one: &Snapshot| one.tid == thread.tid);
            if lost == 0 && at_end.is_none_or(there) && thread.since_ns < end_ns {
                let state = thread.state;
                if state == State::Running {
                    thread.tail_ns = end_ns.saturating_sub(thread.on_since_ns);
                }
                self.enter(at, end_ns, state);
            }
            self.all[at].close_open();
        }
        (rows::finish(self, context, span), problems)
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
