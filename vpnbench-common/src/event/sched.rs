//! Scheduling of watched threads.

crate::event! {
    /// `sched_switch` where one side belongs to a watched process. The counters are the
    /// scheduler's own at switch-out and equal `/proc/PID/task/TID/schedstat`.
    Switch = Switch, 80 bytes {
        /// thread switched out
        prev_tid: u32,
        /// process of that thread
        prev_tgid: u32,
        /// thread switched in
        next_tid: u32,
        /// process of that thread
        next_tgid: u32,
        /// `se.sum_exec_runtime` of the thread switched out, ns
        prev_runtime_ns: u64,
        /// `sched_info.run_delay` of the thread switched out, ns
        prev_run_delay_ns: u64,
        /// `sched_info.run_delay` of the thread switched in, ns, before this wait is charged
        next_run_delay_ns: u64,
        /// `sched_info.pcount` of the thread switched out: times run
        prev_pcount: u64,
        /// state of the thread switched out (0 still runnable)
        prev_state: u32,
        /// system call in which it was switched out, -1 if none or unknown
        prev_syscall: i32,
        /// 1 if preempted
        preempted: u8,
        /// bit 0: previous thread watched, bit 1: next thread watched
        watched: u8,
        /// reserved, 0
        reserved: [u8; 6],
    }
}

crate::event! {
    /// `sched_waking` of a watched thread; the header's thread is the waker.
    Wakeup = Wakeup, 32 bytes {
        /// thread woken
        woken_tid: u32,
        /// process of the woken thread
        woken_tgid: u32,
        /// process of the waker
        waker_tgid: u32,
        /// 1 if the waker ran in interrupt or softirq context as far as known, else 0
        in_interrupt: u32,
    }
}

crate::event! {
    /// A softirq that ran on top of a watched thread or in ksoftirqd.
    Softirq = Softirq, 40 bytes {
        /// process of the interrupted thread
        tgid: u32,
        /// vector: 1 TIMER, 2 NET_TX, 3 NET_RX, 6 TASKLET, 7 SCHED, 8 HRTIMER, 9 RCU
        vector: u32,
        /// ns from entry to exit
        duration_ns: u64,
        /// reserved, 0
        reserved: u64,
    }
}
