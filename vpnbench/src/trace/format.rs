//! Layout of the file: file header, frame headers, block headers. Little-endian throughout.

#[cfg(target_endian = "big")]
compile_error!("trace files are little-endian; records would have to be swapped first");

use super::upgrade::FORMAT_VERSION;

/// First bytes of a file. The high bit, both line ends and the end-of-file character show damage
/// by transfers that take the file for text.
pub(super) const FILE_MAGIC: [u8; 8] = *b"\x89VBT\r\n\x1a\n";
/// First bytes of each frame.
pub(super) const FRAME_MAGIC: [u8; 8] = *b"\xf7VBframe";
/// Last bytes of a file that ended in order.
pub(super) const INDEX_MAGIC: [u8; 8] = *b"VBTindex";

/// Bytes of the file header.
pub(super) const FILE_HEADER: usize = 16;
/// Bytes of a frame header.
pub(super) const FRAME_HEADER: usize = 32;
/// Bytes of a block header before its loss counts.
pub(super) const BLOCK_HEADER: usize = 48;
/// Bytes of one loss count.
pub(super) const LOSS_ENTRY: usize = 16;
/// Largest payload of a frame, with and without compression.
pub(super) const PAYLOAD_MAX: usize = 16 << 20;

/// The file header of this version.
pub(super) fn file_header() -> [u8; FILE_HEADER] {
    let mut header = [0; FILE_HEADER];
    header[..8].copy_from_slice(&FILE_MAGIC);
    header[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    let crc = crc32fast::hash(&header[..12]);
    header[12..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// Numbers of frame types, never reused.
pub(super) mod frame_type {
    /// JSON `Start`, the first frame.
    pub(crate) const START: u8 = 1;
    /// A block of records.
    pub(crate) const RECORDS: u8 = 2;
    /// JSON `Change`.
    pub(crate) const CHANGE: u8 = 3;
    /// JSON `Symbols`.
    pub(crate) const SYMBOLS: u8 = 4;
    /// JSON `End`.
    pub(crate) const END: u8 = 5;
    /// Places of the blocks.
    pub(crate) const INDEX: u8 = 6;
}

/// Bits of [`FrameHeader::flags`]. A frame with a bit that a reader does not know is skipped.
pub(super) mod flag {
    /// The payload behind the block header is compressed.
    pub(crate) const ZSTD: u8 = 1;
}

/// Header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHeader {
    /// One of [`frame_type`].
    pub(super) kind: u8,
    /// Bits of [`flag`].
    pub(super) flags: u8,
    /// Running number in the file, from 0: shows missing frames.
    pub(super) number: u32,
    /// Bytes of payload, without the padding to 8.
    pub(super) payload: u32,
    /// Bytes of the compressed part once decompressed.
    pub(super) raw: u32,
    /// Checksum of the payload.
    pub(super) payload_crc: u32,
}

impl FrameHeader {
    pub(super) fn encode(&self) -> [u8; FRAME_HEADER] {
        let mut header = [0; FRAME_HEADER];
        header[..8].copy_from_slice(&FRAME_MAGIC);
        header[8] = self.kind;
        header[9] = self.flags;
        header[12..16].copy_from_slice(&self.number.to_le_bytes());
        header[16..20].copy_from_slice(&self.payload.to_le_bytes());
        header[20..24].copy_from_slice(&self.raw.to_le_bytes());
        header[24..28].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = crc32fast::hash(&header[..28]);
        header[28..].copy_from_slice(&crc.to_le_bytes());
        header
    }

    /// The header, if the bytes are one and its lengths are possible.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; FRAME_HEADER] = bytes.first_chunk()?;
        let intact = bytes[..8] == FRAME_MAGIC && is_checksum(&bytes[..28], u32_at(bytes, 28));
        let header = FrameHeader {
            kind: bytes[8],
            flags: bytes[9],
            number: u32_at(bytes, 12),
            payload: u32_at(bytes, 16),
            raw: u32_at(bytes, 20),
            payload_crc: u32_at(bytes, 24),
        };
        let possible = header.payload as usize <= PAYLOAD_MAX && header.raw as usize <= PAYLOAD_MAX;
        (intact && possible).then_some(header)
    }

    /// Bytes of payload with padding.
    pub(super) fn padded(&self) -> usize {
        (self.payload as usize).next_multiple_of(8)
    }
}

/// Start of the payload of a records frame; the compressed columns follow the loss counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct BlockHeader {
    /// Producer of the records.
    pub(super) ring: u16,
    /// Number of records.
    pub(super) records: u32,
    /// Epochs that had ended when the block was written.
    pub(super) epoch: u64,
    /// With this block read, all events older than this (less the slack) have been read.
    pub(super) watermark_ns: u64,
    /// Oldest record.
    pub(super) first_ns: u64,
    /// Newest record.
    pub(super) last_ns: u64,
    /// Events that could not be stored since the block before, by probe.
    pub(super) lost: Vec<(u8, u64)>,
}

impl BlockHeader {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.ring.to_le_bytes());
        out.extend_from_slice(&(self.lost.len() as u16).to_le_bytes());
        out.extend_from_slice(&self.records.to_le_bytes());
        for value in [
            self.epoch,
            self.watermark_ns,
            self.first_ns,
            self.last_ns,
            0,
        ] {
            out.extend_from_slice(&value.to_le_bytes());
        }
        for (probe, count) in &self.lost {
            out.extend_from_slice(&[*probe, 0, 0, 0, 0, 0, 0, 0]);
            out.extend_from_slice(&count.to_le_bytes());
        }
    }

    /// The header and the compressed columns.
    pub(super) fn decode(payload: &[u8]) -> Option<(Self, &[u8])> {
        let (fixed, rest) = payload.split_first_chunk::<BLOCK_HEADER>()?;
        let count = u16::from_le_bytes([fixed[2], fixed[3]]) as usize;
        let (losses, columns) = rest.split_at_checked(count * LOSS_ENTRY)?;
        let lost = losses
            .chunks_exact(LOSS_ENTRY)
            .map(|entry| (entry[0], u64_at(entry, 8)))
            .collect();
        let header = BlockHeader {
            ring: u16::from_le_bytes([fixed[0], fixed[1]]),
            records: u32_at(fixed, 4),
            epoch: u64_at(fixed, 8),
            watermark_ns: u64_at(fixed, 16),
            first_ns: u64_at(fixed, 24),
            last_ns: u64_at(fixed, 32),
            lost,
        };
        Some((header, columns))
    }
}

/// Whether a checksum is right.
pub(super) fn is_checksum(bytes: &[u8], crc: u32) -> bool {
    crc32fast::hash(bytes) == crc
}

/// Reads a number; 0 outside of the bytes.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// Reads a number; 0 outside of the bytes.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_round_trip() {
        let frame = FrameHeader {
            kind: 2,
            flags: 1,
            number: 7,
            payload: 13,
            raw: 99,
            payload_crc: 5,
        };
        assert_eq!(FrameHeader::decode(&frame.encode()), Some(frame));
        assert_eq!(frame.padded(), 16);
        let block = BlockHeader {
            ring: 3,
            records: 4,
            epoch: 5,
            watermark_ns: 6,
            first_ns: 7,
            last_ns: 8,
            lost: vec![(1, 2), (255, u64::MAX)],
        };
        let mut bytes = Vec::new();
        block.encode(&mut bytes);
        bytes.push(42);
        assert_eq!(BlockHeader::decode(&bytes), Some((block, &[42][..])));
        assert_eq!(BlockHeader::decode(&bytes[..60]), None);
    }

    #[test]
    fn a_changed_bit_is_no_frame_header() {
        let bytes = FrameHeader {
            kind: 2,
            flags: 1,
            number: 7,
            payload: 13,
            raw: 99,
            payload_crc: 5,
        }
        .encode();
        for bit in 0..FRAME_HEADER * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FrameHeader::decode(&damaged), None, "bit {bit}");
        }
    }
}
