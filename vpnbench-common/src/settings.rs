//! Read-only constants handed to the kernel when the object is loaded, and the tables that user
//! space fills and the programs consult on every event.
//!
//! Rust has no CO-RE relocations. User space resolves each row of [`FIELDS`] in the running
//! kernel's BTF and writes the result into [`Offsets`]; the verifier sees frozen constants, so one
//! object loads on every kernel. A field that a kernel does not have is [`MISSING`] and the branch
//! that reads it is dead code there.

/// A field that this kernel does not have.
pub const MISSING: u32 = u32::MAX;

/// One kernel struct member to resolve.
#[derive(Debug, Clone, Copy)]
pub struct FieldSpec {
    /// Name of the slot in [`Offsets`].
    pub name: &'static str,
    /// Kernel struct.
    pub structure: &'static str,
    /// Member path; anonymous members are searched, arrays mean their first element.
    pub path: &'static str,
    /// Whether loading must fail without it.
    pub required: bool,
}

macro_rules! fields {
    ($( $name:ident : $structure:literal, $path:literal, $required:literal; )*) => {
        /// Where the kernel keeps each field: byte offset in bits 0..16, and for bit fields the
        /// shift inside that byte in bits 16..24 and the width in bits 24..32. [`MISSING`] if the
        /// kernel has no such field.
        #[repr(C)]
        #[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
        pub struct Offsets { $( #[doc = concat!("`", $structure, ".", $path, "`")] pub $name: u32, )* }

        /// The rows behind [`Offsets`], in its order.
        pub const FIELDS: &[FieldSpec] = &[$( FieldSpec {
            name: stringify!($name), structure: $structure, path: $path, required: $required,
        }, )*];
    };
}

fields! {
    skb_dev: "sk_buff", "dev", true;
    skb_sk: "sk_buff", "sk", true;
    skb_len: "sk_buff", "len", true;
    skb_data_len: "sk_buff", "data_len", true;
    skb_protocol: "sk_buff", "protocol", true;
    skb_head: "sk_buff", "head", true;
    skb_data: "sk_buff", "data", true;
    skb_tail: "sk_buff", "tail", true;
    skb_end: "sk_buff", "end", true;
    skb_network_header: "sk_buff", "network_header", true;
    skb_mac_header: "sk_buff", "mac_header", true;
    skb_iif: "sk_buff", "skb_iif", true;
    skb_vlan_tci: "sk_buff", "vlan_tci", true;
    skb_vlan_proto: "sk_buff", "vlan_proto", true;
    skb_cb: "sk_buff", "cb", true;
    skb_mstamp_ns: "sk_buff", "skb_mstamp_ns", true;
    skb_cloned: "sk_buff", "cloned", false;
    shinfo_gso_size: "skb_shared_info", "gso_size", true;
    shinfo_gso_segs: "skb_shared_info", "gso_segs", true;
    shinfo_gso_type: "skb_shared_info", "gso_type", true;
    dev_ifindex: "net_device", "ifindex", true;
    dev_name: "net_device", "name", true;
    dev_net: "net_device", "nd_net.net", true;
    net_inum: "net", "ns.inum", true;
    sk_family: "sock", "__sk_common.skc_family", true;
    sk_state: "sock", "__sk_common.skc_state", true;
    sk_num: "sock", "__sk_common.skc_num", true;
    sk_dport: "sock", "__sk_common.skc_dport", true;
    sk_rcv_saddr: "sock", "__sk_common.skc_rcv_saddr", true;
    sk_daddr: "sock", "__sk_common.skc_daddr", true;
    sk_v6_rcv_saddr: "sock", "__sk_common.skc_v6_rcv_saddr", true;
    sk_v6_daddr: "sock", "__sk_common.skc_v6_daddr", true;
    sk_net: "sock", "__sk_common.skc_net.net", true;
    sk_protocol: "sock", "sk_protocol", true;
    sk_rcvbuf: "sock", "sk_rcvbuf", true;
    sk_sndbuf: "sock", "sk_sndbuf", true;
    sk_wmem_queued: "sock", "sk_wmem_queued", true;
    sk_rmem_alloc: "sock", "sk_backlog.rmem_alloc", true;
    sk_pacing_rate: "sock", "sk_pacing_rate", true;
    req_num_timeout: "request_sock", "num_timeout", false;
    req_family: "request_sock", "__req_common.skc_family", true;
    req_num: "request_sock", "__req_common.skc_num", true;
    req_dport: "request_sock", "__req_common.skc_dport", true;
    req_rcv_saddr: "request_sock", "__req_common.skc_rcv_saddr", true;
    req_daddr: "request_sock", "__req_common.skc_daddr", true;
    req_v6_rcv_saddr: "request_sock", "__req_common.skc_v6_rcv_saddr", true;
    req_v6_daddr: "request_sock", "__req_common.skc_v6_daddr", true;
    tcb_seq: "tcp_skb_cb", "seq", true;
    tcb_end_seq: "tcp_skb_cb", "end_seq", true;
    tcb_gso_segs: "tcp_skb_cb", "tcp_gso_segs", true;
    tcb_sacked: "tcp_skb_cb", "sacked", true;
    tcb_flags: "tcp_skb_cb", "tcp_flags", true;
    tcb_dsfield: "tcp_skb_cb", "ip_dsfield", true;
    tcp_ca_state: "tcp_sock", "inet_conn.icsk_ca_state", true;
    tcp_pending: "tcp_sock", "inet_conn.icsk_pending", true;
    tcp_retransmits: "tcp_sock", "inet_conn.icsk_retransmits", true;
    tcp_backoff: "tcp_sock", "inet_conn.icsk_backoff", true;
    tcp_rto: "tcp_sock", "inet_conn.icsk_rto", true;
    tcp_timer_expires: "tcp_sock", "inet_conn.icsk_retransmit_timer.expires", true;
    tcp_snd_una: "tcp_sock", "snd_una", false;
    tcp_snd_nxt: "tcp_sock", "snd_nxt", false;
    tcp_write_seq: "tcp_sock", "write_seq", false;
    tcp_rcv_nxt: "tcp_sock", "rcv_nxt", false;
    tcp_copied_seq: "tcp_sock", "copied_seq", false;
    tcp_snd_cwnd: "tcp_sock", "snd_cwnd", false;
    tcp_snd_ssthresh: "tcp_sock", "snd_ssthresh", false;
    tcp_snd_wnd: "tcp_sock", "snd_wnd", false;
    tcp_rcv_wnd: "tcp_sock", "rcv_wnd", false;
    tcp_rcv_ssthresh: "tcp_sock", "rcv_ssthresh", false;
    tcp_mss_cache: "tcp_sock", "mss_cache", false;
    tcp_srtt_us: "tcp_sock", "srtt_us", false;
    tcp_mdev_us: "tcp_sock", "mdev_us", false;
    tcp_rttvar_us: "tcp_sock", "rttvar_us", false;
    tcp_packets_out: "tcp_sock", "packets_out", false;
    tcp_sacked_out: "tcp_sock", "sacked_out", false;
    tcp_lost_out: "tcp_sock", "lost_out", false;
    tcp_retrans_out: "tcp_sock", "retrans_out", false;
    tcp_lost: "tcp_sock", "lost", false;
    tcp_delivered: "tcp_sock", "delivered", false;
    tcp_total_retrans: "tcp_sock", "total_retrans", false;
    tcp_reordering: "tcp_sock", "reordering", false;
    tcp_reord_seen: "tcp_sock", "reord_seen", false;
    tcp_dsack_dups: "tcp_sock", "dsack_dups", false;
    tcp_high_seq: "tcp_sock", "high_seq", false;
    tcp_undo_marker: "tcp_sock", "undo_marker", false;
    tcp_undo_retrans: "tcp_sock", "undo_retrans", false;
    tcp_retrans_stamp: "tcp_sock", "retrans_stamp", false;
    tcp_tlp_high_seq: "tcp_sock", "tlp_high_seq", false;
    tcp_prior_cwnd: "tcp_sock", "prior_cwnd", false;
    tcp_rcv_ooopack: "tcp_sock", "rcv_ooopack", false;
    tcp_app_limited: "tcp_sock", "app_limited", false;
    tcp_max_packets_out: "tcp_sock", "max_packets_out", false;
    tcp_chrono_start: "tcp_sock", "chrono_start", false;
    tcp_chrono_stat: "tcp_sock", "chrono_stat", false;
    tcp_chrono_type: "tcp_sock", "chrono_type", false;
    tcp_is_cwnd_limited: "tcp_sock", "is_cwnd_limited", false;
    tcp_frto: "tcp_sock", "frto", false;
    tcp_rate_app_limited: "tcp_sock", "rate_app_limited", false;
    tcp_bytes_acked: "tcp_sock", "bytes_acked", false;
    tcp_min_rtt: "tcp_sock", "rtt_min.s.v", false;
    tcp_rack_rtt_us: "tcp_sock", "rack.rtt_us", false;
    tcp_reo_wnd_steps: "tcp_sock", "rack.reo_wnd_steps", false;
    tcp_reo_wnd_persist: "tcp_sock", "rack.reo_wnd_persist", false;
    tcp_dsack_seen: "tcp_sock", "rack.dsack_seen", false;
    tcp_rack_advanced: "tcp_sock", "rack.advanced", false;
    tcp_saw_tstamp: "tcp_sock", "rx_opt.saw_tstamp", false;
    tcp_sack_ok: "tcp_sock", "rx_opt.sack_ok", false;
    tcp_rcv_tsecr: "tcp_sock", "rx_opt.rcv_tsecr", false;
    task_pid: "task_struct", "pid", true;
    task_tgid: "task_struct", "tgid", true;
    task_comm: "task_struct", "comm", true;
    task_runtime: "task_struct", "se.sum_exec_runtime", true;
    task_run_delay: "task_struct", "sched_info.run_delay", false;
    task_pcount: "task_struct", "sched_info.pcount", false;
    regs_nr: "pt_regs", "orig_ax", false;
    regs_arg0: "pt_regs", "di", false;
    regs_arg1: "pt_regs", "si", false;
    regs_arg2: "pt_regs", "dx", false;
    cqe_user_data: "io_uring_cqe", "user_data", false;
    cqe_res: "io_uring_cqe", "res", false;
    cqe_flags: "io_uring_cqe", "flags", false;
}

const _: () = assert!(core::mem::size_of::<Offsets>() == FIELDS.len() * 4);

/// Everything the programs read as constants.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Settings {
    /// Kernel field offsets.
    pub offsets: Offsets,
    /// Number of rings, less one; the number is a power of two, and an event goes to ring
    /// `cpu & ring_mask`.
    pub ring_mask: u32,
    /// Blocks of a ring ([`ring`](crate::ring)), as an exponent of two.
    pub ring_blocks_log2: u32,
    /// Payload bytes to keep per packet, at most [`PAYLOAD_MAX`](crate::event::PAYLOAD_MAX).
    pub keep_payload: u32,
    /// Parameters of `consume_skb` without the context: 1, or 2 with the location.
    pub consume_skb_params: u32,
    /// Parameters of `kfree_skb`: 3, or 4 with the receiving socket.
    pub kfree_skb_params: u32,
    /// Parameters of `udp_fail_queue_rcv_skb`: 2, or 3 with the skb.
    pub udp_fail_params: u32,
    /// Parameters of `tcp_retransmit_skb`: 2, or 3 with the error.
    pub retransmit_params: u32,
    /// Parameters of `io_uring_complete`: 7 scalars, or 3 with the completion entry.
    pub io_uring_params: u32,
    /// Seed of [`device_slot`].
    pub device_seed: u32,
    /// Number of the system call futex.
    pub futex_call: u32,
}

/// Roles of a watched device.
pub mod role {
    /// Not watched.
    pub const NONE: u32 = 0;
    /// The tunnel device: taps tun.*.
    pub const TUNNEL: u32 = 1;
    /// A device that carries outer packets: taps outer.*.
    pub const OUTER: u32 = 2;
}

/// Roles of a watched process.
pub mod process {
    /// Not watched.
    pub const NONE: u32 = 0;
    /// Owns a tunnel device.
    pub const DAEMON: u32 = 1;
    /// The benchmark command and its children.
    pub const BENCHMARK: u32 = 2;
    /// A kernel thread of the path: ksoftirqd, napi, kworker.
    pub const KERNEL: u32 = 3;
    /// Named by the user.
    pub const OTHER: u32 = 4;
}

/// Watched devices at once.
pub const DEVICE_LIMIT: u32 = 16;

/// Slots of the `DEVICES` array map.
pub const DEVICE_SLOTS: u32 = 4096;

/// One watched device. A device is known by namespace and name, so that one that is deleted and
/// created again is seen from its first packet.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Device {
    /// `net_device.name`, zero-padded, as two native integers.
    pub name: [u64; 2],
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Interface index; the programs update it when the device comes back with another.
    pub ifindex: u32,
    /// One of [`role`]; [`role::NONE`] marks an empty slot.
    pub role: u32,
    /// Number among the watched devices, below [`DEVICE_LIMIT`].
    pub index: u32,
    /// Bytes of link-layer header in front of the network header: 14 for Ethernet, 0 for TUN.
    pub l2_len: u32,
    /// 1: only packets of the ports in the `PORTS` map (and later fragments) are recorded; the
    /// others are counted.
    pub port_filter: u32,
}

/// The slot of a device in the `DEVICES` array: one multiplication, one probe. User space picks
/// the seed so that the devices known at load time do not collide.
#[inline(always)]
#[must_use]
pub const fn device_slot(name: [u64; 2], netns: u32, seed: u32) -> u32 {
    let mixed = (name[0] ^ name[1].rotate_left(29) ^ (netns as u64) ^ ((seed as u64) << 32))
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 52) as u32
}

const _: () = assert!(DEVICE_SLOTS == 1 << 12);

/// Key of the `INTERFACES` map, for packets that no longer point to their device.
#[repr(C)]
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, bytemuck::Pod, bytemuck::Zeroable,
)]
pub struct InterfaceKey {
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Interface index.
    pub ifindex: u32,
}

/// Key of the `PORTS` map: a local port of an outer socket.
#[repr(C)]
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, bytemuck::Pod, bytemuck::Zeroable,
)]
pub struct PortKey {
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Local port in host byte order.
    pub port: u16,
    /// IP protocol, 6 or 17.
    pub ip_proto: u16,
}

/// Counters of one probe on one CPU (`COUNTS`, a per-CPU array indexed by probe number).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct ProbeCounts {
    /// Events that found no room in the ring buffer.
    pub lost: u64,
}

/// Packets of one device slot at one tap that were not recorded (`UNRECORDED`, a per-CPU array
/// indexed by `Device::index * 16 + tap`). With the records they make up all that passed.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Unrecorded {
    /// Units left out by the port filter.
    pub filtered_units: u64,
    /// Their bytes.
    pub filtered_bytes: u64,
    /// Units for which the ring buffer had no room.
    pub lost_units: u64,
    /// Their bytes.
    pub lost_bytes: u64,
}

/// Softirq vectors.
pub const SOFTIRQ_VECTORS: usize = 10;

/// Size of the `SYSCALLS` array: system call numbers from here on are never recorded.
pub const SYSCALL_SLOTS: u32 = 1024;

#[cfg(feature = "user")]
macro_rules! map_values {
    ($($name:ident)*) => {
        $(
            // SAFETY: bytemuck::Pod says the same: no padding, every bit pattern is valid.
            unsafe impl aya::Pod for $name {}
        )*
    };
}
#[cfg(feature = "user")]
map_values! { Device InterfaceKey PortKey ProbeCounts Unrecorded }
