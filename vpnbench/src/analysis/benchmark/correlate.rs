//! Sets a benchmark's intervals on the clock of the events, and each figure beside the packets.
//!
//! **Start.** In order of preference: the tool's own clock; the first data packet of its flow, found
//! by the ports it reports; the arrival of its lines (least arrival - end of the interval, if all
//! lines agree within [`ARRIVAL_SPREAD_S`], which they do not when the tool buffers); else the
//! command's start, with which nothing is compared.
//!
//! **Tolerance.** A sender's figure is what it wrote into its socket, packets are what left it. The
//! two differ by what waits in the send buffer, which grows to `sndbuf_expand` (2, BBR 3) times the
//! congestion window (`tcp_sndbuf_expand`, net/ipv4/tcp_input.c) and no further than `tcp_wmem`; by
//! retransmitted segments, which the packets hold twice; and by where exactly an interval begins.
//! So an interval agrees if
//!
//! ```text
//! |benchmark - packets| <= 5 % of packets + (buffer + retransmits x segment) / length + rate x uncertainty / length
//! ```
//!
//! with buffer = min(3 x largest cwnd seen + 256 KiB, tcp_wmem maximum) for a TCP sender, 1 MiB for
//! a receiver (data behind a hole waits in its queue), 256 KiB for UDP.

use std::collections::BTreeMap;

use vpnbench_common::catalog::Tap;

use super::model::{Anchor, Benchmark, Interval, Seen, Way};
use super::series::{Flow, FlowKey};
use crate::analysis::{Context, Problem, seconds};

/// Part of the packets' figure that always is allowed.
const TOLERANCE_RATIO: f64 = 0.05;
/// Largest difference between lines' delays with which their arrival is believed, s.
const ARRIVAL_SPREAD_S: f64 = 0.25;
/// How well the first packet shows the start: a bin's edge and the sender's first write, s.
const FIRST_PACKET_S: f64 = 0.05;
/// Bytes that may wait at a receiver.
const RECEIVE_BYTES: f64 = (1 << 20) as f64;
/// Bytes that may wait in a UDP socket.
const UDP_BYTES: f64 = (256 << 10) as f64;
/// `tcp_wmem` maximum where the trace does not know it (the kernel's default).
const WMEM_BYTES: f64 = (4 << 20) as f64;
/// Wire segment for the retransmissions' share, bytes.
const SEGMENT_BYTES: f64 = 1500.0;
/// Shortest interval that is compared: below, edges are most of it. s.
const SHORTEST_S: f64 = 0.2;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// What is known of the command's output beside the result.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timing {
    /// `CLOCK_MONOTONIC` ns at which the command was started.
    pub command_started_ns: Option<u64>,
    /// (arrival ns - end of the interval) of the earliest line, and the spread over all.
    pub arrival: Option<(u64, f64)>,
    /// The packets come from captures of devices.
    pub captured: bool,
}

/// Adds the anchor and the packets' figures; returns what disagrees or cannot be compared.
pub fn correlate(
    result: &mut Benchmark,
    flows: &[(FlowKey, Flow)],
    context: &Context<'_>,
    timing: Timing,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let picked = match timing.captured {
        true => Picked::in_captures(result, flows),
        false => Picked::find(result, flows),
    };
    let anchor = anchor(result, &picked, timing);
    let Some((start_ns, basis, uncertainty_s)) = anchor else {
        return problems;
    };
    result.start = Some(Anchor {
        at_s: context.seconds_since_start(start_ns),
        basis: basis.to_owned(),
        uncertainty_s,
    });
    if basis == "command-start" {
        if result
            .intervals
            .iter()
            .any(|one| one.throughput_bps.is_some())
        {
            let message = "when the benchmark's intervals began is not known: its lines arrived together and its flows were not seen; they are not compared with packets";
            problems.push(Problem::info("benchmark", message));
        }
        return problems;
    }
    let lossy = context.lost.values().any(|count| *count > 0);
    let frame = Frame {
        start_ns,
        uncertainty_s,
        buffers: [Way::Sent, Way::Received].map(|way| buffer(result, way, context, &picked)),
        lossy,
    };
    for interval in &mut result.intervals {
        interval.packets = frame.compare(interval, &picked, context);
        interval.arrived_bps = frame.arrived(interval, &picked);
    }
    problems.extend(disagreements(result));
    if lossy && result.intervals.iter().any(|one| one.packets.is_some()) {
        let message = "events were lost, so whether packets and benchmark agree is unknown";
        problems.push(Problem::info("benchmark", message));
    }
    problems
}

/// The benchmark's flows where its data can be seen best.
struct Picked<'a> {
    sent: Vec<(FlowKey, &'a Flow)>,
    received: Vec<(FlowKey, &'a Flow)>,
    /// Datagrams of `sent` behind the tunnel.
    arrived: Vec<(FlowKey, &'a Flow)>,
}

impl<'a> Picked<'a> {
    /// Data the client sent is compared where it leaves the sender's TCP, data it received where
    /// it reaches the client's. With both hosts in one trace, the client's is the namespace in
    /// which its own port sends.
    fn find(result: &Benchmark, flows: &'a [(FlowKey, Flow)]) -> Picked<'a> {
        let ports: BTreeMap<(u8, u16, u16), ()> = result
            .connections
            .iter()
            .map(|one| {
                let protocol = if one.protocol == "udp" { UDP } else { TCP };
                ((protocol, one.local_port, one.remote_port), ())
            })
            .collect();
        let mut picked = Picked {
            sent: Vec::new(),
            received: Vec::new(),
            arrived: Vec::new(),
        };
        for (key, flow) in flows {
            let forward = ports.contains_key(&(key.protocol, key.sport, key.dport));
            let backward = ports.contains_key(&(key.protocol, key.dport, key.sport));
            let arrives = if key.protocol == TCP {
                Tap::TcpRx
            } else {
                Tap::TunWrite
            };
            if forward && key.tap == Tap::TunQueue as u8 {
                picked.sent.push((*key, flow));
            } else if forward && key.protocol == UDP && key.tap == arrives as u8 {
                picked.arrived.push((*key, flow));
            } else if backward && key.tap == arrives as u8 {
                picked.received.push((*key, flow));
            }
        }
        picked
    }

    /// Of captured devices the one that is nearest to the client's TCP: the tunnel's, else the only one.
    fn in_captures(result: &Benchmark, flows: &'a [(FlowKey, Flow)]) -> Picked<'a> {
        let at = |taps: [Tap; 2], backward: bool| {
            let of = |tap: Tap| {
                let own = flows.iter().filter(|(key, _)| {
                    let ports = match backward {
                        false => (key.sport, key.dport),
                        true => (key.dport, key.sport),
                    };
                    let mut connections = result.connections.iter();
                    key.tap == tap as u8
                        && connections.any(|one| {
                            let protocol = if one.protocol == "udp" { UDP } else { TCP };
                            (protocol, one.local_port, one.remote_port)
                                == (key.protocol, ports.0, ports.1)
                        })
                });
                let own: Vec<(FlowKey, &Flow)> = own.map(|(key, flow)| (*key, flow)).collect();
                own
            };
            taps.map(of)
                .into_iter()
                .find(|found| !found.is_empty())
                .unwrap_or_default()
        };
        let mut arrived = at([Tap::TunWrite, Tap::OuterRx], false);
        arrived.retain(|(key, _)| key.protocol == UDP);
        Picked {
            sent: at([Tap::TunTx, Tap::OuterTx], false),
            received: at([Tap::TunWrite, Tap::OuterRx], true),
            arrived,
        }
    }

    fn of(&self, way: Way) -> &[(FlowKey, &'a Flow)] {
        match way {
            Way::Sent => &self.sent,
            Way::Received => &self.received,
        }
    }
}

fn anchor(
    result: &Benchmark,
    picked: &Picked<'_>,
    timing: Timing,
) -> Option<(u64, &'static str, f64)> {
    if let Some(ns) = result.started_ns {
        return Some((ns, "tool-clock", 0.002));
    }
    let all = picked.sent.iter().chain(&picked.received);
    let first = all.filter_map(|(_, flow)| flow.first_bulk_ns).min();
    if let Some(ns) = first {
        return Some((ns, "first-packet", FIRST_PACKET_S));
    }
    if let Some((ns, spread_s)) = timing
        .arrival
        .filter(|(_, spread)| *spread <= ARRIVAL_SPREAD_S)
    {
        return Some((ns, "line-arrival", spread_s + FIRST_PACKET_S));
    }
    timing
        .command_started_ns
        .map(|ns| (ns, "command-start", 1.0))
}

fn buffer(result: &Benchmark, way: Way, context: &Context<'_>, picked: &Picked<'_>) -> f64 {
    if way == Way::Received {
        return RECEIVE_BYTES;
    }
    if result.connections.iter().any(|one| one.protocol == "udp") {
        return UDP_BYTES;
    }
    let netns = picked.sent.first().map(|(key, _)| key.netns);
    let limit = netns
        .and_then(|netns| context.namespace(netns).0)
        .and_then(|one| one.sysctls.get("net.ipv4.tcp_wmem"))
        .and_then(|text| text.split_whitespace().nth(2)?.parse().ok())
        .unwrap_or(WMEM_BYTES);
    let streams = f64::from(result.streams.unwrap_or(1));
    let cwnd = result
        .intervals
        .iter()
        .filter_map(|one| one.cwnd_bytes)
        .max();
    let likely = cwnd.map_or(limit, |cwnd| 3.0 * cwnd as f64 + UDP_BYTES);
    likely.min(limit) * streams
}

/// What all comparisons share.
struct Frame {
    start_ns: u64,
    uncertainty_s: f64,
    /// Sent, received.
    buffers: [f64; 2],
    lossy: bool,
}

impl Frame {
    /// Payload of flows during an interval, bits per second.
    fn rate(&self, interval: &Interval, flows: &[(FlowKey, &Flow)]) -> Option<f64> {
        let length_s = interval.end_s - interval.start_s;
        let at = |after_s: f64| self.start_ns + (after_s.max(0.0) * 1e9) as u64;
        let (from, to) = (at(interval.start_s), at(interval.end_s));
        let bytes: f64 = flows.iter().map(|(_, flow)| flow.between(from, to)).sum();
        (length_s >= SHORTEST_S).then(|| 8.0 * bytes / length_s)
    }

    fn arrived(&self, interval: &Interval, picked: &Picked<'_>) -> Option<f64> {
        let seen = interval.way == Way::Sent && !picked.arrived.is_empty();
        seen.then(|| self.rate(interval, &picked.arrived))?
    }

    fn compare(
        &self,
        interval: &Interval,
        picked: &Picked<'_>,
        context: &Context<'_>,
    ) -> Option<Seen> {
        let figure = interval.throughput_bps?;
        let flows = picked.of(interval.way);
        let (key, _) = flows.first()?;
        let length_s = interval.end_s - interval.start_s;
        let payload_bps = self.rate(interval, flows)?;
        let buffer = self.buffers[usize::from(interval.way == Way::Received)];
        let again = interval.retransmits.unwrap_or(0) as f64 * SEGMENT_BYTES;
        let rate = figure.max(payload_bps);
        let tolerance_bps = TOLERANCE_RATIO * payload_bps
            + 8.0 * (buffer + again) / length_s
            + rate * self.uncertainty_s / length_s;
        let difference = figure - payload_bps;
        Some(Seen {
            tap: Tap::from_number(key.tap).map_or("", Tap::name).to_owned(),
            namespace: context.namespace_name(key.netns),
            payload_bps,
            difference_ratio: (payload_bps > 0.0).then(|| difference / payload_bps),
            tolerance_bps,
            agrees: (!self.lossy).then_some(difference.abs() <= tolerance_bps),
        })
    }
}

fn disagreements(result: &Benchmark) -> Vec<Problem> {
    let odd: Vec<(&Interval, &Seen)> = result
        .intervals
        .iter()
        .filter_map(|one| Some((one, one.packets.as_ref()?)))
        .filter(|(_, seen)| seen.agrees == Some(false))
        .collect();
    let Some((interval, seen)) = odd.first() else {
        return Vec::new();
    };
    let message = format!(
        "{} of {} intervals of {} disagree with the packets; the first from {:.2} s to {:.2} s: {:.1} Mbit/s by the benchmark, {:.1} Mbit/s of payload at {} in {} (allowed: {:.1} Mbit/s apart)",
        odd.len(),
        result.intervals.len(),
        result.tool,
        interval.start_s,
        interval.end_s,
        interval.throughput_bps.unwrap_or_default() / 1e6,
        seen.payload_bps / 1e6,
        seen.tap,
        seen.namespace,
        seen.tolerance_bps / 1e6,
    );
    vec![Problem {
        severity: crate::analysis::Severity::Error,
        part: "benchmark".to_owned(),
        message,
    }]
}

/// When intervals' lines arrived, compared with the ends they state: (start, spread in s).
#[must_use]
pub fn arrival(lines: &[(u64, f64)]) -> Option<(u64, f64)> {
    let starts = lines
        .iter()
        .map(|(ns, end_s)| i128::from(*ns) - (end_s * 1e9) as i128);
    let (least, most) = (starts.clone().min()?, starts.max()?);
    let spread = seconds(u64::try_from(most - least).ok()?);
    Some((u64::try_from(least).ok()?, spread))
}
