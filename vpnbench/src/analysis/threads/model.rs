//! What the analysis of threads finds: plain values with their units, as the JSON report has them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Seconds a thread slept, by what it slept in. `futex`, `read`, `poll` and `other` add up to the whole;
/// the others say what part of them is known more closely.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Blocked {
    /// Waiting for a lock or another thread.
    pub futex: f64,
    /// In read, readv, recv*.
    pub read: f64,
    /// In poll, select, epoll.
    pub poll: f64,
    /// Anywhere else.
    pub other: f64,
    /// Of `read`: reading the tunnel device.
    #[serde(default)]
    pub tun_read: f64,
    /// Of `read`: receiving from an outer socket.
    #[serde(default)]
    pub socket: f64,
    /// Of `other`: in `io_uring_enter`.
    #[serde(default)]
    pub io_uring: f64,
    /// Of `other`: in a sleep the program asked for.
    #[serde(default)]
    pub sleep: f64,
    /// Of `other`: sending or writing, when there is no room.
    #[serde(default)]
    pub send: f64,
}

impl Blocked {
    /// All of it, s.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.futex + self.read + self.poll + self.other
    }

    /// The whole in kinds that do not overlap, s.
    #[must_use]
    pub fn kinds(&self) -> [(&'static str, f64); 9] {
        let rest = self.other - self.io_uring - self.sleep - self.send;
        [
            ("futex", self.futex),
            ("TUN read", self.tun_read),
            ("socket", self.socket),
            ("read", self.read - self.tun_read - self.socket),
            ("poll", self.poll),
            ("io_uring", self.io_uring),
            ("sleep", self.sleep),
            ("send", self.send),
            ("other", rest),
        ]
    }
}

/// What a thread does, recognised from its packets, system calls and wake-ups, never from its name.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Duty {
    /// Takes packets off the tunnel device's queue.
    TunReader,
    /// Hands packets to the outer socket.
    OuterSender,
    /// Takes packets off the outer socket.
    OuterReceiver,
    /// Writes packets to the tunnel device.
    TunWriter,
    /// Uses CPU time between those, without packets of its own: encrypts, decrypts, compresses.
    CryptoWorker,
    /// Little of anything.
    Control,
}

impl Duty {
    /// Name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Duty::TunReader => "tun-reader",
            Duty::OuterSender => "outer-sender",
            Duty::OuterReceiver => "outer-receiver",
            Duty::TunWriter => "tun-writer",
            Duty::CryptoWorker => "crypto-worker",
            Duty::Control => "control",
        }
    }
}

/// CPU time of a thread in one of its stages.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StageCost {
    /// System calls on the path: `tun-read`, `outer-send`, `outer-receive`, `tun-write`; the program's own code
    /// on the way out and in: `daemon-send`, `daemon-receive` (calls that are not recorded, such as
    /// futex and poll, are in them); `softirq`: interrupts that ran on top of the thread; `other-calls`,
    /// `other`: anything else.
    pub stage: String,
    /// Seconds on a CPU.
    pub cpu_s: f64,
    /// System calls that returned; null for code between calls.
    pub calls: Option<u64>,
    /// Of these, found nothing (`EAGAIN`).
    pub would_block: Option<u64>,
    /// Segments moved by the calls, or passed by the code; null where not known.
    pub packets: Option<u64>,
    /// Their bytes: inner packets with IP headers, outer payload.
    pub bytes: Option<u64>,
    /// `cpu_s` / `packets`, ns.
    pub ns_per_packet: Option<f64>,
    /// `cpu_s` / `bytes`, ns.
    pub ns_per_byte: Option<f64>,
    /// Median segments per call that moved any.
    pub batch_p50: Option<f64>,
    /// Mean of the same.
    pub batch_mean: Option<f64>,
    /// `bytes` / calls that moved any.
    pub bytes_per_call: Option<f64>,
    /// `calls` / `packets`.
    pub calls_per_packet: Option<f64>,
}

/// CPU time on one core.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OnCpu {
    /// Core.
    pub cpu: u16,
    /// Seconds.
    pub cpu_s: f64,
}

/// One second of a thread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ThreadSecond {
    /// Seconds of the monotonic clock after the one in which the recording began.
    pub second: u32,
    /// Seconds on a CPU.
    pub cpu_s: f64,
    /// Seconds runnable, from wake-up or preemption to running.
    pub runnable_s: f64,
    /// Seconds asleep.
    pub blocked_s: f64,
    /// Seconds running or runnable while work waited for it.
    pub saturated_s: f64,
    /// Segments it read, received or (if it does neither) sent or wrote.
    pub packets: u64,
}

/// CPU time of one thread.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ThreadTime {
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// Thread name.
    pub comm: String,
    /// Role of its process: "daemon", "benchmark", "kernel" or "other".
    pub role: String,
    /// What it does in a daemon, by what it was seen doing; empty outside of daemons.
    #[serde(default)]
    pub duties: Vec<Duty>,
    /// Seconds on a CPU, softirqs on top of it included.
    pub cpu_s: f64,
    /// `cpu_s` / duration of the recording, of one core.
    pub cpu_share: Option<f64>,
    /// Seconds runnable and waiting for a CPU (the scheduler's own `run_delay`).
    pub runqueue_wait_s: f64,
    /// Seconds asleep.
    pub blocked_s: Blocked,
    /// Of `cpu_s`: softirqs that ran on top of it; null without the probe.
    #[serde(default)]
    pub softirq_s: Option<f64>,
    /// Times switched out.
    pub switches: u64,
    /// Of these, preempted.
    pub preemptions: u64,
    /// Times it began to run on another core than before.
    #[serde(default)]
    pub migrations: u64,
    /// CPU time by core, most first.
    #[serde(default)]
    pub cores: Vec<OnCpu>,
    /// Seconds on a CPU by schedstat, from snapshot to snapshot; null if the thread is missing in one.
    pub schedstat_cpu_s: Option<f64>,
    /// (`schedstat_cpu_s` - `cpu_s`) / `schedstat_cpu_s`; null without schedstat or without time.
    pub schedstat_difference_ratio: Option<f64>,
    /// Segments handled: the larger of read and sent, plus the larger of received and written; null for
    /// threads that touch none.
    pub packets: Option<u64>,
    /// Bytes of inner packets it read or wrote, else outer payload; null as `packets`.
    #[serde(default)]
    pub bytes: Option<u64>,
    /// CPU ns per packet, polling without work left out.
    pub ns_per_packet: Option<f64>,
    /// CPU ns per byte, likewise.
    #[serde(default)]
    pub ns_per_byte: Option<f64>,
    /// Median segments per call of the stage it is fed by: reads, receives, else sends, writes.
    pub batch_p50: Option<f64>,
    /// Its CPU time by stage, most first.
    #[serde(default)]
    pub stages: Vec<StageCost>,
    /// Share of the time between the daemon's first and last packet in which the thread was running or
    /// runnable while work waited for it: packets in the queues that it drains, known from the taps.
    pub saturated_share: Option<f64>,
    /// Of `saturated_share`: running. The rest waited for a core.
    #[serde(default)]
    pub working_share: Option<f64>,
    /// CPU seconds spent while no work waited: polling, housekeeping.
    #[serde(default)]
    pub idle_cpu_s: Option<f64>,
    /// Packets a second of the whole daemon, both ways, if this thread were the only limit and waited for a
    /// core as much as it did here: the measured rate / `saturated_share`.
    #[serde(default)]
    pub ceiling_packets_per_s: Option<f64>,
    /// The same in bits a second of inner packets in the busier direction.
    #[serde(default)]
    pub ceiling_bps: Option<f64>,
    /// Packets a second likewise, had it a core of its own: the measured rate / `working_share`.
    #[serde(default)]
    pub own_core_packets_per_s: Option<f64>,
    /// Course over the run.
    #[serde(default)]
    pub seconds: Vec<ThreadSecond>,
}

/// Wake-ups of one thread by another.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Waking {
    /// Thread that woke; 0: an interrupt, softirq or idle core.
    pub waker_tid: u32,
    /// Its name.
    pub waker: String,
    /// Thread woken.
    pub woken_tid: u32,
    /// Its name.
    pub woken: String,
    /// Process of the thread woken.
    pub pid: u32,
    /// Wake-ups.
    pub count: u64,
    /// Of these, out of a futex.
    pub futex: u64,
    /// Seconds it had slept in futexes before these.
    pub futex_wait_s: f64,
    /// Of these, seconds in which work waited for it.
    pub futex_wait_with_work_s: f64,
}

/// A thread as a limit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Limit {
    /// Process.
    pub pid: u32,
    /// Thread; null if the limit is all cores.
    pub tid: Option<u32>,
    /// Name of the thread, or `cores`.
    pub comm: String,
    /// What it does.
    pub duties: Vec<Duty>,
    /// Stage that takes most of its CPU time; null if not known.
    pub stage: Option<String>,
    /// See [`ThreadTime::saturated_share`].
    pub saturated_share: f64,
    /// See [`ThreadTime::working_share`].
    pub working_share: f64,
    /// See [`ThreadTime::ceiling_packets_per_s`].
    pub ceiling_packets_per_s: f64,
    /// See [`ThreadTime::ceiling_bps`].
    pub ceiling_bps: f64,
    /// See [`ThreadTime::own_core_packets_per_s`].
    pub own_core_packets_per_s: f64,
}

/// Threads that hold each other up.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Serialisation {
    /// Threads of one duty that waited for one another.
    pub threads: Vec<u32>,
    /// That duty.
    pub duty: Option<Duty>,
    /// Futex waits that one of them ended for another.
    pub waits: u64,
    /// Seconds of these, summed over the threads.
    pub wait_s: f64,
    /// Of these, seconds in which work waited.
    pub wait_with_work_s: f64,
    /// `wait_with_work_s` / (threads x time between first and last packet).
    pub wait_share: f64,
    /// Threads that sent outer packets.
    pub sending_threads: u64,
    /// Of the time in which one of the daemon's threads was inside a send call, the share in which at least
    /// one more was; null without sends.
    pub send_overlap_share: Option<f64>,
    /// Share of successive sends that came from different threads; null with fewer than two sends.
    pub send_alternation: Option<f64>,
    /// Whether this is what limits: several threads send, hardly two at once, taking turns, and wait for one
    /// another for much of the time while there is work. docs/threads.md has the thresholds.
    pub serialised: bool,
}

/// One daemon as a whole: what its busiest thread allows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DaemonLimits {
    /// Process.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// Seconds between its first and last packet; what the shares below refer to.
    pub window_s: f64,
    /// Segments read from the tunnel device.
    pub packets_out: u64,
    /// Segments written to the tunnel device.
    pub packets_in: u64,
    /// (`packets_out` + `packets_in`) / `window_s`.
    pub packets_per_s: f64,
    /// Bits a second of inner packets in the busier direction.
    pub bps: f64,
    /// CPU seconds of all its threads.
    pub cpu_s: f64,
    /// CPU ns per packet over all its threads.
    pub ns_per_packet: Option<f64>,
    /// Recorded system calls of all its threads per packet.
    pub calls_per_packet: Option<f64>,
    /// Share of its CPU time inside recorded packet calls (softirqs on top left out).
    pub call_share: Option<f64>,
    /// The stages of all its threads together, most CPU time first.
    pub stages: Vec<StageCost>,
    /// Seconds its threads were runnable without a core while work waited / `window_s`: how many threads
    /// waited for a core on average.
    pub waiting_for_core: f64,
    /// Share of `window_s` in which packets were there and at least one of its threads was runnable without a core.
    #[serde(default)]
    pub starved_share: f64,
    /// Share of `window_s` in which packets were there and at least one of its threads ran or was runnable.
    #[serde(default)]
    pub attended_share: f64,
    /// Whether several of its threads read the device, or the outer socket, so that any of them may take the next packet.
    #[serde(default)]
    pub pooled: bool,
    /// The thread that is saturated, if one is: `saturated_share` of at least [`SATURATED_SHARE`].
    pub bottleneck: Option<Limit>,
    /// Its threads by ceiling, lowest first, and the machine's cores: what limits next.
    pub ceilings: Vec<Limit>,
    /// Threads that hold each other up, if some do.
    pub serialisation: Option<Serialisation>,
}

/// A thread that spends this share of the time running or runnable with work waiting counts as saturated. Chosen,
/// not derived: a closed loop (TCP) over one saturated thread leaves it without work for a few per cent of the time.
pub const SATURATED_SHARE: f64 = 0.85;
