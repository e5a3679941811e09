//! An io_uring request of a watched process completes. Since 6.16 the completion entry is passed
//! whole, before that as scalars.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use vpnbench_common::catalog::ProbeId;
use vpnbench_common::event::IoUring;

use crate::kernel::Pointer;
use crate::{emit, field, filter, setting};

#[btf_tracepoint(function = "io_uring_complete")]
fn io_uring_complete(ctx: BtfTracePointContext) -> i32 {
    if !filter::process((bpf_get_current_pid_tgid() >> 32) as u32) {
        return 0;
    }
    let ring: u64 = ctx.arg(0);
    let (user_data, res, flags) = if setting!(io_uring_params) > 3 {
        (ctx.arg(2), ctx.arg(3), ctx.arg(4))
    } else {
        let cqe: Pointer = ctx.arg(2);
        (
            field!(cqe, cqe_user_data as u64),
            field!(cqe, cqe_res as i32),
            field!(cqe, cqe_flags as u32),
        )
    };
    emit::emit(ProbeId::IoUringComplete, |header| IoUring {
        header,
        ring,
        user_data,
        res,
        flags,
    });
    0
}
