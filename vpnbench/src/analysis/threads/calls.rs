//! What a thread's system calls move and cost.
//!
//! `sys_exit` tells when a call began and ended. What of that the thread spent on a CPU follows from the
//! switches in between, and what of it was a softirq on top from `softirq_exit`. The rest, from the end
//! of one recorded call to the start of the next, is the program's own code, on the way out if
//! it has just read the tunnel device, on the way in if it has just received. A daemon that reads until
//! there is no more works on what it has read after that: its direction stays while packets are inside,
//! and ends when the thread asks again without having touched a packet.
//!
//! Which descriptor is the tunnel device and which the outer socket is learned: packets at a tap, in
//! a thread, inside a call on that descriptor.

use std::collections::{BTreeMap, VecDeque};

use rustc_hash::FxHashMap;
use vpnbench_common::event;

use super::work::{Act, Touch};
use crate::analysis::syscalls::{self, Way};

/// Descriptors remembered.
const FDS_MAX: usize = 16_384;
/// Interruptions kept between two calls; more are counted as outside of calls.
const INTERRUPTIONS_MAX: usize = 256;
/// Largest batch counted by itself.
const BATCH_MAX: u32 = 1024;
/// Send calls of a process remembered to see which overlap.
const SENDS_KEPT: usize = 32;
/// `-EAGAIN`, the same on all architectures vpnbench runs on.
const AGAIN: i64 = -11;

/// What a descriptor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Descriptor {
    Other = 0,
    Tun = 1,
    Socket = 2,
}

/// Where CPU time goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    TunRead = 0,
    OuterSend = 1,
    OuterReceive = 2,
    TunWrite = 3,
    OtherCalls = 4,
    DaemonSend = 5,
    DaemonReceive = 6,
    Softirq = 7,
    Other = 8,
}

impl Place {
    pub(super) const ALL: [Place; 9] = [
        Place::TunRead,
        Place::OuterSend,
        Place::OuterReceive,
        Place::TunWrite,
        Place::OtherCalls,
        Place::DaemonSend,
        Place::DaemonReceive,
        Place::Softirq,
        Place::Other,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Place::TunRead => "tun-read",
            Place::OuterSend => "outer-send",
            Place::OuterReceive => "outer-receive",
            Place::TunWrite => "tun-write",
            Place::OtherCalls => "other-calls",
            Place::DaemonSend => "daemon-send",
            Place::DaemonReceive => "daemon-receive",
            Place::Softirq => "softirq",
            Place::Other => "other",
        }
    }

    pub(super) const fn is_call(self) -> bool {
        (self as usize) < Place::DaemonSend as usize
    }

    const fn of(act: Act) -> Place {
        match act {
            Act::TunRead => Place::TunRead,
            Act::OuterSend => Place::OuterSend,
            Act::OuterReceive => Place::OuterReceive,
            Act::TunWrite => Place::TunWrite,
        }
    }
}

/// Sums of one place.
#[derive(Debug, Clone, Default)]
pub(super) struct Sums {
    pub(super) cpu_ns: u64,
    pub(super) calls: u64,
    pub(super) would_block: u64,
    pub(super) packets: u64,
    pub(super) bytes: u64,
    /// Calls that moved packets, by how many.
    pub(super) batches: BTreeMap<u32, u64>,
}

/// An interval in which the thread did not run its own code.
#[derive(Debug, Clone, Copy)]
struct Interruption {
    from_ns: u64,
    ns: u64,
    softirq: bool,
}

/// One thread's calls.
#[derive(Debug, Clone, Default)]
pub(super) struct Calls {
    /// Packets touched since the last call ended, by act.
    pending: [(u32, u32); 4],
    interruptions: VecDeque<Interruption>,
    /// Softirq ns since the last call that no longer fit above.
    early_softirq_ns: u64,
    /// CPU time at the end of the last call.
    mark_ns: u64,
    after: Option<Place>,
    /// Whether packets were touched since the last call that found nothing, by descriptor.
    touched: [bool; 3],
    pub(super) sums: [Sums; 9],
}

/// A call that ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended {
    pub(super) place: Place,
    pub(super) descriptor: Descriptor,
    pub(super) nothing: bool,
}

impl Calls {
    /// The thread touched packets at a tap.
    pub(super) fn touched(&mut self, touch: &Touch) {
        self.touched = [true; 3];
        let pending = &mut self.pending[touch.act as usize];
        pending.0 = pending.0.saturating_add(touch.segments);
        pending.1 = pending.1.saturating_add(touch.bytes);
    }

    /// The thread was off its CPU, or a softirq ran on top of it.
    pub(super) fn interrupted(&mut self, from_ns: u64, ns: u64, softirq: bool) {
        if self.interruptions.len() >= INTERRUPTIONS_MAX
            && let Some(old) = self.interruptions.pop_front()
            && old.softirq
        {
            self.early_softirq_ns += old.ns;
        }
        self.interruptions.push_back(Interruption {
            from_ns,
            ns,
            softirq,
        });
    }

    /// A recorded call ended. `cpu_ns` is the thread's CPU time so far, `inside` whether the daemon has
    /// packets on the way out and in.
    pub(super) fn ended(
        &mut self,
        call: &event::Syscall,
        (way, cpu_ns): (Way, u64),
        fds: &mut Descriptors,
        inside: [bool; 2],
    ) -> Ended {
        let (place, descriptor) = self.place(call, way, fds);
        let nothing = call.ret == AGAIN;
        let spent = cpu_ns.saturating_sub(self.mark_ns);
        self.mark_ns = self.mark_ns.max(cpu_ns);
        let (in_call, around, softirq) = self.split(call, spent);
        self.sums[Place::Softirq as usize].cpu_ns += softirq;
        let before = self.after.unwrap_or(Place::Other);
        self.sums[before as usize].cpu_ns += around;
        let pending = std::mem::take(&mut self.pending);
        let sums = &mut self.sums[place as usize];
        sums.cpu_ns += in_call;
        sums.calls += 1;
        sums.would_block += u64::from(nothing);
        for (number, (segments, bytes)) in pending.into_iter().enumerate() {
            if segments == 0 {
                continue;
            }
            // What a call touched beside its own packets belongs to their place, without a batch.
            let sums = &mut self.sums[number];
            sums.packets += u64::from(segments);
            sums.bytes += u64::from(bytes);
            if number == place as usize {
                *sums.batches.entry(segments.min(BATCH_MAX)).or_default() += 1;
            }
        }
        let works = !nothing || std::mem::take(&mut self.touched[descriptor as usize]);
        self.after = Some(match place {
            _ if !works => Place::Other,
            _ if nothing => match before {
                Place::DaemonSend if inside[0] => before,
                Place::DaemonReceive if inside[1] => before,
                _ => Place::Other,
            },
            Place::TunRead => Place::DaemonSend,
            Place::OuterReceive => Place::DaemonReceive,
            Place::OuterSend if inside[0] => Place::DaemonSend,
            Place::TunWrite if inside[1] => Place::DaemonReceive,
            Place::OtherCalls => before,
            _ => Place::Other,
        });
        Ended {
            place,
            descriptor,
            nothing,
        }
    }

    fn place(&self, call: &event::Syscall, way: Way, fds: &mut Descriptors) -> (Place, Descriptor) {
        let acts: &[Act] = match way {
            Way::In => &[Act::TunRead, Act::OuterReceive],
            Way::Out => &[Act::OuterSend, Act::TunWrite],
            Way::Both => &[
                Act::TunRead,
                Act::OuterReceive,
                Act::OuterSend,
                Act::TunWrite,
            ],
            Way::Neither => &[],
        };
        let touched = acts
            .iter()
            .copied()
            .filter(|act| self.pending[*act as usize].0 > 0)
            .max_by_key(|act| self.pending[*act as usize].0);
        if let Some(act) = touched {
            let descriptor = match act {
                Act::TunRead | Act::TunWrite => Descriptor::Tun,
                Act::OuterSend | Act::OuterReceive => Descriptor::Socket,
            };
            fds.learn(call.tgid, call.fd, descriptor);
            return (Place::of(act), descriptor);
        }
        let descriptor = fds.get(call.tgid, call.fd);
        let place = match (descriptor, way) {
            (Descriptor::Tun, Way::In) => Place::TunRead,
            (Descriptor::Tun, Way::Out) => Place::TunWrite,
            (Descriptor::Socket, Way::In) => Place::OuterReceive,
            (Descriptor::Socket, Way::Out) => Place::OuterSend,
            _ => Place::OtherCalls,
        };
        (place, descriptor)
    }

    /// CPU time in the call, around it, and in softirqs on top.
    fn split(&mut self, call: &event::Syscall, spent: u64) -> (u64, u64, u64) {
        let early = std::mem::take(&mut self.early_softirq_ns);
        let known = call.duration_ns != u64::MAX;
        let length = if known { call.duration_ns } else { 0 };
        let entered = call.header.time_ns.saturating_sub(length);
        let (mut off, mut soft, mut soft_around) = (0, 0, early);
        for one in self.interruptions.drain(..) {
            match (one.softirq, one.from_ns >= entered) {
                (false, true) => off += one.ns,
                (true, true) => soft += one.ns,
                (true, false) => soft_around += one.ns,
                (false, false) => {}
            }
        }
        let on = length.saturating_sub(off).min(spent);
        let in_call = on.saturating_sub(soft);
        let around = (spent - on).saturating_sub(soft_around);
        (in_call, around, spent - in_call - around)
    }
}

/// What the descriptors of processes are.
#[derive(Debug, Clone, Default)]
pub(super) struct Descriptors {
    known: FxHashMap<(u32, i32), Descriptor>,
}

impl Descriptors {
    fn learn(&mut self, tgid: u32, fd: i32, descriptor: Descriptor) {
        if self.known.len() < FDS_MAX || self.known.contains_key(&(tgid, fd)) {
            self.known.insert((tgid, fd), descriptor);
        }
    }

    fn get(&self, tgid: u32, fd: i32) -> Descriptor {
        let known = self.known.get(&(tgid, fd)).copied();
        known.unwrap_or(Descriptor::Other)
    }
}

/// Which way a call moves data, on the machine the trace is from.
pub(super) fn way(machine: &str, nr: u32) -> Way {
    syscalls::way(machine, nr)
}

/// Send calls of one process: whether they overlap, and whether threads take turns.
#[derive(Debug, Clone, Default)]
pub(super) struct Sends {
    recent: VecDeque<(u64, u64, u32)>,
    pub(super) calls: u64,
    pub(super) turns: u64,
    /// ns with at least one call running, and with more than one.
    pub(super) busy_ns: u64,
    pub(super) overlap_ns: u64,
}

impl Sends {
    /// A thread's send ended.
    pub(super) fn ended(&mut self, from_ns: u64, to_ns: u64, tid: u32) {
        self.calls += 1;
        if self.recent.back().is_some_and(|last| last.2 != tid) {
            self.turns += 1;
        }
        // Calls come in the order they end: each earlier one covers [its start, its end] of this one.
        let covered = self.recent.iter().filter(|one| one.2 != tid);
        let covered = covered.map(|one| one.1.saturating_sub(one.0.max(from_ns)));
        let covered = covered.max().unwrap_or(0);
        self.overlap_ns += covered;
        self.busy_ns += to_ns.saturating_sub(from_ns).saturating_sub(covered);
        self.recent.push_back((from_ns, to_ns, tid));
        if self.recent.len() > SENDS_KEPT {
            self.recent.pop_front();
        }
    }
}
