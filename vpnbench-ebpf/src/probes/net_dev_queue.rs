//! A packet enters the transmit path, before the qdisc.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use vpnbench_common::catalog::{ProbeId, Tap};

use super::packet::{Taps, observe};
use crate::kernel::Pointer;
use crate::need;
use crate::skb::Direction;

#[btf_tracepoint(function = "net_dev_queue")]
fn net_dev_queue(ctx: BtfTracePointContext) -> i32 {
    let skb: Pointer = ctx.arg(0);
    let dev = need!(skb, skb_dev as Pointer);
    let taps = Taps {
        tunnel: Tap::TunQueue,
        outer: Tap::OuterQueue,
    };
    observe(ProbeId::NetDevQueue, skb, dev, Direction::Transmit, taps);
    0
}
