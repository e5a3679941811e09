//! Reads a trace: one pass, all events in the order of time, and what is missing.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::Path;

use serde::de::DeserializeOwned;

use super::codec::{Decoder, Place, Shapes};
use super::error::TraceError;
use super::event::Event;
use super::format::{
    BlockHeader, FILE_HEADER, FILE_MAGIC, FrameHeader, PAYLOAD_MAX, frame_type, u32_at,
};
use super::frames::{Frame, Frames};
use super::merge::Merge;
use super::model::{Change, End, Start, Symbols};
use super::problem::{Code, Problem, Problems};
use super::upgrade::{FORMAT_VERSION, shapes};
use super::varint;

/// Bytes of metadata behind the start frame that are kept; hostile files repeat frames for ever.
const METADATA_MAX: usize = 128 << 20;

/// A file or standard input.
#[derive(Debug)]
pub enum Input {
    /// A file.
    File(File),
    /// Standard input, for the path `-`.
    Stdin(io::Stdin),
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Input::File(file) => file.read(buffer),
            Input::Stdin(stdin) => stdin.lock().read(buffer),
        }
    }
}

/// What a receiver of events returns: nothing, or whether to go on.
pub trait Verdict {
    /// Whether it wants more events.
    fn goes_on(self) -> bool;
}

impl Verdict for () {
    fn goes_on(self) -> bool {
        true
    }
}

impl Verdict for ControlFlow<()> {
    fn goes_on(self) -> bool {
        self.is_continue()
    }
}

/// What a trace held beside its events.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// The end frame, if the recording ended in order.
    pub end: Option<End>,
    /// Changes while recording, in file order.
    pub changes: Vec<Change>,
    /// All symbols.
    pub symbols: Symbols,
    /// Events that the recorder could not store, by probe number.
    pub lost: BTreeMap<u8, u64>,
    /// Intact blocks.
    pub blocks: u64,
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

/// A trace that is being read.
pub struct Reader<R> {
    frames: Frames<R>,
    path: String,
    start: Start,
    shapes: Box<Shapes>,
    problems: Problems,
}

impl Reader<Input> {
    /// Opens a file, or standard input for `-`, and reads the start frame.
    ///
    /// # Errors
    ///
    /// What cannot be opened, is not a trace, was written by a newer version, or ends before its
    /// start frame is complete.
    pub fn open(path: &Path) -> Result<Self, TraceError> {
        if path == Path::new("-") {
            return Reader::named(Input::Stdin(io::stdin()), "standard input");
        }
        let name = path.display().to_string();
        match File::open(path) {
            Ok(file) => Reader::named(Input::File(file), &name),
            Err(source) => Err(TraceError::Open {
                operation: "open",
                path: name,
                source,
            }),
        }
    }
}

impl<R: Read> Reader<R> {
    /// Reads the start frame from any source of bytes.
    ///
    /// # Errors
    ///
    /// As [`open`](Reader::open).
    pub fn new(input: R) -> Result<Self, TraceError> {
        Self::named(input, "the trace")
    }

    /// As [`new`](Self::new), with a name for messages.
    ///
    /// # Errors
    ///
    /// As [`open`](Reader::open).
    pub fn named(input: R, name: &str) -> Result<Self, TraceError> {
        let path = name.to_owned();
        let mut frames = Frames::new(input);
        let mut problems = Problems::default();
        read_file_header(&mut frames, &path, &mut problems)?;
        let start = read_start(&mut frames, &path)?;
        if start.format_version > FORMAT_VERSION {
            return Err(TraceError::NewerVersion {
                path,
                found: start.format_version,
                supported: FORMAT_VERSION,
            });
        }
        let (shapes, odd) = shapes(&start.kinds);
        odd.into_iter().for_each(|problem| problems.push(problem));
        Ok(Reader {
            frames,
            path,
            start,
            shapes,
            problems,
        })
    }

    /// What was recorded where.
    #[must_use]
    pub fn start(&self) -> &Start {
        &self.start
    }

    /// Where it is read from.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Hands all events to `receive` in the order of time. The receiver returns `()` or a
    /// [`ControlFlow`].
    ///
    /// # Errors
    ///
    /// None at present: damage and read errors end up in [`Summary::problems`], so that the
    /// events before them count.
    pub fn for_each<V: Verdict>(
        self,
        mut receive: impl FnMut(Event<'_>) -> V,
    ) -> Result<Summary, TraceError> {
        let mut events = 0;
        let mut deliver = |event: Event<'_>| {
            events += 1;
            receive(event).goes_on()
        };
        let mut pass = Pass::new(self.shapes, self.problems);
        let mut frames = self.frames;
        pass.run(&mut frames, &mut deliver);
        Ok(pass.finish(&frames, events))
    }
}

/// Checks signature and version before anything else is believed.
fn read_file_header<R: Read>(
    frames: &mut Frames<R>,
    path: &str,
    problems: &mut Problems,
) -> Result<(), TraceError> {
    let failed = |source| TraceError::Read {
        path: path.to_owned(),
        offset: 0,
        source,
    };
    // A frame header in the right place is as good a signature.
    let bytes = frames
        .peek(FILE_HEADER + super::format::FRAME_HEADER)
        .map_err(failed)?;
    let signature = bytes.starts_with(&FILE_MAGIC);
    let frame_follows = bytes
        .get(FILE_HEADER..)
        .and_then(FrameHeader::decode)
        .is_some();
    if bytes.len() < FILE_HEADER && FILE_MAGIC.starts_with(&bytes[..bytes.len().min(8)]) {
        return Err(TraceError::TruncatedStart {
            path: path.to_owned(),
            bytes: bytes.len() as u64,
        });
    }
    if !signature && !frame_follows {
        return Err(TraceError::NotATrace {
            path: path.to_owned(),
        });
    }
    let intact = signature && crc32fast::hash(&bytes[..12]) == u32_at(bytes, 12);
    let found = u32_at(bytes, 8);
    if intact && found > FORMAT_VERSION {
        return Err(TraceError::NewerVersion {
            path: path.to_owned(),
            found,
            supported: FORMAT_VERSION,
        });
    }
    if !intact {
        let message = "the file header at byte 0 is damaged; the version in the start frame counts";
        problems.push(Problem::error(Code::DamagedHeader, message));
    }
    frames.skip(FILE_HEADER);
    Ok(())
}

/// Reads the frame without which nothing else has a meaning.
fn read_start<R: Read>(frames: &mut Frames<R>, path: &str) -> Result<Start, TraceError> {
    let offset = frames.offset();
    let mut problems = Problems::default();
    let failed = |source| TraceError::Read {
        path: path.to_owned(),
        offset,
        source,
    };
    let damaged = |reason: String| TraceError::DamagedStart {
        path: path.to_owned(),
        offset,
        reason,
    };
    match frames.next(&mut problems).map_err(failed)? {
        Some(frame) if frame.header.kind == frame_type::START => {
            let json = metadata(&frame, frames.payload(&frame)).map_err(damaged)?;
            serde_json::from_slice(&json).map_err(|error| damaged(error.to_string()))
        }
        Some(_) => Err(damaged("another frame is in its place".to_owned())),
        None => Err(TraceError::TruncatedStart {
            path: path.to_owned(),
            bytes: frames.offset(),
        }),
    }
}

/// Decompresses a metadata frame.
fn metadata(frame: &Frame, payload: &[u8]) -> Result<Vec<u8>, String> {
    zstd::bulk::decompress(payload, (frame.header.raw as usize).min(PAYLOAD_MAX))
        .map_err(|error| error.to_string())
}

/// One pass over the frames behind the start frame.
struct Pass {
    shapes: Box<Shapes>,
    problems: Problems,
    summary: Summary,
    decoder: Decoder,
    decompressor: Option<zstd::bulk::Decompressor<'static>>,
    raw: Vec<u8>,
    places: Vec<Place>,
    merge: Merge,
    metadata_bytes: usize,
    unknown_records: u64,
    unknown_frames: u64,
}

impl Pass {
    fn new(shapes: Box<Shapes>, problems: Problems) -> Self {
        Pass {
            shapes,
            problems,
            summary: Summary::default(),
            decoder: Decoder::new(),
            decompressor: zstd::bulk::Decompressor::new().ok(),
            raw: Vec::new(),
            places: Vec::new(),
            merge: Merge::default(),
            metadata_bytes: 0,
            unknown_records: 0,
            unknown_frames: 0,
        }
    }

    fn run<R: Read>(
        &mut self,
        frames: &mut Frames<R>,
        deliver: &mut impl FnMut(Event<'_>) -> bool,
    ) {
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
            if !self.merge.release(deliver) {
                self.summary.stopped = true;
                return;
            }
        }
        self.summary.stopped = !self.merge.finish(deliver);
    }

    fn frame(&mut self, frame: &Frame, payload: &[u8]) {
        let offset = frame.offset;
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
                    self.summary.symbols.kernel.extend(symbols.kernel);
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
        let length = frame.header.raw as usize;
        self.raw.clear();
        self.raw.resize(length + varint::ROOM, 0);
        let decompressor = self.decompressor.as_mut().ok_or("no memory for zstd")?;
        let written = decompressor.decompress_to_buffer(columns, &mut self.raw[..length]);
        if written.map_err(|error| error.to_string())? != length {
            return Err("it has another length than its header says".to_owned());
        }
        let mut room = self.merge.room();
        self.places.clear();
        let decoded = self.decoder.decode(
            &self.raw,
            header.records,
            &self.shapes,
            &mut room,
            &mut self.places,
        )?;
        self.unknown_records += decoded.unknown;
        self.summary.blocks += 1;
        self.merge.add(room, &self.places, header.watermark_ns);
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

    fn finish<R: Read>(mut self, frames: &Frames<R>, events: u64) -> Summary {
        self.state_losses(frames.offset());
        let mut summary = self.summary;
        summary.events = events;
        summary.bytes = frames.offset();
        summary.truncated = frames.truncated;
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
