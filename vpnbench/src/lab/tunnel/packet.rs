//! A packet on its way through the tunnel, and what it looks like outside.
//!
//! An outer packet is a header of [`HEADER`] bytes, the encrypted inner packet, and a tag:
//!
//! | bytes | meaning |
//! | --- | --- |
//! | 0 | 0xb5, the format |
//! | 1 | number of this piece, from 0 |
//! | 2 | pieces of this packet |
//! | 3 | 0 |
//! | 4..8 | sender (0 the listening end, 1 the connecting one), big endian |
//! | 8..16 | sequence number, big endian |
//!
//! Sender and sequence number are the nonce. The inner packet is encrypted as a whole; pieces are
//! cut from the ciphertext and its tag.

use std::sync::Mutex;

use super::account::{Cause, Copied};
use super::inner::Inner;

/// Bytes before the ciphertext.
pub(super) const HEADER: usize = 16;
/// Bytes of the Poly1305 tag behind it (RFC 8439).
pub(super) const TAG: usize = 16;
/// What the tunnel adds to an inner packet, without IP and UDP headers.
pub(super) const OVERHEAD: usize = HEADER + TAG;

const FORMAT: u8 = 0xb5;

/// A packet inside the tunnel. `data` always starts with room for the header.
#[derive(Debug)]
pub(super) struct Packet {
    /// Header, then the inner packet or its ciphertext (then with the tag).
    pub(super) data: Vec<u8>,
    /// Outer sequence number.
    pub(super) sequence: u64,
    /// Place in the order of a pipeline's first stage.
    pub(super) slot: u64,
    /// Length of the inner packet in bytes.
    pub(super) length: u32,
    /// When it was read, CLOCK_MONOTONIC in nanoseconds.
    pub(super) entered: u64,
    /// Set if it is an additional copy.
    pub(super) copied: Option<Copied>,
    /// Set if it was lost but keeps its place in the order.
    pub(super) lost: Option<Cause>,
    /// Whether the reorder fault held it back.
    pub(super) held: bool,
    /// What it is, where something asks for it.
    pub(super) inner: Option<Box<Inner>>,
}

impl Packet {
    /// Around a buffer that holds header room and what was read.
    pub(super) fn new(data: Vec<u8>, length: usize, entered: u64) -> Packet {
        Packet {
            data,
            sequence: 0,
            slot: 0,
            length: u32::try_from(length).unwrap_or(u32::MAX),
            entered,
            copied: None,
            lost: None,
            held: false,
            inner: None,
        }
    }

    /// A copy that leaves in addition.
    pub(super) fn copy(&self, why: Copied) -> Packet {
        Packet {
            data: self.data.clone(),
            copied: Some(why),
            inner: self.inner.clone(),
            ..*self
        }
    }
}

/// An outer packet's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) piece: u8,
    pub(super) pieces: u8,
    pub(super) sender: u32,
    pub(super) sequence: u64,
}

impl Header {
    /// Writes it in front of a packet.
    pub(super) fn write(self, data: &mut [u8]) {
        data[..4].copy_from_slice(&[FORMAT, self.piece, self.pieces, 0]);
        data[4..8].copy_from_slice(&self.sender.to_be_bytes());
        data[8..HEADER].copy_from_slice(&self.sequence.to_be_bytes());
    }

    /// Reads it; none if this is nothing of ours.
    pub(super) fn read(data: &[u8]) -> Option<Header> {
        let (&[format, piece, pieces, 0], rest) = data.split_first_chunk::<4>()? else {
            return None;
        };
        let (sender, rest) = rest.split_first_chunk()?;
        let (sequence, _) = rest.split_first_chunk()?;
        (format == FORMAT && piece < pieces).then_some(Header {
            piece,
            pieces,
            sender: u32::from_be_bytes(*sender),
            sequence: u64::from_be_bytes(*sequence),
        })
    }

    /// The nonce of ChaCha20-Poly1305: sender and sequence number.
    pub(super) fn nonce(self) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&self.sender.to_be_bytes());
        nonce[4..].copy_from_slice(&self.sequence.to_be_bytes());
        nonce
    }
}

/// Buffers that are used again.
#[derive(Debug, Default)]
pub(super) struct Pool {
    buffers: Mutex<Vec<Vec<u8>>>,
}

impl Pool {
    /// Most buffers kept.
    const KEPT: usize = 1024;
    /// Larger ones (grown by coalescing) are given back to the system.
    const LARGEST: usize = 4096;

    /// Takes `count` buffers of `size` bytes; their content is arbitrary.
    pub(super) fn take(&self, count: usize, size: usize, into: &mut Vec<Vec<u8>>) {
        let start = into.len();
        {
            let mut kept = lock(&self.buffers);
            let rest = kept.len().saturating_sub(count);
            into.extend(kept.drain(rest..));
        }
        into.resize_with(start + count, Vec::new);
        for buffer in &mut into[start..] {
            buffer.resize(size, 0);
        }
    }

    /// Gives buffers back.
    pub(super) fn give(&self, buffers: impl IntoIterator<Item = Vec<u8>>) {
        let mut kept = lock(&self.buffers);
        for buffer in buffers {
            if kept.len() < Self::KEPT && buffer.capacity() <= Self::LARGEST {
                kept.push(buffer);
            }
        }
    }
}

/// Locks a mutex. Nothing here leaves half-changed data behind when it panics, and then the
/// whole process ends.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back() {
        let header = Header {
            piece: 1,
            pieces: 3,
            sender: 1,
            sequence: 0x0102_0304_0506_0708,
        };
        let mut data = [0; HEADER];
        header.write(&mut data);
        assert_eq!(Header::read(&data), Some(header));
        assert_eq!(Header::read(&data[..15]), None);
        data[1] = 3;
        assert_eq!(Header::read(&data), None, "a piece beyond the last");
        data[0] = 0;
        assert_eq!(Header::read(&data), None);
        assert_eq!(header.nonce(), [0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn buffers_come_back_with_the_size_asked_for() {
        let pool = Pool::default();
        pool.give([vec![1; 10], vec![2; 5000]]);
        let mut buffers = Vec::new();
        pool.take(3, 20, &mut buffers);
        let lengths: Vec<usize> = buffers.iter().map(Vec::len).collect();
        assert_eq!(lengths, [20, 20, 20]);
    }
}
