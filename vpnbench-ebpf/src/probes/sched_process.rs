//! Life of watched processes: children are watched from their first instruction.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use aya_log_ebpf::warn;
use vpnbench_common::catalog::ProbeId;
use vpnbench_common::event::{Task, task_what};
use vpnbench_common::settings::process;

use crate::kernel::Pointer;
use crate::{emit, field, filter, setting, sock};

#[inline(always)]
fn task(probe: ProbeId, what: u32, subject: Pointer, tgid: u32, child_tgid: u32, role: u32) {
    let comm = sock::pair(subject, setting!(offsets.task_comm));
    emit::emit(probe, |header| Task {
        header,
        what,
        tgid,
        target_tid: field!(subject, task_pid as u32),
        child_tgid,
        comm: sock::bytes(comm),
        runtime_ns: field!(subject, task_runtime as u64),
        run_delay_ns: field!(subject, task_run_delay as u64),
        role,
        reserved: 0,
    });
}

#[btf_tracepoint(function = "sched_process_fork")]
fn sched_process_fork(ctx: BtfTracePointContext) -> i32 {
    let parent: Pointer = ctx.arg(0);
    let child: Pointer = ctx.arg(1);
    let tgid = field!(parent, task_tgid as u32);
    let role = filter::role_of(tgid);
    if role == process::NONE {
        return 0;
    }
    let child_tgid = field!(child, task_tgid as u32);
    if child_tgid != tgid && !filter::watch_process(child_tgid, role) {
        warn!(
            &ctx,
            "process table full: process {} is not watched", child_tgid
        );
    }
    task(
        ProbeId::SchedProcessFork,
        task_what::FORK,
        child,
        tgid,
        child_tgid,
        role,
    );
    0
}

#[btf_tracepoint(function = "sched_process_exec")]
fn sched_process_exec(ctx: BtfTracePointContext) -> i32 {
    let subject: Pointer = ctx.arg(0);
    let tgid = field!(subject, task_tgid as u32);
    let role = filter::role_of(tgid);
    if role != process::NONE {
        task(
            ProbeId::SchedProcessExec,
            task_what::EXEC,
            subject,
            tgid,
            0,
            role,
        );
    }
    0
}

#[btf_tracepoint(function = "sched_process_exit")]
fn sched_process_exit(ctx: BtfTracePointContext) -> i32 {
    let subject: Pointer = ctx.arg(0);
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let role = filter::role_of(tgid);
    if role != process::NONE {
        task(
            ProbeId::SchedProcessExit,
            task_what::EXIT,
            subject,
            tgid,
            0,
            role,
        );
    }
    0
}
