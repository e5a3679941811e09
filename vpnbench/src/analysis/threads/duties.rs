//! What a thread does, from what it was seen doing: never from its name.
//!
//! A thread has a duty if it did at least [`SHARE`] of what the whole process did at that tap. A thread
//! without any that uses at least [`WORKER_SHARE`] of the process's CPU time works on packets between the taps;
//! which way, its wake-ups tell: those who read the device or send wake and are woken on the way out, those
//! who receive or write on the way in.

use super::Threads;
use super::model::Duty;
use super::scheduling::{IN_HAND, Thread};
use super::work::{Act, Queue};

/// Of the packets of its process at a tap.
const SHARE: f64 = 0.05;
/// Of the CPU time of its process.
const WORKER_SHARE: f64 = 0.02;

const ACTS: [(Act, Duty, Queue); 4] = [
    (Act::TunRead, Duty::TunReader, Queue::Tun),
    (Act::OuterSend, Duty::OuterSender, Queue::Outward),
    (Act::OuterReceive, Duty::OuterReceiver, Queue::Socket),
    (Act::TunWrite, Duty::TunWriter, Queue::Inward),
];

/// Which ways a thread carries packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Ways {
    pub(super) out: bool,
    pub(super) inward: bool,
}

/// The duties of one thread.
#[derive(Debug, Clone, Default)]
pub(super) struct Assigned {
    pub(super) duties: Vec<Duty>,
    pub(super) ways: Ways,
    /// Queues it drains, as bits.
    pub(super) drains: usize,
}

/// The duties of all threads of a process that has packets.
pub(super) fn assign(threads: &Threads, of_process: &[usize]) -> Vec<Assigned> {
    let all: Vec<&Thread> = of_process.iter().map(|at| &threads.all[*at]).collect();
    let total = |act: Act| -> u64 { all.iter().map(|one| one.acts[act as usize]).sum() };
    let totals = ACTS.map(|(act, ..)| total(act));
    let cpu: u64 = all.iter().map(|one| one.on_cpu(one.since_ns)).sum();
    let mut assigned: Vec<Assigned> = all.iter().map(|one| by_acts(one, totals)).collect();
    for at in 0..all.len() {
        if !assigned[at].duties.is_empty() {
            continue;
        }
        let busy = all[at].on_cpu(all[at].since_ns) as f64 >= WORKER_SHARE * cpu as f64;
        if !busy || cpu == 0 {
            assigned[at].duties.push(Duty::Control);
            continue;
        }
        let ways = woken_ways(threads, &all, &assigned, all[at].tid);
        let bit = |queue: Queue, set: bool| usize::from(set) << queue as usize;
        assigned[at] = Assigned {
            duties: vec![Duty::CryptoWorker],
            ways,
            drains: bit(Queue::Outward, ways.out) | bit(Queue::Inward, ways.inward),
        };
    }
    assigned
}

fn by_acts(thread: &Thread, totals: [u64; 4]) -> Assigned {
    let mut own = Assigned::default();
    for ((act, duty, queue), total) in ACTS.into_iter().zip(totals) {
        let done = thread.acts[act as usize];
        if done == 0 || (done as f64) < SHARE * total as f64 {
            continue;
        }
        own.duties.push(duty);
        own.drains |= 1 << queue as usize;
        if matches!(act, Act::TunRead | Act::OuterReceive) {
            own.drains |= IN_HAND;
        }
        match act {
            Act::TunRead | Act::OuterSend => own.ways.out = true,
            Act::OuterReceive | Act::TunWrite => own.ways.inward = true,
        }
    }
    own
}

/// Which way a worker works, by who wakes it and whom it wakes; both if nothing tells.
fn woken_ways(threads: &Threads, all: &[&Thread], assigned: &[Assigned], tid: u32) -> Ways {
    let (mut out, mut inward) = (0, 0);
    for (other, own) in all.iter().zip(assigned) {
        if own.duties.contains(&Duty::CryptoWorker) {
            continue;
        }
        let count = |key| threads.pairs.get(&key).map_or(0, |pair| pair.count);
        let wakings = count((other.tid, tid)) + count((tid, other.tid));
        match (own.ways.out, own.ways.inward) {
            (true, false) => out += wakings,
            (false, true) => inward += wakings,
            _ => {}
        }
    }
    let all = out + inward;
    Ways {
        out: all == 0 || out * 5 >= all,
        inward: all == 0 || inward * 5 >= all,
    }
}
