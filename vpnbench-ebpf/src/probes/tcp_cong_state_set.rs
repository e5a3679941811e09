//! TCP's congestion state changes. Fires before the new state is assigned.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use vpnbench_common::catalog::ProbeId;
use vpnbench_common::event::CongState;

use crate::kernel::Pointer;
use crate::{emit, filter, sock, write_tcp_state};

#[btf_tracepoint(function = "tcp_cong_state_set")]
fn tcp_cong_state_set(ctx: BtfTracePointContext) -> i32 {
    let sk: Pointer = ctx.arg(0);
    let new: u8 = ctx.arg(1);
    if !filter::namespace(sock::netns(sk)) {
        return 0;
    }
    let tp = sock::tcp(sk);
    if tp.is_null() {
        return 0;
    }
    let Some(mut slot) = emit::reserve::<CongState>(ProbeId::TcpCongStateSet) else {
        return 0;
    };
    // SAFETY: the record is reserved for us and every field is written below.
    let to = unsafe { &mut *slot.as_mut_ptr() };
    write_tcp_state!(to, sk, tp);
    to.new = u32::from(new);
    to.depth = sock::kernel_stack(&ctx, &raw mut to.stack);
    slot.submit();
    0
}
