//! System calls of watched processes.

crate::event! {
    /// One completed system call that moves packets or opens a path for them.
    Syscall = Syscall, 64 bytes {
        /// process
        tgid: u32,
        /// system call number of this architecture
        nr: u32,
        /// return value: bytes, messages (recvmmsg, sendmmsg) or a negative errno
        ret: i64,
        /// first argument, the file descriptor for all but `socket`
        fd: i32,
        /// third argument: bytes, buffers (readv) or messages asked for (recvmmsg, sendmmsg)
        count: u32,
        /// ns from entry to exit, all ones if the entry was not seen
        duration_ns: u64,
        /// second argument; for `ioctl` the request
        arg1: u64,
        /// reserved, 0
        reserved: u64,
    }
}

crate::event! {
    /// An io_uring request of a watched process completed.
    IoUring = IoUring, 40 bytes {
        /// kernel address of the ring context
        ring: u64,
        /// `user_data` of the request
        user_data: u64,
        /// result: bytes or a negative errno
        res: i32,
        /// completion flags
        flags: u32,
    }
}
