//! The daemon took a datagram off its outer socket. One event per message, also inside recvmmsg
//! and io_uring.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use vpnbench_common::catalog::{ProbeId, Tap};
use vpnbench_common::event::Taken;

use crate::kernel::Pointer;
use crate::{emit, field, filter, sock};

const MSG_PEEK: i32 = 2;

#[btf_tracepoint(function = "sock_recv_length")]
fn sock_recv_length(ctx: BtfTracePointContext) -> i32 {
    let sk: Pointer = ctx.arg(0);
    let ret: i32 = ctx.arg(1);
    let flags: i32 = ctx.arg(2);
    if ret < 0 || flags & MSG_PEEK != 0 {
        return 0;
    }
    let netns = sock::netns(sk);
    let ip_proto = field!(sk, sk_protocol as u16) as u8;
    let port = sock::local_port(sk);
    if !filter::port(netns, port, ip_proto) {
        return 0;
    }
    emit::emit(ProbeId::SockRecvLength, |header| Taken {
        header,
        skb: 0,
        sk: sk as u64,
        location: 0,
        netns,
        ifindex: 0,
        len: ret as u32,
        gso_segs: 0,
        port,
        tap: Tap::OuterRecv as u8,
        ip_proto,
        l2_len: 0,
        reserved: 0,
        gso_size: 0,
        header_len: 0,
    });
    0
}
