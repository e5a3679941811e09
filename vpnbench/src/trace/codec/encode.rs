//! Records to columns.

use vpnbench_common::catalog::{KINDS, KindRow};

use super::super::varint;
use super::{
    ADDRESS_LITERAL, ADDRESS_PREDICTED, AddressBook, Context, MASK_LITERAL, MASK_TOKENS,
    MASK_WORDS, NO_ADDRESS, SLOTS, TIME_WORDS, mask_token,
};

/// Fields that stay the same in a flow, a socket or a thread: they choose the context. At most
/// four that exist in a kind count, in this order. A good choice costs nothing but bytes: readers
/// do not need it.
const CONTEXT_FIELDS: &[&str] = &[
    "ifindex",
    "tap",
    "sport",
    "woken_tid",
    "prev_tid",
    "nr",
    "fd",
    "vector",
    "port",
];

/// A growing byte stream that always has room for one more value.
#[derive(Default)]
struct Stream {
    bytes: Vec<u8>,
    length: usize,
}

impl Stream {
    #[cold]
    fn grow(&mut self) {
        let room = (self.bytes.len() * 2).max(1024);
        self.bytes.resize(room, 0);
    }

    #[inline]
    fn varint(&mut self, value: u64) {
        if self.length + varint::ROOM > self.bytes.len() {
            self.grow();
        }
        self.length = varint::write(&mut self.bytes, self.length, value);
    }

    #[inline]
    fn byte(&mut self, value: u8) {
        if self.length + varint::ROOM > self.bytes.len() {
            self.grow();
        }
        self.bytes[self.length] = value;
        self.length += 1;
    }

    fn written(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// One mask per record and 32 words.
struct Masks {
    table: [u32; MASK_TOKENS],
    tokens: Stream,
    literals: Stream,
}

impl Masks {
    #[inline]
    fn push(&mut self, mask: u32) {
        let token = mask_token(mask);
        if self.table[token] == mask {
            self.tokens.byte(token as u8);
        } else {
            self.table[token] = mask;
            self.tokens.byte(MASK_LITERAL);
            self.literals.varint(u64::from(mask));
        }
    }
}

/// Streams of the skb addresses of all kinds.
struct Addresses {
    book: AddressBook,
    tokens: Stream,
    low: Stream,
    literals: Stream,
}

impl Addresses {
    #[inline]
    fn push(&mut self, previous: &mut u16, address: u64) {
        let mut index = self.book.predicted(*previous);
        if self.book.value(index) == address {
            self.tokens.byte(ADDRESS_PREDICTED);
        } else {
            index = AddressBook::index(address);
            if self.book.value(index) == address {
                self.tokens.byte((index >> 8) as u8);
                self.low.byte(index as u8);
            } else {
                self.book.values[index as usize] = address;
                self.tokens.byte(ADDRESS_LITERAL);
                self.literals.varint(address.rotate_left(16));
            }
        }
        self.book.learn(previous, index);
    }
}

/// Columns of one kind.
struct KindEncoder {
    kind: u8,
    words: usize,
    context: Vec<usize>,
    address: Option<usize>,
    count: u32,
    rows: Vec<u32>,
    contexts: Vec<Context>,
    slots: Stream,
    masks: Vec<Masks>,
    columns: Vec<Stream>,
}

impl KindEncoder {
    fn new(row: &KindRow) -> Self {
        let words = row.size / 4;
        let body = words - TIME_WORDS;
        let place = |name: &str| {
            row.fields
                .iter()
                .find(|field| field.name == name)
                .map(|field| field.offset / 4)
        };
        let mut context: Vec<usize> = CONTEXT_FIELDS
            .iter()
            .filter_map(|name| place(name))
            .take(4)
            .collect();
        if context.is_empty() {
            context.push(place("sk").or_else(|| place("ring")).unwrap_or(TIME_WORDS));
        } else if place("sport").is_none() {
            context.push(TIME_WORDS);
        }
        let masks = (0..body.div_ceil(MASK_WORDS))
            .map(|_| Masks {
                table: [0; MASK_TOKENS],
                tokens: Stream::default(),
                literals: Stream::default(),
            })
            .collect();
        KindEncoder {
            kind: row.kind as u8,
            words,
            context,
            address: place("skb"),
            count: 0,
            rows: Vec::new(),
            contexts: vec![Context::default(); SLOTS],
            slots: Stream::default(),
            masks,
            columns: (0..body).map(|_| Stream::default()).collect(),
        }
    }

    fn reset(&mut self) {
        self.count = 0;
        if self.rows.is_empty() {
            self.rows = vec![0; SLOTS * self.words];
        }
        self.slots.length = 0;
        for masks in &mut self.masks {
            masks.table.fill(0);
            masks.tokens.length = 0;
            masks.literals.length = 0;
        }
        for column in &mut self.columns {
            column.length = 0;
        }
    }

    #[inline]
    fn slot(&self, record: &[u32]) -> usize {
        let hash = self.context.iter().fold(0u32, |hash, &word| {
            (hash ^ record[word]).wrapping_mul(0x9e37_79b1)
        });
        (hash >> 24) as usize
    }

    #[inline]
    fn push(&mut self, record: &[u32], block: u32, addresses: &mut Addresses) {
        if self.count == 0 {
            self.reset();
        }
        self.count += 1;
        let slot = self.slot(record);
        self.slots.byte(slot as u8);
        let row = &mut self.rows[slot * self.words..(slot + 1) * self.words];
        let context = &mut self.contexts[slot];
        if context.enter(block) {
            row.fill(0);
        }
        if let Some(word) = self.address {
            let address = u64::from(record[word]) | u64::from(record[word + 1]) << 32;
            addresses.push(&mut context.previous, address);
            row[word] = record[word];
            row[word + 1] = record[word + 1];
        }
        let (record, row) = (&record[TIME_WORDS..], &mut row[TIME_WORDS..]);
        let parts = record
            .chunks(MASK_WORDS)
            .zip(row.chunks_mut(MASK_WORDS))
            .zip(self.columns.chunks_mut(MASK_WORDS));
        for (masks, ((record, row), columns)) in self.masks.iter_mut().zip(parts) {
            let changed = changed_words(record, row);
            masks.push(changed);
            store_changes(changed, record, row, columns);
            row.copy_from_slice(record);
        }
    }

    /// All streams in the order in which they are stored.
    fn streams(&self) -> impl Iterator<Item = &Stream> {
        let masks = self
            .masks
            .iter()
            .flat_map(|masks| [&masks.tokens, &masks.literals]);
        std::iter::once(&self.slots)
            .chain(masks)
            .chain(&self.columns)
    }
}

/// Bit mask of the words that differ.
#[inline]
fn changed_words(record: &[u32], row: &[u32]) -> u32 {
    let mut mask = 0;
    if let (Ok(record), Ok(row)) = (
        <&[u32; MASK_WORDS]>::try_from(record),
        <&[u32; MASK_WORDS]>::try_from(row),
    ) {
        for index in 0..MASK_WORDS {
            mask |= u32::from(record[index] != row[index]) << index;
        }
    } else {
        for (index, (new, old)) in record.iter().zip(row).enumerate() {
            mask |= u32::from(new != old) << index;
        }
    }
    mask
}

#[inline]
fn store_changes(mut changed: u32, record: &[u32], row: &[u32], columns: &mut [Stream]) {
    while changed != 0 {
        let index = changed.trailing_zeros() as usize;
        changed &= changed - 1;
        let difference = record[index].wrapping_sub(row[index]);
        columns[index].varint(u64::from(varint::zigzag32(difference)));
    }
}

/// Turns the records of a block into columns. One encoder serves all blocks of a file.
pub(in super::super) struct Encoder {
    kinds: Vec<KindEncoder>,
    by_number: [u8; 256],
    /// Number of the block, for [`Context`].
    block: u32,
    order: Stream,
    times: Stream,
    addresses: Addresses,
}

impl Encoder {
    pub(in super::super) fn new() -> Self {
        let mut by_number = [0; 256];
        for (index, row) in KINDS.iter().enumerate() {
            by_number[row.kind as usize] = index as u8;
        }
        Encoder {
            kinds: KINDS.iter().map(KindEncoder::new).collect(),
            by_number,
            block: 0,
            order: Stream::default(),
            times: Stream::default(),
            addresses: Addresses {
                book: AddressBook::new(),
                tokens: Stream::default(),
                low: Stream::default(),
                literals: Stream::default(),
            },
        }
    }

    /// Encodes records that lie one behind the other, whose kinds the writer has checked, and
    /// replaces the content of `out`. Returns the oldest and the newest time.
    pub(in super::super) fn encode(&mut self, records: &[u64], out: &mut Vec<u8>) -> (u64, u64) {
        self.begin();
        let mut rest = records;
        let mut time_before = 0;
        let (mut first, mut last) = (u64::MAX, 0);
        while let [time, second, ..] = *rest {
            let number = (second >> 48) as u8;
            let kind = &mut self.kinds[self.by_number[number as usize] as usize];
            let (record, behind) = rest.split_at(kind.words / 2);
            self.order.byte(number);
            self.times
                .varint(varint::zigzag64(time.wrapping_sub(time_before)));
            time_before = time;
            (first, last) = (first.min(time), last.max(time));
            kind.push(
                bytemuck::cast_slice(record),
                self.block,
                &mut self.addresses,
            );
            rest = behind;
        }
        self.assemble(out);
        (first.min(last), last)
    }

    fn begin(&mut self) {
        self.block = self.block.wrapping_add(1);
        self.kinds.iter_mut().for_each(|kind| kind.count = 0);
        self.addresses.book.reset();
        for stream in [
            &mut self.order,
            &mut self.times,
            &mut self.addresses.tokens,
            &mut self.addresses.low,
            &mut self.addresses.literals,
        ] {
            stream.length = 0;
        }
    }

    fn assemble(&self, out: &mut Vec<u8>) {
        out.clear();
        let used = || self.kinds.iter().filter(|kind| kind.count > 0);
        let common = [
            &self.order,
            &self.times,
            &self.addresses.tokens,
            &self.addresses.low,
            &self.addresses.literals,
        ];
        out.extend_from_slice(&(used().count() as u32).to_le_bytes());
        for stream in common {
            out.extend_from_slice(&(stream.length as u32).to_le_bytes());
        }
        for kind in used() {
            out.extend_from_slice(&[kind.kind, 0]);
            out.extend_from_slice(&(kind.words as u16).to_le_bytes());
            out.extend_from_slice(
                &kind
                    .address
                    .map_or(NO_ADDRESS, |word| word as u16)
                    .to_le_bytes(),
            );
            out.extend_from_slice(&[0, 0]);
            out.extend_from_slice(&kind.count.to_le_bytes());
            for stream in kind.streams() {
                out.extend_from_slice(&(stream.length as u32).to_le_bytes());
            }
        }
        for stream in common {
            out.extend_from_slice(stream.written());
        }
        for stream in used().flat_map(KindEncoder::streams) {
            out.extend_from_slice(stream.written());
        }
    }
}
