//! THE table of taps, event kinds and probes: one row each. Program names in the eBPF object,
//! `--probes`, `doctor`, docs/probes.md and the trace all come from here; tests hold the object
//! and these rows together in both directions. Numbers are part of the trace format: never
//! change or reuse one.

/// Where packets are observed.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tap {
    /// Not at a tap.
    None = 0,
    /// Inner packet enters the qdisc of the tunnel device.
    TunQueue = 1,
    /// Inner packet is handed to the tunnel device (for TUN: its ring).
    TunTx = 2,
    /// The daemon takes an inner packet off the TUN ring.
    TunRead = 3,
    /// Outer packet enters the qdisc of the outer device.
    OuterQueue = 4,
    /// Outer packet is handed to the driver of the outer device.
    OuterTx = 5,
    /// Outer packet enters the network stack, after GRO.
    OuterRx = 6,
    /// The daemon takes a datagram off its outer socket.
    OuterRecv = 7,
    /// Inner packet enters the network stack from the tunnel device.
    TunWrite = 8,
    /// A segment reaches an established TCP socket.
    TcpRx = 9,
}

impl Tap {
    /// All taps, in the order a packet passes them from sender to receiver.
    pub const ALL: [Tap; 9] = [
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

    /// Name used in every report.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Tap::None => "none",
            Tap::TunQueue => "tun.queue",
            Tap::TunTx => "tun.tx",
            Tap::TunRead => "tun.read",
            Tap::OuterQueue => "outer.queue",
            Tap::OuterTx => "outer.tx",
            Tap::OuterRx => "outer.rx",
            Tap::OuterRecv => "outer.recv",
            Tap::TunWrite => "tun.write",
            Tap::TcpRx => "tcp.rx",
        }
    }

    /// The tap of a number from a record.
    #[inline]
    #[must_use]
    pub fn from_number(number: u8) -> Option<Tap> {
        // They are numbered from 1 on in the order of the list: this is done several times for each packet.
        Tap::ALL.get(usize::from(number).wrapping_sub(1)).copied()
    }
}

/// The payload layout of a record.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// [`Packet`](crate::event::Packet)
    Packet = 1,
    /// [`Taken`](crate::event::Taken)
    Taken = 2,
    /// [`Drop`](crate::event::Drop)
    Drop = 3,
    /// [`SockDrop`](crate::event::SockDrop)
    SockDrop = 4,
    /// [`TcpProbe`](crate::event::TcpProbe)
    TcpProbe = 5,
    /// [`Retransmit`](crate::event::Retransmit)
    Retransmit = 6,
    /// [`SynAckRetransmit`](crate::event::SynAckRetransmit)
    SynAckRetransmit = 7,
    /// [`CongState`](crate::event::CongState)
    CongState = 8,
    /// [`SockState`](crate::event::SockState)
    SockState = 9,
    /// [`LostMark`](crate::event::LostMark)
    LostMark = 10,
    /// [`Syscall`](crate::event::Syscall)
    Syscall = 11,
    /// [`IoUring`](crate::event::IoUring)
    IoUring = 12,
    /// [`Switch`](crate::event::Switch)
    Switch = 13,
    /// [`Wakeup`](crate::event::Wakeup)
    Wakeup = 14,
    /// [`Softirq`](crate::event::Softirq)
    Softirq = 15,
    /// [`Task`](crate::event::Task)
    Task = 16,
    /// [`Sample`](crate::event::Sample)
    Sample = 17,
    /// [`Payload`](crate::event::Payload)
    Payload = 18,
}

/// One row of [`KINDS`].
#[derive(Debug, Clone, Copy)]
pub struct KindRow {
    /// Number in the header of a record.
    pub kind: Kind,
    /// Name in exports and documentation.
    pub name: &'static str,
    /// Size of the record with its header, in bytes.
    pub size: usize,
    /// Field table.
    pub fields: &'static [crate::layout::Field],
}

macro_rules! kinds {
    ($($name:ident $text:literal,)*) => {
        /// All record layouts.
        pub const KINDS: &[KindRow] = &[$( KindRow {
            kind: Kind::$name,
            name: $text,
            size: core::mem::size_of::<crate::event::$name>(),
            fields: <crate::event::$name as crate::layout::Event>::FIELDS,
        }, )*];
    };
}

kinds! {
    Packet "packet",
    Taken "taken",
    Drop "drop",
    SockDrop "sock_drop",
    TcpProbe "tcp_probe",
    Retransmit "retransmit",
    SynAckRetransmit "synack_retransmit",
    CongState "cong_state",
    SockState "sock_state",
    LostMark "lost_mark",
    Syscall "syscall",
    IoUring "io_uring",
    Switch "switch",
    Wakeup "wakeup",
    Softirq "softirq",
    Task "task",
    Sample "sample",
    Payload "payload",
}

/// The row of a kind number, if this version knows it.
#[must_use]
pub fn kind_row(number: u8) -> Option<&'static KindRow> {
    KINDS.iter().find(|row| row.kind as u8 == number)
}

/// What a probe attaches to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attach {
    /// A BTF-typed raw tracepoint: first tier, any kernel with BTF.
    TpBtf(&'static str),
    /// Entry of a kernel function through a BPF trampoline: second tier.
    Fentry(&'static str),
    /// A perf event: the CPU clock.
    CpuClock,
}

/// When a probe is attached.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// Packets at devices. Always.
    Packets = 0,
    /// Packets into the daemon's hands: only when there is a daemon.
    Daemon = 1,
    /// Drops. Always.
    Drops = 2,
    /// TCP's state. Always.
    Tcp = 3,
    /// System calls of watched processes: unless `--no-threads`.
    Syscalls = 4,
    /// Scheduling of watched threads: unless `--no-threads`.
    Threads = 5,
    /// Stack samples: with `--stacks`.
    Stacks = 6,
}

impl Group {
    /// All groups.
    pub const ALL: [Group; 7] = [
        Group::Packets,
        Group::Daemon,
        Group::Drops,
        Group::Tcp,
        Group::Syscalls,
        Group::Threads,
        Group::Stacks,
    ];

    /// Name for `--probes`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Group::Packets => "packets",
            Group::Daemon => "daemon",
            Group::Drops => "drops",
            Group::Tcp => "tcp",
            Group::Syscalls => "syscalls",
            Group::Threads => "threads",
            Group::Stacks => "stacks",
        }
    }
}

/// One row of [`PROBES`].
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    /// Number in the header of a record.
    pub id: ProbeId,
    /// Name of the program in the eBPF object and of the probe in reports.
    pub name: &'static str,
    /// Attach point.
    pub attach: Attach,
    /// When it is attached.
    pub group: Group,
    /// Layouts it emits.
    pub kinds: &'static [Kind],
    /// First kernel that has it, as far as known; the kernel itself is asked at run time.
    pub since: &'static str,
    /// A probe that shows the same at less precision, used when this one is missing.
    pub fallback: Option<ProbeId>,
    /// What it shows.
    pub doc: &'static str,
}

macro_rules! probes {
    ($( $id:ident = $number:literal, $name:literal, $attach:expr, $group:ident, [$($kind:ident),*], since $since:literal, fallback $fallback:expr, $doc:literal; )*) => {
        /// Number of a probe, stored in each record it emits.
        #[repr(u8)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ProbeId { $( #[doc = $doc] $id = $number, )* }

        /// All probes.
        pub const PROBES: &[Probe] = &[$( Probe {
            id: ProbeId::$id,
            name: $name,
            attach: $attach,
            group: Group::$group,
            kinds: &[$(Kind::$kind),*],
            since: $since,
            fallback: $fallback,
            doc: $doc,
        }, )*];
    };
}

/// One more than the largest probe number: the length of per-probe counter arrays.
pub const PROBE_SLOTS: usize = 32;

probes! {
    NetDevQueue = 1, "net_dev_queue", Attach::TpBtf("net_dev_queue"), Packets, [Packet, Payload], since "6.1", fallback None,
        "packet enters a device's transmit path, before the qdisc (tun.queue, outer.queue)";
    NetDevStartXmit = 2, "net_dev_start_xmit", Attach::TpBtf("net_dev_start_xmit"), Packets, [Packet, Payload], since "6.1", fallback None,
        "packet is handed to the driver, after the qdisc and software segmentation (tun.tx, outer.tx)";
    NetifReceiveSkb = 3, "netif_receive_skb", Attach::TpBtf("netif_receive_skb"), Packets, [Packet, Payload], since "6.1", fallback None,
        "packet enters the network stack, after GRO (outer.rx, tun.write)";
    ConsumeSkb = 4, "consume_skb", Attach::TpBtf("consume_skb"), Daemon, [Taken], since "6.1", fallback None,
        "the daemon took a packet off the TUN ring (tun.read)";
    SockRecvLength = 5, "sock_recv_length", Attach::TpBtf("sock_recv_length"), Daemon, [Taken], since "6.12", fallback Some(ProbeId::SysExit),
        "the daemon took a datagram off its socket, one event per message (outer.recv)";
    SkbConsumeUdp = 6, "skb_consume_udp", Attach::Fentry("skb_consume_udp"), Daemon, [Taken], since "6.1", fallback Some(ProbeId::SockRecvLength),
        "as sock_recv_length, with the skb's identity (outer.recv)";
    KfreeSkb = 7, "kfree_skb", Attach::TpBtf("kfree_skb"), Drops, [Drop], since "6.1", fallback None,
        "the kernel drops a packet, with reason and place";
    UdpFailQueueRcvSkb = 8, "udp_fail_queue_rcv_skb", Attach::TpBtf("udp_fail_queue_rcv_skb"), Drops, [SockDrop], since "6.1", fallback None,
        "a datagram does not fit its socket's receive buffer";
    TcpProbe = 9, "tcp_probe", Attach::TpBtf("tcp_probe"), Tcp, [TcpProbe], since "6.1", fallback None,
        "a segment reaches a TCP socket, with the socket's state before it is processed (tcp.rx)";
    TcpRetransmitSkb = 10, "tcp_retransmit_skb", Attach::TpBtf("tcp_retransmit_skb"), Tcp, [Retransmit], since "6.1", fallback None,
        "TCP retransmits a segment, with stack and sender state";
    TcpRetransmitSynack = 11, "tcp_retransmit_synack", Attach::TpBtf("tcp_retransmit_synack"), Tcp, [SynAckRetransmit], since "6.1", fallback None,
        "TCP retransmits a SYN-ACK";
    TcpCongStateSet = 12, "tcp_cong_state_set", Attach::TpBtf("tcp_cong_state_set"), Tcp, [CongState], since "6.1", fallback None,
        "TCP's congestion state changes, with stack and sender state";
    InetSockSetState = 13, "inet_sock_set_state", Attach::TpBtf("inet_sock_set_state"), Tcp, [SockState], since "6.1", fallback None,
        "a TCP connection begins or ends";
    TcpMarkSkbLost = 14, "tcp_mark_skb_lost", Attach::Fentry("tcp_mark_skb_lost"), Tcp, [LostMark], since "6.1", fallback Some(ProbeId::TcpCongStateSet),
        "TCP marks one segment lost";
    SysEnter = 15, "sys_enter", Attach::TpBtf("sys_enter"), Syscalls, [], since "6.1", fallback None,
        "a watched process enters a system call (start time for sys_exit)";
    SysExit = 16, "sys_exit", Attach::TpBtf("sys_exit"), Syscalls, [Syscall], since "6.1", fallback None,
        "a watched process returns from a packet-moving system call, with batch size and result";
    IoUringComplete = 17, "io_uring_complete", Attach::TpBtf("io_uring_complete"), Syscalls, [IoUring], since "6.1", fallback None,
        "an io_uring request of a watched process completes";
    SchedSwitch = 18, "sched_switch", Attach::TpBtf("sched_switch"), Threads, [Switch], since "6.1", fallback None,
        "a watched thread starts or stops running, with the scheduler's own counters";
    SchedWaking = 19, "sched_waking", Attach::TpBtf("sched_waking"), Threads, [Wakeup], since "6.1", fallback None,
        "a watched thread is woken, and by whom";
    SchedProcessFork = 20, "sched_process_fork", Attach::TpBtf("sched_process_fork"), Daemon, [Task], since "6.1", fallback None,
        "a watched process creates a thread or child, which is watched from then on";
    SchedProcessExec = 21, "sched_process_exec", Attach::TpBtf("sched_process_exec"), Daemon, [Task], since "6.1", fallback None,
        "a watched process executes a program";
    SchedProcessExit = 22, "sched_process_exit", Attach::TpBtf("sched_process_exit"), Daemon, [Task], since "6.1", fallback None,
        "a watched thread ends, with its final CPU time";
    SoftirqEntry = 23, "softirq_entry", Attach::TpBtf("softirq_entry"), Threads, [], since "6.1", fallback None,
        "a softirq starts (start time for softirq_exit)";
    SoftirqExit = 24, "softirq_exit", Attach::TpBtf("softirq_exit"), Threads, [Softirq], since "6.1", fallback None,
        "a softirq on top of a watched thread ends; time per core and vector is summed for all";
    CpuClock = 25, "cpu_clock", Attach::CpuClock, Stacks, [Sample], since "6.1", fallback None,
        "samples kernel and user stacks of watched threads";
    OffCpuStack = 26, "off_cpu_stack", Attach::TpBtf("sched_switch"), Stacks, [Sample], since "6.1", fallback None,
        "the stacks with which a watched thread goes to sleep";
    WakerStack = 27, "waker_stack", Attach::TpBtf("sched_waking"), Stacks, [Sample], since "6.1", fallback None,
        "the stacks of a watched thread that ends a watched thread's wait in a futex";
}

/// The row of a probe number, if this version knows it.
#[must_use]
pub fn probe_row(number: u8) -> Option<&'static Probe> {
    PROBES.iter().find(|row| row.id as u8 == number)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn numbers_and_names_are_unique() {
        let numbers: BTreeSet<u8> = PROBES.iter().map(|row| row.id as u8).collect();
        let names: BTreeSet<&str> = PROBES.iter().map(|row| row.name).collect();
        assert_eq!(numbers.len(), PROBES.len());
        assert_eq!(names.len(), PROBES.len());
        assert!(
            numbers
                .iter()
                .all(|number| (1..PROBE_SLOTS as u8).contains(number))
        );
        let kinds: BTreeSet<u8> = KINDS.iter().map(|row| row.kind as u8).collect();
        assert_eq!(kinds.len(), KINDS.len());
    }

    #[test]
    fn every_kind_is_emitted_by_some_probe() {
        for kind in KINDS {
            assert!(
                PROBES.iter().any(|probe| probe.kinds.contains(&kind.kind)),
                "{}",
                kind.name
            );
        }
    }

    #[test]
    fn fields_cover_the_record_without_gaps() {
        for kind in KINDS {
            let mut offset = 0;
            for field in kind.fields {
                assert_eq!(field.offset, offset, "{}.{}", kind.name, field.name);
                offset += field.size;
            }
            assert_eq!(offset, kind.size, "{}", kind.name);
        }
    }

    #[test]
    fn taps_round_trip() {
        for tap in Tap::ALL {
            assert_eq!(Tap::from_number(tap as u8), Some(tap));
        }
        assert_eq!(Tap::from_number(0), None);
    }
}
