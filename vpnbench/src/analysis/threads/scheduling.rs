//! One thread between running, runnable and asleep.
//!
//! CPU time and run-queue wait in total are the scheduler's own counters at each switch. Which moment
//! belongs to which state follows from `sched_switch` and `sched_waking`: from the wake-up (or from being
//! preempted) to the switch in, a thread is runnable. `sched_waking` comes a little before the scheduler
//! starts its own clock of the wait, so the states' sum of waiting is larger than `run_delay`; the report's
//! `runqueue_wait_s` is the latter.

use std::collections::BTreeMap;

use vpnbench_common::event;

use super::calls::{Calls, Descriptor};
use super::work::{Clock, Desk, MASKS};

/// Seconds kept per thread.
const SECONDS_MAX: u64 = 7200;
const SECOND_NS: u64 = 1_000_000_000;

/// What a thread is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum State {
    /// Not seen yet, or ended.
    #[default]
    Unknown,
    /// On a CPU.
    Running,
    /// Waits for one.
    Runnable,
    /// Asleep, in this system call (-1 unknown).
    Asleep(i32),
}

impl State {
    pub(super) fn awake(self) -> bool {
        matches!(self, State::Running | State::Runnable)
    }

    fn index(self) -> Option<usize> {
        match self {
            State::Unknown => None,
            State::Running => Some(RUNNING),
            State::Runnable => Some(RUNNABLE),
            State::Asleep(_) => Some(ASLEEP),
        }
    }
}

/// Index of a state in [`Thread::spent`].
pub(super) const RUNNING: usize = 0;
/// Likewise.
pub(super) const RUNNABLE: usize = 1;
/// Likewise.
pub(super) const ASLEEP: usize = 2;

/// Bit of a packet in the thread's own hand, beside those of the daemon's queues.
pub(super) const IN_HAND: usize = MASKS;

/// One second.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cell {
    pub(super) ns: [u64; 3],
    pub(super) saturated_ns: u64,
    pub(super) packets: u64,
}

/// A thread.
#[derive(Debug, Clone, Default)]
pub(super) struct Thread {
    pub(super) tid: u32,
    pub(super) tgid: u32,
    pub(super) comm: Option<String>,
    pub(super) role: Option<u32>,
    /// Runtime and run delay when it was created, if that was seen.
    pub(super) born: Option<(u64, u64)>,
    /// Runtime and run delay at the first event, less the slice that led to it.
    pub(super) first: Option<(u64, u64)>,
    pub(super) last: Option<(u64, u64)>,
    pub(super) ended: bool,
    pub(super) state: State,
    pub(super) since_ns: u64,
    /// When it began to run, if it runs.
    pub(super) on_since_ns: u64,
    pub(super) switches: u64,
    pub(super) preemptions: u64,
    pub(super) migrations: u64,
    cpu: Option<u16>,
    pub(super) cores: BTreeMap<u16, u64>,
    /// ns on a CPU up to the last change of state, by the times of switches.
    on_ns: u64,
    /// What the scheduler's own counter says beyond `on_ns`, ns. It charges a thread up to the moment
    /// it is taken off the queue; the search for the next one, and steal, are in `on_ns` only.
    skew_ns: i64,
    /// The daemon's clock at the last change of state.
    seen: Clock,
    /// ns by state and by which of the daemon's queues held something; in the second half with a packet
    /// in its own hand.
    pub(super) spent: [[u64; 2 * MASKS]; 3],
    /// It took packets off a queue of the kernel, and has neither found that empty nor slept since.
    in_hand: bool,
    /// ns asleep by system call and descriptor.
    pub(super) slept: BTreeMap<(i32, Descriptor), u64>,
    off_since: Option<u64>,
    /// Time on a CPU after its last switch.
    pub(super) tail_ns: u64,
    /// When it fell asleep and in which call, until it runs.
    asleep: Option<(u64, i32)>,
    /// Time off the CPU and system call, until the wait in it is known.
    unsplit: Option<(u64, i32, Option<Descriptor>)>,
    /// Sleep in a call that has not returned.
    open: Option<(i32, u64)>,
    pub(super) softirq_ns: u64,
    pub(super) calls: Calls,
    /// Queues that it was seen to drain, as bits.
    pub(super) drains: usize,
    pub(super) seconds: BTreeMap<u64, Cell>,
    pub(super) acts: [u64; 4],
}

impl Thread {
    /// A thread of which nothing is known yet.
    pub(super) fn new(tid: u32, tgid: u32) -> Thread {
        Thread {
            tid,
            tgid,
            ..Thread::default()
        }
    }

    /// Changes the state, and charges the time since the last change.
    pub(super) fn enter(
        &mut self,
        now_ns: u64,
        state: State,
        desk: Option<&mut Desk>,
        room: &mut u64,
    ) {
        let old = self.state;
        let mut waited = [0; MASKS];
        if let Some(desk) = desk {
            let clock = *desk.clock(now_ns);
            for (number, waited) in waited.iter_mut().enumerate() {
                *waited = clock[number].saturating_sub(self.seen[number]);
            }
            self.seen = clock;
            desk.changes(now_ns, old, state);
        }
        if let Some(index) = old.index() {
            let half = usize::from(self.in_hand) * IN_HAND;
            for (sum, waited) in self.spent[index][half..].iter_mut().zip(waited) {
                *sum += waited;
            }
            // One that has not touched a packet may be a worker: then what is inside is its work.
            let drains = if self.drains == 0 {
                0b1100
            } else {
                self.drains
            };
            let with_work: u64 = (0..MASKS)
                .filter(|mask| (mask | half) & (drains | IN_HAND) != 0)
                .map(|mask| waited[mask])
                .sum();
            let saturated = if old.awake() { with_work } else { 0 };
            self.charge(index, now_ns, saturated, room);
        }
        if old == State::Running {
            let slice = now_ns.saturating_sub(self.since_ns);
            self.on_ns += slice;
            if let Some(cpu) = self.cpu {
                *self.cores.entry(cpu).or_default() += slice;
            }
        }
        if state == State::Running && old != State::Running {
            self.on_since_ns = now_ns;
        }
        self.in_hand &= state.awake();
        self.state = state;
        self.since_ns = now_ns;
    }

    /// It has taken a packet into its hand, or has nothing more to do.
    pub(super) fn take_in_hand(
        &mut self,
        now_ns: u64,
        in_hand: bool,
        desk: Option<&mut Desk>,
        room: &mut u64,
    ) {
        if self.in_hand != in_hand {
            self.enter(now_ns, self.state, desk, room);
            self.in_hand = in_hand;
        }
    }

    /// ns of sleep with something in one of the daemon's queues, up to now.
    pub(super) fn slept_with_work(&self, now_ns: u64, desk: Option<&mut Desk>) -> u64 {
        let Some(desk) = desk else { return 0 };
        let clock = desk.clock(now_ns);
        (1..MASKS)
            .map(|mask| clock[mask].saturating_sub(self.seen[mask]))
            .sum()
    }

    fn charge(&mut self, index: usize, now_ns: u64, saturated: u64, room: &mut u64) {
        let (mut from, total) = (self.since_ns, now_ns.saturating_sub(self.since_ns));
        while from < now_ns {
            let second = from / SECOND_NS;
            let to = now_ns.min((second + 1) * SECOND_NS);
            let Some(cell) = self.cell(second, room) else {
                return;
            };
            cell.ns[index] += to - from;
            // Within one stretch work is taken to wait evenly.
            let share = u128::from(saturated) * u128::from(to - from) / u128::from(total.max(1));
            cell.saturated_ns += share as u64;
            from = to;
        }
    }

    fn cell(&mut self, second: u64, room: &mut u64) -> Option<&mut Cell> {
        if !self.seconds.contains_key(&second) {
            let first = self.seconds.keys().next().copied().unwrap_or(second);
            if *room == 0 || second.saturating_sub(first) >= SECONDS_MAX {
                return None;
            }
            *room -= 1;
        }
        Some(self.seconds.entry(second).or_default())
    }

    /// It handled packets.
    pub(super) fn handled(&mut self, now_ns: u64, segments: u32, room: &mut u64) {
        if let Some(cell) = self.cell(now_ns / SECOND_NS, room) {
            cell.packets += u64::from(segments);
        }
    }

    /// ns on a CPU up to now, as far as seen.
    pub(super) fn on_cpu(&self, now_ns: u64) -> u64 {
        let running = self.state == State::Running;
        let seen = self.on_ns + u64::from(running) * now_ns.saturating_sub(self.since_ns);
        seen.saturating_add_signed(self.skew_ns)
    }

    /// It stops running, by the scheduler's counters. Returns the state it goes to.
    pub(super) fn switched_out(&mut self, switch: &event::Switch) -> State {
        let now = switch.header.time_ns;
        let (runtime, delay) = (switch.prev_runtime_ns, switch.prev_run_delay_ns);
        let slice = match self.state {
            State::Running => now.saturating_sub(self.on_since_ns),
            _ => 0,
        };
        let earlier = *self
            .first
            .get_or_insert((runtime.saturating_sub(slice), delay));
        let waited = delay.saturating_sub(self.last.map_or(earlier.1, |last| last.1));
        if let Some((off, call, descriptor)) = self.unsplit.take() {
            self.sleep(call, descriptor, off.saturating_sub(waited));
        }
        let mut uncharged = 0;
        if self.state == State::Running {
            let charged = runtime.saturating_sub(self.last.map_or(earlier.0, |last| last.0));
            self.skew_ns += charged as i64 - slice as i64;
            uncharged = slice.saturating_sub(charged);
        }
        self.last = Some((runtime, delay));
        self.off_since = Some(now - uncharged);
        self.switches += 1;
        self.cpu.get_or_insert(switch.header.cpu);
        if switch.preempted != 0 || switch.prev_state == 0 {
            self.preemptions += 1;
            self.asleep = None;
            State::Runnable
        } else {
            self.asleep = Some((now, switch.prev_syscall));
            State::Asleep(switch.prev_syscall)
        }
    }

    /// It starts to run.
    pub(super) fn switched_in(&mut self, switch: &event::Switch) {
        let now = switch.header.time_ns;
        if let Some((since, call)) = self.asleep.take() {
            self.unsplit = Some((now.saturating_sub(since), call, None));
        }
        if let Some(since) = self.off_since.take() {
            let off = now.saturating_sub(since);
            self.calls.interrupted(since, off, false);
        }
        if self.cpu.is_some_and(|cpu| cpu != switch.header.cpu) {
            self.migrations += 1;
        }
        self.cpu = Some(switch.header.cpu);
    }

    fn sleep(&mut self, call: i32, descriptor: Option<Descriptor>, ns: u64) {
        if let Some(descriptor) = descriptor {
            *self.slept.entry((call, descriptor)).or_default() += ns;
        } else if self.open.is_some_and(|(open, _)| open == call) {
            self.open = self.open.map(|(open, sum)| (open, sum + ns));
        } else {
            self.close_open();
            self.open = Some((call, ns));
        }
    }

    /// The call it slept in returned: the descriptor is known.
    pub(super) fn returned(&mut self, call: i32, descriptor: Descriptor) {
        if let Some((open, ns)) = self.open.take() {
            let known = if open == call {
                descriptor
            } else {
                Descriptor::Other
            };
            *self.slept.entry((open, known)).or_default() += ns;
        }
        if let Some((_, asleep_in, known)) = &mut self.unsplit
            && *asleep_in == call
        {
            *known = Some(descriptor);
        }
    }

    /// Closes the time in a call that has not returned.
    pub(super) fn close_open(&mut self) {
        if let Some((call, ns)) = self.open.take() {
            *self.slept.entry((call, Descriptor::Other)).or_default() += ns;
        }
    }

    /// Whether it must have run all along if it is seen at work now.
    pub(super) fn must_be_running(&self) -> bool {
        self.state == State::Unknown && !self.ended
    }
}
