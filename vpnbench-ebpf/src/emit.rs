//! The only file that touches the rings; the protocol is in `vpnbench_common::ring`. Counts what
//! it cannot store.

use core::arch::asm;
use core::mem::{offset_of, size_of};
use core::ptr::read_volatile;
#[cfg(bpf_target_arch = "x86_64")]
use core::{
    ptr::write_volatile,
    sync::atomic::{Ordering, compiler_fence},
};

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_get_smp_processor_id, bpf_ktime_get_ns};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray};
use vpnbench_common::catalog::{PROBE_SLOTS, ProbeId};
use vpnbench_common::header::Header;
use vpnbench_common::layout::Event;
use vpnbench_common::ring::{ATTEMPTS, BLOCK_BYTES, Block, COMPLETING_WORD, Control};
use vpnbench_common::settings::{DEVICE_LIMIT, Device, ProbeCounts, Unrecorded};

use crate::setting;

/// `BPF_F_MMAPABLE`: the recorder maps the elements.
const SHARED: u32 = 1 << 10;

/// The blocks of all rings, ring by ring. The loader sets their number.
#[map]
static RINGS: Array<Block> = Array::with_max_entries(1, SHARED);

/// One element per ring.
#[map]
static CONTROL: Array<Control> = Array::with_max_entries(1, SHARED);

#[map]
static COUNTS: PerCpuArray<ProbeCounts> = PerCpuArray::with_max_entries(PROBE_SLOTS as u32, 0);

#[map]
static UNRECORDED: PerCpuArray<Unrecorded> = PerCpuArray::with_max_entries(DEVICE_LIMIT * 16, 0);

/// Room for one record, with its time already written. Every path from here must end in
/// [`Slot::submit`]: the records behind it wait for it.
#[must_use]
pub struct Slot<T> {
    to: *mut T,
    /// The record's time, `CLOCK_MONOTONIC` in ns.
    pub time_ns: u64,
    cpu: u32,
    probe: ProbeId,
}

impl<T: Event> Slot<T> {
    /// The record. Zero but for the time; the header belongs to [`Slot`].
    #[inline(always)]
    pub fn as_mut_ptr(&mut self) -> *mut T {
        self.to
    }

    /// Completes the record and makes it visible.
    #[inline(always)]
    pub fn submit(self) {
        // The second word of `Header`: thread, processor, kind and probe.
        let word = u64::from_le(
            bpf_get_current_pid_tgid() & 0xffff_ffff
                | u64::from(self.cpu & 0xffff) << 32
                | (T::KIND as u64) << 48
                | (self.probe as u64) << 56,
        );
        const {
            assert!(offset_of!(Header, tid) == COMPLETING_WORD && size_of::<Header>() == 16);
            assert!(
                cfg!(target_endian = "little"),
                "the word is laid out for little endian"
            );
        }
        // SAFETY: inside the record, which is aligned to eight bytes.
        unsafe { publish(self.to.cast::<u8>().add(COMPLETING_WORD).cast(), word) };
    }
}

/// Stores a word after everything that was written before.
///
/// # Safety
/// `to` must be valid and aligned.
#[inline(always)]
#[cfg(bpf_target_arch = "x86_64")]
unsafe fn publish(to: *mut u64, word: u64) {
    compiler_fence(Ordering::Release);
    // SAFETY: the caller's. Other processors see this one's stores in their order.
    unsafe { write_volatile(to, word) };
}

/// Stores a word after everything that was written before.
///
/// # Safety
/// `to` must be valid and aligned.
#[inline(always)]
#[cfg(not(bpf_target_arch = "x86_64"))]
unsafe fn publish(to: *mut u64, word: u64) {
    // SAFETY: the caller's. An exchange is fully ordered (BPF_XCHG, instruction set
    // specification), and the compiler moves no access across the assembly.
    unsafe {
        asm!(
            "{word} = xchg_64({to} + 0, {word})",
            to = in(reg) to,
            word = inout(reg) word => _,
            options(nostack),
        );
    }
}

/// Puts `new` in place of `old` and says what was there: `old` if it did. The language has no such
/// operation for this target; the instruction set has since Linux 5.12.
///
/// # Safety
/// `at` must be valid and aligned.
#[inline(always)]
unsafe fn exchange(at: *mut u64, old: u64, new: u64) -> u64 {
    let found: u64;
    // SAFETY: the caller's. Fully ordered, also for the compiler.
    unsafe {
        asm!(
            "r0 = cmpxchg_64({at} + 0, r0, {new})",
            at = in(reg) at,
            new = in(reg) new,
            inout("r0") old => found,
            options(nostack),
        );
    }
    found
}

/// Takes room for one record; counts the loss if there is none.
#[inline(always)]
pub fn reserve<T: Event>(probe: ProbeId) -> Option<Slot<T>> {
    let cpu = cpu();
    let to = take(cpu & setting!(ring_mask), size_of::<T>());
    if to.is_null() {
        if let Some(counts) = COUNTS.get_ptr_mut(probe as u32) {
            // SAFETY: a per-CPU slot.
            add(unsafe { &raw mut (*counts).lost }, 1);
        }
        if let Some(control) = CONTROL.get_ptr_mut(cpu & setting!(ring_mask)) {
            // A program that interrupts this one may add at the same time: then it changes by one and
            // not by two, which is a change all the same.
            // SAFETY: an element of the array map.
            add(unsafe { &raw mut (*control).refused }, 1);
        }
        return None;
    }
    let to: *mut T = to.cast();
    // SAFETY: a helper without arguments.
    let time_ns = unsafe { bpf_ktime_get_ns() };
    // SAFETY: every event begins with a header, and a header with the time.
    unsafe { to.cast::<u64>().write(time_ns) };
    Some(Slot {
        to,
        time_ns,
        cpu,
        probe,
    })
}

/// Takes `size` bytes of a ring, null if there is no room. A plain pointer and no `Option`: the
/// verifier would see the compiler's discriminant and the pointer apart.
#[inline(always)]
fn take(ring: u32, size: usize) -> *mut u8 {
    const NONE: *mut u8 = core::ptr::null_mut();
    let Some(control) = CONTROL.get_ptr_mut(ring) else {
        return NONE;
    };
    let blocks_log2 = setting!(ring_blocks_log2) & 31;
    let room = (BLOCK_BYTES as u64) << blocks_log2;
    // SAFETY: an element of the array map. Programs that interrupt this one change `head`, the
    // recorder changes `tail`: both are read anew each time.
    let (head_at, tail_at) = unsafe { (&raw mut (*control).head, &raw const (*control).tail) };
    let mut attempt = 0;
    while attempt < ATTEMPTS {
        // SAFETY: as above.
        let (tail, head) = unsafe { (read_volatile(tail_at), read_volatile(head_at)) };
        if head + size as u64 - tail > room {
            return NONE;
        }
        // SAFETY: as above.
        if unsafe { exchange(head_at, head, head + size as u64) } == head {
            return place(ring, blocks_log2, head);
        }
        attempt += 1;
    }
    NONE
}

/// The memory at a position.
#[inline(always)]
fn place(ring: u32, blocks_log2: u32, position: u64) -> *mut u8 {
    let block = (position / BLOCK_BYTES as u64) as u32 & ((1 << blocks_log2) - 1);
    match RINGS.get_ptr_mut((ring << blocks_log2) + block) {
        // SAFETY: below `BLOCK_BYTES`, with room for any record behind. Positions are multiples of
        // eight; the mask says so to the verifier.
        Some(block) => unsafe {
            let offset = position as usize & (BLOCK_BYTES - 8);
            block.cast::<u8>().add(offset)
        },
        // Never: the map has as many elements as the settings say.
        None => core::ptr::null_mut(),
    }
}

/// Reserves, builds and submits in one step.
#[inline(always)]
pub fn emit<T: Event>(probe: ProbeId, build: impl FnOnce(Header) -> T) {
    if let Some(slot) = reserve::<T>(probe) {
        fill(slot, build);
    }
}

/// Builds and submits.
#[inline(always)]
pub fn fill<T: Event>(mut slot: Slot<T>, build: impl FnOnce(Header) -> T) {
    let header = Header {
        time_ns: slot.time_ns,
        tid: 0,
        cpu: 0,
        kind: 0,
        probe: 0,
    };
    // SAFETY: the record is reserved for us.
    unsafe { slot.as_mut_ptr().write(build(header)) };
    slot.submit();
}

/// The CPU this program runs on.
#[inline(always)]
fn cpu() -> u32 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_get_smp_processor_id() }
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

/// Counts a packet that found no room in the ring.
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
/// itself on the same CPU, and every counter belongs to one program.
#[inline(always)]
pub fn add(counter: *mut u64, value: u64) {
    // SAFETY: callers pass an aligned counter inside a map value.
    unsafe { *counter += value };
}
