//! The fixed start of every event record.

/// Time, place and type of an event: the first 16 bytes of every record.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Header {
    /// `CLOCK_MONOTONIC` in ns (`bpf_ktime_get_ns`).
    pub time_ns: u64,
    /// Thread that ran when the probe fired. In softirq context this is whichever thread was
    /// interrupted; 0 is the idle task.
    pub tid: u32,
    /// Processor on which the probe fired.
    pub cpu: u16,
    /// [`Kind`](crate::catalog::Kind) of the record, which fixes its size.
    pub kind: u8,
    /// [`ProbeId`](crate::catalog::ProbeId) that produced it.
    pub probe: u8,
}

const _: () = assert!(core::mem::size_of::<Header>() == 16);
