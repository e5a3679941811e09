//! Records of one ring as columns, which compress to a tenth.
//!
//! A record is a row of 4-byte words. Each kind keeps 256 rows of context, chosen by what stays
//! the same in a flow (device, tap, ports; or socket; or thread), and a record is stored as the
//! differences to the row of its context: which words changed (a token for the bit mask), and by
//! how much (a varint in the column of the word). Time is the difference to the record before, of
//! any kind. Addresses of skbs, which repeat at random, go through an [`AddressBook`].
//!
//! The choice of context is stored, so a reader needs none of the rules by which it was made.
//! Contexts start empty in each block: blocks decode on their own.

mod decode;
mod encode;

pub(super) use decode::{Decoder, KindShape, Place, Shapes};
pub(super) use encode::Encoder;

/// Context rows of a kind; their numbers fit one byte.
const SLOTS: usize = 256;
/// Words of a record covered by one mask.
const MASK_WORDS: usize = 32;
/// Masks that have a token of their own.
const MASK_TOKENS: usize = 255;
/// The token that says: a mask that was not in the table follows in the literals.
const MASK_LITERAL: u8 = 255;
/// Words of the time stamp, which is not among the columns.
const TIME_WORDS: usize = 2;
/// Entries of the address book.
const ADDRESSES: usize = 4096;
/// The address that followed the last time.
const ADDRESS_PREDICTED: u8 = 16;
/// An address that was not in the book; it follows in the literals.
const ADDRESS_LITERAL: u8 = 17;
/// "This kind has no address field."
const NO_ADDRESS: u16 = u16::MAX;

/// The table entry in which a mask is looked for.
#[inline]
const fn mask_token(mask: u32) -> usize {
    ((mask.wrapping_mul(0x9e37_79b1) >> 16) as usize * MASK_TOKENS) >> 16
}

/// What is known about a context beside its row.
#[derive(Clone, Copy, Default)]
struct Context {
    /// Block for which the row is valid; in any other block it counts as zeros. This saves
    /// clearing all rows for each block.
    block: u32,
    /// Entry of the address before.
    previous: u16,
}

impl Context {
    /// Begins anew if this is another block; then the row is to be cleared.
    #[inline]
    fn enter(&mut self, block: u32) -> bool {
        let is_new = self.block != block;
        if is_new {
            *self = Context { block, previous: 0 };
        }
        is_new
    }
}

/// Recently seen skb addresses, and which one came after which. The kernel takes skbs from a
/// small set over and over, and queues hand on packets in order: when the same skbs pass the
/// next tap, each address is predicted by the one before it.
struct AddressBook {
    values: Box<[u64; ADDRESSES]>,
    next: Box<[u16; ADDRESSES]>,
}

impl AddressBook {
    fn new() -> Self {
        AddressBook {
            values: Box::new([0; ADDRESSES]),
            next: Box::new([0; ADDRESSES]),
        }
    }

    fn reset(&mut self) {
        self.values.fill(0);
        self.next.fill(0);
    }

    /// The entry in which an address is looked for.
    #[inline]
    const fn index(address: u64) -> u16 {
        (address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 52) as u16
    }

    /// The entry that followed `previous` the last time. Entries are always in range: both come
    /// from [`index`](Self::index) or from twelve bits of the file.
    #[inline]
    fn predicted(&self, previous: u16) -> u16 {
        self.next[previous as usize % ADDRESSES]
    }

    #[inline]
    fn value(&self, index: u16) -> u64 {
        self.values[index as usize % ADDRESSES]
    }

    #[inline]
    fn learn(&mut self, previous: &mut u16, index: u16) {
        self.next[*previous as usize % ADDRESSES] = index;
        *previous = index;
    }
}
