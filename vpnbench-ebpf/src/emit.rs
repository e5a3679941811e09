//! The only file that touches the ring buffers. Counts what it cannot store.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_get_smp_processor_id, bpf_ktime_get_ns};
use aya_ebpf::macros::map;
use aya_ebpf::maps::ring_buf::RingBufEntry;
use aya_ebpf::maps::{PerCpuArray, RingBuf};
use vpnbench_common::catalog::{PROBE_SLOTS, ProbeId};
use vpnbench_common::header::Header;
use vpnbench_common::layout::Event;
use vpnbench_common::settings::{DEVICE_LIMIT, Device, ProbeCounts, Unrecorded};

use crate::setting;

/// Submits without waking the reader, which polls: a wake-up per event would cost more than the
/// event.
const NO_WAKEUP: u64 = 1;

// One ring per group of CPUs, so that CPUs seldom meet on a ring's lock. The loader sets the
// sizes; rings that are not in use stay at one page.
#[map]
static RING0: RingBuf = RingBuf::with_byte_size(4096, 0);
#[map]
static RING1: RingBuf = RingBuf::with_byte_size(4096, 0);
#[map]
static RING2: RingBuf = RingBuf::with_byte_size(4096, 0);
#[map]
static RING3: RingBuf = RingBuf::with_byte_size(4096, 0);

#[map]
static COUNTS: PerCpuArray<ProbeCounts> = PerCpuArray::with_max_entries(PROBE_SLOTS as u32, 0);

#[map]
static UNRECORDED: PerCpuArray<Unrecorded> = PerCpuArray::with_max_entries(DEVICE_LIMIT * 16, 0);

/// Reserves room for one record; counts the loss if there is none.
#[inline(always)]
pub fn reserve<T: Event>(probe: ProbeId, cpu: u32) -> Option<RingBufEntry<T>> {
    let entry = match cpu & (setting!(rings) - 1) & 3 {
        0 => RING0.reserve::<T>(0),
        1 => RING1.reserve::<T>(0),
        2 => RING2.reserve::<T>(0),
        _ => RING3.reserve::<T>(0),
    };
    if entry.is_none()
        && let Some(counts) = COUNTS.get_ptr_mut(probe as u32)
    {
        // SAFETY: a per-CPU slot.
        add(unsafe { &raw mut (*counts).lost }, 1);
    }
    entry
}

/// Fills the header, writes the record and makes it visible.
#[inline(always)]
pub fn submit<T: Event>(mut entry: RingBufEntry<T>, record: T) {
    entry.write(record);
    entry.submit(NO_WAKEUP);
}

/// Reserves, builds and submits in one step.
#[inline(always)]
pub fn emit<T: Event>(probe: ProbeId, build: impl FnOnce(Header) -> T) {
    let cpu = cpu();
    if let Some(entry) = reserve::<T>(probe, cpu) {
        submit(entry, build(header::<T>(probe, cpu)));
    }
}

/// The CPU this program runs on.
#[inline(always)]
pub fn cpu() -> u32 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_get_smp_processor_id() }
}

/// Time, CPU, thread and type of an event that happens now.
#[inline(always)]
pub fn header<T: Event>(probe: ProbeId, cpu: u32) -> Header {
    Header {
        // SAFETY: a helper without arguments.
        time_ns: unsafe { bpf_ktime_get_ns() },
        tid: bpf_get_current_pid_tgid() as u32,
        cpu: cpu as u16,
        kind: T::KIND as u8,
        probe: probe as u8,
    }
}

/// Counts a packet of other traffic that the port filter left out.
#[inline(always)]
pub fn count_filtered(device: &Device, tap: u8, bytes: u32) {
    if let Some(counts) = unrecorded(device, tap) {
        // SAFETY: a per-CPU slot of the map.
        unsafe {
            add(&raw mut (*counts).filtered_units, 1);
            add(&raw mut (*counts).filtered_bytes, u64::from(bytes));
        }
    }
}

/// Counts a packet that found no room in the ring buffer.
#[inline(always)]
pub fn count_lost(device: &Device, tap: u8, bytes: u32) {
    if let Some(counts) = unrecorded(device, tap) {
        // SAFETY: a per-CPU slot of the map.
        unsafe {
            add(&raw mut (*counts).lost_units, 1);
            add(&raw mut (*counts).lost_bytes, u64::from(bytes));
        }
    }
}

#[inline(always)]
fn unrecorded(device: &Device, tap: u8) -> Option<*mut Unrecorded> {
    UNRECORDED.get_ptr_mut((device.index & (DEVICE_LIMIT - 1)) * 16 + u32::from(tap & 15))
}

/// Adds to a counter of one probe on one CPU. Not atomic: the kernel never runs a program inside
/// itself on the same CPU (it counts a recursion miss instead, which the recorder adds to the
/// losses), and every counter belongs to one program.
#[inline(always)]
pub fn add(counter: *mut u64, value: u64) {
    // SAFETY: callers pass an aligned counter inside a map value.
    unsafe { *counter += value };
}
