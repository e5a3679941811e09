//! A watched thread is woken, and by whom.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use vpnbench_common::catalog::ProbeId;
use vpnbench_common::event::Wakeup;

use crate::kernel::Pointer;
use crate::{emit, field, filter};

#[btf_tracepoint(function = "sched_waking")]
fn sched_waking(ctx: BtfTracePointContext) -> i32 {
    let task: Pointer = ctx.arg(0);
    let woken_tgid = field!(task, task_tgid as u32);
    if !filter::process(woken_tgid) {
        return 0;
    }
    emit::emit(ProbeId::SchedWaking, |header| Wakeup {
        header,
        woken_tid: field!(task, task_pid as u32),
        woken_tgid,
        waker_tgid: (bpf_get_current_pid_tgid() >> 32) as u32,
        in_interrupt: u32::from(super::softirq::running()),
    });
    0
}
