//! Work that waits for a daemon, known from the taps.
//!
//! Four queues per process, in wire segments:
//!
//! | queue | comes | leaves |
//! | --- | --- | --- |
//! | TUN queue | `tun.tx` of its device | `tun.read` or drop, by the skb's address |
//! | outer socket | `outer.rx` (or `tun.write` of a device that carries it) for one of its ports | `outer.recv` or drop |
//! | inside, outwards | `tun.read` | outer packets that its threads send |
//! | inside, inwards | `outer.recv` | `tun.write` of its device |
//!
//! What is inside is a count, so packets that the daemon loses or makes itself shift it. It is put right
//! whenever the daemon shows that it has nothing: a read that finds nothing (`EAGAIN`) empties the
//! kernel's queue, and when all its threads have slept for a while nothing inside waits for a thread.
//!
//! Each process has a clock per combination of the queues that hold something ([`Clock`]); threads take
//! differences of it whenever their state changes, so that a packet costs the same however many threads
//! there are.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;
use vpnbench_common::catalog::Tap;
use vpnbench_common::event;

use super::scheduling::State;
use crate::trace::model::Start;

/// Combinations of four queues.
pub(super) const MASKS: usize = 16;
/// Packets remembered in TUN queues, and datagrams per process.
const WAITING_MAX: usize = 1 << 17;
/// A packet that waits longer is gone in an unseen way.
const PATIENCE_NS: u64 = 10_000_000_000;
/// Datagrams at the front of a socket's queue looked at for the one that was taken.
const WINDOW: usize = 32;
/// All threads of a process sleep this long: nothing inside waits for one of them. Shorter pauses may be a
/// thread that sleeps while it holds the others up.
const PAUSE_NS: u64 = 20_000_000;
/// Processes with queues kept.
const DESKS_MAX: usize = 256;

/// A queue of a daemon, as a bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Queue {
    Tun = 0,
    Socket = 1,
    Outward = 2,
    Inward = 3,
}

/// ns that passed with each combination of non-empty queues.
pub(super) type Clock = [u64; MASKS];

#[derive(Debug, Clone, Copy)]
struct Datagrams {
    time_ns: u64,
    skb: u64,
    segments: u32,
    bytes: u32,
    /// A first fragment: the rest of the datagram is not in `bytes`.
    fragmented: bool,
}

/// The queues of one process.
#[derive(Debug, Clone, Default)]
pub(super) struct Desk {
    pub(super) tgid: u32,
    waiting: [u32; 4],
    socket: VecDeque<Datagrams>,
    since_ns: u64,
    clock: Clock,
    /// Its threads that are running or runnable.
    awake: u32,
    /// Of these, those without a CPU.
    runnable: u32,
    /// ns with something in a queue and a thread awake.
    pub(super) attended_ns: u64,
    /// ns with something in a queue and a thread without a CPU.
    pub(super) starved_ns: u64,
    asleep_since: Option<u64>,
    pub(super) packets_out: u64,
    pub(super) packets_in: u64,
    pub(super) bytes_out: u64,
    pub(super) bytes_in: u64,
    pub(super) first_ns: Option<u64>,
    pub(super) last_ns: u64,
    /// Namespaces in which it has outer sockets.
    netns: Vec<u32>,
}

impl Desk {
    fn mask(&self) -> usize {
        let bit = |(number, count): (usize, &u32)| usize::from(*count > 0) << number;
        self.waiting.iter().enumerate().map(bit).sum()
    }

    fn change(&mut self, now_ns: u64, queue: Queue, to: u32) {
        let from = self.waiting[queue as usize];
        if (from > 0) != (to > 0) {
            self.settle(now_ns);
        }
        self.waiting[queue as usize] = to;
    }

    fn come(&mut self, now_ns: u64, queue: Queue, segments: u32) {
        let to = self.waiting[queue as usize].saturating_add(segments);
        self.change(now_ns, queue, to);
    }

    fn go(&mut self, now_ns: u64, queue: Queue, segments: u32) {
        let to = self.waiting[queue as usize].saturating_sub(segments);
        self.change(now_ns, queue, to);
    }

    fn settle(&mut self, now_ns: u64) {
        let asleep = self.asleep_since.filter(|_| self.awake == 0);
        if asleep.is_some_and(|since| now_ns.saturating_sub(since) >= PAUSE_NS) {
            self.waiting[Queue::Outward as usize] = 0;
            self.waiting[Queue::Inward as usize] = 0;
        }
        let (mask, time) = (self.mask(), now_ns.saturating_sub(self.since_ns));
        self.clock[mask] += time;
        if mask != 0 {
            self.attended_ns += if self.awake > 0 { time } else { 0 };
            self.starved_ns += if self.runnable > 0 { time } else { 0 };
        }
        self.since_ns = now_ns;
    }

    /// The clock at this moment.
    pub(super) fn clock(&mut self, now_ns: u64) -> &Clock {
        self.settle(now_ns);
        &self.clock
    }

    /// Whether it has packets inside, on the way out and in.
    pub(super) fn inside(&self) -> [bool; 2] {
        [Queue::Outward, Queue::Inward].map(|queue| self.waiting[queue as usize] > 0)
    }

    fn note(&mut self, now_ns: u64) {
        self.first_ns.get_or_insert(now_ns);
        self.last_ns = now_ns;
    }

    /// A thread changes its state.
    pub(super) fn changes(&mut self, now_ns: u64, before: State, now: State) {
        let change = |count: u32, is: fn(State) -> bool| {
            count.saturating_sub(u32::from(is(before))) + u32::from(is(now))
        };
        self.awake = change(self.awake, State::awake);
        self.runnable = change(self.runnable, |state| state == State::Runnable);
        if self.awake == 0 && before.awake() {
            self.asleep_since = Some(now_ns);
        }
    }

    /// A read of the tunnel device or a receive found nothing.
    pub(super) fn found_nothing(&mut self, now_ns: u64, queue: Queue) {
        if queue == Queue::Socket {
            self.socket.clear();
        }
        self.change(now_ns, queue, 0);
    }

    /// Takes what one receive returned off the socket's queue; the segments it was.
    fn receive(&mut self, taken: &event::Taken) -> u32 {
        let now = taken.header.time_ns;
        let at = self.socket.iter().take(WINDOW).position(|one| {
            taken.skb != 0 && one.skb == taken.skb || taken.skb == 0 && one.bytes == taken.len
        });
        let mut segments = 0;
        if let Some(one) = at.and_then(|at| self.socket.remove(at)) {
            segments = one.segments;
        } else {
            // Several messages out of one unit, or one message out of several.
            let mut left = taken.len;
            while let Some(one) = self.socket.front_mut() {
                if one.bytes > left && !one.fragmented {
                    if left > 0 && one.segments > 1 {
                        one.segments -= 1;
                        one.bytes -= left;
                        segments += 1;
                    }
                    break;
                }
                left = if one.fragmented { 0 } else { left - one.bytes };
                segments += one.segments;
                self.socket.pop_front();
                if left == 0 {
                    break;
                }
            }
        }
        self.go(now, Queue::Socket, segments);
        segments.max(u32::from(taken.gso_segs)).max(1)
    }

    fn expire(&mut self, now_ns: u64) {
        while let Some(front) = self.socket.front() {
            let old = front.time_ns.saturating_add(PATIENCE_NS) <= now_ns;
            if !old && self.socket.len() <= WAITING_MAX {
                break;
            }
            let segments = front.segments;
            self.socket.pop_front();
            self.go(now_ns, Queue::Socket, segments);
        }
    }
}

/// A packet in a TUN queue.
#[derive(Debug, Clone, Copy)]
struct Queued {
    time_ns: u64,
    desk: u16,
    segments: u32,
}

/// What a packet event was for a process and thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Touch {
    /// Which of the four.
    pub(super) act: Act,
    pub(super) segments: u32,
    pub(super) bytes: u32,
}

/// A thread's hand on a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    TunRead = 0,
    OuterSend = 1,
    OuterReceive = 2,
    TunWrite = 3,
}

/// All daemons' queues.
#[derive(Debug, Clone, Default)]
pub(super) struct Desks {
    pub(super) all: Vec<Desk>,
    by_tgid: FxHashMap<u32, u16>,
    /// Owner of a tunnel device, by namespace and index.
    devices: FxHashMap<(u32, u32), u16>,
    /// Owner of an outer port, by namespace and port.
    ports: FxHashMap<(u32, u16), u16>,
    queued: FxHashMap<u64, Queued>,
}

impl Desks {
    /// Owners of devices and ports as the start frame knows them.
    pub(super) fn begin(&mut self, start: &Start) {
        for tunnel in &start.tunnels {
            let Some(daemon) = &tunnel.daemon else {
                continue;
            };
            let Some(desk) = self.desk(daemon.pid) else {
                continue;
            };
            self.devices.insert((tunnel.netns, tunnel.ifindex), desk);
            for socket in &tunnel.sockets {
                self.own_port(desk, socket.netns, socket.local_port);
            }
        }
    }

    fn own_port(&mut self, desk: u16, netns: u32, port: u16) {
        self.ports.insert((netns, port), desk);
        let one = &mut self.all[desk as usize];
        if !one.netns.contains(&netns) {
            one.netns.push(netns);
        }
    }

    fn desk(&mut self, tgid: u32) -> Option<u16> {
        if let Some(desk) = self.by_tgid.get(&tgid) {
            return Some(*desk);
        }
        if tgid == 0 || self.all.len() >= DESKS_MAX {
            return None;
        }
        let desk = self.all.len() as u16;
        self.by_tgid.insert(tgid, desk);
        self.all.push(Desk {
            tgid,
            ..Desk::default()
        });
        Some(desk)
    }

    /// The queues of a process, if it is a daemon.
    pub(super) fn of(&mut self, tgid: u32) -> Option<&mut Desk> {
        let desk = *self.by_tgid.get(&tgid)?;
        self.all.get_mut(desk as usize)
    }

    /// A packet at a device; `tgid` is the process of the thread that ran, 0 if not known.
    pub(super) fn packet(&mut self, packet: &event::Packet, tgid: u32) -> Option<Touch> {
        let device = (packet.netns, packet.ifindex);
        let touch = |act| Touch {
            act,
            segments: packet.segments(),
            bytes: packet.len.saturating_sub(u32::from(packet.l2_len)),
        };
        match Tap::from_number(packet.tap)? {
            Tap::TunTx => {
                self.enqueue(packet, device);
                None
            }
            Tap::OuterRx => {
                self.arrive(packet);
                None
            }
            // The device of another tunnel may carry a daemon's outer packets.
            Tap::TunQueue | Tap::OuterQueue => {
                let desk = *self.by_tgid.get(&tgid)?;
                let one = &mut self.all[desk as usize];
                let own = self.devices.get(&device) == Some(&desk);
                if own || !one.netns.contains(&packet.netns) {
                    return None;
                }
                one.go(packet.header.time_ns, Queue::Outward, packet.segments());
                Some(Touch {
                    bytes: packet.payload_len,
                    ..touch(Act::OuterSend)
                })
            }
            Tap::TunWrite => {
                let owner = self.devices.get(&device).copied();
                self.arrive(packet);
                let one = self.all.get_mut(owner? as usize)?;
                let touch = touch(Act::TunWrite);
                one.packets_in += u64::from(touch.segments);
                one.bytes_in += u64::from(touch.bytes);
                one.note(packet.header.time_ns);
                one.go(packet.header.time_ns, Queue::Inward, touch.segments);
                (one.tgid == tgid).then_some(touch)
            }
            _ => None,
        }
    }

    fn enqueue(&mut self, packet: &event::Packet, device: (u32, u32)) {
        let now = packet.header.time_ns;
        let Some(desk) = self.devices.get(&device).copied() else {
            return;
        };
        let queued = Queued {
            time_ns: now,
            desk,
            segments: packet.segments(),
        };
        if let Some(old) = self.queued.insert(packet.skb, queued) {
            self.all[old.desk as usize].go(now, Queue::Tun, old.segments);
        }
        self.all[desk as usize].come(now, Queue::Tun, queued.segments);
        if self.queued.len() > WAITING_MAX {
            let (all, limit) = (&mut self.all, now.saturating_sub(PATIENCE_NS));
            self.queued.retain(|_, one| {
                let keep = one.time_ns > limit;
                if !keep {
                    all[one.desk as usize].go(now, Queue::Tun, one.segments);
                }
                keep
            });
        }
    }

    fn arrive(&mut self, packet: &event::Packet) {
        if packet.ip_proto != 17 || packet.is_later_fragment() {
            return;
        }
        let Some(desk) = self.ports.get(&(packet.netns, packet.dport)) else {
            return;
        };
        let one = &mut self.all[*desk as usize];
        one.socket.push_back(Datagrams {
            time_ns: packet.header.time_ns,
            skb: packet.skb,
            segments: packet.segments(),
            bytes: packet.payload_len,
            fragmented: packet.frag & 0x2000 != 0,
        });
        one.come(packet.header.time_ns, Queue::Socket, packet.segments());
        one.expire(packet.header.time_ns);
    }

    /// A process took a packet off a queue.
    pub(super) fn taken(&mut self, taken: &event::Taken, tgid: u32) -> Option<Touch> {
        let now = taken.header.time_ns;
        if taken.tap == Tap::OuterRecv as u8 {
            let known = self.ports.get(&(taken.netns, taken.port)).copied();
            let desk = match known {
                Some(desk) => desk,
                None => {
                    let desk = *self.by_tgid.get(&tgid)?;
                    self.own_port(desk, taken.netns, taken.port);
                    desk
                }
            };
            let one = &mut self.all[desk as usize];
            let segments = one.receive(taken);
            one.note(now);
            one.come(now, Queue::Inward, segments);
            return Some(Touch {
                act: Act::OuterReceive,
                segments,
                bytes: taken.len,
            });
        }
        // Other releases of the device's packets are no reads: only what waited can be read.
        let queued = self.queued.remove(&taken.skb)?;
        let one = &mut self.all[queued.desk as usize];
        one.go(now, Queue::Tun, queued.segments);
        one.come(now, Queue::Outward, queued.segments);
        one.packets_out += u64::from(queued.segments);
        one.bytes_out += u64::from(taken.len);
        one.note(now);
        Some(Touch {
            act: Act::TunRead,
            segments: queued.segments,
            bytes: taken.len,
        })
    }

    /// The kernel dropped a packet.
    pub(super) fn dropped(&mut self, drop: &event::Drop) {
        let now = drop.header.time_ns;
        if let Some(queued) = self.queued.remove(&drop.skb) {
            self.all[queued.desk as usize].go(now, Queue::Tun, queued.segments);
            return;
        }
        let Some(desk) = self.ports.get(&(drop.netns, drop.dport)) else {
            return;
        };
        let one = &mut self.all[*desk as usize];
        // A datagram that does not fit is dropped as it comes: it is among the last.
        let found = one.socket.iter().rev().take(WINDOW);
        let Some(back) = found.map(|one| one.skb).position(|skb| skb == drop.skb) else {
            return;
        };
        let at = one.socket.len() - 1 - back;
        if let Some(gone) = one.socket.remove(at) {
            one.go(now, Queue::Socket, gone.segments);
        }
    }

    /// A read of the tunnel device found nothing: what was thought to wait in it is gone.
    pub(super) fn tun_empty(&mut self, tgid: u32, now_ns: u64) {
        let Some(&desk) = self.by_tgid.get(&tgid) else {
            return;
        };
        let one = &mut self.all[desk as usize];
        if one.waiting[Queue::Tun as usize] > 0 && one.awake <= 1 {
            self.queued.retain(|_, queued| queued.desk != desk);
            one.found_nothing(now_ns, Queue::Tun);
        }
    }
}
