//! A packet enters the network stack, after GRO.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use vpnbench_common::catalog::{ProbeId, Tap};

use super::packet::{Taps, observe};
use crate::kernel::Pointer;
use crate::need;
use crate::skb::Direction;

#[btf_tracepoint(function = "netif_receive_skb")]
fn netif_receive_skb(ctx: BtfTracePointContext) -> i32 {
    let skb: Pointer = ctx.arg(0);
    let dev = need!(skb, skb_dev as Pointer);
    let taps = Taps {
        tunnel: Tap::TunWrite,
        outer: Tap::OuterRx,
    };
    observe(ProbeId::NetifReceiveSkb, skb, dev, Direction::Receive, taps);
    0
}
