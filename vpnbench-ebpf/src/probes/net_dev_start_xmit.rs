//! A packet is handed to the driver, after the qdisc and software segmentation.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use vpnbench_common::catalog::{ProbeId, Tap};

use super::packet::{Taps, observe};
use crate::kernel::Pointer;
use crate::skb::Direction;

#[btf_tracepoint(function = "net_dev_start_xmit")]
fn net_dev_start_xmit(ctx: BtfTracePointContext) -> i32 {
    let taps = Taps {
        tunnel: Tap::TunTx,
        outer: Tap::OuterTx,
    };
    observe(
        ProbeId::NetDevStartXmit,
        ctx.arg(0),
        ctx.arg::<Pointer>(1),
        Direction::Transmit,
        taps,
    );
    0
}
