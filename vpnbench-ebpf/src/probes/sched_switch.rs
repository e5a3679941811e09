//! A watched thread starts or stops running. The scheduler's own counters of the thread that
//! stops are up to date here; those of the thread that starts are charged later.

use aya_ebpf::helpers::generated::bpf_task_pt_regs;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use vpnbench_common::catalog::ProbeId;
use vpnbench_common::event::Switch;
use vpnbench_common::settings::process;

use crate::kernel::Pointer;
use crate::{emit, field, filter};

#[btf_tracepoint(function = "sched_switch")]
fn sched_switch(ctx: BtfTracePointContext) -> i32 {
    let preempted: u8 = ctx.arg(0);
    let prev: Pointer = ctx.arg(1);
    let next: Pointer = ctx.arg(2);
    let prev_state: u32 = ctx.arg(3);
    let prev_tgid = field!(prev, task_tgid as u32);
    let next_tgid = field!(next, task_tgid as u32);
    let prev_role = filter::role_of(prev_tgid);
    let next_role = filter::role_of(next_tgid);
    if prev_role == process::NONE && next_role == process::NONE {
        return 0;
    }
    let prev_syscall = if prev_role == process::NONE || prev_role == process::KERNEL {
        -1
    } else {
        running_syscall(prev)
    };
    emit::emit(ProbeId::SchedSwitch, |header| Switch {
        header,
        prev_tid: field!(prev, task_pid as u32),
        prev_tgid,
        next_tid: field!(next, task_pid as u32),
        next_tgid,
        prev_runtime_ns: field!(prev, task_runtime as u64),
        prev_run_delay_ns: field!(prev, task_run_delay as u64),
        next_run_delay_ns: field!(next, task_run_delay as u64),
        prev_pcount: field!(prev, task_pcount as u64),
        prev_state,
        prev_syscall,
        preempted: preempted & 1,
        watched: u8::from(prev_role != process::NONE) | u8::from(next_role != process::NONE) << 1,
        reserved: [0; 6],
    });
    0
}

/// The system call a user thread is in, from its saved registers; -1 in user mode.
#[inline(always)]
pub fn running_syscall(task: Pointer) -> i32 {
    // SAFETY: takes a typed task pointer and returns its saved user registers.
    let regs = unsafe { bpf_task_pt_regs(task as *mut _) } as Pointer;
    if regs.is_null() {
        return -1;
    }
    let nr = field!(regs, regs_nr as u64) as i64;
    if (0..1024).contains(&nr) {
        nr as i32
    } else {
        -1
    }
}
