//! Stacks of the thread that runs: those with which it goes to sleep, and those with which it ends the
//! wait of another one. Only with `--stacks`: programs of their own beside those that record the switch
//! and the wake-up.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::BPF_F_USER_STACK;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::bpf_get_stack;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use vpnbench_common::catalog::ProbeId;
use vpnbench_common::event::{SAMPLE_DEPTH, Sample};

use super::{sched_switch, softirq};
use crate::kernel::Pointer;
use crate::{emit, field, filter, setting, sock};

#[btf_tracepoint(function = "sched_switch")]
fn off_cpu_stack(ctx: BtfTracePointContext) -> i32 {
    let preempted: u8 = ctx.arg(0);
    let prev: Pointer = ctx.arg(1);
    let prev_state: u32 = ctx.arg(3);
    // Preempted, or willing to go on: it waits for a core, and its stack is no reason for that.
    if preempted & 1 != 0 || prev_state == 0 {
        return 0;
    }
    let tgid = field!(prev, task_tgid as u32);
    if filter::process(tgid) {
        emit(&ctx, ProbeId::OffCpuStack, tgid, 0);
    }
    0
}

#[btf_tracepoint(function = "sched_waking")]
fn waker_stack(ctx: BtfTracePointContext) -> i32 {
    let waker = (bpf_get_current_pid_tgid() >> 32) as u32;
    if softirq::running() || !filter::process(waker) {
        return 0;
    }
    let task: Pointer = ctx.arg(0);
    if !filter::process(field!(task, task_tgid as u32)) {
        return 0;
    }
    let waits_in = sched_switch::running_syscall(task);
    if waits_in >= 0 && waits_in as u32 == setting!(futex_call) {
        let woken = field!(task, task_pid as u32);
        emit(&ctx, ProbeId::WakerStack, waker, woken);
    }
    0
}

/// Stores the stacks of the thread that runs, of process `tgid`.
#[inline(always)]
pub fn emit<C: EbpfContext>(ctx: &C, probe: ProbeId, tgid: u32, woken_tid: u32) {
    let Some(mut slot) = emit::reserve::<Sample>(probe) else {
        return;
    };
    // SAFETY: the record is reserved for us and every field is written below.
    let to = unsafe { &mut *slot.as_mut_ptr() };
    to.tgid = tgid;
    to.woken_tid = woken_tid;
    to.reserved = 0;
    to.kernel_depth = sock::kernel_stack(ctx, &raw mut to.kernel) as u16;
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
}
