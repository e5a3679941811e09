//! Reads of kernel memory at offsets that user space resolved from BTF.
//!
//! Loads through a typed pointer are checked by the verifier and compiled to one instruction;
//! [`copy`] is for memory behind untyped pointers (packet headers, the shared info).

use core::ffi::c_void;
use core::ptr::read_volatile;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use vpnbench_common::settings::{MISSING, Settings};

/// Filled by the loader before the programs are verified, frozen afterwards.
#[unsafe(no_mangle)]
static SETTINGS: Settings = unsafe { core::mem::zeroed() };

/// The settings as the loader wrote them. Reads must be volatile: the compiler sees zeros.
#[inline(always)]
pub fn settings() -> *const Settings {
    &raw const SETTINGS
}

/// Reads one constant out of [`settings`].
#[macro_export]
macro_rules! setting {
    ($($path:ident).+) => {
        // SAFETY: SETTINGS is a static; volatile because the loader replaces its bytes.
        unsafe { core::ptr::read_volatile(&raw const (*$crate::kernel::settings()).$($path).+) }
    };
}

/// Loads the field `$name` of [`Offsets`](vpnbench_common::settings::Offsets) behind `$base` as
/// `$type`; 0 where the kernel has no such field.
#[macro_export]
macro_rules! field {
    ($base:expr, $name:ident as $type:ty) => {
        $crate::kernel::load::<$type>($base, $crate::setting!(offsets.$name))
    };
}

/// As [`field!`] for a field that every kernel has (`required` in `FIELDS`; the loader refuses to
/// start without it): three instructions fewer, which the packet probes notice.
#[macro_export]
macro_rules! need {
    ($base:expr, $name:ident as $type:ty) => {
        $crate::kernel::load_at::<$type>($base, $crate::setting!(offsets.$name))
    };
}

/// Loads a bit field of at most eight bits that does not cross a byte; 0 if missing.
#[macro_export]
macro_rules! bits {
    ($base:expr, $name:ident) => {
        $crate::kernel::load_bits($base, $crate::setting!(offsets.$name))
    };
}

/// A pointer to a kernel object of the type its name says; may be null.
pub type Pointer = *const c_void;

/// A plain integer, for which all zeros is a value.
pub trait Scalar: Copy {
    /// The value of a field that the kernel does not have.
    const ZERO: Self;
}

macro_rules! scalars {
    ($($type:ty)*) => { $( impl Scalar for $type { const ZERO: Self = 0; } )* };
}
scalars! { u8 u16 u32 u64 i32 i64 }

impl Scalar for Pointer {
    const ZERO: Self = core::ptr::null();
}

/// One load at a constant offset from a typed kernel pointer.
#[inline(always)]
pub fn load<T: Scalar>(base: Pointer, offset: u32) -> T {
    if offset == MISSING {
        return T::ZERO;
    }
    load_at(base, offset & 0xffff)
}

/// One load at a constant offset that is known to be there.
#[inline(always)]
pub fn load_at<T: Scalar>(base: Pointer, offset: u32) -> T {
    // SAFETY: the verifier checks base, offset and size against the kernel's BTF, and faults
    // (a null or stale pointer) read as 0.
    unsafe { read_volatile(base.cast::<u8>().add(offset as usize).cast::<T>()) }
}

/// See [`bits!`].
#[inline(always)]
pub fn load_bits(base: Pointer, offset: u32) -> u8 {
    if offset == MISSING {
        return 0;
    }
    let byte: u8 = load(base, offset & 0xffff);
    let shift = (offset >> 16) & 7;
    let width = offset >> 24;
    if width == 0 || width >= 8 {
        return byte >> shift;
    }
    (byte >> shift) & ((1u32 << width) - 1) as u8
}

/// Copies kernel memory behind an untyped address. On failure the destination is zeroed.
#[inline(always)]
pub fn copy<T>(to: &mut core::mem::MaybeUninit<T>, from: u64) -> bool {
    // SAFETY: the destination is exactly one T; the helper never reads outside mapped memory.
    unsafe {
        bpf_probe_read_kernel(
            to.as_mut_ptr().cast(),
            core::mem::size_of::<T>() as u32,
            from as *const c_void,
        ) == 0
    }
}
