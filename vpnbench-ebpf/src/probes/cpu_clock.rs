//! Samples kernel and user stacks of watched threads.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::perf_event;
use aya_ebpf::programs::PerfEventContext;
use vpnbench_common::catalog::ProbeId;

use super::stacks;
use crate::filter;

#[perf_event]
fn cpu_clock(ctx: PerfEventContext) -> u32 {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    if filter::process(tgid) {
        stacks::emit(&ctx, ProbeId::CpuClock, tgid, 0);
    }
    0
}
