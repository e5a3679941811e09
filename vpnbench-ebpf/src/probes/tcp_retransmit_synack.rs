//! TCP retransmits a SYN-ACK.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use vpnbench_common::catalog::ProbeId;
use vpnbench_common::event::SynAckRetransmit;
use vpnbench_common::settings::MISSING;

use crate::kernel::Pointer;
use crate::sock::{bytes, netns, pair};
use crate::{bits, emit, field, filter, setting};

const AF_INET6: u16 = 10;

#[btf_tracepoint(function = "tcp_retransmit_synack")]
fn tcp_retransmit_synack(ctx: BtfTracePointContext) -> i32 {
    let sk: Pointer = ctx.arg(0);
    let request: Pointer = ctx.arg(1);
    let netns = netns(sk);
    if !filter::namespace(netns) {
        return 0;
    }
    let six = field!(request, req_family as u16) == AF_INET6;
    let (laddr, raddr) = if six {
        (
            pair(request, setting!(offsets.req_v6_rcv_saddr)),
            pair(request, setting!(offsets.req_v6_daddr)),
        )
    } else {
        (
            [u64::from(field!(request, req_rcv_saddr as u32)), 0],
            [u64::from(field!(request, req_daddr as u32)), 0],
        )
    };
    let timeouts = if setting!(offsets.req_num_timeout) == MISSING {
        255
    } else {
        bits!(request, req_num_timeout)
    };
    emit::emit(ProbeId::TcpRetransmitSynack, |header| SynAckRetransmit {
        header,
        sk: sk as u64,
        request: request as u64,
        netns,
        lport: field!(request, req_num as u16),
        rport: u16::from_be(field!(request, req_dport as u16)),
        ip_version: if six { 6 } else { 4 },
        timeouts,
        reserved: [0; 6],
        laddr: bytes(laddr),
        raddr: bytes(raddr),
    });
    0
}
