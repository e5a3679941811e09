//! Samples kernel and user stacks of watched threads.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::BPF_F_USER_STACK;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::bpf_get_stack;
use aya_ebpf::macros::perf_event;
use aya_ebpf::programs::PerfEventContext;
use vpnbench_common::catalog::ProbeId;
use vpnbench_common::event::{SAMPLE_DEPTH, Sample};

use crate::{emit, filter, sock};

#[perf_event]
fn cpu_clock(ctx: PerfEventContext) -> u32 {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    if !filter::process(tgid) {
        return 0;
    }
    let Some(mut slot) = emit::reserve::<Sample>(ProbeId::CpuClock) else {
        return 0;
    };
    // SAFETY: the record is reserved for us and every field is written below.
    let to = unsafe { &mut *slot.as_mut_ptr() };
    to.tgid = tgid;
    to.reserved = 0;
    to.kernel_depth = sock::kernel_stack(&ctx, &raw mut to.kernel) as u16;
    to.user = [0; SAMPLE_DEPTH];
    // SAFETY: the destination is SAMPLE_DEPTH words of a reserved record.
    let bytes = unsafe {
        bpf_get_stack(
            ctx.as_ptr(),
            (&raw mut to.user).cast(),
            (SAMPLE_DEPTH * 8) as u32,
            u64::from(BPF_F_USER_STACK),
        )
    };
    to.user_depth = if bytes > 0 { (bytes / 8) as u16 } else { 0 };
    slot.submit();
    0
}
