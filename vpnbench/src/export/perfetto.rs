//! Perfetto's trace format (protos/perfetto/trace in its repository): threads, taps, stages and TCP senders on one
//! timeline, for ui.perfetto.dev.
//!
//! * A thread has slices for the times it ran, and a second track with its system calls.
//! * A tap of a device has an instant per packet. The same packet at several taps is one flow: its number is
//!   that of [`identity`].
//! * A stage has slices from one tap to the next, by the address of the skb within a host and by flow and
//!   number between hosts. Slices of one track must not overlap, so a stage has as many tracks as packets were in it at a
//!   time.
//! * A TCP sender has counters (window, segments in flight, smoothed round trip) and an instant for each
//!   retransmission.

mod message;

use std::collections::{HashMap, VecDeque};
use std::io::{self, Write};

use prost::Message as _;
use vpnbench_common::catalog::Tap;
use vpnbench_common::event;

use super::Names;
use crate::analysis::pairing::identity::{Numbering, identity};
use crate::analysis::{Context, address};
use crate::trace::Event;
use message::{
    Annotation, Clock, ClockSnapshot, Counter, Data, Kind, Process, Thread, Trace, TracePacket,
    Track, TrackEvent,
};

/// `BUILTIN_CLOCK_REALTIME`, `_MONOTONIC`, `_BOOTTIME`
const REALTIME: u32 = 1;
const MONOTONIC: u32 = 3;
const BOOTTIME: u32 = 6;
/// The one writer of the file.
const SEQUENCE: u32 = 1;
/// Packets that wait for their next tap.
const OPEN_MAX: usize = 1 << 16;
/// Packets in one stage at a time that are drawn.
const LANES_MAX: usize = 256;
/// Entry of a system call that was not seen.
const UNKNOWN_NS: u64 = u64::MAX;

/// What a track is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Of {
    Process(u32),
    Thread(u32, u32),
    Calls(u32, u32),
    Host(u32),
    Tap(u8, u32, u32),
    Stage(u32, &'static str, usize),
    Sender(Sender),
    Count(Sender, &'static str),
}

/// One end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Sender {
    netns: u32,
    version: u8,
    local: ([u8; 16], u16),
    remote: ([u8; 16], u16),
}

/// Packets that passed a tap and wait for the next one; the oldest are given up.
#[derive(Debug)]
struct Open<K> {
    times: HashMap<K, (Tap, u32, u64)>,
    order: VecDeque<(K, u64)>,
}

impl<K> Default for Open<K> {
    fn default() -> Self {
        Open {
            times: HashMap::new(),
            order: VecDeque::new(),
        }
    }
}

impl<K: Copy + Eq + std::hash::Hash> Open<K> {
    fn come(&mut self, key: K, tap: Tap, netns: u32, time: u64) {
        self.times.insert(key, (tap, netns, time));
        self.order.push_back((key, time));
        if self.order.len() > OPEN_MAX
            && let Some((oldest, since)) = self.order.pop_front()
            && self.times.get(&oldest).is_some_and(|one| one.2 == since)
        {
            self.times.remove(&oldest);
        }
    }
}

/// Writes a trace for Perfetto.
#[derive(Debug)]
pub struct Timeline {
    tracks: HashMap<Of, u64>,
    /// Added to times to get the clock of the file, `CLOCK_BOOTTIME`.
    shift: i64,
    comms: HashMap<u32, String>,
    machine: String,
    /// Since when threads run.
    running: HashMap<u32, u64>,
    by_address: Open<(u32, u64)>,
    by_number: Open<(u64, u32, u32)>,
    /// When the last slice of each track of a stage ends.
    lanes: HashMap<(u32, &'static str), Vec<u64>>,
    counters: HashMap<(Sender, &'static str), i64>,
    /// Slices, instants and values of counters that were written.
    pub written: [u64; 3],
    /// Slices for which there was no track left.
    pub left_out: u64,
}

fn send(data: Data, timestamp: Option<u64>, out: &mut dyn Write) -> io::Result<()> {
    let packet = TracePacket {
        timestamp,
        sequence: Some(message::Sequence::Id(SEQUENCE)),
        // The first packet also says that nothing before is referred to.
        sequence_flags: timestamp.is_none().then_some(1),
        data: Some(data),
    };
    let trace = Trace {
        packet: vec![packet],
    };
    out.write_all(&trace.encode_to_vec())
}

impl Timeline {
    /// Writes how the clocks stand to each other.
    ///
    /// # Errors
    ///
    /// What the writer refuses.
    pub fn begin(context: &Context<'_>, out: &mut dyn Write) -> io::Result<Timeline> {
        let clock = &context.start.clock;
        let clocks = [
            (BOOTTIME, clock.boottime_ns),
            (MONOTONIC, clock.monotonic_ns),
            (REALTIME, clock.realtime_ns),
        ];
        let snapshot = ClockSnapshot {
            clocks: clocks
                .map(|(id, time)| Clock {
                    id: Some(id),
                    timestamp: Some(time),
                })
                .to_vec(),
        };
        send(Data::Clocks(snapshot), None, out)?;
        let both = [
            Some(&context.start.environment),
            context.end.map(|end| &end.environment),
        ];
        let threads = both.into_iter().flatten().flat_map(|one| &one.threads);
        Ok(Timeline {
            tracks: HashMap::new(),
            shift: (clock.boottime_ns as i64).wrapping_sub(clock.monotonic_ns as i64),
            machine: context.start.host.machine.clone(),
            comms: threads.map(|one| (one.tid, one.comm.clone())).collect(),
            running: HashMap::new(),
            by_address: Open::default(),
            by_number: Open::default(),
            lanes: HashMap::new(),
            counters: HashMap::new(),
            written: [0; 3],
            left_out: 0,
        })
    }

    /// Takes one event, in time order.
    ///
    /// # Errors
    ///
    /// What the writer refuses.
    pub fn add(&mut self, event: &Event<'_>, names: &Names, out: &mut dyn Write) -> io::Result<()> {
        match event {
            Event::Packet(packet) => self.packet(packet, names, out),
            Event::Taken(taken) => self.taken(taken, names, out),
            Event::TcpProbe(probe) => self.probe(probe, names, out),
            Event::Retransmit(again) => self.retransmit(again, names, out),
            Event::Switch(switch) => self.switch(switch, out),
            Event::Syscall(call) => self.call(call, out),
            Event::Task(task) => {
                let end = task.comm.iter().position(|byte| *byte == 0);
                let name = &task.comm[..end.unwrap_or(task.comm.len())];
                let name = String::from_utf8_lossy(name).into_owned();
                self.comms.insert(task.target_tid, name);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn time(&self, time_ns: u64) -> u64 {
        time_ns.saturating_add_signed(self.shift)
    }

    fn comm(&self, tid: u32) -> String {
        let known = self.comms.get(&tid).cloned();
        known.unwrap_or_else(|| format!("thread {tid}"))
    }

    /// The track of something; described where it is new.
    fn track(&mut self, of: &Of, names: Option<&Names>, out: &mut dyn Write) -> io::Result<u64> {
        if let Some(uuid) = self.tracks.get(of) {
            return Ok(*uuid);
        }
        let mut track = Track::default();
        let host = |netns: u32| {
            let known = names.and_then(|names| names.namespace(netns));
            known.map_or_else(|| format!("netns {netns}"), str::to_owned)
        };
        match *of {
            Of::Process(pid) => {
                track.process = Some(Process {
                    pid: Some(pid as i32),
                    name: Some(self.comm(pid)),
                });
            }
            Of::Thread(pid, tid) => {
                track.parent = Some(self.track(&Of::Process(pid), names, out)?);
                track.thread = Some(Thread {
                    pid: Some(pid as i32),
                    tid: Some(tid as i32),
                    name: Some(self.comm(tid)),
                });
            }
            Of::Calls(pid, tid) => {
                track.parent = Some(self.track(&Of::Process(pid), names, out)?);
                track.name = Some(format!("{} system calls", self.comm(tid)));
            }
            Of::Host(netns) => track.name = Some(host(netns)),
            Of::Tap(tap, netns, ifindex) => {
                track.parent = Some(self.track(&Of::Host(netns), names, out)?);
                let tap = Tap::from_number(tap).map_or("packets", Tap::name);
                let device = names.and_then(|names| names.device(netns, ifindex));
                track.name =
                    Some(device.map_or_else(|| tap.to_owned(), |name| format!("{tap} {name}")));
            }
            Of::Stage(netns, stage, _) => {
                track.parent = Some(self.track(&Of::Host(netns), names, out)?);
                track.name = Some(stage.to_owned());
            }
            Of::Sender(sender) => {
                track.parent = Some(self.track(&Of::Host(sender.netns), names, out)?);
                track.name = Some(sender.name());
            }
            Of::Count(sender, what) => {
                track.parent = Some(self.track(&Of::Sender(sender), names, out)?);
                track.name = Some(format!("{what} of {}", sender.name()));
                track.counter = Some(Counter {
                    unit_name: Some(if what == SRTT { "us" } else { "segments" }.to_owned()),
                });
            }
        }
        let uuid = self.tracks.len() as u64 + 1;
        track.uuid = Some(uuid);
        self.tracks.insert(of.clone(), uuid);
        send(Data::Track(track), Some(0), out)?;
        Ok(uuid)
    }

    fn slice(
        &mut self,
        track: u64,
        name: &str,
        (from, until): (u64, u64),
        annotations: Vec<Annotation>,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let begin = TrackEvent {
            kind: Some(Kind::SliceBegin as i32),
            track: Some(track),
            name: Some(name.to_owned()),
            annotations,
            ..TrackEvent::default()
        };
        let end = TrackEvent {
            kind: Some(Kind::SliceEnd as i32),
            track: Some(track),
            ..TrackEvent::default()
        };
        self.written[0] += 1;
        send(Data::Event(begin), Some(self.time(from)), out)?;
        send(Data::Event(end), Some(self.time(until)), out)
    }

    fn instant(&mut self, time: u64, event: TrackEvent, out: &mut dyn Write) -> io::Result<()> {
        self.written[1] += 1;
        let event = TrackEvent {
            kind: Some(Kind::Instant as i32),
            ..event
        };
        send(Data::Event(event), Some(self.time(time)), out)
    }

    fn packet(
        &mut self,
        packet: &event::Packet,
        names: &Names,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let Some(tap) = Tap::from_number(packet.tap) else {
            return Ok(());
        };
        let (now, netns) = (packet.header.time_ns, packet.netns);
        let of = Of::Tap(packet.tap, netns, packet.ifindex);
        let track = self.track(&of, Some(names), out)?;
        let id = identity(packet).filter(|id| id.numbering != Numbering::Order);
        let flow =
            id.map(|id| id.flow ^ (u64::from(id.start) << 32 | u64::from(id.salt)).rotate_left(17));
        let event = TrackEvent {
            track: Some(track),
            name: Some(format!("{} bytes", packet.len)),
            flows: flow.into_iter().filter(|flow| *flow != 0).collect(),
            annotations: vec![Annotation::of_count(
                "segments",
                u64::from(packet.segments()),
            )],
            ..TrackEvent::default()
        };
        self.instant(now, event, out)?;
        let number = id.map(|id| (id.flow, id.start, id.salt));
        let stage = match tap {
            Tap::TunTx => Some("TUN queueing discipline"),
            Tap::OuterTx => Some("outer queueing discipline"),
            _ => None,
        };
        if let Some(stage) = stage {
            self.passed((netns, packet.skb), stage, now, names, out)?;
        }
        let stage = match tap {
            Tap::OuterRx => Some("wire"),
            Tap::TunWrite => Some("through the tunnel"),
            _ => None,
        };
        if let (Some(stage), Some(number)) = (stage, number)
            && let Some((_, from, since)) = self.by_number.times.remove(&number)
        {
            self.stage(from, stage, (since, now), names, out)?;
        }
        match tap {
            Tap::TunQueue | Tap::TunTx | Tap::OuterQueue | Tap::TunWrite => {
                self.by_address.come((netns, packet.skb), tap, netns, now);
            }
            _ => {}
        }
        if let (Tap::TunTx | Tap::OuterTx, Some(number)) = (tap, number) {
            self.by_number.come(number, tap, netns, now);
        }
        Ok(())
    }

    fn taken(
        &mut self,
        taken: &event::Taken,
        names: &Names,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        // Releases of packets that did not wait in a TUN queue are no reads.
        let key = (taken.netns, taken.skb);
        let waits = self.by_address.times.get(&key);
        if taken.tap == Tap::TunRead as u8 && waits.is_some_and(|one| one.0 == Tap::TunTx) {
            self.passed(key, "TUN queue", taken.header.time_ns, names, out)?;
        }
        Ok(())
    }

    /// A packet passes the next tap of its host.
    fn passed(
        &mut self,
        key: (u32, u64),
        stage: &'static str,
        now: u64,
        names: &Names,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        match self.by_address.times.remove(&key) {
            Some((_, netns, since)) => self.stage(netns, stage, (since, now), names, out),
            None => Ok(()),
        }
    }

    fn stage(
        &mut self,
        netns: u32,
        stage: &'static str,
        (from, until): (u64, u64),
        names: &Names,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let lanes = self.lanes.entry((netns, stage)).or_default();
        let free = lanes.iter().position(|end| *end <= from);
        let lane = match free {
            Some(lane) => lane,
            None if lanes.len() < LANES_MAX => {
                lanes.push(0);
                lanes.len() - 1
            }
            None => {
                self.left_out += 1;
                return Ok(());
            }
        };
        lanes[lane] = until;
        let track = self.track(&Of::Stage(netns, stage, lane), Some(names), out)?;
        self.slice(track, stage, (from, until), Vec::new(), out)
    }

    fn probe(
        &mut self,
        probe: &event::TcpProbe,
        names: &Names,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let (now, netns) = (probe.header.time_ns, probe.netns);
        self.passed((netns, probe.skb), "TCP receive", now, names, out)?;
        let sender = Sender {
            netns,
            version: probe.ip_version,
            local: (probe.laddr, probe.lport),
            remote: (probe.raddr, probe.rport),
        };
        let known = !names.is_captured(netns);
        let values = [
            (CWND, known.then_some(probe.snd_cwnd)),
            (FLIGHT, Some(probe.packets_out)),
            (SRTT, (probe.srtt_8us > 0).then_some(probe.srtt_8us / 8)),
        ];
        for (what, value) in values {
            let Some(value) = value.map(i64::from) else {
                continue;
            };
            if self.counters.insert((sender, what), value) == Some(value) {
                continue;
            }
            let track = self.track(&Of::Count(sender, what), Some(names), out)?;
            let event = TrackEvent {
                kind: Some(Kind::Counter as i32),
                track: Some(track),
                value: Some(value),
                ..TrackEvent::default()
            };
            self.written[2] += 1;
            send(Data::Event(event), Some(self.time(now)), out)?;
        }
        Ok(())
    }

    fn retransmit(
        &mut self,
        again: &event::Retransmit,
        names: &Names,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let sender = Sender {
            netns: again.netns,
            version: again.ip_version,
            local: (again.laddr, again.lport),
            remote: (again.raddr, again.rport),
        };
        let track = self.track(&Of::Sender(sender), Some(names), out)?;
        let event = TrackEvent {
            track: Some(track),
            name: Some(format!("sent again {}", super::state_of(again))),
            annotations: vec![Annotation::of_count("bytes", u64::from(again.len))],
            ..TrackEvent::default()
        };
        self.instant(again.header.time_ns, event, out)
    }

    fn switch(&mut self, switch: &event::Switch, out: &mut dyn Write) -> io::Result<()> {
        let now = switch.header.time_ns;
        if switch.watched & 1 != 0
            && let Some(since) = self.running.remove(&switch.prev_tid)
        {
            let of = Of::Thread(switch.prev_tgid, switch.prev_tid);
            let track = self.track(&of, None, out)?;
            let core = Annotation::of_count("core", u64::from(switch.header.cpu));
            self.slice(track, "runs", (since, now), vec![core], out)?;
        }
        if switch.watched & 2 != 0 {
            self.running.insert(switch.next_tid, now);
        }
        Ok(())
    }

    fn call(&mut self, call: &event::Syscall, out: &mut dyn Write) -> io::Result<()> {
        if call.duration_ns == UNKNOWN_NS {
            return Ok(());
        }
        let now = call.header.time_ns;
        let track = self.track(&Of::Calls(call.tgid, call.header.tid), None, out)?;
        let name = crate::analysis::syscalls::name(&self.machine, call.nr);
        let name = name.map_or_else(|| format!("system call {}", call.nr), str::to_owned);
        let result = Annotation::of_result(call.ret);
        let from = now.saturating_sub(call.duration_ns);
        self.slice(track, &name, (from, now), vec![result], out)
    }
}

const CWND: &str = "congestion window";
const FLIGHT: &str = "segments in flight";
const SRTT: &str = "smoothed round trip";

impl Sender {
    fn name(&self) -> String {
        let end = |(ip, port): &([u8; 16], u16)| address::endpoint(self.version, ip, Some(*port));
        format!("{} > {}", end(&self.local), end(&self.remote))
    }
}
