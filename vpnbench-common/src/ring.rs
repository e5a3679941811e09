//! The rings that carry records from the programs to the recorder: memory that both sides map, so
//! that a program needs no helper call to store a record.
//!
//! The kernel's own ring buffer costs two helper calls and a spin lock per record, which is a good
//! part of what a probe costs. Here a program takes room with one compare-and-exchange and
//! publishes the record with one store.
//!
//! # The protocol
//!
//! A ring is a sequence of bytes, addressed by positions that only grow. Position `p` lies in
//! block `p / BLOCK_BYTES % blocks`, at byte `p % BLOCK_BYTES`. A record *begins* below
//! [`BLOCK_BYTES`] and may run into the [`TAIL_BYTES`] that follow, so no record is ever cut in
//! two; the next one begins correspondingly later in the next block. Each block is one element of
//! an array map, which is what bounds every access for the verifier.
//!
//! 1. A program reads [`Control::tail`] and [`Control::head`], and takes its room by exchanging
//!    `head` for `head + size` if `head` has not changed meanwhile. It only tries if
//!    `head + size - tail` fits the ring, and the exchange makes that test and the taking one
//!    step: a program that interrupts another one in between makes the exchange of the latter
//!    fail, and it tries again ([`ATTEMPTS`]). So what is taken never reaches what is not yet
//!    read, however programs nest; what does not fit is counted and not stored.
//! 2. It writes the record, except for its second word: thread, processor, kind and probe.
//! 3. It writes that word, which is never zero because kinds and probes count from 1, with release
//!    semantics: whoever sees it sees the record.
//! 4. The recorder looks at the second word where the next record must begin. Zero: nothing there
//!    yet, or not complete. Else it takes the record, overwrites it with zeros, and then moves
//!    `tail` behind it with release semantics: whoever sees the new `tail` sees the zeros.
//!
//! All bytes between `head` and `tail + ring` are therefore zero, and a record is taken whole or
//! not at all. The order of memory: on x86-64 stores are seen in program order, so step 3 is a
//! plain store; elsewhere it is an atomic exchange, which the BPF instruction set defines as fully
//! ordered. Step 1's exchange is fully ordered everywhere and depends on the `tail` read before
//! it, so a record is not written before its room was seen to be free.
//!
//! Several processors may share a ring: nothing above depends on who the programs are.

use crate::catalog::KINDS;

/// Bytes of a block in which records begin.
pub const BLOCK_BYTES: usize = 32 << 10;

/// Room behind a block for the record that begins last in it.
pub const TAIL_BYTES: usize = 576;

/// Exchanges a program tries. It fails only when another program took room on the same ring
/// between two instructions, so that two in a row are already rare.
pub const ATTEMPTS: u32 = 8;

/// Most rings. Processors beyond share.
pub const RINGS_MAX: u32 = 256;

/// Blocks of all rings, the elements of the `RINGS` map.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy)]
pub struct Block(pub [u8; BLOCK_BYTES + TAIL_BYTES]);

/// Where a ring begins and ends, one element of the `CONTROL` map per ring. Each side writes a
/// cache line of its own.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy)]
pub struct Control {
    /// Position behind the last record that a program has taken room for.
    pub head: u64,
    /// Changes whenever records found no room: the sign to read the counters by probe. 0 in all but bad
    /// times.
    pub refused: u64,
    reserved: [u64; 14],
    /// Position of the next record to read; the recorder writes it.
    pub tail: u64,
    reserved_too: [u64; 15],
}

const _: () = assert!(core::mem::size_of::<Control>() == 256);
const _: () = assert!(BLOCK_BYTES.is_power_of_two() && TAIL_BYTES.is_multiple_of(8));

/// Offset of the word that completes a record, in a record.
pub const COMPLETING_WORD: usize = 8;

const _: () = {
    let mut row = 0;
    while row < KINDS.len() {
        assert!(KINDS[row].size <= TAIL_BYTES && KINDS[row].size.is_multiple_of(8));
        assert!(KINDS[row].size > COMPLETING_WORD && KINDS[row].kind as u8 != 0);
        row += 1;
    }
};
