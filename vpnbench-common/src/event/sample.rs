//! Stack samples.

/// Frames kept on each side of the border.
pub const SAMPLE_DEPTH: usize = 32;

crate::event! {
    /// Stacks of a watched thread: when the CPU clock ticks, when it goes to sleep, or when it wakes
    /// another one; the probe says which.
    Sample = Sample, 544 bytes {
        /// process
        tgid: u32,
        /// valid entries of `kernel`
        kernel_depth: u16,
        /// valid entries of `user`
        user_depth: u16,
        /// kernel return addresses, innermost first
        kernel: [u64; 32],
        /// user return addresses, innermost first
        user: [u64; 32],
        /// thread that it wakes, 0 for the other probes
        woken_tid: u32,
        /// reserved, 0
        reserved: u32,
    }
}
