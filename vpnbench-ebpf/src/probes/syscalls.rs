//! System calls of watched processes that move packets or open a path for them.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::{btf_tracepoint, map};
use aya_ebpf::maps::{Array, LruHashMap};
use aya_ebpf::programs::BtfTracePointContext;
use vpnbench_common::catalog::ProbeId;
use vpnbench_common::event::Syscall;
use vpnbench_common::settings::SYSCALL_SLOTS;

use crate::kernel::Pointer;
use crate::{emit, field, filter};

/// 1 for each system call number that is recorded.
#[map]
static SYSCALLS: Array<u32> = Array::with_max_entries(SYSCALL_SLOTS, 0);

/// Start of the running call by thread, 0 if none. Entries stay: to write one anew costs much less than
/// to remove and insert it at each call. The table forgets the threads that were not seen for longest.
#[map]
static ENTERED: LruHashMap<u32, u64> = LruHashMap::with_max_entries(8192, 0);

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
        match ENTERED.get_ptr_mut(id as u32) {
            // SAFETY: a plain integer that only this thread writes.
            Some(entered) => unsafe { entered.write(now) },
            None => {
                let _ = ENTERED.insert(id as u32, now, 0);
            }
        }
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
    let entered = match ENTERED.get_ptr_mut(id as u32) {
        // SAFETY: as above.
        Some(entered) => unsafe { core::ptr::replace(entered, 0) },
        None => 0,
    };
    emit::emit(ProbeId::SysExit, |header| Syscall {
        header,
        tgid,
        nr: nr as u32,
        ret,
        fd: field!(regs, regs_arg0 as u64) as i32,
        count: field!(regs, regs_arg2 as u64) as u32,
        duration_ns: match entered {
            0 => u64::MAX,
            at => header.time_ns.saturating_sub(at),
        },
        arg1: field!(regs, regs_arg1 as u64),
        reserved: 0,
    });
    0
}
