//! The JSON report, schema `vpnbench.report.v1`. Every number has its unit in its name; ratios are
//! 0..1; what is missing is null, never 0. Fields are only added; a change of meaning is a new schema.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::analysis::benchmark::model::{Anchor, Benchmark, Interval, Quantiles};
pub use crate::analysis::books::{Reconciliation, Relation};
pub use crate::analysis::coalescing::Coalescing;
pub use crate::analysis::drops::DropCount;
pub use crate::analysis::episodes::EpisodeSums;
pub use crate::analysis::interfaces::Interface;
pub use crate::analysis::ledger::{Ledger, LedgerStage, Loss};
pub use crate::analysis::limits::{AckPath, Chrono, Point, Shares, StateTimes};
pub use crate::analysis::pairing::journeys::Waterfall;
pub use crate::analysis::problem::{Problem, Severity};
pub use crate::analysis::reordering::{Reordering, TcpBelief};
pub use crate::analysis::retransmits::{ByCause, FlowRetransmits};
pub use crate::analysis::stacks::ProcessSamples;
pub use crate::analysis::stages::StageTime;
pub use crate::analysis::stalls::Stalls;
pub use crate::analysis::syscalls::SyscallCount;
pub use crate::analysis::taps::TapCount;
pub use crate::analysis::threads::{DaemonLimits, ThreadTime, Waking};
pub use crate::analysis::what_if::summary::{Direction, PredictedCauses, ReproducedShares};
pub use crate::explain::model::{Evidence, Finding, Verdict};

/// Name of this schema.
pub const SCHEMA: &str = "vpnbench.report.v1";

/// One run, analysed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// `vpnbench.report.v1`.
    pub schema: String,
    /// What ran where.
    pub run: Run,
    /// The benchmark's own result; null if it is not known.
    pub benchmark: Option<Benchmark>,
    /// How complete the recording is and what it cost.
    pub capture: Capture,
    /// The first tunnel; null on a bare link.
    pub tunnel: Option<Tunnel>,
    /// All tunnels.
    pub tunnels: Vec<Tunnel>,
    /// Flows per tap.
    pub flows: Vec<Flow>,
    /// Time between taps.
    pub stages: Vec<StageTime>,
    /// The median packet and the slowest ones of each direction, stage by stage.
    pub waterfalls: Vec<Waterfall>,
    /// Lost packets.
    pub losses: Vec<Loss>,
    /// Packets in, out, lost and inside per stage.
    pub ledger: Option<Ledger>,
    /// Reordering per tap (RFC 4737).
    pub reordering: Vec<Reordering>,
    /// What each sender's TCP believes about reordering on its path.
    pub reordering_beliefs: Vec<TcpBelief>,
    /// Segments per unit at each tap.
    pub coalescing: Vec<Coalescing>,
    /// TCP retransmissions.
    pub retransmits: Retransmits,
    /// TCP senders: what they did and what held them back, most acknowledged bytes first.
    #[serde(default)]
    pub tcp_flows: Vec<TcpFlow>,
    /// CPU time per thread, busiest first.
    pub threads: Vec<ThreadTime>,
    /// What limits each daemon that carried packets.
    #[serde(default)]
    pub daemon_limits: Vec<DaemonLimits>,
    /// Who wakes whom, most often first.
    #[serde(default)]
    pub wakings: Vec<Waking>,
    /// CPU time by core and group.
    pub cpu: Option<Cpu>,
    /// Predicted effects of settings.
    pub what_if: Vec<WhatIf>,
    /// Explained facts, ranked.
    pub findings: Vec<Finding>,
    /// Packets per device and tap.
    pub taps: Vec<TapCount>,
    /// Times without packets, per tap.
    #[serde(default)]
    pub stalls: Vec<Stalls>,
    /// Watched devices: counters beside taps.
    pub interfaces: Vec<Interface>,
    /// System calls per process.
    pub syscalls: Vec<SyscallCount>,
    /// All accounts that must add up, those of `retransmits` included.
    pub books: Vec<Reconciliation>,
    /// What is incomplete or uncertain, and why.
    pub problems: Vec<Problem>,
    /// Parts of this report that this version does not compute: empty there does not mean none.
    pub not_analysed: Vec<String>,
}

impl Report {
    /// Findings that the evidence supports, ranked.
    pub fn supported(&self) -> impl Iterator<Item = &Finding> {
        let findings = self.findings.iter();
        findings.filter(|finding| finding.verdict == Verdict::Supported)
    }
}

/// What ran where.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Run {
    /// Unique id.
    pub id: String,
    /// RFC 3339 UTC.
    pub started_at: String,
    /// Seconds recorded; up to the last event if the recording did not end in order.
    pub duration_s: Option<f64>,
    /// Why the recording ended; null if it did not end in order.
    pub end_reason: Option<String>,
    /// Benchmark command, empty without one.
    pub command: Vec<String>,
    /// How it ended; null without a command, or if the recording ended first.
    pub command_status: Option<CommandStatus>,
    /// Host name.
    pub host: String,
    /// Kernel release.
    pub kernel: String,
    /// Machine (`uname -m`).
    pub machine: String,
    /// Online processors.
    pub cpus: u32,
    /// vpnbench version that recorded.
    pub tool_version: String,
    /// Settings at the start.
    pub environment: Environment,
    /// Changes while recording.
    pub changes: Vec<Change>,
}

/// A change while recording.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// Seconds after the start.
    pub time_s: f64,
    /// One sentence.
    pub what: String,
}

/// How the benchmark command ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CommandStatus {
    /// Exit code, if it exited.
    pub code: Option<i32>,
    /// Signal, if one ended it.
    pub signal: Option<i32>,
    /// Seconds it ran.
    pub duration_s: f64,
    /// User and system CPU seconds, children included.
    pub cpu_s: f64,
}

/// Settings at the start, by namespace.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Environment {
    /// Namespace to sysctl to value.
    pub sysctls: BTreeMap<String, BTreeMap<String, String>>,
    /// Namespace to device to offload to state.
    pub offloads: BTreeMap<String, BTreeMap<String, BTreeMap<String, bool>>>,
    /// Namespace to device to queueing disciplines.
    pub qdiscs: BTreeMap<String, BTreeMap<String, Vec<String>>>,
    /// Namespace to TCP congestion control.
    pub congestion_control: BTreeMap<String, String>,
    /// Tool to version.
    pub tools: BTreeMap<String, String>,
    /// What could not be read, and why.
    pub missing: Vec<String>,
}

/// How complete the recording is and what it cost.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Capture {
    /// Ended in order, undamaged, and without a lost event.
    pub complete: bool,
    /// Events read.
    pub events: u64,
    /// Events that found no room in the ring buffer.
    pub lost: u64,
    /// Size of the trace; null if the events did not come from one.
    pub bytes: Option<u64>,
    /// All probes.
    pub probes: Vec<Probe>,
    /// CPU seconds of the recorder; null if the recording did not end in order.
    pub tool_cpu_s: Option<f64>,
    /// What its programs in the kernel took; null if the recording did not end in order, or was made by an
    /// older version, which did not record it.
    #[serde(default)]
    pub kernel_cost: Option<KernelCost>,
}

/// CPU time of the programs in the kernel. The way into a program (ftrace, tracepoint, perf) is not in it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct KernelCost {
    /// `measured`: by BPF statistics (run time of all runs, those about nothing that is watched included);
    /// `estimated`: stored events x ns per event as measured on one machine (docs/threads.md), a lower bound.
    pub method: String,
    /// Share of the recording in which statistics were on, in windows spread over it; the figures are scaled
    /// to all of it. 1 in traces of older versions; null if estimated.
    #[serde(default)]
    pub sampled_share: Option<f64>,
    /// Seconds.
    pub cpu_s: f64,
    /// 95 % interval of `cpu_s` from the spread of the windows; null if it was not sampled, or has too few.
    #[serde(default)]
    pub interval_s: Option<crate::analysis::statistics::Interval>,
    /// Seconds by group of probes (`--probes`).
    pub by_group: BTreeMap<String, f64>,
    /// (`cpu_s` + `tool_cpu_s`) / CPU seconds of all watched threads; null without any.
    pub share_of_workload: Option<f64>,
}

/// A probe.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Probe {
    /// Name.
    pub name: String,
    /// Kind of attachment.
    pub kind: String,
    /// Whether it was attached.
    pub attached: bool,
    /// Why not, or what stands in for it.
    pub reason: Option<String>,
    /// Events in the trace.
    pub events: u64,
    /// Events lost.
    pub lost: u64,
    /// Kernel time per run in ns; null unless BPF statistics were on.
    pub ns_per_event: Option<f64>,
}

/// A tunnel.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Tunnel {
    /// Device.
    pub interface: String,
    /// Namespace of the device.
    pub namespace: String,
    /// `tun`, `tap`, `kernel-wireguard`, `kernel-other`, or `captured` for one that is known from a
    /// capture only.
    pub kind: String,
    /// MTU in bytes; null where only a capture is known.
    pub mtu: Option<u32>,
    /// Process that holds the device; null for tunnels in the kernel.
    pub daemon: Option<Daemon>,
    /// Its outer side; null if unknown.
    pub outer: Option<Outer>,
}

/// The daemon of a tunnel.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Daemon {
    /// Process id.
    pub pid: u32,
    /// Name.
    pub comm: String,
    /// Threads at the start.
    pub threads: u32,
}

/// The outer side of a tunnel.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Outer {
    /// Protocol of the outer socket that carried most packets.
    pub protocol: Option<String>,
    /// Its local address and port.
    pub local: Option<String>,
    /// Remote endpoints.
    pub remotes: Vec<String>,
    /// First device that carries outer packets.
    pub interface: Option<String>,
}

/// A flow at a tap.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Flow {
    /// `address:port`.
    pub src: String,
    /// `address:port`.
    pub dst: String,
    /// Protocol.
    pub protocol: String,
    /// Tap.
    pub tap: String,
    /// Namespace.
    pub namespace: String,
    /// Wire segments.
    pub packets: u64,
    /// Units (skbs).
    pub units: u64,
    /// Bytes as the interface counters count them.
    pub bytes: u64,
    /// Bytes of transport payload.
    pub payload_bytes: u64,
    /// 8 x bytes / time between first and last packet.
    pub throughput_bps: Option<f64>,
    /// RTT, only at the tap where a TCP sender hands packets over; `tcp_flows` says its source.
    pub rtt_us: Option<Quantiles>,
    /// Segments this flow's sender sent again; only at the tap where the sender hands packets over.
    pub retransmits: Option<u64>,
    /// What the TCP sender waited for, only at the tap where it hands packets over.
    pub limited_by: Option<LimitedBy>,
}

/// Shares of the busy time in which a sender was limited.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the names say it")]
pub struct LimitedBy {
    pub cwnd: f64,
    pub rwnd: f64,
    pub sndbuf: f64,
    pub app: f64,
}

/// TCP retransmissions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Retransmits {
    /// Segments sent again, SYN and SYN-ACK included; null if the probe was not attached.
    pub total: Option<u64>,
    /// Segments by cause; null if the probe was not attached.
    pub by_cause: Option<ByCause>,
    /// Attempts that failed before the segment left; null if the probe was not attached.
    pub failed: Option<u64>,
    /// Entries into fast recovery by what marked the segments lost; null if the probe was not attached.
    pub episodes: Option<BTreeMap<String, u64>>,
    /// Those of which an earlier copy arrived; null if nothing was sent again that could be judged.
    pub spurious: Option<Spurious>,
    /// By flow, most segments first.
    pub flows: Vec<FlowRetransmits>,
    /// Beside the kernel's counters.
    pub reconciliation: Vec<Reconciliation>,
}

/// Retransmissions of data of which an earlier copy arrived, before or after.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Spurious {
    /// Segments proven spurious.
    pub count: u64,
    /// Of the segments that could be judged; null if events were lost that could decide more of them:
    /// packets (their timestamps), arrivals or retransmissions.
    pub ratio: Option<f64>,
    /// Segments by cause.
    pub by_cause: ByCause,
    /// How it is known.
    pub evidence: SpuriousEvidence,
    /// Segments that could be judged.
    #[serde(default)]
    pub judged: u64,
    /// Segments of which nothing can be said: handshakes, sockets of which no segment was seen
    /// arriving, single copies without a timestamp, and with lost events all that is not proven.
    #[serde(default)]
    pub unknown: u64,
    /// Share of the segments judged by the receiver of which the sender's evidence alone (DSACK,
    /// timestamps, undo) says the same; null where the receiver was not seen.
    #[serde(default)]
    pub sender_agrees: Option<f64>,
}

/// How spurious retransmissions are known, in segments; one segment may have several proofs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SpuriousEvidence {
    /// The earlier copy was seen at the receiver; null where no receiver was seen.
    pub original_seen: Option<u64>,
    /// The receiver reported the duplicate.
    pub dsack: Option<u64>,
    /// The sender took the window reduction back.
    pub undo: Option<u64>,
    /// The acknowledgement echoed an older timestamp (Eifel).
    #[serde(default)]
    pub timestamps: Option<u64>,
    /// It was acknowledged sooner than any round trip after it was sent again.
    #[serde(default)]
    pub early: Option<u64>,
}

/// A TCP sender.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TcpFlow {
    /// `address:port` of the sender.
    pub src: String,
    /// `address:port` of the receiver.
    pub dst: String,
    /// Namespace of the sender.
    pub namespace: String,
    /// Bytes newly acknowledged.
    pub acked_bytes: u64,
    /// 8 x acknowledged bytes / time from the sender's first to its last event.
    pub throughput_bps: Option<f64>,
    /// Segment size in bytes.
    pub mss: u32,
    /// RTT in us.
    pub rtt_us: Option<crate::analysis::limits::Quantiles>,
    /// `segment-to-ack` (from the sender's device to its TCP, segments sent once) or
    /// `kernel-srtt` (the kernel's smoothed RTT at each acknowledgement).
    pub rtt_source: Option<String>,
    /// Mean congestion window in segments, weighted by time.
    pub cwnd_mean: Option<f64>,
    /// Seconds in each state.
    pub times: StateTimes,
    /// Shares of the busy time; null if it never had unacknowledged data.
    pub limited_by: Option<Shares>,
    /// The kernel's own accounts; null without its tick frequency.
    pub chrono: Option<Chrono>,
    /// Episodes of fast recovery.
    pub recovery: EpisodeSums,
    /// Recoveries from timeouts.
    pub loss: EpisodeSums,
    /// The way back.
    pub acks: AckPath,
    /// Over time.
    pub series: Vec<Point>,
    /// Segments sent again, at most 2,000 of them, evenly picked.
    #[serde(default)]
    pub resent: Vec<ResentSegment>,
}

/// A segment that TCP sent again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ResentSegment {
    /// Seconds after the sender's first event.
    pub time_s: f64,
    /// Its place in the stream: bytes after what was acknowledged at the first event.
    pub offset: u64,
    /// As in `retransmits.by_cause`.
    pub cause: String,
    /// Whether an earlier copy of it arrived; null if nothing can be said.
    pub original_arrived: Option<bool>,
}

/// CPU time by core and group.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Cpu {
    /// Seconds in softirqs, by core.
    pub softirq_s_by_core: Vec<f64>,
    /// Samples of all watched threads by function group; null without `--stacks`.
    pub samples_by_group: Option<BTreeMap<String, u64>>,
    /// The same per process, most samples first; empty without `--stacks`.
    #[serde(default)]
    pub processes: Vec<ProcessSamples>,
    /// Seconds per core and kind from /proc/stat over the run; empty where the recording has none.
    #[serde(default)]
    pub cores: Vec<CoreTime>,
    /// The stacks with most samples, at most 1,000; empty without `--stacks`.
    #[serde(default)]
    pub stacks: Vec<StackSamples>,
}

/// Samples of one stack.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StackSamples {
    /// Process, then functions from the outermost on, with `;` between.
    pub stack: String,
    /// Samples.
    pub samples: u64,
}

/// What a core did over the run, by `/proc/stat` (proc(5)), s.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CoreTime {
    /// Core.
    pub cpu: u32,
    /// Programs, nice ones included.
    pub user_s: f64,
    /// The kernel for programs.
    pub system_s: f64,
    /// Nothing, waiting for disks included.
    pub idle_s: f64,
    /// Interrupts.
    pub irq_s: f64,
    /// Softirqs.
    pub softirq_s: f64,
    /// Taken by the hypervisor for others.
    pub steal_s: f64,
}

/// Predicted effect of a setting or of another path, for the same data.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WhatIf {
    /// What is changed.
    pub change: String,
    /// What would have happened.
    pub predicted: Predicted,
    /// The model and how much of what did happen it reproduces, in words.
    pub basis: String,
    /// What this kernel makes of the setting.
    #[serde(default)]
    pub kernel: String,
    /// How much of what did happen the model reproduces.
    #[serde(default)]
    pub reproduced: Option<ReproducedShares>,
}

/// Predicted figures.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Predicted {
    /// Segments sent again, for the same data.
    pub retransmits: Option<u64>,
    /// The same by cause.
    #[serde(default)]
    pub by_cause: Option<PredictedCauses>,
    /// Of those, spurious; null if it is not known how many were.
    pub spurious: Option<u64>,
    /// Throughput of all TCP senders together; may be above any rate that was seen.
    pub throughput_bps: Option<f64>,
    /// End of the 95 % interval of the mean over simulated runs; of each sender never above the highest rate
    /// that was seen.
    #[serde(default)]
    pub throughput_low_bps: Option<f64>,
    /// Its other end.
    #[serde(default)]
    pub throughput_high_bps: Option<f64>,
    /// Against the measured throughput: the same where that is within the interval.
    #[serde(default)]
    pub throughput: Option<Direction>,
}
