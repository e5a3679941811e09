//! Second tier: TCP marks one segment lost.

use aya_ebpf::macros::fentry;
use aya_ebpf::programs::FEntryContext;
use vpnbench_common::catalog::ProbeId;
use vpnbench_common::event::LostMark;

use crate::kernel::{Pointer, load};
use crate::{emit, filter, setting, sock};

#[fentry(function = "tcp_mark_skb_lost")]
fn tcp_mark_skb_lost(ctx: FEntryContext) -> i32 {
    let sk: Pointer = ctx.arg(0);
    let skb: Pointer = ctx.arg(1);
    let netns = sock::netns(sk);
    if !filter::namespace(netns) {
        return 0;
    }
    let cb = setting!(offsets.skb_cb);
    emit::emit(ProbeId::TcpMarkSkbLost, |header| LostMark {
        header,
        sk: sk as u64,
        skb: skb as u64,
        netns,
        seq: load(skb, cb + setting!(offsets.tcb_seq)),
        end_seq: load(skb, cb + setting!(offsets.tcb_end_seq)),
        segments: load(skb, cb + setting!(offsets.tcb_gso_segs)),
        sacked: load(skb, cb + setting!(offsets.tcb_sacked)),
        reserved: 0,
        reserved2: 0,
    });
    0
}
