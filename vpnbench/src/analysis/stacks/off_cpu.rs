//! Where threads sleep: the stack with which each sleep began, how long it was, and, for waits in a futex,
//! the stack of the thread that ended it.
//!
//! A sleep lasts from the switch out to the wake-up (`sched_waking`); what follows is waiting for a core. The
//! stacks come as records of their own right behind the switch and the wake-up that they belong to.

use rustc_hash::FxHashMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use vpnbench_common::catalog::ProbeId;
use vpnbench_common::event;

use super::{STACKS_MAX, Stack, frames, kernel, stack};
use crate::analysis::{Context, seconds};
use crate::trace::Event;

/// Sleeps of one thread at one place, ended by one thread at one place.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Sleep {
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// Functions in which it slept, outermost first.
    pub stack: Vec<String>,
    /// Who ended the wait in a futex; null for other sleeps, and if it was nobody that is watched.
    pub woken_by: Option<Waker>,
    /// How often.
    pub count: u64,
    /// How long altogether, s.
    pub slept_s: f64,
}

/// Who ended a wait.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Waker {
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// Functions in which it did, outermost first.
    pub stack: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Place {
    tid: u32,
    stack: Stack,
    waker: Option<(u32, Stack)>,
}

/// A thread that sleeps.
#[derive(Debug, Clone)]
struct Asleep {
    since_ns: u64,
    stack: Option<Stack>,
    woken_ns: Option<u64>,
    waker: Option<(u32, Stack)>,
}

/// Sums up the sleeps.
#[derive(Debug, Clone, Default)]
pub struct OffCpu {
    asleep: FxHashMap<u32, Asleep>,
    places: FxHashMap<Place, (u64, u64)>,
    last_ns: u64,
}

impl OffCpu {
    /// Takes one event.
    pub fn observe(&mut self, event: &Event<'_>) {
        match event {
            Event::Switch(switch) => self.switched(switch),
            Event::Wakeup(wakeup) => {
                if let Some(asleep) = self.asleep.get_mut(&wakeup.woken_tid) {
                    asleep.woken_ns.get_or_insert(wakeup.header.time_ns);
                }
            }
            Event::Sample(sample) if sample.header.probe == ProbeId::OffCpuStack as u8 => {
                if let Some(asleep) = self.asleep.get_mut(&sample.header.tid) {
                    asleep.stack = Some(stack(sample));
                }
            }
            Event::Sample(sample) if sample.header.probe == ProbeId::WakerStack as u8 => {
                if let Some(asleep) = self.asleep.get_mut(&sample.woken_tid) {
                    asleep.waker = Some((sample.header.tid, stack(sample)));
                }
            }
            _ => {}
        }
    }

    fn switched(&mut self, switch: &event::Switch) {
        let now = switch.header.time_ns;
        self.last_ns = self.last_ns.max(now);
        if switch.watched & 2 != 0
            && let Some(asleep) = self.asleep.remove(&switch.next_tid)
        {
            self.ended(switch.next_tid, asleep, now);
        }
        if switch.watched & 1 != 0 && switch.preempted == 0 && switch.prev_state != 0 {
            let asleep = Asleep {
                since_ns: now,
                stack: None,
                woken_ns: None,
                waker: None,
            };
            self.asleep.insert(switch.prev_tid, asleep);
        }
    }

    /// A sleep whose stack was not recorded is in no place: the report has its time by system call.
    fn ended(&mut self, tid: u32, asleep: Asleep, now_ns: u64) {
        let Some(stack) = asleep.stack else { return };
        let place = Place {
            tid,
            stack,
            waker: asleep.waker,
        };
        if self.places.len() >= STACKS_MAX && !self.places.contains_key(&place) {
            return;
        }
        let until = asleep.woken_ns.unwrap_or(now_ns);
        let (count, ns) = self.places.entry(place).or_default();
        *count += 1;
        *ns += until.saturating_sub(asleep.since_ns);
    }

    /// All places, longest sleep first. Who still sleeps at the end has slept until then.
    #[must_use]
    pub fn finish(mut self, context: &Context<'_>) -> Vec<Sleep> {
        let end = context.end.map(|end| end.clock.monotonic_ns);
        let end = end.unwrap_or(self.last_ns);
        for (tid, asleep) in std::mem::take(&mut self.asleep) {
            self.ended(tid, asleep, end);
        }
        let sleep = |(place, (count, ns)): (Place, (u64, u64))| Sleep {
            pid: place.stack.tgid,
            tid: place.tid,
            stack: frames(context, &without_probe(context, place.stack)),
            woken_by: place.waker.and_then(|(tid, stack)| {
                let stack = without_probe(context, stack);
                wakes(context, &stack).then(|| Waker {
                    pid: stack.tgid,
                    tid,
                    stack: frames(context, &stack),
                })
            }),
            count,
            slept_s: seconds(ns),
        };
        let mut sleeps: Vec<Sleep> = self.places.into_iter().map(sleep).collect();
        sleeps.sort_by(|a, b| {
            let longest = b.slept_s.total_cmp(&a.slept_s);
            longest.then_with(|| (a.tid, &a.stack).cmp(&(b.tid, &b.stack)))
        });
        sleeps
    }
}

/// Whether the thread with this stack woke the other one, and not an interrupt on top of it (a time-out): then
/// it is in one of the kernel's futex functions, unless the kernel shows no symbols to this user.
fn wakes(context: &Context<'_>, stack: &Stack) -> bool {
    let mut names = stack.kernel.iter().filter_map(|at| kernel(context, *at));
    let interrupt = |name: &str| name.contains("interrupt");
    match names.next() {
        None => true,
        Some(first) => {
            let all = || std::iter::once(first).chain(names.clone());
            all().any(|name| name.contains("futex")) && !all().any(interrupt)
        }
    }
}

/// Cuts off what is inside of the tracepoint: the kernel's way to the program, and the program.
fn without_probe(context: &Context<'_>, mut stack: Stack) -> Stack {
    let of_probe = |address: &u64| {
        let name = kernel(context, *address).unwrap_or("");
        ["bpf_", "__bpf_", "__traceiter_"]
            .iter()
            .any(|start| name.starts_with(start))
    };
    let inside = stack.kernel.iter().take_while(|one| of_probe(one)).count();
    stack.kernel = stack.kernel[inside..].into();
    stack
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::trace::model::{Start, Symbols};

    const MS: u64 = 1_000_000;

    fn switch(time_ms: u64, prev: u32, next: u32, prev_state: u32) -> event::Switch {
        let mut switch: event::Switch = bytemuck::Zeroable::zeroed();
        switch.header.time_ns = time_ms * MS;
        (switch.prev_tid, switch.next_tid) = (prev, next);
        (switch.prev_state, switch.watched) = (prev_state, 3);
        switch
    }

    fn sample(probe: ProbeId, tid: u32, woken_tid: u32, user: u64) -> event::Sample {
        let mut sample: event::Sample = bytemuck::Zeroable::zeroed();
        (sample.header.probe, sample.header.tid) = (probe as u8, tid);
        (sample.tgid, sample.woken_tid) = (7, woken_tid);
        (sample.user[0], sample.user_depth) = (user, 1);
        let inner = if user == 201 { 5 } else { 3 };
        sample.kernel[..4].copy_from_slice(&[1, 2, inner, 4]);
        sample.kernel_depth = 4;
        sample
    }

    fn wakeup(time_ms: u64, woken_tid: u32) -> event::Wakeup {
        let mut wakeup: event::Wakeup = bytemuck::Zeroable::zeroed();
        (wakeup.header.time_ns, wakeup.woken_tid) = (time_ms * MS, woken_tid);
        wakeup
    }

    #[test]
    fn a_sleep_lasts_until_the_wake_up_and_knows_who_ended_it() {
        let mut off = OffCpu::default();
        for (from, woken, on) in [(10, 14, 15), (20, 21, 30)] {
            off.observe(&Event::Switch(&switch(from, 8, 0, 1)));
            let asleep = sample(ProbeId::OffCpuStack, 8, 0, 100);
            off.observe(&Event::Sample(&asleep));
            off.observe(&Event::Wakeup(&wakeup(woken, 8)));
            // The second ends by a time-out, which interrupts a thread.
            let by = if from == 10 { 200 } else { 201 };
            let waker = sample(ProbeId::WakerStack, 9, 8, by);
            off.observe(&Event::Sample(&waker));
            off.observe(&Event::Switch(&switch(on, 0, 8, 0)));
        }
        // Preempted: no sleep. Asleep without a recorded stack: no place.
        off.observe(&Event::Switch(&switch(40, 8, 0, 0)));
        off.observe(&Event::Switch(&switch(41, 0, 8, 0)));
        off.observe(&Event::Switch(&switch(42, 8, 0, 1)));
        off.observe(&Event::Switch(&switch(43, 0, 8, 0)));
        // Asleep in another place until the end, which the last event tells.
        off.observe(&Event::Switch(&switch(50, 8, 0, 1)));
        off.observe(&Event::Sample(&sample(ProbeId::OffCpuStack, 8, 0, 101)));
        off.observe(&Event::Switch(&switch(60, 9, 0, 0)));
        let names = [(100, "lock"), (101, "poll"), (200, "unlock")];
        let names = names.map(|(at, name)| (at, format!("{name}+0x4 [tunnel]")));
        let kernel = [
            "bpf_prog_1_off_cpu_stack",
            "__traceiter_sched_switch+0x7",
            "__schedule",
            "futex_wait",
            "asm_sysvec_apic_timer_interrupt",
        ];
        let kernel = (1..).zip(kernel.map(str::to_owned));
        let symbols = Symbols {
            kernel: kernel.collect(),
            user: [(7, names.into())].into(),
            ..Symbols::default()
        };
        let (start, lost) = (Start::default(), BTreeMap::new());
        let sleeps = off.finish(&Context::new(&start, None, &[], &symbols, &lost));
        let stack = |name: &str| {
            let kernel = ["futex_wait_[k]", "__schedule_[k]"].map(str::to_owned);
            [vec![name.to_owned()], kernel.into()].concat()
        };
        let poll = Sleep {
            pid: 7,
            tid: 8,
            stack: stack("poll"),
            woken_by: None,
            count: 1,
            slept_s: 0.010,
        };
        let lock = Sleep {
            stack: stack("lock"),
            woken_by: Some(Waker {
                pid: 7,
                tid: 9,
                stack: stack("unlock"),
            }),
            slept_s: 0.004,
            ..poll.clone()
        };
        let timed_out = Sleep {
            woken_by: None,
            slept_s: 0.001,
            ..lock.clone()
        };
        assert_eq!(sleeps, [poll, lock, timed_out]);
    }
}
