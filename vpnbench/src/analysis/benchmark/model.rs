//! A benchmark's own result in one form for all tools: what its output says, nothing else.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The benchmark's own result. What the tool does not say is null.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Benchmark {
    /// Tool, e.g. `iperf3`.
    pub tool: String,
    /// Kind: `tcp`, `tcp-bidir`, `tcp-reverse`, `udp`, `parallel`, `ping`, `load-latency`, `quic`,
    /// `stream`, `http`, `connect`, `reconnect`.
    pub kind: String,
    /// Sender's throughput of payload, client to server (server to client in reverse tests and
    /// downloads), over its own duration.
    pub throughput_bps_sent: Option<f64>,
    /// Receiver's throughput of the same data.
    pub throughput_bps_received: Option<f64>,
    /// Retransmissions it reports, for the same direction.
    pub retransmits: Option<u64>,
    /// Lost / sent packets that it reports.
    pub loss_ratio: Option<f64>,
    /// RTT it reports; under load where the benchmark loads the path.
    pub rtt_us: Option<Quantiles>,
    /// Its intervals, each direction by itself, in order of time.
    pub intervals: Vec<Interval>,
    /// The tool's version, as it prints it.
    pub version: Option<String>,
    /// Whether the tool came to its end and reported it.
    pub complete: bool,
    /// What went wrong, in the tool's own words.
    pub error: Option<String>,
    /// `CLOCK_MONOTONIC` ns of its start, where its output says it.
    pub started_ns: Option<u64>,
    /// Start of its intervals, seconds after the start of the recording, and how it is known:
    /// from the tool's own clock, the arrival of its lines, or the first data packet of its flow.
    pub start: Option<Anchor>,
    /// Seconds it measured.
    pub duration_s: Option<f64>,
    /// Payload bytes sent.
    pub bytes_sent: Option<u64>,
    /// Payload bytes received.
    pub bytes_received: Option<u64>,
    /// Number of concurrent streams, connections or downloads in one direction.
    pub streams: Option<u32>,
    /// Ends of its data connections, as it reports them.
    pub connections: Vec<Connection>,
    /// The other direction of a bidirectional test: server to client.
    pub reverse: Option<Direction>,
    /// Packets or probes as it counts them.
    pub packets: Option<Packets>,
    /// Interarrival jitter (RFC 3550) or standard deviation of the RTT (ping's mdev).
    pub jitter_us: Option<f64>,
    /// Mean RTT.
    pub rtt_mean_us: Option<f64>,
    /// RTT before there was load, where the benchmark measures both.
    pub idle_rtt_us: Option<Quantiles>,
    /// Time to establish a connection (QUIC: until the handshake is complete; TCP: connect).
    pub connect_us: Option<Quantiles>,
    /// From the request to the first byte of the answer.
    pub first_byte_us: Option<Quantiles>,
    /// Downloads of many objects.
    pub transfers: Option<Transfers>,
    /// A real-time stream.
    pub realtime: Option<Realtime>,
    /// How long nothing got through while the tunnel came up.
    pub outage: Option<Outage>,
    /// Of a part of a parallel test: `a to b`.
    pub link: Option<String>,
    /// The tests that ran at the same time, of which the figures above are the sums.
    pub parts: Vec<Benchmark>,
}

impl Benchmark {
    /// Its kind without the way the data went: `tcp` for `tcp-reverse` and `tcp-bidir`.
    #[must_use]
    pub fn load(&self) -> &str {
        let kind = self.kind.as_str();
        let plain = kind.strip_suffix("-reverse");
        plain.or(kind.strip_suffix("-bidir")).unwrap_or(kind)
    }
}

/// Quantiles in the unit of the field that holds them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "quantiles")]
#[serde(default)]
pub struct Quantiles {
    pub p50: Option<f64>,
    pub p90: Option<f64>,
    pub p99: Option<f64>,
    pub max: Option<f64>,
    pub min: Option<f64>,
}

impl Quantiles {
    /// Quantiles of samples by the nearest-rank method: the smallest sample with at least q of all
    /// at or below it. `None` without samples.
    #[must_use]
    pub fn of(mut samples: Vec<f64>) -> Option<Quantiles> {
        samples.retain(|sample| sample.is_finite());
        samples.sort_by(f64::total_cmp);
        let last = samples.len().checked_sub(1)?;
        let rank = |q: f64| {
            let rank = (q * samples.len() as f64).ceil() as usize;
            Some(samples[rank.saturating_sub(1).min(last)])
        };
        Some(Quantiles {
            p50: rank(0.5),
            p90: rank(0.9),
            p99: rank(0.99),
            max: Some(samples[last]),
            min: Some(samples[0]),
        })
    }
}

/// Which way an interval's data went.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// The client sent; figures of the sender.
    #[default]
    Sent,
    /// The client received; figures of the receiver.
    Received,
}

/// One interval of a benchmark.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Interval {
    /// Seconds after the start of the benchmark.
    pub start_s: f64,
    /// Seconds after the start of the benchmark.
    pub end_s: f64,
    /// Throughput of payload; null where it carries probes only.
    pub throughput_bps: Option<f64>,
    /// Retransmissions.
    pub retransmits: Option<u64>,
    /// Which way the data went, seen from the client.
    pub way: Way,
    /// RTT at its end (TCP) or its mean (probes).
    pub rtt_us: Option<f64>,
    /// Congestion window at its end, bytes.
    pub cwnd_bytes: Option<u64>,
    /// Lost / sent packets in it.
    pub loss_ratio: Option<f64>,
    /// Interarrival jitter at its end.
    pub jitter_us: Option<f64>,
    /// What the packets say about the same time; null where they do not.
    pub packets: Option<Seen>,
    /// Of datagrams that a client sends: payload that came out of the receiver's tunnel in that time by the packets,
    /// bits per second; null where it was not seen. A sender's own figure says nothing about it.
    pub arrived_bps: Option<f64>,
}

/// What passed a tap during an interval.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Seen {
    /// Tap.
    pub tap: String,
    /// Its namespace.
    pub namespace: String,
    /// Payload that passed it, bits per second. Retransmitted segments are in it.
    pub payload_bps: f64,
    /// (benchmark - packets) / packets; null without packets.
    pub difference_ratio: Option<f64>,
    /// Difference allowed, bits per second: see `analysis::benchmark::correlate`.
    pub tolerance_bps: f64,
    /// Whether the two agree within the tolerance; null where events were lost.
    pub agrees: Option<bool>,
}

/// Start of a benchmark's intervals on the clock of the recording.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Anchor {
    /// Seconds after the start of the recording.
    pub at_s: f64,
    /// `tool-clock`, `first-packet`, `line-arrival` or `command-start`.
    pub basis: String,
    /// How far off it may be, seconds.
    pub uncertainty_s: f64,
}

/// Two ends of a connection, seen from the client.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Connection {
    /// Client's port.
    pub local_port: u16,
    /// Server's port.
    pub remote_port: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
}

/// The other direction of a bidirectional test.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Direction {
    /// Sender's throughput.
    pub throughput_bps_sent: Option<f64>,
    /// Receiver's throughput.
    pub throughput_bps_received: Option<f64>,
    /// Sender's retransmissions.
    pub retransmits: Option<u64>,
    /// Payload bytes sent.
    pub bytes_sent: Option<u64>,
    /// Payload bytes received.
    pub bytes_received: Option<u64>,
    /// Lost / sent packets.
    pub loss_ratio: Option<f64>,
}

/// Packets or probes as the tool counts them. `sent` = `received` + `lost` where it counts all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Packets {
    /// Sent.
    pub sent: Option<u64>,
    /// Received, duplicates not counted.
    pub received: Option<u64>,
    /// Lost.
    pub lost: Option<u64>,
    /// Duplicates.
    pub duplicates: Option<u64>,
    /// Arrived behind a later one.
    pub reordered: Option<u64>,
    /// Answered with an error (ping: unreachable, time exceeded).
    pub errors: Option<u64>,
}

/// Downloads of many objects.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Transfers {
    /// Objects fetched whole.
    pub objects: u64,
    /// Objects that failed.
    pub failed: u64,
    /// At a time.
    pub concurrency: u32,
    /// Bytes of bodies.
    pub bytes: u64,
    /// Wall-clock time of each repetition, seconds.
    pub repetitions_s: Vec<f64>,
    /// Mean of them.
    pub mean_s: Option<f64>,
    /// Time per object.
    pub object_us: Option<Quantiles>,
}

/// A real-time stream with retransmission: every packet sent is in time, late or lost.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Realtime {
    /// Payload rate offered, bits per second.
    pub offered_bps: f64,
    /// Time a packet may take, seconds: the receiver's buffer.
    pub buffer_s: f64,
    /// Delivered in time / sent, 0..1.
    pub quality_ratio: Option<f64>,
    /// Sent for the first time.
    pub sent: u64,
    /// Delivered in time, recovered ones included.
    pub in_time: u64,
    /// Delivered in time thanks to a retransmission.
    pub recovered: u64,
    /// Arrived when their time was over.
    pub late: u64,
    /// Never arrived.
    pub lost: u64,
    /// Further copies.
    pub duplicates: u64,
    /// Retransmissions sent.
    pub retransmitted: u64,
    /// Requests for retransmission (packets asked for).
    pub requested: u64,
    /// Arrived behind a later one, first copies only.
    pub reordered: u64,
}

/// How long nothing got through.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Outage {
    /// What was restarted: `client`, `server` or `both` daemons; `none` if nothing was.
    pub restarted: String,
    /// From the start of the daemon until the first answer; null if none came.
    pub connect_s: Option<f64>,
    /// From the last answer before to the first after; null if either is missing.
    pub gap_s: Option<f64>,
    /// Time between two attempts, seconds: how exact the above can be.
    pub resolution_s: f64,
    /// Attempts made.
    pub attempts: u64,
    /// Attempts without an answer.
    pub failed: u64,
}
