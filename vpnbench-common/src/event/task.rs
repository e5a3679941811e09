//! Life of watched processes and threads.

/// Values of [`Task::what`].
pub mod what {
    /// A watched process created a thread or child.
    pub const FORK: u32 = 1;
    /// A watched process executed a program.
    pub const EXEC: u32 = 2;
    /// A watched thread ended.
    pub const EXIT: u32 = 3;
}

crate::event! {
    /// A watched thread or process begins, changes its program or ends.
    Task = Task, 72 bytes {
        /// one of `task_what`
        what: u32,
        /// process
        tgid: u32,
        /// thread: the child for FORK
        target_tid: u32,
        /// process of the child for FORK, else 0
        child_tgid: u32,
        /// thread name, zero-terminated
        comm: [u8; 16],
        /// `se.sum_exec_runtime` in ns at that moment
        runtime_ns: u64,
        /// `sched_info.run_delay` in ns at that moment
        run_delay_ns: u64,
        /// role of the process (`settings::process`)
        role: u32,
        /// reserved, 0
        reserved: u32,
    }
}
