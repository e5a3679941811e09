//! Measures the trace file: ns and bytes per event for writing and reading, with records as two
//! TCP downloads through a tunnel produce them, and for comparison two simpler encodings.
//!
//! `cargo run --release -p vpnbench --example trace_speed [EVENTS [NAME]]`
#![allow(clippy::print_stdout, reason = "prints its measurements")]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytemuck::Zeroable;
use vpnbench::trace::model::{End, Start};
use vpnbench::trace::{Event, Reader, Writer};
use vpnbench_common::catalog::{Kind, ProbeId, Tap};
use vpnbench_common::event::Packet;

/// A small generator of pseudo-random numbers; the measurement must be the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}

/// Two TCP flows into a tunnel (tun.queue, tun.tx), each packet then a UDP datagram of the daemon
/// (outer.queue, outer.tx), and every fourth time an acknowledgement back (outer.rx, tun.write).
struct Traffic {
    random: Random,
    free: Vec<u64>,
    time_ns: u64,
    seq: [u32; 2],
    ip_id: [u32; 3],
    tun: VecDeque<Packet>,
    outer: VecDeque<Packet>,
}

impl Traffic {
    fn new() -> Self {
        let mut random = Random(0x1234_5678_9abc_def1);
        let base = 0xffff_8881_0000_0000;
        let free = (0..500)
            .map(|_| base + random.below(1 << 22) * 256)
            .collect();
        let queue = VecDeque::new;
        let time_ns = 3_600_000_000_000;
        Traffic {
            random,
            free,
            time_ns,
            seq: [1, 77_777_777],
            ip_id: [5, 9000, 44],
            tun: queue(),
            outer: queue(),
        }
    }

    fn take_skb(&mut self) -> u64 {
        // The slab hands out the most recently freed objects first, from one of a few CPUs' lists.
        let depth = self.random.below(16).min(self.free.len() as u64 - 1) as usize;
        self.free.remove(self.free.len() - 1 - depth)
    }

    fn packet(&mut self, tap: Tap, probe: ProbeId, flow: usize) -> Packet {
        let mut packet = Packet::zeroed();
        packet.header.kind = Kind::Packet as u8;
        packet.tap = tap as u8;
        packet.header.probe = probe as u8;
        packet.header.cpu = flow as u16;
        packet.netns = 4_026_531_840;
        packet.ethertype = 0x0800;
        packet.ip_version = 4;
        packet.ttl = 64;
        packet.frag = 0x4000;
        packet.skb = self.take_skb();
        packet
    }

    fn tcp(&mut self, flow: usize) -> Packet {
        let mut packet = self.packet(Tap::TunQueue, ProbeId::NetDevQueue, flow);
        packet.header.tid = 4200 + flow as u32;
        packet.sk = 0xffff_8881_2345_0000 + flow as u64 * 0x980;
        let segments = 1 + self.random.below(4) as u32;
        packet.payload_len = 1368 * segments;
        packet.len = packet.payload_len + 52;
        if segments > 1 {
            (packet.gso_segs, packet.gso_size, packet.gso_type) = (segments as u16, 1368, 1);
        }
        (
            packet.ip_proto,
            packet.l4_len,
            packet.tcp_flags,
            packet.window,
        ) = (6, 32, 0x10, 502);
        (packet.sport, packet.dport) = (40_000 + flow as u16, 5201);
        packet.seq = self.seq[flow];
        self.seq[flow] = self.seq[flow].wrapping_add(packet.payload_len);
        packet.ack = 1;
        packet.ip_id = self.ip_id[flow] & 0xffff;
        self.ip_id[flow] += segments;
        packet.tsval = (self.time_ns / 1_000_000) as u32;
        packet.tsecr = packet.tsval - 3;
        packet.ifindex = 7;
        packet.saddr[..4].copy_from_slice(&[10, 2, 0, 1]);
        packet.daddr[..4].copy_from_slice(&[10, 2, 0, 2]);
        packet
    }

    fn udp(&mut self, tap: Tap, probe: ProbeId, inner_len: u32) -> Packet {
        let mut packet = self.packet(tap, probe, 0);
        packet.header.tid = 911;
        packet.ip_proto = 17;
        packet.len = inner_len + 80;
        packet.payload_len = inner_len + 32;
        (packet.sport, packet.dport) = (51820, 51820);
        if tap == Tap::OuterRx {
            (packet.tos, packet.ttl) = (0, 63);
        }
        packet.ip_id = self.ip_id[2] & 0xffff;
        self.ip_id[2] += 1;
        packet.marker = self.ip_id[2];
        packet.flags = 4;
        (packet.ifindex, packet.l2_len, packet.l4_len) = (2, 14, 8);
        packet.saddr[..4].copy_from_slice(&[192, 168, 1, 1]);
        packet.daddr[..4].copy_from_slice(&[192, 168, 1, 2]);
        packet
    }

    /// One round: a packet or two enter, those in the queues go on, and sometimes one comes back.
    fn round(&mut self, out: &mut Vec<Packet>) {
        let flow = self.random.below(2) as usize;
        let packet = self.tcp(flow);
        self.emit(packet, out);
        self.tun.push_back(packet);
        while self.tun.len() > 8 + self.random.below(8) as usize {
            let Some(mut packet) = self.tun.pop_front() else {
                break;
            };
            (packet.tap, packet.header.probe) = (Tap::TunTx as u8, ProbeId::NetDevStartXmit as u8);
            self.emit(packet, out);
            self.free.push(packet.skb);
            let outer = self.udp(Tap::OuterQueue, ProbeId::NetDevQueue, packet.len);
            self.emit(outer, out);
            self.outer.push_back(outer);
        }
        while self.outer.len() > 4 + self.random.below(8) as usize {
            let Some(mut packet) = self.outer.pop_front() else {
                break;
            };
            (packet.tap, packet.header.probe) =
                (Tap::OuterTx as u8, ProbeId::NetDevStartXmit as u8);
            self.emit(packet, out);
            self.free.push(packet.skb);
        }
        if self.random.below(4) == 0 {
            self.acknowledge(flow, out);
        }
    }

    fn acknowledge(&mut self, flow: usize, out: &mut Vec<Packet>) {
        let outer = self.udp(Tap::OuterRx, ProbeId::NetifReceiveSkb, 52);
        self.emit(outer, out);
        self.free.push(outer.skb);
        let mut inner = self.packet(Tap::TunWrite, ProbeId::NetifReceiveSkb, flow);
        (inner.ip_proto, inner.l4_len, inner.tcp_flags, inner.len) = (6, 32, 0x10, 52);
        (inner.sport, inner.dport, inner.ifindex) = (5201, 40_000 + flow as u16, 7);
        inner.ack = self.seq[flow].wrapping_sub(1368 * 40);
        inner.seq = 1;
        inner.window = 24_000 + self.random.below(200) as u16;
        inner.tsval = (self.time_ns / 1_000_000) as u32 + 99;
        self.emit(inner, out);
        self.free.push(inner.skb);
    }

    fn emit(&mut self, mut packet: Packet, out: &mut Vec<Packet>) {
        self.time_ns += 150
            + self.random.below(900)
            + if self.random.below(50) == 0 {
                20_000
            } else {
                0
            };
        packet.header.time_ns = self.time_ns;
        out.push(packet);
    }
}

/// CPU time of this process: other processes share the machine.
fn cpu_time() -> Duration {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID);
    now.map_or(Duration::ZERO, Duration::from)
}

fn measure(name: &str, events: usize, mut work: impl FnMut() -> usize) {
    if std::env::args()
        .nth(2)
        .is_some_and(|wanted| !name.contains(&wanted))
    {
        return;
    }
    let (wall, cpu) = (Instant::now(), cpu_time());
    let bytes = work();
    let cpu = (cpu_time() - cpu).as_nanos() as f64 / events as f64;
    let wall = wall.elapsed().as_nanos() as f64 / events as f64;
    println!(
        "{name:34} {cpu:7.1} ns CPU/event {wall:7.1} ns/event {:6.2} bytes/event",
        bytes as f64 / events as f64
    );
}

/// The simplest encoding: zstd over the records as they are.
fn plain(packets: &[Packet]) -> usize {
    let mut compressor = zstd::bulk::Compressor::new(1).expect("zstd");
    packets
        .chunks(1927)
        .map(|block| {
            compressor
                .compress(bytemuck::cast_slice(block))
                .expect("zstd")
                .len()
        })
        .sum()
}

/// Differences to the record before, as byte planes.
fn planes(packets: &[Packet]) -> usize {
    let mut compressor = zstd::bulk::Compressor::new(1).expect("zstd");
    let mut planes = Vec::new();
    let mut total = 0;
    for block in packets.chunks(1927) {
        let count = block.len();
        planes.clear();
        planes.resize(count * 136, 0u8);
        let mut before = [0u64; 17];
        for (index, packet) in block.iter().enumerate() {
            let words: &[u64; 17] = bytemuck::cast_ref(packet);
            for (word, (new, old)) in words.iter().zip(&before).enumerate() {
                let (low, high) = (
                    (*new as u32).wrapping_sub(*old as u32),
                    ((*new >> 32) as u32).wrapping_sub((*old >> 32) as u32),
                );
                for (byte, value) in low
                    .to_le_bytes()
                    .into_iter()
                    .chain(high.to_le_bytes())
                    .enumerate()
                {
                    planes[(word * 8 + byte) * count + index] = value;
                }
            }
            before = *words;
        }
        total += compressor.compress(&planes).expect("zstd").len();
    }
    total
}

fn write(packets: &[Packet], rings: u16) -> Vec<u8> {
    let mut writer =
        Writer::create(Vec::with_capacity(packets.len() * 20), &Start::default()).expect("creates");
    for epoch in packets.chunks(20_000) {
        for (index, packet) in epoch.iter().enumerate() {
            let ring = index / 5_000 % usize::from(rings);
            writer
                .push(ring as u16, bytemuck::bytes_of(packet))
                .expect("pushes");
        }
        writer
            .end_epoch(epoch[epoch.len() - 1].header.time_ns, &[])
            .expect("ends");
    }
    writer.finish(&End::default()).expect("finishes").0
}

fn main() {
    let events: usize = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(1_000_000);
    let mut packets = Vec::with_capacity(events + 64);
    let mut traffic = Traffic::new();
    while packets.len() < events {
        traffic.round(&mut packets);
    }
    packets.truncate(events);
    measure("zstd 1 over records", events, || plain(&packets));
    measure("byte planes of differences, zstd 1", events, || {
        planes(&packets)
    });
    let mut file = Vec::new();
    for rings in [1, 2, 4] {
        measure(&format!("trace file, {rings} rings"), events, || {
            file = write(&packets, rings);
            file.len()
        });
    }
    let mut seen = 0;
    let file = write(&packets, 4);
    measure("read in order of time", events, || {
        let reader = Reader::new(file.as_slice()).expect("opens");
        let summary = reader
            .for_each(|event| seen += usize::from(matches!(event, Event::Packet(_))))
            .expect("reads");
        assert!(summary.problems.is_empty(), "{:?}", summary.problems);
        file.len()
    });
    assert!(seen == events || seen == 0);
}
