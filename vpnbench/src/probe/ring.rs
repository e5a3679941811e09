//! The recorder's side of the rings; `vpnbench_common::ring` has the protocol.

use std::io;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::MapData;
use memmap2::{MmapOptions, MmapRaw};
use vpnbench_common::catalog::KINDS;
use vpnbench_common::ring::{BLOCK_BYTES, Block, COMPLETING_WORD, Control, RINGS_MAX};

/// Bytes read before the programs hear that they may have them back: seldom enough that the
/// processors do not fight over the word that says so.
const RELEASE_BYTES: u64 = 32 << 10;

/// How the buffer is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Rings, a power of two.
    pub rings: u32,
    /// Blocks of a ring, as an exponent of two.
    pub blocks_log2: u32,
}

impl Layout {
    /// Divides a buffer of at least one block: a ring for each of `processors`, as long as there
    /// is a block for each.
    #[must_use]
    pub fn new(buffer_bytes: u64, processors: usize) -> Self {
        let blocks = (buffer_bytes / BLOCK_BYTES as u64).max(1);
        let wanted = u64::try_from(processors.next_power_of_two()).unwrap_or(1);
        let rings = wanted.min(u64::from(RINGS_MAX)).min(1 << blocks.ilog2());
        Self {
            rings: rings as u32,
            blocks_log2: (blocks / rings).ilog2(),
        }
    }

    /// Blocks of all rings.
    #[must_use]
    pub fn blocks(self) -> u32 {
        self.rings << self.blocks_log2
    }

    /// Bytes in which records begin. What is behind each block comes on top: 2 %.
    #[must_use]
    pub fn bytes(self) -> u64 {
        u64::from(self.blocks()) * BLOCK_BYTES as u64
    }
}

/// The maps of all rings, as this process sees them.
struct Shared {
    blocks: MmapRaw,
    control: MmapRaw,
    layout: Layout,
    /// Keeps the maps alive, and visible among this process's descriptors.
    _maps: [MapData; 2],
}

/// One ring. Records come out in the order in which the programs took room for them.
pub struct Ring {
    shared: Arc<Shared>,
    index: u32,
    /// Position of the next record.
    next: u64,
    /// The position that the programs know.
    released: u64,
}

/// Size of each kind of record, 0 for none.
static SIZES: [u16; 256] = {
    let mut sizes = [0; 256];
    let mut row = 0;
    while row < KINDS.len() {
        sizes[KINDS[row].kind as usize] = KINDS[row].size as u16;
        row += 1;
    }
    sizes
};

/// Maps the rings of a loaded object.
///
/// # Errors
/// If the kernel does not let this process map them.
pub fn map(blocks: MapData, control: MapData, layout: Layout) -> io::Result<Vec<Ring>> {
    let view = |map: &MapData, bytes: usize| {
        let fd = std::os::fd::AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(map.fd()));
        MmapOptions::new().len(bytes).map_raw(fd)
    };
    let shared = Arc::new(Shared {
        blocks: view(&blocks, layout.blocks() as usize * size_of::<Block>())?,
        control: view(&control, layout.rings as usize * size_of::<Control>())?,
        layout,
        _maps: [blocks, control],
    });
    let ring = |index| Ring {
        shared: shared.clone(),
        index,
        next: 0,
        released: 0,
    };
    Ok((0..layout.rings).map(ring).collect())
}

impl Ring {
    /// The next record, if one is complete. Dropping it frees its room.
    #[expect(
        clippy::should_implement_trait,
        reason = "a record borrows the ring, which an iterator cannot say"
    )]
    pub fn next(&mut self) -> Option<Record<'_>> {
        let at = self.place(self.next);
        // SAFETY: inside the mapping and aligned: positions are multiples of eight and below
        // `BLOCK_BYTES` in a block, which has room for any record behind. Programs write this
        // word only once, after the record.
        let word = unsafe { AtomicU64::from_ptr(at.add(COMPLETING_WORD).cast()) };
        let kind = (word.load(Ordering::Acquire).to_le() >> 48) as u8;
        // 0 as long as nothing complete is there.
        let size = SIZES[usize::from(kind)];
        (size > 0).then_some(Record {
            ring: self,
            at,
            size: usize::from(size),
        })
    }

    /// Gives everything that was read back to the programs.
    pub fn release(&mut self) {
        // SAFETY: inside the mapping of `rings` elements and aligned; only this thread writes it.
        let tail = unsafe {
            let control = self.shared.control.as_mut_ptr().cast::<Control>();
            AtomicU64::from_ptr(&raw mut (*control.add(self.index as usize)).tail)
        };
        tail.store(self.next, Ordering::Release);
        self.released = self.next;
    }

    /// A number that changes whenever a record of this ring found no room.
    #[must_use]
    pub fn refused(&self) -> u64 {
        // SAFETY: inside the mapping of `rings` elements and aligned.
        let refused = unsafe {
            let control = self.shared.control.as_mut_ptr().cast::<Control>();
            AtomicU64::from_ptr(&raw mut (*control.add(self.index as usize)).refused)
        };
        refused.load(Ordering::Acquire)
    }

    /// The memory at a position.
    fn place(&self, position: u64) -> *mut u8 {
        let log2 = self.shared.layout.blocks_log2;
        let block = (position / BLOCK_BYTES as u64) as usize & ((1 << log2) - 1);
        let block = ((self.index as usize) << log2) + block;
        let offset = position as usize & (BLOCK_BYTES - 1);
        // SAFETY: `blocks()` elements are mapped, and the offset is inside one.
        unsafe {
            let base = self.shared.blocks.as_mut_ptr();
            base.add(block * size_of::<Block>() + offset)
        }
    }
}

/// A record in its ring.
pub struct Record<'a> {
    ring: &'a mut Ring,
    at: *mut u8,
    size: usize,
}

impl Deref for Record<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: a complete record, which no program writes before it is released.
        unsafe { std::slice::from_raw_parts(self.at, self.size) }
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        // SAFETY: as above; nothing borrows the record any more. The next record that begins here
        // must find zeros.
        unsafe { self.at.write_bytes(0, self.size) };
        self.ring.next += self.size as u64;
        if self.ring.next - self.ring.released >= RELEASE_BYTES {
            self.ring.release();
        }
    }
}

// SAFETY: `MmapRaw` only holds addresses of memory that lives as long as it does.
unsafe impl Send for Ring {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_never_exceeded_and_at_least_half_used() {
        for buffer in [
            64u64 << 10,
            256 << 10,
            1 << 20,
            100 << 20,
            128 << 20,
            4 << 30,
        ] {
            for processors in [1, 2, 3, 8, 100, 4096] {
                let layout = Layout::new(buffer, processors);
                assert!(layout.rings.is_power_of_two());
                assert!(layout.bytes() <= buffer, "{buffer} {layout:?}");
                assert!(layout.bytes() * 2 > buffer, "{buffer} {layout:?}");
            }
        }
    }
}
