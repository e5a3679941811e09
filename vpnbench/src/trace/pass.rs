//! One pass over the frames of a trace: blocks become events in order, the rest the summary.

use std::collections::BTreeMap;
use std::io::Read;

use serde::de::DeserializeOwned;

use super::codec::{Decoder, Shapes};
use super::event::Event;
use super::format::{BlockHeader, flag, frame_type};
use super::frames::{Frame, Frames};
use super::merge::Merge;
use super::model::{Change, End, SocketSample, Start, Symbols};
use super::problem::{Code, Problem, Problems};
use super::varint;

/// Bytes of metadata behind the start frame that are kept; hostile files repeat frames for ever.
const METADATA_MAX: usize = 128 << 20;

/// What a trace held beside its events.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// The start frame.
    pub start: Start,
    /// The end frame, if the recording ended in order.
    pub end: Option<End>,
    /// Changes while recording, in file order.
    pub changes: Vec<Change>,
    /// All symbols.
    pub symbols: Symbols,
    /// What `ss -ti` said of sockets, given beside captures.
    pub sockets: Vec<SocketSample>,
    /// Events that the recorder could not store, by probe number.
    pub lost: BTreeMap<u8, u64>,
    /// Intact blocks.
    pub blocks: u64,
    /// Frames that are missing, judged by their numbers.
    pub missing_frames: u64,
    /// Events delivered.
    pub events: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Whether the file ends inside of a frame.
    pub truncated: bool,
    /// Whether the receiver stopped before the end: the rest was not looked at.
    pub stopped: bool,
    /// What is wrong with the file.
    pub problems: Vec<Problem>,
}

/// Who takes what a pass hands out.
pub trait Receiver {
    /// Whether the trace is still being written: events are handed out as soon as nothing older can
    /// follow, and [`pause`](Self::pause) is called.
    const LIVE: bool;

    /// Takes an event, in the order of time; `false` if no more are wanted.
    fn event(&mut self, event: Event<'_>) -> bool;

    /// After each frame: what the trace held so far beside its events. Without the end frame.
    fn pause(&mut self, _so_far: &Summary) {}
}

/// One pass over the frames behind the start frame.
pub(super) struct Pass {
    shapes: Box<Shapes>,
    problems: Problems,
    summary: Summary,
    decoder: Decoder,
    decompressor: Option<zstd::bulk::Decompressor<'static>>,
    raw: Vec<u8>,
    merge: Merge,
    metadata_bytes: usize,
    unknown_records: u64,
    unknown_frames: u64,
}

impl Pass {
    pub(super) fn new(start: Start, shapes: Box<Shapes>, problems: Problems) -> Self {
        Pass {
            shapes,
            problems,
            summary: Summary {
                start,
                ..Summary::default()
            },
            decoder: Decoder::new(),
            decompressor: zstd::bulk::Decompressor::new().ok(),
            raw: Vec::new(),
            merge: Merge::default(),
            metadata_bytes: 0,
            unknown_records: 0,
            unknown_frames: 0,
        }
    }

    pub(super) fn run<R: Read, T: Receiver>(&mut self, frames: &mut Frames<R>, receiver: &mut T) {
        loop {
            match frames.next(&mut self.problems) {
                Ok(Some(frame)) => self.frame(&frame, frames.payload(&frame)),
                Ok(None) => break,
                Err(error) => {
                    let message = format!(
                        "reading failed at byte {}: {error}; the rest is missing",
                        frames.offset()
                    );
                    self.problems
                        .push(Problem::data_loss(Code::ReadFailed, message));
                    break;
                }
            }
            if !self.merge.release(&mut |event| receiver.event(event)) {
                self.summary.stopped = true;
                return;
            }
            if T::LIVE {
                self.summary.bytes = frames.offset();
                receiver.pause(&self.summary);
            }
        }
        self.summary.stopped = !self.merge.finish(&mut |event| receiver.event(event));
    }

    fn frame(&mut self, frame: &Frame, payload: &[u8]) {
        let offset = frame.offset;
        if frame.header.flags & !flag::ZSTD != 0 {
            self.unknown_frames += 1;
            return;
        }
        match frame.header.kind {
            frame_type::RECORDS => {
                if let Err(reason) = self.records(frame, payload) {
                    let message = format!("the block at byte {offset} was skipped: {reason}");
                    self.problems
                        .push(Problem::data_loss(Code::BadBlock, message));
                }
            }
            frame_type::CHANGE => {
                if let Some(change) = self.metadata(frame, payload) {
                    self.summary.changes.push(change);
                }
            }
            frame_type::SYMBOLS => {
                if let Some(symbols) = self.metadata::<Symbols>(frame, payload) {
                    let all = &mut self.summary.symbols;
                    all.kernel.extend(symbols.kernel);
                    all.build_ids.extend(symbols.build_ids);
                    for (pid, user) in symbols.user {
                        all.user.entry(pid).or_default().extend(user);
                    }
                }
            }
            frame_type::END => {
                if let Some(end) = self.metadata(frame, payload) {
                    self.summary.end = Some(end);
                }
            }
            frame_type::INDEX | frame_type::START => {}
            _ => self.unknown_frames += 1,
        }
    }

    fn records(&mut self, frame: &Frame, payload: &[u8]) -> Result<(), String> {
        let (header, columns) = BlockHeader::decode(payload).ok_or("its header is too short")?;
        for &(probe, count) in &header.lost {
            let lost = self.summary.lost.entry(probe).or_default();
            *lost = lost.saturating_add(count);
        }
        self.unpack(frame, columns)?;
        let mut block = self.merge.room();
        let decoded = self.decoder.decode(
            &self.raw,
            header.records,
            &self.shapes,
            &mut block.records,
            &mut block.places,
        )?;
        self.unknown_records += decoded.unknown;
        self.summary.blocks += 1;
        self.merge.add(block, header.watermark_ns);
        Ok(())
    }

    /// Fills `raw` with the columns and the room that the decoder wants behind them.
    fn unpack(&mut self, frame: &Frame, columns: &[u8]) -> Result<(), String> {
        let length = frame.header.raw as usize;
        self.raw.clear();
        if frame.header.flags & flag::ZSTD == 0 {
            self.raw.extend_from_slice(columns);
            self.raw.resize(columns.len() + varint::ROOM, 0);
            return Ok(());
        }
        self.raw.resize(length + varint::ROOM, 0);
        let decompressor = self.decompressor.as_mut().ok_or("no memory for zstd")?;
        let written = decompressor.decompress_to_buffer(columns, &mut self.raw[..length]);
        if written.map_err(|error| error.to_string())? != length {
            return Err("it has another length than its header says".to_owned());
        }
        Ok(())
    }

    fn metadata<T: DeserializeOwned>(&mut self, frame: &Frame, payload: &[u8]) -> Option<T> {
        self.metadata_bytes += frame.header.raw as usize;
        let read = if self.metadata_bytes > METADATA_MAX {
            Err("the file holds more metadata than a recording can have".to_owned())
        } else {
            metadata(frame, payload)
                .and_then(|json| serde_json::from_slice(&json).map_err(|error| error.to_string()))
        };
        read.inspect_err(|reason| {
            let message = format!(
                "the metadata at byte {} were skipped: {reason}",
                frame.offset
            );
            self.problems
                .push(Problem::error(Code::BadMetadata, message));
        })
        .ok()
    }

    pub(super) fn finish<R: Read>(mut self, frames: &Frames<R>, events: u64) -> Summary {
        self.state_losses(frames.offset());
        let mut summary = self.summary;
        summary.events = events;
        summary.bytes = frames.offset();
        summary.truncated = frames.truncated;
        summary.missing_frames = frames.missing;
        summary.problems = self.problems.into_list();
        summary
    }

    fn state_losses(&mut self, bytes: u64) {
        let problems = &mut self.problems;
        if self.summary.end.is_none() && !self.summary.stopped {
            let message = format!("recording did not end in order: no end frame in {bytes} bytes");
            problems.push(Problem::data_loss(Code::NoEnd, message));
        }
        let lost = self
            .summary
            .lost
            .values()
            .fold(0u64, |sum, &count| sum.saturating_add(count));
        if lost > 0 {
            let message = format!("the recorder could not store {lost} events");
            problems.push(Problem::data_loss(Code::EventsLost, message));
        }
        if self.unknown_records > 0 {
            let message = format!(
                "{} records are of kinds that this version does not know",
                self.unknown_records
            );
            problems.push(Problem::info(Code::UnknownKind, message));
        }
        if self.unknown_frames > 0 {
            let message = format!(
                "{} frames are of types that this version does not know",
                self.unknown_frames
            );
            problems.push(Problem::info(Code::UnknownFrame, message));
        }
        if self.merge.late > 0 {
            let message = format!("{} events were delivered after newer ones", self.merge.late);
            problems.push(Problem::info(Code::Late, message));
        }
        if self.merge.forced > 0 {
            let message = format!(
                "events were handed out early {} times: too many waited",
                self.merge.forced
            );
            problems.push(Problem::error(Code::MemoryLimit, message));
        }
    }
}

/// The bytes behind a compressed or plain payload.
pub(super) fn metadata(frame: &Frame, payload: &[u8]) -> Result<Vec<u8>, String> {
    if frame.header.flags & flag::ZSTD == 0 {
        return Ok(payload.to_vec());
    }
    let raw = frame.header.raw as usize;
    zstd::bulk::decompress(payload, raw).map_err(|error| error.to_string())
}
