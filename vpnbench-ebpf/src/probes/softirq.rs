//! Softirqs: time per core and vector for all, an event for those that run on top of a watched
//! thread, whose CPU time they are charged to.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns};
use aya_ebpf::macros::{btf_tracepoint, map};
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::programs::BtfTracePointContext;
use vpnbench_common::catalog::ProbeId;
use vpnbench_common::event::Softirq;
use vpnbench_common::settings::SOFTIRQ_VECTORS;

use crate::{emit, filter};

/// Start of the running softirq, 0 if none. Softirqs of one CPU do not nest.
#[map]
static SOFTIRQ_START: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// ns by vector.
#[map]
static SOFTIRQ_TIME: PerCpuArray<u64> = PerCpuArray::with_max_entries(SOFTIRQ_VECTORS as u32, 0);

/// Whether this CPU is inside a softirq, as far as the probes have seen.
#[inline(always)]
pub fn running() -> bool {
    SOFTIRQ_START.get(0).is_some_and(|start| *start != 0)
}

#[btf_tracepoint(function = "softirq_entry")]
fn softirq_entry(_ctx: BtfTracePointContext) -> i32 {
    if let Some(start) = SOFTIRQ_START.get_ptr_mut(0) {
        // SAFETY: a per-CPU slot.
        unsafe { *start = bpf_ktime_get_ns() };
    }
    0
}

#[btf_tracepoint(function = "softirq_exit")]
fn softirq_exit(ctx: BtfTracePointContext) -> i32 {
    let vector: u32 = ctx.arg(0);
    let Some(slot) = SOFTIRQ_START.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: a per-CPU slot.
    let start = unsafe { core::mem::replace(&mut *slot, 0) };
    if start == 0 {
        return 0;
    }
    // SAFETY: a helper without arguments.
    let duration_ns = unsafe { bpf_ktime_get_ns() }.saturating_sub(start);
    if let Some(total) = SOFTIRQ_TIME.get_ptr_mut(vector) {
        // SAFETY: a per-CPU slot that only softirqs of this CPU touch.
        unsafe { *total += duration_ns };
    }
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    if filter::process(tgid) {
        emit::emit(ProbeId::SoftirqExit, |header| Softirq {
            header,
            tgid,
            vector,
            duration_ns,
            reserved: 0,
        });
    }
    0
}
