//! Columns to records. Everything here may be hostile: each access is checked, sizes are capped
//! before anything is allocated, and a block that does not add up is refused as a whole.

use super::super::upgrade::FieldMap;
use super::super::varint;
use super::{
    ADDRESS_LITERAL, ADDRESS_PREDICTED, ADDRESSES, AddressBook, Context, MASK_LITERAL, MASK_TOKENS,
    MASK_WORDS, NO_ADDRESS, SLOTS, TIME_WORDS, mask_token,
};

/// Decoded bytes of one block; a writer stays far below.
const BLOCK_BYTES_MAX: u64 = 16 << 20;

/// Words of a record; bounds the memory for hostile files.
const RECORD_WORDS_MAX: usize = 512;

/// How the records of one kind lie in a file, and how they become ours.
pub(in super::super) struct KindShape {
    /// Words of a record in the file, 0 if the file does not describe the kind.
    pub(in super::super) words: usize,
    /// The way into our struct; `None` for kinds this version does not know.
    pub(in super::super) map: Option<FieldMap>,
}

/// Shapes by kind number.
pub(in super::super) type Shapes = [KindShape; 256];

/// What a block held beside the decoded records.
#[derive(Default)]
pub(in super::super) struct Decoded {
    /// Records of kinds that this version does not know.
    pub(in super::super) unknown: u64,
}

/// Where a record of a decoded block lies.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Place {
    pub(in super::super) time_ns: u64,
    /// First 8-byte word in the output.
    pub(in super::super) offset: u32,
}

type Refusal = &'static str;

const SHORT: Refusal = "a column ends early";

/// Reading position in a stream.
#[derive(Debug, Clone, Copy, Default)]
struct Cursor {
    at: usize,
    end: usize,
}

impl Cursor {
    #[inline]
    fn varint(&mut self, raw: &[u8]) -> Result<u64, Refusal> {
        let (value, behind) = varint::read(raw, self.at).ok_or(SHORT)?;
        self.at = behind;
        Ok(value)
    }

    #[inline]
    fn byte(&mut self, raw: &[u8]) -> Result<u8, Refusal> {
        let value = *raw.get(self.at).ok_or(SHORT)?;
        self.at += 1;
        Ok(value)
    }

    fn number<const N: usize>(&mut self, raw: &[u8]) -> Result<u32, Refusal> {
        let bytes: [u8; N] = raw
            .get(self.at..)
            .and_then(|rest| rest.first_chunk())
            .copied()
            .ok_or(SHORT)?;
        self.at += N;
        Ok(bytes
            .iter()
            .rev()
            .fold(0, |value, &byte| value << 8 | u32::from(byte)))
    }

    fn is_done(&self) -> bool {
        self.at == self.end
    }
}

struct Masks {
    table: [u32; MASK_TOKENS],
    tokens: Cursor,
    literals: Cursor,
}

impl Masks {
    fn new() -> Self {
        Masks {
            table: [0; MASK_TOKENS],
            tokens: Cursor::default(),
            literals: Cursor::default(),
        }
    }

    #[inline]
    fn next(&mut self, raw: &[u8]) -> Result<u32, Refusal> {
        let token = self.tokens.byte(raw)?;
        if token != MASK_LITERAL {
            return Ok(self.table[token as usize]);
        }
        let mask = self.literals.varint(raw)? as u32;
        self.table[mask_token(mask)] = mask;
        Ok(mask)
    }
}

struct Addresses {
    book: AddressBook,
    tokens: Cursor,
    low: Cursor,
    literals: Cursor,
}

impl Addresses {
    #[inline]
    fn next(&mut self, raw: &[u8], previous: &mut u16) -> Result<u64, Refusal> {
        let token = self.tokens.byte(raw)?;
        let index = match token {
            ADDRESS_PREDICTED => self.book.predicted(*previous),
            ADDRESS_LITERAL => {
                let address = self.literals.varint(raw)?.rotate_right(16);
                let index = AddressBook::index(address);
                self.book.values[index as usize % ADDRESSES] = address;
                index
            }
            high => u16::from(high) << 8 | u16::from(self.low.byte(raw)?),
        };
        self.book.learn(previous, index);
        Ok(self.book.value(index))
    }
}

/// Columns of one kind in the current block, with buffers that outlive it.
#[derive(Default)]
struct KindDecoder {
    /// In the current block.
    present: bool,
    /// Whether its columns are read. Those of an unknown kind are skipped, unless it takes part in
    /// the address book, which all kinds share.
    is_read: bool,
    words: usize,
    address: Option<usize>,
    count: u32,
    rows: Vec<u64>,
    contexts: Vec<Context>,
    slots: Cursor,
    masks: Vec<Masks>,
    columns: Vec<Cursor>,
}

impl KindDecoder {
    /// Reads the directory entry of the kind behind its number.
    fn read_directory(
        &mut self,
        raw: &[u8],
        at: &mut Cursor,
        shape: &KindShape,
    ) -> Result<(), Refusal> {
        at.byte(raw)?;
        self.words = at.number::<2>(raw)? as usize;
        let address = at.number::<2>(raw)? as u16;
        at.number::<2>(raw)?;
        self.count = at.number::<4>(raw)?;
        self.present = true;
        if shape.words != 0 && shape.words != self.words {
            return Err("records have another size than the start frame says");
        }
        if self.words <= TIME_WORDS
            || self.words > RECORD_WORDS_MAX
            || !self.words.is_multiple_of(2)
        {
            return Err("impossible record size");
        }
        self.address = (address != NO_ADDRESS).then_some(address as usize);
        if self
            .address
            .is_some_and(|word| word < TIME_WORDS || word + 1 >= self.words)
        {
            return Err("an address field outside of the record");
        }
        let body = self.words - TIME_WORDS;
        self.masks
            .resize_with(body.div_ceil(MASK_WORDS), Masks::new);
        self.columns.resize(body, Cursor::default());
        for cursor in self.cursors() {
            cursor.end = at.number::<4>(raw)? as usize;
        }
        Ok(())
    }

    fn cursors(&mut self) -> impl Iterator<Item = &mut Cursor> {
        let masks = self
            .masks
            .iter_mut()
            .flat_map(|masks| [&mut masks.tokens, &mut masks.literals]);
        std::iter::once(&mut self.slots)
            .chain(masks)
            .chain(&mut self.columns)
    }

    fn reset(&mut self) {
        // The size can change from block to block only in kinds that the file does not describe.
        if self.rows.len() != SLOTS * self.words / 2 {
            self.rows = vec![0; SLOTS * self.words / 2];
            self.contexts = vec![Context::default(); SLOTS];
        }
        self.masks.iter_mut().for_each(|masks| masks.table.fill(0));
    }

    /// Restores the next record and returns it.
    #[inline]
    fn next(
        &mut self,
        raw: &[u8],
        time: u64,
        block: u32,
        addresses: &mut Addresses,
    ) -> Result<&[u64], Refusal> {
        let slot = self.slots.byte(raw)? as usize;
        let size = self.words / 2;
        let record = self
            .rows
            .get_mut(slot * size..(slot + 1) * size)
            .ok_or(SHORT)?;
        let context = &mut self.contexts[slot];
        if context.enter(block) {
            record.fill(0);
        }
        record[0] = time;
        let row: &mut [u32] = bytemuck::cast_slice_mut(record);
        if let Some(word) = self.address {
            let address = addresses.next(raw, &mut context.previous)?;
            row[word] = address as u32;
            row[word + 1] = (address >> 32) as u32;
        }
        let parts = row[TIME_WORDS..]
            .chunks_mut(MASK_WORDS)
            .zip(self.columns.chunks_mut(MASK_WORDS));
        for (masks, (row, columns)) in self.masks.iter_mut().zip(parts) {
            let mut changed = masks.next(raw)?;
            while changed != 0 {
                let index = changed.trailing_zeros() as usize;
                changed &= changed - 1;
                let (Some(word), Some(column)) = (row.get_mut(index), columns.get_mut(index))
                else {
                    return Err("a mask names a word outside of the record");
                };
                let difference = varint::unzigzag32(column.varint(raw)? as u32);
                *word = word.wrapping_add(difference);
            }
        }
        Ok(record)
    }
}

/// Restores the records of blocks. One decoder serves all blocks of a file.
pub(in super::super) struct Decoder {
    kinds: Vec<KindDecoder>,
    addresses: Addresses,
    /// Number of the block, for [`Context`].
    block: u32,
    order: Cursor,
    times: Cursor,
}

impl Decoder {
    pub(in super::super) fn new() -> Self {
        let none = Cursor::default();
        Decoder {
            kinds: (0..256).map(|_| KindDecoder::default()).collect(),
            addresses: Addresses {
                book: AddressBook::new(),
                tokens: none,
                low: none,
                literals: none,
            },
            block: 0,
            order: none,
            times: none,
        }
    }

    /// Restores the `records` records of a block behind the end of `out`, and their places behind
    /// the end of `places`. On refusal both may hold some of them.
    ///
    /// `raw` is the block without compression and [`varint::ROOM`] zero bytes behind it.
    pub(in super::super) fn decode(
        &mut self,
        raw: &[u8],
        records: u32,
        shapes: &Shapes,
        out: &mut Vec<u64>,
        places: &mut Vec<Place>,
    ) -> Result<Decoded, Refusal> {
        self.read_directory(raw, records, shapes)?;
        let mut decoded = Decoded::default();
        let mut time = 0u64;
        for _ in 0..records {
            let number = self.order.byte(raw)?;
            time = time.wrapping_add(varint::unzigzag64(self.times.varint(raw)?));
            let kind = &mut self.kinds[number as usize];
            if !kind.present {
                return Err("a record of a kind that has no columns");
            }
            if !kind.is_read {
                decoded.unknown += 1;
                continue;
            }
            let record = kind.next(raw, time, self.block, &mut self.addresses)?;
            let Some(map) = &shapes[number as usize].map else {
                decoded.unknown += 1;
                continue;
            };
            places.push(Place {
                time_ns: time,
                offset: out.len() as u32,
            });
            map.append(record, number, out);
        }
        let read = self
            .kinds
            .iter_mut()
            .filter(|kind| kind.present && kind.is_read);
        let mut streams = read.flat_map(KindDecoder::cursors);
        let all_read =
            streams.all(|cursor| cursor.is_done()) && self.order.is_done() && self.times.is_done();
        if all_read {
            Ok(decoded)
        } else {
            Err("columns hold more than the records")
        }
    }

    /// Reads the directory and places all cursors.
    fn read_directory(&mut self, raw: &[u8], records: u32, shapes: &Shapes) -> Result<(), Refusal> {
        self.block = self.block.wrapping_add(1);
        self.kinds.iter_mut().for_each(|kind| kind.present = false);
        let mut at = Cursor::default();
        let sections = at.number::<4>(raw)?;
        let addresses = &mut self.addresses;
        let common = [
            &mut self.order,
            &mut self.times,
            &mut addresses.tokens,
            &mut addresses.low,
            &mut addresses.literals,
        ];
        for cursor in common {
            cursor.end = at.number::<4>(raw)? as usize;
        }
        let mut in_order = Vec::new();
        let (mut bytes, mut counted) = (0u64, 0u64);
        for _ in 0..sections {
            let number = at.byte(raw)?;
            let shape = &shapes[number as usize];
            let kind = &mut self.kinds[number as usize];
            if kind.present {
                return Err("columns of the same kind twice");
            }
            kind.read_directory(raw, &mut at, shape)?;
            in_order.push(number);
            counted += u64::from(kind.count);
            let size = shape.map.as_ref().map_or(0, |map| map.words() as u64 * 8);
            bytes += size * u64::from(kind.count);
        }
        if counted != u64::from(records) || self.order.end as u64 != counted {
            return Err("the number of records does not add up");
        }
        if bytes > BLOCK_BYTES_MAX {
            return Err("more records than a block may hold");
        }
        self.place_cursors(raw.len(), at.at, &in_order, shapes)
    }

    /// Turns lengths into positions, in the order in which the streams are stored.
    fn place_cursors(
        &mut self,
        raw_length: usize,
        mut position: usize,
        in_order: &[u8],
        shapes: &Shapes,
    ) -> Result<(), Refusal> {
        let mut place = |cursor: &mut Cursor| {
            cursor.at = position;
            position = position.saturating_add(cursor.end);
            cursor.end = position;
        };
        let addresses = &mut self.addresses;
        place(&mut self.order);
        place(&mut self.times);
        place(&mut addresses.tokens);
        place(&mut addresses.low);
        place(&mut addresses.literals);
        addresses.book.reset();
        for &number in in_order {
            let kind = &mut self.kinds[number as usize];
            kind.cursors().for_each(&mut place);
            kind.is_read = shapes[number as usize].map.is_some() || kind.address.is_some();
            if kind.is_read {
                kind.reset();
            }
        }
        if position + varint::ROOM == raw_length {
            Ok(())
        } else {
            Err("the columns do not fill the block")
        }
    }
}
