//! The wire stands for hardware: it does not queue for a core behind the programs under test.

use std::io;

/// The lowest of the real-time priorities: before every ordinary program, after the kernel's own.
const FIFO: libc::c_int = 1;
/// Where real-time scheduling is refused.
const NICE: i32 = -10;

/// Puts the calling process before all ordinary ones. The kernel keeps a share of each core for
/// those even if the wire never slept (`sched_rt_runtime_us`).
pub(super) fn raise() {
    let parameters = libc::sched_param {
        sched_priority: FIFO,
    };
    // SAFETY: reads the structure, which lives through the call; 0 is the calling process.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) };
    if result == 0 {
        return;
    }
    let error = io::Error::last_os_error();
    log::warn!("the wire runs without real-time priority, its delays may be late: {error}");
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        log::warn!("the wire has to queue for a core like any program: {error}");
    }
}
