//! Writes a trace: collects records per ring, and stores them as compressed blocks.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use vpnbench_common::catalog::KINDS;

use super::codec::Encoder;
use super::error::TraceError;
use super::file::{Existing, TraceFile};
use super::format::{BlockHeader, PAYLOAD_MAX, file_header, frame_type};
use super::model::{Change, End, Start, Symbols};
use super::output::Output;
use super::totals::Totals;
use super::upgrade::{FORMAT_VERSION, own_layouts};

/// Bytes of records in a full block. Larger blocks compress better and cost less per record
/// (measured, see docs/trace-format.md); a block is also what is lost when a byte is damaged.
const BLOCK_BYTES: usize = 1 << 20;
/// With many rings blocks get smaller, so that no more than this waits altogether.
const WAITING_BYTES_MAX: usize = 4 << 20;
/// With more bytes waiting than this, the end of an epoch writes them.
const WAITING_BYTES: usize = 2 << 20;
/// The longest time for which records wait for company: so much is lost when the recorder is killed.
const WAITING_TIME: Duration = Duration::from_secs(1);
/// Symbols in one frame; more are stored in several.
const SYMBOLS_PER_FRAME: usize = 20_000;
/// Higher levels cost more time than they save bytes (measured, see docs/trace-format.md).
const ZSTD_LEVEL: i32 = 1;

/// Records of a ring that are not yet written. The room stays from block to block.
#[derive(Default)]
struct Waiting {
    records: Vec<u64>,
    count: u32,
}

impl Waiting {
    #[inline]
    fn push(&mut self, record: &[u8]) {
        self.count += 1;
        // Records in a ring buffer are aligned.
        if let Ok(words) = bytemuck::try_cast_slice(record) {
            self.records.extend_from_slice(words);
        } else {
            let start = self.records.len();
            self.records.resize(start + record.len() / 8, 0);
            bytemuck::cast_slice_mut(&mut self.records[start..]).copy_from_slice(record);
        }
    }

    fn bytes(&self) -> usize {
        self.records.len() * 8
    }
}

/// Writes one trace to a file, a pipe or memory.
///
/// After an error the writer goes on: the events of the block that failed count as lost, and the
/// next block says so.
pub struct Writer<W: Write> {
    out: Output<W>,
    sizes: Box<[u16; 256]>,
    rings: Vec<Waiting>,
    waiting_bytes: usize,
    block_bytes: usize,
    encoder: Encoder,
    compressor: zstd::bulk::Compressor<'static>,
    raw: Vec<u8>,
    /// Losses that no block has reported yet, by probe.
    unreported: Box<[u64; 256]>,
    epoch: u64,
    /// The watermark up to which all records are in the file.
    watermark_ns: u64,
    written_ns: u64,
    waiting_time: Duration,
    totals: Totals,
}

impl Writer<TraceFile> {
    /// Creates a trace file at `path`.
    ///
    /// # Errors
    ///
    /// [`TraceError::Open`] and [`TraceError::Write`].
    pub fn create_file(path: &Path, existing: Existing, start: &Start) -> Result<Self, TraceError> {
        let file = TraceFile::create(path, existing)?;
        Self::create_named(file, &path.display().to_string(), start)
    }
}

impl<W: Write> Writer<W> {
    /// Writes the file header and the start frame; fills in `format_version` and `kinds`.
    ///
    /// # Errors
    ///
    /// [`TraceError::Write`].
    pub fn create(out: W, start: &Start) -> Result<Self, TraceError> {
        Self::create_named(out, "the trace", start)
    }

    /// As [`create`](Self::create), with a name for error messages.
    ///
    /// # Errors
    ///
    /// [`TraceError::Write`].
    pub fn create_named(out: W, name: &str, start: &Start) -> Result<Self, TraceError> {
        let mut sizes = Box::new([0; 256]);
        for row in KINDS {
            sizes[row.kind as usize] = row.size as u16;
        }
        let compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL);
        let compressor = compressor.map_err(|source| TraceError::Write {
            path: name.to_owned(),
            kept: 0,
            records: 0,
            source,
        })?;
        let mut writer = Writer {
            out: Output::new(out, name),
            sizes,
            rings: Vec::new(),
            waiting_bytes: 0,
            block_bytes: BLOCK_BYTES,
            encoder: Encoder::new(),
            compressor,
            raw: Vec::new(),
            unreported: Box::new([0; 256]),
            epoch: 0,
            watermark_ns: 0,
            written_ns: start.clock.monotonic_ns,
            waiting_time: WAITING_TIME,
            totals: Totals::new(),
        };
        let start = Start {
            format_version: FORMAT_VERSION,
            kinds: own_layouts(),
            ..start.clone()
        };
        writer.out.frame.extend_from_slice(&file_header());
        writer.metadata(frame_type::START, "the start of the recording", &start)?;
        Ok(writer)
    }

    /// Lets records wait for company no longer than this, where somebody reads along.
    pub fn wait_at_most(&mut self, time: Duration) {
        self.waiting_time = time;
    }

    /// Takes a record of a ring. Records of one ring come in the order in which they were made.
    ///
    /// # Errors
    ///
    /// [`TraceError::BadRecord`] if the size is not that of the record's kind (nothing is stored);
    /// [`TraceError::Write`] if a full block cannot be written (this record is kept).
    #[inline]
    pub fn push(&mut self, ring: u16, record: &[u8]) -> Result<(), TraceError> {
        let (kind, probe) = match record {
            [_, _, _, _, _, _, _, _, _, _, _, _, _, _, kind, probe, ..] => (*kind, *probe),
            _ => {
                return Err(TraceError::BadRecord {
                    kind: 0,
                    size: record.len(),
                    expected: 16,
                });
            }
        };
        let size = self.sizes[kind as usize] as usize;
        if record.len() != size || size == 0 {
            return Err(TraceError::BadRecord {
                kind,
                size: record.len(),
                expected: size,
            });
        }
        if ring as usize >= self.rings.len() {
            self.add_rings(ring);
        }
        let waiting = &mut self.rings[ring as usize];
        waiting.push(record);
        self.waiting_bytes += size;
        self.totals.events += 1;
        self.totals.events_by_probe[probe as usize] += 1;
        if waiting.bytes() >= self.block_bytes {
            // The epoch is still running: its watermark is not known, the last one stays valid.
            self.write_block(ring, self.watermark_ns)?;
        }
        Ok(())
    }

    /// Ends an epoch: one round in which all rings were drained, begun at `watermark_ns`, so that
    /// all events before that time have been pushed. `lost` are the events of each probe that
    /// found no room in this epoch.
    ///
    /// # Errors
    ///
    /// [`TraceError::Write`].
    pub fn end_epoch(&mut self, watermark_ns: u64, lost: &[(u8, u64)]) -> Result<(), TraceError> {
        self.epoch += 1;
        for &(probe, count) in lost {
            self.unreported[probe as usize] += count;
            self.totals.add_loss(probe, count);
        }
        let waited = watermark_ns.saturating_sub(self.written_ns);
        if self.waiting_bytes >= WAITING_BYTES || u128::from(waited) >= self.waiting_time.as_nanos()
        {
            self.write_all(watermark_ns)?;
        }
        Ok(())
    }

    /// Stores a change of what is watched.
    ///
    /// # Errors
    ///
    /// [`TraceError::Write`].
    pub fn change(&mut self, change: &Change) -> Result<(), TraceError> {
        self.metadata(
            frame_type::CHANGE,
            "a change of the watched devices",
            change,
        )
    }

    /// Stores symbols; may be called more than once, readers merge them.
    ///
    /// # Errors
    ///
    /// [`TraceError::Write`].
    pub fn symbols(&mut self, symbols: &Symbols) -> Result<(), TraceError> {
        let mut rest = symbols.kernel.iter().peekable();
        while rest.peek().is_some() {
            let kernel = rest
                .by_ref()
                .take(SYMBOLS_PER_FRAME)
                .map(|(address, name)| (*address, name.clone()));
            self.metadata(
                frame_type::SYMBOLS,
                "kernel symbols",
                &Symbols {
                    kernel: kernel.collect(),
                    ..Symbols::default()
                },
            )?;
        }
        for (pid, user) in &symbols.user {
            let mut rest = user.iter().peekable();
            while rest.peek().is_some() {
                let part = rest.by_ref().take(SYMBOLS_PER_FRAME);
                let part = part.map(|(address, name)| (*address, name.clone()));
                let user = [(*pid, part.collect())].into();
                let part = Symbols {
                    user,
                    ..Symbols::default()
                };
                self.metadata(frame_type::SYMBOLS, "symbols of programs", &part)?;
            }
        }
        if !symbols.build_ids.is_empty() {
            let ids = Symbols {
                build_ids: symbols.build_ids.clone(),
                ..Symbols::default()
            };
            self.metadata(frame_type::SYMBOLS, "build ids", &ids)?;
        }
        Ok(())
    }

    /// Writes what is waiting, the end frame and the index, and returns the output.
    ///
    /// # Errors
    ///
    /// [`TraceError::Write`]; the file is readable up to the last complete frame.
    pub fn finish(mut self, end: &End) -> Result<(W, Totals), TraceError> {
        // On a full disk the last block may not fit and the small end frame still may.
        let mut written = self.write_all(u64::MAX);
        while self.rings.iter().any(|ring| ring.count > 0) {
            written = written.and(self.write_all(u64::MAX));
        }
        if written.is_err() {
            let _ = self.write_empty_block(u64::MAX);
        }
        self.metadata(frame_type::END, "the end of the recording", end)?;
        let payload = self.out.index.encode(self.out.position);
        self.out.frame_begin();
        self.out.frame.extend_from_slice(&payload);
        self.out.frame_end(frame_type::INDEX, 0, 0)?;
        self.out.flush()?;
        written?;
        self.totals.bytes = self.out.position;
        Ok((self.out.out, self.totals))
    }

    /// What was written, taken and lost so far.
    #[must_use]
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// The output, for instance to ask for its path.
    #[must_use]
    pub fn get_ref(&self) -> &W {
        &self.out.out
    }

    #[cfg(test)]
    pub(super) fn out_mut(&mut self) -> &mut W {
        &mut self.out.out
    }

    #[cold]
    fn add_rings(&mut self, ring: u16) {
        self.rings.resize_with(ring as usize + 1, Waiting::default);
        self.block_bytes = BLOCK_BYTES.min(WAITING_BYTES_MAX / self.rings.len());
    }

    /// Writes all rings; the last block of them carries the watermark.
    fn write_all(&mut self, watermark_ns: u64) -> Result<(), TraceError> {
        self.written_ns = watermark_ns;
        let last = (0..self.rings.len())
            .rev()
            .find(|&ring| self.rings[ring].count > 0);
        for ring in 0..last.unwrap_or(0) {
            self.write_block(ring as u16, self.watermark_ns)?;
        }
        if let Some(last) = last {
            self.write_block(last as u16, watermark_ns)?;
        } else if self.unreported.iter().any(|&count| count > 0) {
            self.write_empty_block(watermark_ns)?;
        }
        self.watermark_ns = watermark_ns;
        Ok(())
    }

    fn write_empty_block(&mut self, watermark_ns: u64) -> Result<(), TraceError> {
        if self.rings.is_empty() {
            self.add_rings(0);
        }
        self.store(0, watermark_ns)
    }

    #[cold]
    fn write_block(&mut self, ring: u16, watermark_ns: u64) -> Result<(), TraceError> {
        if self.rings[ring as usize].count == 0 {
            return Ok(());
        }
        let stored = self.store(ring, watermark_ns);
        if stored.is_err() {
            self.count_unstored(ring);
        }
        let waiting = &mut self.rings[ring as usize];
        self.waiting_bytes -= waiting.bytes();
        waiting.records.clear();
        waiting.count = 0;
        stored
    }

    fn store(&mut self, ring: u16, watermark_ns: u64) -> Result<(), TraceError> {
        let waiting = &self.rings[ring as usize];
        let (first_ns, last_ns) = self.encoder.encode(&waiting.records, &mut self.raw);
        let lost = self
            .unreported
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0);
        let header = BlockHeader {
            ring,
            records: waiting.count,
            epoch: self.epoch,
            watermark_ns,
            first_ns,
            last_ns,
            lost: lost.map(|(probe, &count)| (probe as u8, count)).collect(),
        };
        self.out.frame_begin();
        header.encode(&mut self.out.frame);
        self.out
            .compress(&self.raw, &mut self.compressor, header.records)?;
        let offset = self.out.position;
        self.out
            .frame_end(frame_type::RECORDS, self.raw.len(), header.records)?;
        self.out.index.add(offset, &header);
        self.unreported.fill(0);
        self.totals.bytes = self.out.position;
        Ok(())
    }

    /// Moves the events of a block that could not be written from the stored to the lost ones.
    #[cold]
    fn count_unstored(&mut self, ring: u16) {
        let mut records = self.rings[ring as usize].records.as_slice();
        while let [_, second, ..] = *records {
            let probe = (second >> 56) as u8;
            self.unreported[probe as usize] += 1;
            self.totals.add_loss(probe, 1);
            self.totals.events -= 1;
            self.totals.events_by_probe[probe as usize] -= 1;
            records = &records[self.sizes[(second >> 48) as u8 as usize] as usize / 8..];
        }
    }

    fn metadata(
        &mut self,
        kind: u8,
        what: &'static str,
        value: &impl Serialize,
    ) -> Result<(), TraceError> {
        let refused = |name: &str, reason: String| TraceError::Metadata {
            path: name.to_owned(),
            what,
            reason,
        };
        let json = serde_json::to_vec(value)
            .map_err(|error| refused(&self.out.name, error.to_string()))?;
        if json.len() > PAYLOAD_MAX {
            return Err(refused(
                &self.out.name,
                format!("{} bytes, at most {PAYLOAD_MAX} fit", json.len()),
            ));
        }
        self.out.frame_begin();
        self.out.compress(&json, &mut self.compressor, 0)?;
        self.out.frame_end(kind, json.len(), 0)?;
        self.out.flush()?;
        self.totals.bytes = self.out.position;
        Ok(())
    }
}
