//! A TCP connection begins or ends.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use vpnbench_common::catalog::ProbeId;
use vpnbench_common::event::SockState;

use crate::kernel::Pointer;
use crate::sock::{self, bytes, endpoints};
use crate::{emit, field, filter};

#[btf_tracepoint(function = "inet_sock_set_state")]
fn inet_sock_set_state(ctx: BtfTracePointContext) -> i32 {
    let sk: Pointer = ctx.arg(0);
    let old: i32 = ctx.arg(1);
    let new: i32 = ctx.arg(2);
    let ends = endpoints(sk);
    if !filter::namespace(ends.netns) {
        return 0;
    }
    let tp = sock::tcp(sk);
    let bytes_acked = if tp.is_null() {
        0
    } else {
        field!(tp, tcp_bytes_acked as u64)
    };
    emit::emit(ProbeId::InetSockSetState, |header| SockState {
        header,
        sk: sk as u64,
        netns: ends.netns,
        lport: ends.lport,
        rport: ends.rport,
        ip_version: ends.ip_version,
        ip_proto: field!(sk, sk_protocol as u16) as u8,
        old: old as u8,
        new: new as u8,
        reserved: 0,
        bytes_acked,
        laddr: bytes(ends.laddr),
        raddr: bytes(ends.raddr),
    });
    0
}
