//! Metadata of a trace: what was recorded where, and the environment at both ends of the run.
//! Stored as JSON frames beside the record blocks; every field a reader may rely on is here.
//! Newer versions only add fields; readers ignore what they do not know.

use std::collections::BTreeMap;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use super::command_output::{CommandOutput, OutputChunk};

/// A moment on three clocks, read back to back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Clock {
    /// `CLOCK_MONOTONIC`, ns: the clock of all records.
    pub monotonic_ns: u64,
    /// `CLOCK_REALTIME`, ns since 1970 UTC.
    pub realtime_ns: u64,
    /// `CLOCK_BOOTTIME`, ns.
    pub boottime_ns: u64,
}

/// The machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Host {
    /// Host name.
    pub hostname: String,
    /// `uname -r`.
    pub kernel_release: String,
    /// `uname -v`.
    pub kernel_version: String,
    /// `uname -m`.
    pub machine: String,
    /// Online processors.
    pub cpus: u32,
    /// Kernel timer frequency (jiffies per second), if known.
    pub hz: Option<u32>,
}

/// First frame of a trace.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Start {
    /// Version of the file format.
    pub format_version: u32,
    /// vpnbench version that wrote it.
    pub tool_version: String,
    /// Unique id of the run.
    pub run_id: String,
    /// RFC 3339 UTC.
    pub started_at: String,
    /// Clocks at the start; the difference maps records to UTC.
    pub clock: Clock,
    /// The machine.
    pub host: Host,
    /// Benchmark command, empty without one.
    pub command: Vec<String>,
    /// Tunnels that are watched; empty on a bare link.
    pub tunnels: Vec<Tunnel>,
    /// Devices that are watched.
    pub devices: Vec<WatchedDevice>,
    /// All probes with their attachment.
    pub probes: Vec<ProbeStatus>,
    /// Layout of each record kind in this file.
    pub kinds: Vec<KindLayout>,
    /// `enum skb_drop_reason` of the kernel: number to name without prefix.
    pub drop_reasons: BTreeMap<u32, String>,
    /// Bytes of ring buffer.
    pub buffer_bytes: u64,
    /// Payload bytes kept per packet.
    pub keep_payload: u32,
    /// State of the machine at the start.
    pub environment: Environment,
}

/// A frame that marks a change while recording.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// `CLOCK_MONOTONIC`, ns.
    pub time_ns: u64,
    /// One plain sentence, e.g. "daemon wireguard-go restarted: pid 4121 -> 4177".
    pub what: String,
    /// The tunnels as they are now, where they changed.
    pub tunnels: Vec<Tunnel>,
    /// Devices as they are now, where they changed.
    pub devices: Vec<WatchedDevice>,
}

/// Last frame of a trace that ended in order.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct End {
    /// Clocks at the end.
    pub clock: Clock,
    /// Why it ended: "command", "duration", "interrupt", "device", "disk".
    pub reason: String,
    /// How the benchmark command ended, if there was one.
    pub command_status: Option<CommandStatus>,
    /// What the benchmark command wrote to its standard output; None without a command and in
    /// traces of older versions.
    #[serde(default)]
    pub command_output: Option<CommandOutput>,
    /// Per-probe counts over the whole run.
    pub counts: Vec<ProbeCount>,
    /// Packets that passed a tap and were not recorded.
    pub unrecorded: Vec<UnrecordedCount>,
    /// CPU seconds of the recorder itself.
    pub tool_cpu_s: f64,
    /// Whether BPF statistics were on, if only for a part of the time; None in traces of older versions.
    #[serde(default)]
    pub bpf_statistics: Option<bool>,
    /// For which part of the time they were; None if all the time, as in older versions, or not at all.
    #[serde(default)]
    pub bpf_windows: Option<StatisticsWindows>,
    /// Softirq seconds per CPU and vector over the run.
    pub softirq_s: Vec<Vec<f64>>,
    /// State of the machine at the end.
    pub environment: Environment,
}

/// Windows in which BPF statistics were on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StatisticsWindows {
    /// How many; of joined recordings the fewest.
    pub count: u64,
    /// Their share of the recording; of joined ones the smallest.
    pub share: f64,
    /// Variance of the estimate of what all programs took in the whole recording, s^2; None with one window.
    pub variance_s2: Option<f64>,
}

/// How a command ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CommandStatus {
    /// Exit code, if it exited.
    pub code: Option<i32>,
    /// Signal, if one ended it.
    pub signal: Option<i32>,
    /// When it was started, `CLOCK_MONOTONIC` ns.
    pub started_ns: u64,
    /// When it ended, `CLOCK_MONOTONIC` ns.
    pub ended_ns: u64,
    /// Its user and system CPU seconds with children.
    pub cpu_s: f64,
}

/// [`ProbeStatus::reason`] of a probe that the user left out.
pub const NOT_ASKED_FOR: &str = "not asked for";
/// [`ProbeStatus::reason`] of a probe that another one makes unnecessary.
pub const COVERED: &str = "skb_consume_udp shows the same with more";

/// [`ProbeStatus::reason`] of a probe that sees what no capture shows.
pub const NOT_IN_CAPTURES: &str = "a capture does not show it";
/// [`ProbeStatus::kind`] of a probe whose events are concluded from the packets of a capture.
pub const INFERRED: &str = "inferred";
/// [`End::reason`] of a foreign capture.
pub const CAPTURED: &str = "end of the capture";

/// A probe and whether it could be attached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProbeStatus {
    /// Number in the records.
    pub id: u8,
    /// Name.
    pub name: String,
    /// "tp_btf", "fentry" or "cpu_clock".
    pub kind: String,
    /// Whether it was attached.
    pub attached: bool,
    /// Why not, or which probe stands in for it.
    pub reason: Option<String>,
}

/// Events of one probe.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProbeCount {
    /// Number in the records.
    pub id: u8,
    /// Events recorded.
    pub events: u64,
    /// Events that found no room in the ring buffer.
    pub lost: u64,
    /// Times the kernel skipped the program because it was already running on that CPU
    /// (`recursion_misses`); whether they concerned anything that is watched is unknown.
    #[serde(default)]
    pub skipped: u64,
    /// Mean kernel time per run of the program in ns, if BPF statistics were on.
    pub ns_per_run: Option<f64>,
    /// Times the program ran, if BPF statistics were on: counted in [`End::bpf_windows`] and scaled to the
    /// recording. None in traces of older versions.
    #[serde(default)]
    pub runs: Option<u64>,
}

/// Packets at a tap of a device that were not recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UnrecordedCount {
    /// Device name.
    pub device: String,
    /// Inode number of its namespace.
    pub netns: u32,
    /// Tap number.
    pub tap: u8,
    /// Units of other traffic, left out by the filter.
    pub filtered_units: u64,
    /// Their bytes.
    pub filtered_bytes: u64,
    /// Units for which the ring buffer had no room.
    pub lost_units: u64,
    /// Their bytes.
    pub lost_bytes: u64,
}

/// Layout of one record kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KindLayout {
    /// Number in the records.
    pub kind: u8,
    /// Name.
    pub name: String,
    /// Size of a record in bytes.
    pub size: u32,
    /// Fields in memory order.
    pub fields: Vec<FieldLayout>,
}

/// One field of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FieldLayout {
    /// Name.
    pub name: String,
    /// Byte offset in the record.
    pub offset: u32,
    /// Size in bytes.
    pub size: u32,
    /// Type, e.g. `u32` or `[u8; 16]`, little-endian.
    pub kind: String,
}

/// A device on the watch list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WatchedDevice {
    /// Name.
    pub name: String,
    /// Inode number of its namespace.
    pub netns: u32,
    /// Interface index.
    pub ifindex: u32,
    /// "tunnel" or "outer".
    pub role: String,
    /// Link-layer header bytes in front of the network header.
    pub l2_len: u32,
    /// Whether only the daemon's ports are recorded.
    pub port_filter: bool,
}

/// What kind of tunnel a device is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TunnelKind {
    /// A TUN device with a daemon in user space.
    #[default]
    Tun,
    /// A TAP device with a daemon in user space.
    Tap,
    /// WireGuard in the kernel.
    KernelWireguard,
    /// Another encapsulation in the kernel (gre, ipip, vxlan, geneve ..).
    KernelOther,
    /// Known from a foreign capture only: whether a daemon or the kernel carries it does not show.
    Captured,
}

/// A tunnel: device, daemon and outer side.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tunnel {
    /// Device name.
    pub interface: String,
    /// Interface index.
    pub ifindex: u32,
    /// Inode number of the device's namespace.
    pub netns: u32,
    /// Kind.
    pub kind: TunnelKind,
    /// MTU in bytes.
    pub mtu: u32,
    /// TUN flags as the device reports them (`tun_flags`), if a TUN or TAP.
    pub tun_flags: Option<u32>,
    /// Number of attached queues, if a TUN or TAP.
    pub queues: Option<u32>,
    /// The process that holds the device, None for kernel tunnels.
    pub daemon: Option<Daemon>,
    /// Its outer sockets.
    pub sockets: Vec<OuterSocket>,
    /// Devices that carry outer packets.
    pub outer_devices: Vec<DeviceRef>,
    /// Remote endpoints known at that moment (`ip:port`).
    pub remotes: Vec<String>,
}

/// A device by name and place.
#[derive(
    Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub struct DeviceRef {
    /// Name.
    pub name: String,
    /// Interface index.
    pub ifindex: u32,
    /// Inode number of its namespace.
    pub netns: u32,
    /// Link-layer header bytes (14 for Ethernet, 0 for TUN).
    pub l2_len: u32,
}

/// The daemon of a tunnel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Daemon {
    /// Process id.
    pub pid: u32,
    /// Name of the process.
    pub comm: String,
    /// Path of its program, if readable.
    pub exe: Option<String>,
    /// Inode number of the process's own namespace.
    pub netns: u32,
    /// Threads at that moment.
    pub threads: u32,
}

/// A socket through which a daemon sends outer packets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OuterSocket {
    /// IP protocol: 17 UDP, 6 TCP.
    pub ip_proto: u8,
    /// Local address.
    pub local: IpAddr,
    /// Local port.
    pub local_port: u16,
    /// Remote address and port of a connected socket.
    pub remote: Option<(IpAddr, u16)>,
    /// Inode number of the socket's namespace.
    pub netns: u32,
    /// Socket inode, 0 for kernel sockets.
    pub inode: u64,
    /// True if it only listens (TCP).
    pub listening: bool,
}

/// State of the machine at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Environment {
    /// `CLOCK_MONOTONIC` ns when the snapshot began.
    pub time_ns: u64,
    /// Watched namespaces.
    pub namespaces: Vec<Namespace>,
    /// Watched threads.
    pub threads: Vec<Thread>,
    /// What each core has done since boot, by `/proc/stat`.
    #[serde(default)]
    pub cores: Vec<CoreTicks>,
    /// Versions of tools of the run (daemon, benchmark), as they print them.
    pub tools: BTreeMap<String, String>,
    /// What could not be read, and why.
    pub missing: Vec<String>,
}

/// What a core has done since boot (`/proc/stat`, proc(5)), in clock ticks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CoreTicks {
    /// Core.
    pub cpu: u32,
    /// Ticks per second (`_SC_CLK_TCK`).
    pub ticks_per_s: u32,
    /// Programs, nice ones included.
    pub user: u64,
    /// The kernel for programs.
    pub system: u64,
    /// Nothing, waiting for disks included.
    pub idle: u64,
    /// Interrupts.
    pub irq: u64,
    /// Softirqs.
    pub softirq: u64,
    /// Taken by the hypervisor for others.
    pub steal: u64,
    /// Its frequency at that moment, kHz (`scaling_cur_freq`); None where the machine does not say.
    #[serde(default)]
    pub khz: Option<u64>,
    /// The highest it can have, kHz (`cpuinfo_max_freq`).
    #[serde(default)]
    pub max_khz: Option<u64>,
}

/// A network namespace.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Namespace {
    /// Inode number.
    pub netns: u32,
    /// Name under /run/netns, if any.
    pub name: Option<String>,
    /// sysctls that matter (`net.ipv4.tcp_reordering` ..).
    pub sysctls: BTreeMap<String, String>,
    /// Interfaces.
    pub links: Vec<Link>,
    /// Routes in `ip route` notation.
    pub routes: Vec<String>,
    /// Protocol counters as in nstat: `TcpRetransSegs`, `UdpRcvbufErrors`, `TcpExtTCPTimeouts` ..
    pub counters: BTreeMap<String, u64>,
    /// Whether it is known from foreign captures only: what its sockets did is concluded from packets.
    #[serde(default)]
    pub captured: bool,
    /// How far its times may be off against the other hosts' of a joined recording, ns; None in recordings
    /// with one clock.
    #[serde(default)]
    pub clock_uncertainty_ns: Option<u64>,
}

/// An interface.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Link {
    /// Interface index.
    pub ifindex: u32,
    /// Name.
    pub name: String,
    /// Link kind (`tun`, `veth`, `wireguard` ..), None for hardware.
    pub kind: Option<String>,
    /// Addresses with prefix length.
    pub addresses: Vec<String>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Transmit queue length in packets.
    pub tx_queue_len: u32,
    /// Flags (`up`, `running` ..).
    pub flags: Vec<String>,
    /// Queueing disciplines: kind and handle.
    pub qdiscs: Vec<Qdisc>,
    /// Offloads by ethtool feature name.
    pub offloads: BTreeMap<String, bool>,
    /// Interface counters.
    pub counters: LinkCounters,
    /// What the counters grew by while watching began (in the environment at the start) or ended: packets
    /// that may have passed no tap. None where they stood still.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsettled: Option<LinkCounters>,
}

impl LinkCounters {
    /// The increase since an earlier reading; None if a counter went back.
    #[must_use]
    pub fn since(&self, before: &LinkCounters) -> Option<LinkCounters> {
        Some(LinkCounters {
            rx_packets: self.rx_packets.checked_sub(before.rx_packets)?,
            rx_bytes: self.rx_bytes.checked_sub(before.rx_bytes)?,
            tx_packets: self.tx_packets.checked_sub(before.tx_packets)?,
            tx_bytes: self.tx_bytes.checked_sub(before.tx_bytes)?,
            rx_dropped: self.rx_dropped.checked_sub(before.rx_dropped)?,
            tx_dropped: self.tx_dropped.checked_sub(before.tx_dropped)?,
            rx_errors: self.rx_errors.checked_sub(before.rx_errors)?,
            tx_errors: self.tx_errors.checked_sub(before.tx_errors)?,
        })
    }
}

/// A queueing discipline.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Qdisc {
    /// Kind, e.g. `fq_codel`.
    pub kind: String,
    /// Parent handle in hex, `root` for the root.
    pub parent: String,
    /// Packets dropped so far.
    pub drops: u64,
    /// Units queued at that moment.
    pub backlog: u64,
}

/// `struct rtnl_link_stats64`, the fields that matter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LinkCounters {
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Receive drops.
    pub rx_dropped: u64,
    /// Transmit drops.
    pub tx_dropped: u64,
    /// Receive errors.
    pub rx_errors: u64,
    /// Transmit errors.
    pub tx_errors: u64,
}

/// A thread and its scheduler counters (`/proc/PID/task/TID/schedstat`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Thread {
    /// Process.
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// Thread name.
    pub comm: String,
    /// "daemon", "benchmark", "kernel" or "other".
    pub role: String,
    /// Time on a CPU, ns.
    pub runtime_ns: u64,
    /// Time waiting for a CPU, ns.
    pub run_delay_ns: u64,
    /// Times run.
    pub pcount: u64,
}

/// What `ss -ti` said of a socket, given beside a capture. Not a part of traces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SocketSample {
    /// Namespace of the host it was taken on.
    pub netns: u32,
    /// Address and port of this end.
    pub local: String,
    /// Address and port of the other end.
    pub remote: String,
    /// Congestion window in segments.
    pub cwnd: u32,
    /// Time with unacknowledged data, ms; None if it is not printed: there was none.
    pub busy_ms: Option<u64>,
    /// Of it, held back by the receive window.
    pub rwnd_limited_ms: Option<u64>,
    /// Of it, held back by the send buffer.
    pub sndbuf_limited_ms: Option<u64>,
}

/// Symbols of code addresses that occur in records (`tun_do_read+0x1f2`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Symbols {
    /// Address to symbol with offset.
    pub kernel: BTreeMap<u64, String>,
    /// User code by process: address to symbol, offset and file (`EVP_Cipher+0x1f [libcrypto.so.3]`).
    #[serde(default)]
    pub user: BTreeMap<u32, BTreeMap<u64, String>>,
    /// Build id (hex) of each file that occurs in `user`.
    #[serde(default)]
    pub build_ids: BTreeMap<String, String>,
}
