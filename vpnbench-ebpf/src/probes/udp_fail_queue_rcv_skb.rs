//! A datagram does not fit its socket's receive buffer.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use vpnbench_common::catalog::ProbeId;
use vpnbench_common::event::SockDrop;

use crate::kernel::Pointer;
use crate::sock::{bytes, endpoints};
use crate::{emit, field, filter, setting};

#[btf_tracepoint(function = "udp_fail_queue_rcv_skb")]
fn udp_fail_queue_rcv_skb(ctx: BtfTracePointContext) -> i32 {
    let error: i32 = ctx.arg(0);
    let sk: Pointer = ctx.arg(1);
    let skb: Pointer = if setting!(udp_fail_params) > 2 {
        ctx.arg(2)
    } else {
        core::ptr::null()
    };
    let ends = endpoints(sk);
    if !filter::namespace(ends.netns) {
        return 0;
    }
    emit::emit(ProbeId::UdpFailQueueRcvSkb, |header| SockDrop {
        header,
        sk: sk as u64,
        skb: skb as u64,
        netns: ends.netns,
        error,
        lport: ends.lport,
        rport: ends.rport,
        ip_version: ends.ip_version,
        ip_proto: field!(sk, sk_protocol as u16) as u8,
        reserved: 0,
        len: if skb.is_null() {
            0
        } else {
            field!(skb, skb_len as u32)
        },
        rcvbuf: field!(sk, sk_rcvbuf as u32),
        rmem: field!(sk, sk_rmem_alloc as u32),
        reserved2: 0,
        laddr: bytes(ends.laddr),
        raddr: bytes(ends.raddr),
    });
    0
}
