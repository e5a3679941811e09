//! Puts frames together and hands each to the output in one write.

use std::io::{self, Write};

use super::error::TraceError;
use super::format::{FRAME_HEADER, FrameHeader, file_header, flag, frame_type};
use super::index::Index;

/// The end of a writer where bytes leave.
pub(super) struct Output<W> {
    pub(super) out: W,
    pub(super) name: String,
    /// Bytes written.
    pub(super) position: u64,
    frames: u32,
    /// The frame in the making. Before the first one, the file header is in front of it.
    pub(super) frame: Vec<u8>,
    frame_start: usize,
    pub(super) index: Index,
}

impl<W: Write> Output<W> {
    pub(super) fn new(out: W, name: &str) -> Self {
        let (name, frame) = (name.to_owned(), Vec::new());
        Output {
            out,
            name,
            position: 0,
            frames: 0,
            frame,
            frame_start: 0,
            index: Index::default(),
        }
    }

    pub(super) fn frame_begin(&mut self) {
        self.frame_start = if self.frames == 0 {
            file_header().len()
        } else {
            0
        };
        self.frame.truncate(self.frame_start);
        self.frame.resize(self.frame_start + FRAME_HEADER, 0);
    }

    /// Appends compressed bytes to the frame.
    pub(super) fn compress(
        &mut self,
        raw: &[u8],
        compressor: &mut zstd::bulk::Compressor<'static>,
        records: u32,
    ) -> Result<(), TraceError> {
        let start = self.frame.len();
        self.frame
            .resize(start + zstd::zstd_safe::compress_bound(raw.len()), 0);
        let length = compressor
            .compress_to_buffer(raw, &mut self.frame[start..])
            .map_err(|source| self.failed(source, records))?;
        self.frame.truncate(start + length);
        Ok(())
    }

    /// Completes the header and writes the frame.
    pub(super) fn frame_end(
        &mut self,
        kind: u8,
        raw: usize,
        records: u32,
    ) -> Result<(), TraceError> {
        let payload = self.frame_start + FRAME_HEADER;
        let header = FrameHeader {
            kind,
            // The index is read from the end and stays as it is.
            flags: if kind == frame_type::INDEX {
                0
            } else {
                flag::ZSTD
            },
            number: self.frames,
            payload: (self.frame.len() - payload) as u32,
            raw: raw as u32,
            payload_crc: crc32fast::hash(&self.frame[payload..]),
        };
        self.frame[self.frame_start..payload].copy_from_slice(&header.encode());
        self.frame.resize(payload + header.padded(), 0);
        // Also after an error: the gap in the numbers shows that a frame is missing.
        self.frames = self.frames.wrapping_add(1);
        let mut done = 0;
        while done < self.frame.len() {
            let failure = match self.out.write(&self.frame[done..]) {
                Ok(0) => io::ErrorKind::WriteZero.into(),
                Ok(count) => {
                    done += count;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => error,
            };
            let error = self.failed(failure, records);
            self.position += done as u64;
            return Err(error);
        }
        self.position += done as u64;
        Ok(())
    }

    pub(super) fn flush(&mut self) -> Result<(), TraceError> {
        self.out.flush().map_err(|source| self.failed(source, 0))
    }

    pub(super) fn failed(&self, source: io::Error, records: u32) -> TraceError {
        TraceError::Write {
            path: self.name.clone(),
            kept: self.position,
            records: u64::from(records),
            source,
        }
    }
}
