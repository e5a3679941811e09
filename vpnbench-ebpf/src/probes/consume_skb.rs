//! The daemon took a packet off the TUN ring: `tun_do_read` releases the skb it has copied out,
//! in the daemon's own thread.
//!
//! `consume_skb` is also called for the original of a software-segmented packet on its way into
//! the device. Its place tells (6.12 and later); before that the analysis pairs addresses.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use vpnbench_common::catalog::{ProbeId, Tap};
use vpnbench_common::event::Taken;
use vpnbench_common::settings::role;

use crate::kernel::Pointer;
use crate::skb::{Direction, parse, place, segmentation};
use crate::{emit, filter, need, setting};

#[btf_tracepoint(function = "consume_skb")]
fn consume_skb(ctx: BtfTracePointContext) -> i32 {
    let skb: Pointer = ctx.arg(0);
    let location: u64 = if setting!(consume_skb_params) > 1 {
        ctx.arg(1)
    } else {
        0
    };
    let Some(device) = filter::device(need!(skb, skb_dev as Pointer)) else {
        return 0;
    };
    // A packet that came in from this device is on its way up the stack.
    if device.role != role::TUNNEL || need!(skb, skb_iif as u32) == device.ifindex {
        return 0;
    }
    let gso = segmentation(skb);
    let header_len = if gso.size == 0 {
        0
    } else {
        let parsed = parse(&place(skb, Direction::Transmit, device.l2_len), true);
        parsed.l4_offset as u16 + parsed.l4_len
    };
    emit::emit(ProbeId::ConsumeSkb, |header| Taken {
        header,
        skb: skb as u64,
        sk: 0,
        location,
        netns: device.netns,
        ifindex: device.ifindex,
        len: need!(skb, skb_len as u32),
        gso_segs: gso.segments,
        port: 0,
        tap: Tap::TunRead as u8,
        ip_proto: 0,
        l2_len: device.l2_len as u8,
        reserved: 0,
        gso_size: gso.size,
        header_len,
    });
    0
}
