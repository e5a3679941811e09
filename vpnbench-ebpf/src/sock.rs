//! Reads `struct sock` and `struct tcp_sock`.

use core::ffi::c_void;

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::{bpf_get_stack, bpf_skc_to_tcp_sock};

use crate::kernel::{Pointer, load};
use crate::{field, setting};

const AF_INET6: u16 = 10;

/// Namespace, ports and addresses of a socket.
pub struct Endpoints {
    pub netns: u32,
    pub lport: u16,
    pub rport: u16,
    pub ip_version: u8,
    pub laddr: [u64; 2],
    pub raddr: [u64; 2],
}

/// The namespace of a socket.
#[inline(always)]
pub fn netns(sk: Pointer) -> u32 {
    if sk.is_null() {
        0
    } else {
        crate::filter::inum(field!(sk, sk_net as Pointer))
    }
}

/// The local port of a socket.
#[inline(always)]
pub fn local_port(sk: Pointer) -> u16 {
    field!(sk, sk_num as u16)
}

/// Reads the endpoints of a `struct sock`.
#[inline(always)]
pub fn endpoints(sk: Pointer) -> Endpoints {
    let six = field!(sk, sk_family as u16) == AF_INET6;
    let (laddr, raddr) = if six {
        (
            pair(sk, setting!(offsets.sk_v6_rcv_saddr)),
            pair(sk, setting!(offsets.sk_v6_daddr)),
        )
    } else {
        (
            [u64::from(field!(sk, sk_rcv_saddr as u32)), 0],
            [u64::from(field!(sk, sk_daddr as u32)), 0],
        )
    };
    Endpoints {
        netns: netns(sk),
        lport: local_port(sk),
        rport: u16::from_be(field!(sk, sk_dport as u16)),
        ip_version: if six { 6 } else { 4 },
        laddr,
        raddr,
    }
}

/// Sixteen bytes of a kernel object as the two native integers they are stored as.
#[inline(always)]
pub fn pair(base: Pointer, offset: u32) -> [u64; 2] {
    // in6_addr is a union whose members are arrays of bytes, halves and words: the verifier
    // lets a load stay inside the array, so four words are always accepted.
    let a: u32 = load(base, offset);
    let b: u32 = load(base, offset + 4);
    let c: u32 = load(base, offset + 8);
    let d: u32 = load(base, offset + 12);
    [
        u64::from(a) | u64::from(b) << 32,
        u64::from(c) | u64::from(d) << 32,
    ]
}

/// The `struct tcp_sock` of a socket, null if it is none.
#[inline(always)]
pub fn tcp(sk: Pointer) -> Pointer {
    // SAFETY: takes any socket pointer, returns a typed pointer or null.
    unsafe { bpf_skc_to_tcp_sock(sk.cast_mut()) as Pointer }
}

/// Copies the kernel stack of the program's caller; returns the number of frames.
#[inline(always)]
pub fn kernel_stack<C: EbpfContext, const N: usize>(ctx: &C, to: *mut [u64; N]) -> u32 {
    // SAFETY: the destination is N words of a reserved record.
    let bytes = unsafe {
        to.write([0; N]);
        bpf_get_stack(ctx.as_ptr(), to.cast::<c_void>(), (N * 8) as u32, 0)
    };
    if bytes > 0 { bytes as u32 / 8 } else { 0 }
}

/// Writes every field of the shared TCP state of an event, in place: the events are too large
/// for the BPF stack.
#[macro_export]
macro_rules! write_tcp_state {
    ($to:expr, $sk:expr, $tp:expr) => {{
        use $crate::kernel::{Pointer, load};
        use $crate::{bits, field, setting};
        let to = &mut *$to;
        let (sk, tp): (Pointer, Pointer) = ($sk, $tp);
        let ends = $crate::sock::endpoints(sk);
        to.sk = sk as u64;
        to.netns = ends.netns;
        to.lport = ends.lport;
        to.rport = ends.rport;
        to.laddr = $crate::sock::bytes(ends.laddr);
        to.raddr = $crate::sock::bytes(ends.raddr);
        to.ip_version = ends.ip_version;
        to.state = field!(sk, sk_state as u8);
        to.ca_state = bits!(tp, tcp_ca_state);
        to.pending = field!(tp, tcp_pending as u8);
        to.retransmits = field!(tp, tcp_retransmits as u8);
        to.backoff = field!(tp, tcp_backoff as u8);
        to.reo_wnd_steps = field!(tp, tcp_reo_wnd_steps as u8);
        to.rack_bits = bits!(tp, tcp_reo_wnd_persist)
            | bits!(tp, tcp_dsack_seen) << 5
            | bits!(tp, tcp_rack_advanced) << 6;
        to.snd_una = field!(tp, tcp_snd_una as u32);
        to.snd_nxt = field!(tp, tcp_snd_nxt as u32);
        to.write_seq = field!(tp, tcp_write_seq as u32);
        to.rcv_nxt = field!(tp, tcp_rcv_nxt as u32);
        to.copied_seq = field!(tp, tcp_copied_seq as u32);
        to.snd_cwnd = field!(tp, tcp_snd_cwnd as u32);
        to.ssthresh = field!(tp, tcp_snd_ssthresh as u32);
        to.snd_wnd = field!(tp, tcp_snd_wnd as u32);
        to.rcv_wnd = field!(tp, tcp_rcv_wnd as u32);
        to.mss = field!(tp, tcp_mss_cache as u32);
        to.srtt_8us = field!(tp, tcp_srtt_us as u32);
        to.mdev_4us = field!(tp, tcp_mdev_us as u32);
        to.rttvar_4us = field!(tp, tcp_rttvar_us as u32);
        to.min_rtt_us = field!(tp, tcp_min_rtt as u32);
        to.rto_jiffies = field!(tp, tcp_rto as u32);
        to.rack_rtt_us = field!(tp, tcp_rack_rtt_us as u32);
        to.packets_out = field!(tp, tcp_packets_out as u32);
        to.sacked_out = field!(tp, tcp_sacked_out as u32);
        to.lost_out = field!(tp, tcp_lost_out as u32);
        to.retrans_out = field!(tp, tcp_retrans_out as u32);
        to.lost = field!(tp, tcp_lost as u32);
        to.delivered = field!(tp, tcp_delivered as u32);
        to.total_retrans = field!(tp, tcp_total_retrans as u32);
        to.reordering = field!(tp, tcp_reordering as u32);
        to.reord_seen = field!(tp, tcp_reord_seen as u32);
        to.dsack_dups = field!(tp, tcp_dsack_dups as u32);
        to.high_seq = field!(tp, tcp_high_seq as u32);
        to.undo_marker = field!(tp, tcp_undo_marker as u32);
        to.undo_retrans = field!(tp, tcp_undo_retrans as i32);
        to.retrans_stamp = field!(tp, tcp_retrans_stamp as u32);
        to.tlp_high_seq = field!(tp, tcp_tlp_high_seq as u32);
        to.prior_cwnd = field!(tp, tcp_prior_cwnd as u32);
        to.rcv_ooopack = field!(tp, tcp_rcv_ooopack as u32);
        to.app_limited = field!(tp, tcp_app_limited as u32);
        to.max_packets_out = field!(tp, tcp_max_packets_out as u32);
        to.chrono_start = field!(tp, tcp_chrono_start as u32);
        to.chrono_stat = [
            field!(tp, tcp_chrono_stat as u32),
            load(tp, setting!(offsets.tcp_chrono_stat).saturating_add(4)),
            load(tp, setting!(offsets.tcp_chrono_stat).saturating_add(8)),
        ];
        to.wmem_queued = field!(sk, sk_wmem_queued as u32);
        to.sndbuf = field!(sk, sk_sndbuf as u32);
        to.rcvbuf = field!(sk, sk_rcvbuf as u32);
        to.rmem = field!(sk, sk_rmem_alloc as u32);
        to.chrono_type = bits!(tp, tcp_chrono_type);
        to.bits = bits!(tp, tcp_is_cwnd_limited)
            | bits!(tp, tcp_frto) << 1
            | bits!(tp, tcp_rate_app_limited) << 2
            | bits!(tp, tcp_saw_tstamp) << 3;
        to.sack_ok = bits!(tp, tcp_sack_ok);
        to.reserved = 0;
        to.rcv_tsecr = field!(tp, tcp_rcv_tsecr as u32);
        to.rcv_ssthresh = field!(tp, tcp_rcv_ssthresh as u32);
        to.timer_expires = field!(tp, tcp_timer_expires as u64);
        to.pacing_rate = field!(sk, sk_pacing_rate as u64);
    }};
}

/// An address as the bytes of a record.
#[inline(always)]
pub fn bytes(pair: [u64; 2]) -> [u8; 16] {
    // SAFETY: same size, no padding, every bit pattern is valid.
    unsafe { core::mem::transmute(pair) }
}
