//! System calls of watched processes that move packets or open a path for them.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::{btf_tracepoint, map};
use aya_ebpf::maps::{Array, HashMap};
use aya_ebpf::programs::BtfTracePointContext;
use vpnbench_common::catalog::ProbeId;
use vpnbench_common::event::Syscall;
use vpnbench_common::settings::SYSCALL_SLOTS;

use crate::kernel::Pointer;
use crate::{emit, field, filter};

/// 1 for each system call number that is recorded.
#[map]
static SYSCALLS: Array<u32> = Array::with_max_entries(SYSCALL_SLOTS, 0);

/// Start of the running call by thread.
#[map]
static ENTERED: HashMap<u32, u64> = HashMap::with_max_entries(8192, 0);

#[inline(always)]
fn wanted(nr: u64) -> bool {
    nr < u64::from(SYSCALL_SLOTS) && SYSCALLS.get(nr as u32) == Some(&1)
}

#[btf_tracepoint(function = "sys_enter")]
fn sys_enter(ctx: BtfTracePointContext) -> i32 {
    let nr: u64 = ctx.arg(1);
    let id = bpf_get_current_pid_tgid();
    if wanted(nr) && filter::process((id >> 32) as u32) {
        // SAFETY: a helper without arguments.
        let now = unsafe { aya_ebpf::helpers::bpf_ktime_get_ns() };
        let _ = ENTERED.insert(id as u32, now, 0);
    }
    0
}

#[btf_tracepoint(function = "sys_exit")]
fn sys_exit(ctx: BtfTracePointContext) -> i32 {
    let regs: Pointer = ctx.arg(0);
    let ret: i64 = ctx.arg(1);
    let nr = field!(regs, regs_nr as u64);
    let id = bpf_get_current_pid_tgid();
    let tgid = (id >> 32) as u32;
    if !wanted(nr) || !filter::process(tgid) {
        return 0;
    }
    let tid = id as u32;
    // SAFETY: the value is a plain integer that only this thread writes.
    let entered = unsafe { ENTERED.get(tid) }.copied();
    if entered.is_some() {
        let _ = ENTERED.remove(tid);
    }
    emit::emit(ProbeId::SysExit, |header| Syscall {
        header,
        tgid,
        nr: nr as u32,
        ret,
        fd: field!(regs, regs_arg0 as u64) as i32,
        count: field!(regs, regs_arg2 as u64) as u32,
        duration_ns: match entered {
            Some(at) => header.time_ns.saturating_sub(at),
            None => u64::MAX,
        },
        arg1: field!(regs, regs_arg1 as u64),
        reserved: 0,
    });
    0
}
