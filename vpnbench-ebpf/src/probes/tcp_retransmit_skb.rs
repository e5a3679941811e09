//! TCP retransmits a segment. Fires inside `__tcp_retransmit_skb`, before the skb is marked as
//! retransmitted: everything that led to the decision is still there.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use vpnbench_common::catalog::ProbeId;
use vpnbench_common::event::Retransmit;

use crate::kernel::{Pointer, load};
use crate::sock;
use crate::{emit, field, filter, setting, write_tcp_state};

#[btf_tracepoint(function = "tcp_retransmit_skb")]
fn tcp_retransmit_skb(ctx: BtfTracePointContext) -> i32 {
    let sk: Pointer = ctx.arg(0);
    let skb: Pointer = ctx.arg(1);
    let error: i32 = if setting!(retransmit_params) > 2 {
        ctx.arg(2)
    } else {
        0
    };
    if !filter::namespace(sock::netns(sk)) {
        return 0;
    }
    let tp = sock::tcp(sk);
    if tp.is_null() {
        return 0;
    }
    let Some(mut slot) = emit::reserve::<Retransmit>(ProbeId::TcpRetransmitSkb) else {
        return 0;
    };
    // SAFETY: the record is reserved for us and every field is written below.
    let to = unsafe { &mut *slot.as_mut_ptr() };
    write_tcp_state!(to, sk, tp);
    let cb = setting!(offsets.skb_cb);
    to.skb = skb as u64;
    to.sent_ns = field!(skb, skb_mstamp_ns as u64);
    to.error = error;
    to.seq = load(skb, cb + setting!(offsets.tcb_seq));
    to.end_seq = load(skb, cb + setting!(offsets.tcb_end_seq));
    to.len = field!(skb, skb_len as u32);
    let segments: u16 = load(skb, cb + setting!(offsets.tcb_gso_segs));
    to.segments = if segments == 0 { 1 } else { segments };
    to.sacked = load(skb, cb + setting!(offsets.tcb_sacked));
    to.tcp_flags = load(skb, cb + setting!(offsets.tcb_flags));
    to.depth = sock::kernel_stack(&ctx, &raw mut to.stack);
    slot.submit();
    0
}
