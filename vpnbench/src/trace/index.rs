//! The index: where the blocks are and which times they span. A file without it (a recording that
//! was killed) loses nothing: the index is rebuilt by walking the frame headers.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use super::error::TraceError;
use super::format::{
    BLOCK_HEADER, BlockHeader, FILE_HEADER, FRAME_HEADER, FrameHeader, INDEX_MAGIC, PAYLOAD_MAX,
    frame_type, u32_at, u64_at,
};

/// Bytes of an entry.
const ENTRY: usize = 40;
/// Bytes at the end of the payload: place of the index frame and the magic.
const TRAILER: usize = 16;
/// Entries a writer keeps; with more, neighbours are joined, so a long recording needs no more memory.
const ENTRIES_MAX: usize = 16 << 10;

/// One block, or a few blocks one behind the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexEntry {
    /// Byte of the first block's frame.
    pub offset: u64,
    /// Oldest record.
    pub first_ns: u64,
    /// Newest record.
    pub last_ns: u64,
    /// Records in the blocks.
    pub records: u64,
    /// Blocks.
    pub blocks: u32,
}

/// Places of the blocks of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Index {
    /// Entries in file order.
    pub entries: Vec<IndexEntry>,
    /// Whether it was in the file; otherwise it was rebuilt.
    pub stored: bool,
    /// Blocks in one entry, while writing.
    blocks_per_entry: u32,
}

impl Index {
    /// Reads the index of a file, or rebuilds it from the frame headers.
    ///
    /// # Errors
    ///
    /// [`TraceError::Open`] and [`TraceError::Read`]; a damaged file is not an error, its index
    /// ends where its frames end.
    pub fn open(path: &Path) -> Result<Self, TraceError> {
        let name = || path.display().to_string();
        let mut file = File::open(path).map_err(|source| TraceError::Open {
            operation: "open",
            path: name(),
            source,
        })?;
        let mut read = || match stored(&mut file) {
            Some(index) => Ok(index),
            None => rebuild(&mut file),
        };
        read().map_err(|source| TraceError::Read {
            path: name(),
            offset: 0,
            source,
        })
    }

    /// Records in all blocks.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.entries
            .iter()
            .fold(0, |sum, entry| sum.saturating_add(entry.records))
    }

    /// Oldest and newest record, `None` without any.
    #[must_use]
    pub fn span_ns(&self) -> Option<(u64, u64)> {
        let with_records = || self.entries.iter().filter(|entry| entry.records > 0);
        Some((
            with_records().map(|entry| entry.first_ns).min()?,
            with_records().map(|entry| entry.last_ns).max()?,
        ))
    }

    pub(super) fn add(&mut self, offset: u64, header: &BlockHeader) {
        let block = IndexEntry {
            offset,
            first_ns: header.first_ns,
            last_ns: header.last_ns,
            records: u64::from(header.records),
            blocks: 1,
        };
        match self.entries.last_mut() {
            Some(last) if last.blocks < self.blocks_per_entry => last.join(&block),
            _ => self.entries.push(block),
        }
        if self.entries.len() >= ENTRIES_MAX {
            self.blocks_per_entry = self.blocks_per_entry.max(1) * 2;
            let pairs = self.entries.chunks(2).map(|pair| {
                let mut joined = pair[0];
                pair[1..].iter().for_each(|entry| joined.join(entry));
                joined
            });
            self.entries = pairs.collect();
        }
    }

    /// The payload of an index frame that is written at `offset`.
    pub(super) fn encode(&self, offset: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.entries.len() * ENTRY + TRAILER);
        for entry in &self.entries {
            for value in [
                entry.offset,
                entry.first_ns,
                entry.last_ns,
                entry.records,
                u64::from(entry.blocks),
            ] {
                out.extend_from_slice(&value.to_le_bytes());
            }
        }
        out.extend_from_slice(&offset.to_le_bytes());
        out.extend_from_slice(&INDEX_MAGIC);
        out
    }

    fn decode(payload: &[u8]) -> Self {
        let entries = payload[..payload.len() - TRAILER]
            .chunks_exact(ENTRY)
            .map(|bytes| IndexEntry {
                offset: u64_at(bytes, 0),
                first_ns: u64_at(bytes, 8),
                last_ns: u64_at(bytes, 16),
                records: u64_at(bytes, 24),
                blocks: u32_at(bytes, 32),
            });
        Index {
            entries: entries.collect(),
            stored: true,
            blocks_per_entry: 0,
        }
    }
}

impl IndexEntry {
    fn join(&mut self, next: &IndexEntry) {
        if self.records == 0 {
            (self.first_ns, self.last_ns) = (next.first_ns, next.last_ns);
        } else if next.records > 0 {
            self.first_ns = self.first_ns.min(next.first_ns);
            self.last_ns = self.last_ns.max(next.last_ns);
        }
        self.records = self.records.saturating_add(next.records);
        self.blocks = self.blocks.saturating_add(next.blocks);
    }
}

/// The index frame at the end of the file, if it is intact.
fn stored(file: &mut File) -> Option<Index> {
    let mut trailer = [0; TRAILER];
    file.seek(SeekFrom::End(-(TRAILER as i64))).ok()?;
    file.read_exact(&mut trailer).ok()?;
    if trailer[8..] != INDEX_MAGIC {
        return None;
    }
    file.seek(SeekFrom::Start(u64_at(&trailer, 0))).ok()?;
    let mut header = [0; FRAME_HEADER];
    file.read_exact(&mut header).ok()?;
    let header = FrameHeader::decode(&header).filter(|header| header.kind == frame_type::INDEX)?;
    let mut payload = Vec::new();
    file.take(u64::from(header.payload))
        .read_to_end(&mut payload)
        .ok()?;
    let intact = payload.len() == header.payload as usize
        && payload.len() >= TRAILER
        && payload.len() <= PAYLOAD_MAX
        && crc32fast::hash(&payload) == header.payload_crc;
    intact.then(|| Index::decode(&payload))
}

/// Walks the frame headers up to the first that is damaged.
fn rebuild(file: &mut File) -> std::io::Result<Index> {
    let mut index = Index::default();
    let mut offset = FILE_HEADER as u64;
    file.seek(SeekFrom::Start(offset))?;
    let length = file.metadata()?.len();
    let mut input = BufReader::with_capacity(FRAME_HEADER + BLOCK_HEADER, file);
    loop {
        let mut bytes = [0; FRAME_HEADER + BLOCK_HEADER];
        let mut filled = 0;
        while filled < bytes.len() {
            match input.read(&mut bytes[filled..])? {
                0 => break,
                count => filled += count,
            }
        }
        let Some(header) = FrameHeader::decode(&bytes[..filled]) else {
            return Ok(index);
        };
        let next = offset + (FRAME_HEADER + header.padded()) as u64;
        if next > length {
            return Ok(index);
        }
        if header.kind == frame_type::RECORDS {
            // The loss counts are not needed here: their number is set to none.
            let mut block: [u8; BLOCK_HEADER] = [0; BLOCK_HEADER];
            block.copy_from_slice(&bytes[FRAME_HEADER..]);
            block[2..4].fill(0);
            if let Some((block, _)) = BlockHeader::decode(&block) {
                index.add(offset, &block);
            }
        }
        offset = next;
        input.seek(SeekFrom::Start(offset))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_recording_needs_no_more_memory() {
        let mut index = Index::default();
        let blocks = 100_000;
        for block in 0..blocks {
            let (first_ns, last_ns) = (1000 + block, 1001 + block);
            let header = BlockHeader {
                records: 2,
                first_ns,
                last_ns,
                ..BlockHeader::default()
            };
            index.add(block * 10, &header);
        }
        assert!(index.entries.len() < ENTRIES_MAX);
        assert_eq!(index.records(), 2 * blocks);
        assert_eq!(index.span_ns(), Some((1000, 1000 + blocks)));
        assert_eq!(
            index
                .entries
                .iter()
                .map(|entry| u64::from(entry.blocks))
                .sum::<u64>(),
            blocks
        );
        assert!(index.entries.is_sorted_by_key(|entry| entry.offset));
        let payload = index.encode(77);
        assert_eq!(Index::decode(&payload).entries, index.entries);
        assert_eq!(u64_at(&payload, payload.len() - TRAILER), 77);
    }
}
