//! Measures the analyses: events per second on one core and peak memory, with packets of four TCP
//! flows that pass all taps of a tunnel between two hosts; every 500th is lost on the wire.
//!
//! With a file the events are first written to it as a trace, and read back: then the time includes
//! decoding and merging them, as in `vpnbench report`.
//!
//! `cargo run --release -p vpnbench --example analysis_speed [EVENTS [FILE]]`
#![allow(clippy::print_stdout, reason = "prints its measurements")]

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::time::Instant;

use bytemuck::Zeroable;
use vpnbench::analysis::{Analyses, Context};
use vpnbench::trace::model::{End, ProbeStatus, Start, Symbols, WatchedDevice};
use vpnbench::trace::{Event, Existing, Reader, Writer};
use vpnbench_common::catalog::{Kind, ProbeId, Tap};
use vpnbench_common::event::{Packet, Taken, TcpProbe, packet_flags};

/// Events unless told otherwise.
const EVENTS: u64 = 20_000_000;
/// Packets between two taps.
const IN_FLIGHT: usize = 64;
/// Taps of one packet, in order.
const PATH: [Tap; 9] = [
    Tap::TunQueue,
    Tap::TunTx,
    Tap::TunRead,
    Tap::OuterQueue,
    Tap::OuterTx,
    Tap::OuterRx,
    Tap::OuterRecv,
    Tap::TunWrite,
    Tap::TcpRx,
];

/// Packets on their way: what is at each tap next.
struct Traffic {
    number: u64,
    time_ns: u64,
    stages: [VecDeque<u64>; 9],
}

impl Traffic {
    /// The next events, one at each tap.
    fn round(&mut self, give: &mut impl FnMut(&[u8])) -> u64 {
        self.number += 1;
        self.stages[0].push_back(self.number);
        let mut events = 0;
        for (at, tap) in PATH.into_iter().enumerate() {
            let Some(number) = self.stages[at].pop_front() else {
                break;
            };
            self.time_ns += 3000;
            self.event(tap, number, give);
            events += 1;
            let lost = tap == Tap::OuterTx && number.is_multiple_of(500);
            if at + 1 < PATH.len() && !lost {
                self.stages[at + 1].push_back(number);
                if self.stages[at + 1].len() < IN_FLIGHT {
                    break;
                }
            }
        }
        events
    }

    fn event(&self, tap: Tap, number: u64, give: &mut impl FnMut(&[u8])) {
        let right = matches!(
            tap,
            Tap::OuterRx | Tap::OuterRecv | Tap::TunWrite | Tap::TcpRx
        );
        let netns = if right { 2 } else { 1 };
        let outer = matches!(tap, Tap::OuterQueue | Tap::OuterTx | Tap::OuterRx);
        let skb = 0xffff_8880_0000_0000 + number % 4096 * 256 + u64::from(outer);
        let (flow, seq) = ((number % 4) as u16, (number / 4 * 1380) as u32);
        match tap {
            Tap::TunRead | Tap::OuterRecv => {
                let mut taken = Taken::zeroed();
                taken.header.time_ns = self.time_ns;
                taken.header.kind = Kind::Taken as u8;
                (taken.netns, taken.tap, taken.skb, taken.header.tid) = (netns, tap as u8, skb, 7);
                (taken.len, taken.location) = (1420, 1);
                if tap == Tap::OuterRecv {
                    (taken.len, taken.port, taken.ip_proto, taken.skb) = (1452, 51820, 17, 0);
                }
                give(bytemuck::bytes_of(&taken));
            }
            Tap::TcpRx => {
                let mut segment = TcpProbe::zeroed();
                segment.header.time_ns = self.time_ns;
                segment.header.kind = Kind::TcpProbe as u8;
                (segment.netns, segment.skb, segment.iif) = (netns, skb, 1);
                (segment.payload_len, segment.seq, segment.sk) = (1380, seq, u64::from(flow) + 1);
                give(bytemuck::bytes_of(&segment));
            }
            _ => {
                let mut packet = Packet::zeroed();
                packet.header.time_ns = self.time_ns;
                packet.header.kind = Kind::Packet as u8;
                packet.header.probe = ProbeId::NetDevQueue as u8;
                (packet.netns, packet.tap, packet.skb, packet.header.tid) =
                    (netns, tap as u8, skb, 7);
                (packet.ip_version, packet.ifindex) = (4, if outer { 2 } else { 1 });
                if outer {
                    (packet.ip_proto, packet.len, packet.payload_len) = (17, 1494, 1452);
                    (packet.sport, packet.dport, packet.l2_len) = (51820, 51820, 14);
                    (packet.flags, packet.marker) = (packet_flags::WIREGUARD, number as u32);
                    (packet.saddr[0], packet.daddr[0]) = (10, 11);
                } else {
                    (packet.ip_proto, packet.len, packet.payload_len) = (6, 1420, 1380);
                    (packet.sport, packet.dport, packet.seq) = (40_000 + flow, 5201, seq);
                    (packet.flags, packet.tsval) =
                        (packet_flags::TIMESTAMPS, (self.time_ns / 1_000_000) as u32);
                    (packet.tcp_flags, packet.l4_len) = (0x10, 32);
                    (packet.saddr[0], packet.daddr[0]) = (12, 13);
                }
                give(bytemuck::bytes_of(&packet));
            }
        }
    }
}

impl Traffic {
    /// That many events, or a few more.
    fn run(wanted: u64, mut give: impl FnMut(&[u8])) -> u64 {
        let mut traffic = Traffic {
            number: 0,
            time_ns: 1_000_000_000,
            stages: Default::default(),
        };
        let mut events = 0;
        while events < wanted {
            events += traffic.round(&mut give);
        }
        events
    }
}

/// Writes the events as a trace, in rounds of draining as the recorder does.
fn write(path: &Path, start: &Start, wanted: u64) -> anyhow::Result<()> {
    let mut writer = Writer::create_file(path, Existing::Replace, start)?;
    let (mut number, mut failed) = (0u64, None);
    Traffic::run(wanted, |record| {
        number += 1;
        let time = u64::from_ne_bytes(record[..8].try_into().unwrap_or_default());
        let mut written = writer.push((number % 2) as u16, record);
        if number.is_multiple_of(20_000) {
            written = written.and_then(|()| writer.end_epoch(time, &[]));
        }
        failed = failed.take().or(written.err());
    });
    writer.finish(&End::default())?;
    failed.map_or(Ok(()), |error| Err(error.into()))
}

/// Peak resident memory in MiB, from /proc/self/status.
fn peak_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? / 1024)
}

/// CPU time of all threads so far, in seconds (proc_pid_stat(5): fields 14 and 15, in 1/100 s).
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / 100.0)
}

fn main() -> anyhow::Result<()> {
    let wanted = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(EVENTS);
    let device = |netns, ifindex, role: &str| WatchedDevice {
        netns,
        ifindex,
        role: role.to_owned(),
        name: format!("{role}{netns}"),
        ..WatchedDevice::default()
    };
    let devices = [
        (1, 1, "tunnel"),
        (1, 2, "outer"),
        (2, 1, "tunnel"),
        (2, 2, "outer"),
    ];
    let recv = ProbeStatus {
        id: ProbeId::SockRecvLength as u8,
        attached: true,
        ..ProbeStatus::default()
    };
    let start = Start {
        probes: vec![recv],
        devices: devices
            .map(|(netns, ifindex, role)| device(netns, ifindex, role))
            .to_vec(),
        ..Start::default()
    };
    let mut analyses = Analyses::new(&start);
    let file = std::env::args_os().nth(2);
    let (began, before, events);
    if let Some(path) = file.as_deref().map(Path::new) {
        write(path, &start, wanted)?;
        println!("trace: {} MiB", std::fs::metadata(path)?.len() >> 20);
        (began, before) = (Instant::now(), cpu_seconds());
        let summary = Reader::open(path)?.for_each(|event| analyses.observe(&event))?;
        events = summary.events;
        for problem in &summary.problems {
            println!("{problem:?}");
        }
    } else {
        (began, before) = (Instant::now(), cpu_seconds());
        events = Traffic::run(wanted, |record| {
            if let Some(event) = Event::from_record(bytemuck::cast_slice(record)) {
                analyses.observe(&event);
            }
        });
    }
    let (symbols, lost) = (Symbols::default(), BTreeMap::new());
    let context = Context::new(&start, None, &[], &symbols, &lost);
    let (outputs, _) = analyses.finish(&context);
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{events} events in {seconds:.2} s: {:.2} million events/s",
        events as f64 / seconds / 1e6
    );
    // Other work on the machine takes time, but no CPU time.
    let source = match file {
        Some(_) => "with reading the trace",
        None => "from memory",
    };
    if let Some(used) = before.and_then(|before| Some(cpu_seconds()? - before)) {
        println!(
            "{events} events {source}, {used:.2} s of CPU time: {:.2} million per second and core (reach: 3)",
            events as f64 / used / 1e6
        );
    }
    println!(
        "peak memory of {events} events {source}: {} MiB (reach: 512)",
        peak_mib().map_or("?".to_owned(), |mib| mib.to_string())
    );
    for row in &outputs.pairing.ledger.stages {
        println!(
            "{} in {} out {} lost {} unexplained {}",
            row.name, row.entered, row.left, row.lost, row.unexplained
        );
    }
    Ok(())
}
