//! Recordings of several hosts as one: traces and captures of the same run, joined by their packets.
//!
//! Two passes. The first finds out how the clocks relate ([`clock`]). The second reads all recordings at
//! once, each in a thread of its own, brings times to the first host's clock, tells equal numbers of
//! different machines apart ([`tag`]) and hands out all events in the order of time.

pub mod clock;
mod metadata;
pub mod tag;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use crate::import::{Import, ImportError, Plan};
use crate::trace::model::Start;
use crate::trace::{Batch, Code, Event, Input, Problem, Reader, Summary, TraceError};
use clock::{Aligned, Crossings};
use metadata::Marked;
use tag::{Fields, MACHINES_MAX, Tag};

/// Words of records that are handed over at a time.
const BATCH: usize = 1 << 16;
/// Batches of a recording that wait.
const BATCHES: usize = 4;

/// One recording of a host or of several with one clock.
#[derive(Debug, Clone)]
pub enum Recording {
    /// A trace.
    Trace(PathBuf),
    /// Captures of one host.
    Captures(Plan),
}

/// Why recordings cannot be joined.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// A trace cannot be read.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// A capture cannot be read.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// Something that can be read once only.
    #[error(
        "standard input cannot be joined with others: it is read twice; write it to a file first"
    )]
    Pipe,
    /// Too many.
    #[error("{0} recordings are too many to be joined: at most {MACHINES_MAX}")]
    TooMany(usize),
    /// A thread ended without a result.
    #[error("a thread that read a recording ended early")]
    Thread,
}

enum Opened {
    Trace(Box<Reader<Input>>),
    Captures(Box<Import>),
}

impl Recording {
    fn open(&self) -> Result<Opened, JoinError> {
        Ok(match self {
            Recording::Trace(path) => Opened::Trace(Box::new(Reader::open(path)?)),
            Recording::Captures(plan) => Opened::Captures(Box::new(Import::open(plan)?)),
        })
    }

    fn is_pipe(&self) -> bool {
        let pipe = |path: &PathBuf| path.as_os_str() == "-";
        match self {
            Recording::Trace(path) => pipe(path),
            Recording::Captures(plan) => plan.sources.iter().any(|one| pipe(&one.path)),
        }
    }

    fn name(&self) -> String {
        match self {
            Recording::Trace(path) => path.display().to_string(),
            Recording::Captures(plan) => {
                let host = plan.sources.first().map(|one| one.host.clone());
                host.unwrap_or_default()
            }
        }
    }
}

impl Opened {
    fn start(&self) -> &Start {
        match self {
            Opened::Trace(reader) => reader.start(),
            Opened::Captures(import) => import.start(),
        }
    }

    fn for_each(self, receive: impl FnMut(Event<'_>)) -> Result<Summary, JoinError> {
        Ok(match self {
            Opened::Trace(reader) => reader.for_each(receive)?,
            Opened::Captures(import) => import.for_each(receive)?,
        })
    }
}

/// Recordings whose clocks are known, ready to be read as one.
pub struct Joined {
    recordings: Vec<Recording>,
    clocks: Vec<Aligned>,
    tags: Vec<Tag>,
    start: Start,
}

impl Joined {
    /// Reads all recordings once and finds out how their clocks relate.
    ///
    /// # Errors
    ///
    /// What cannot be read, or not twice.
    pub fn new(recordings: Vec<Recording>) -> Result<Joined, JoinError> {
        if recordings.len() > MACHINES_MAX {
            return Err(JoinError::TooMany(recordings.len()));
        }
        if recordings.iter().any(Recording::is_pipe) {
            return Err(JoinError::Pipe);
        }
        let mut crossings = Crossings::default();
        let mut starts = Vec::new();
        for (number, recording) in recordings.iter().enumerate() {
            let opened = recording.open()?;
            starts.push(opened.start().clone());
            opened.for_each(|event| {
                if let Event::Packet(packet) = event {
                    crossings.observe(number, packet);
                }
            })?;
        }
        let otherwise: Vec<clock::Mapping> = starts
            .iter()
            .map(|start| metadata::by_wall_clock(&starts[0], start))
            .collect();
        let clocks = crossings.align(&otherwise);
        let mut taken = BTreeSet::new();
        let mut tags = Vec::new();
        for (number, start) in starts.iter().enumerate() {
            let own = metadata::namespaces(start);
            let tag = Tag::new(number, &own, &taken);
            taken.extend(own.iter().map(|one| tag.netns(*one)));
            tags.push(tag);
        }
        let marked = starts.into_iter().zip(tags.iter().zip(&clocks));
        let marked = marked.map(|(start, (tag, clock))| Marked { tag, clock }.start(start));
        let start = metadata::starts(marked.collect());
        Ok(Joined {
            recordings,
            clocks,
            tags,
            start,
        })
    }

    /// What was recorded where, of all.
    #[must_use]
    pub fn start(&self) -> &Start {
        &self.start
    }

    /// Clocks in terms of the first recording's.
    #[must_use]
    pub fn clocks(&self) -> &[Aligned] {
        &self.clocks
    }

    /// Hands out the events of all recordings in the order of time.
    ///
    /// # Errors
    ///
    /// What could be read the first time and no more.
    pub fn for_each(self, mut receive: impl FnMut(Event<'_>)) -> Result<Summary, JoinError> {
        let mut problems = self.problems();
        let (tags, clocks) = (&self.tags, &self.clocks);
        let all: Result<Vec<Summary>, JoinError> = thread::scope(|scope| {
            let mut threads = Vec::new();
            let mut queues = Vec::new();
            for (number, recording) in self.recordings.iter().enumerate() {
                let (sender, receiver) = sync_channel(BATCHES);
                let (tag, clock) = (&tags[number], &clocks[number]);
                threads.push(scope.spawn(move || produce(recording, tag, clock, sender)));
                queues.push(Queue::new(receiver));
            }
            merge(&mut queues, &mut receive);
            let ended = threads
                .into_iter()
                .map(|one| one.join().map_err(|_| JoinError::Thread)?);
            ended.collect()
        });
        let marked = all?.into_iter().zip(tags.iter().zip(clocks));
        let marked = marked.map(|(summary, (tag, clock))| Marked { tag, clock }.summary(summary));
        let mut summary = metadata::summaries(self.start, marked.collect());
        problems.append(&mut summary.problems);
        summary.problems = problems;
        Ok(summary)
    }

    /// What is to be said about the clocks.
    fn problems(&self) -> Vec<Problem> {
        let first = self.recordings[0].name();
        let others = self.recordings.iter().zip(&self.clocks).skip(1);
        let rows = others.map(|(recording, clock)| {
            let name = recording.name();
            let Some(error) = clock.uncertainty_ns else {
                let message = format!(
                    "{name}: too few packets crossed between it and the others to align its clock with that of {first}; the wall clocks are taken to agree, and one-way times are not to be believed"
                );
                return Problem::data_loss(Code::ClockStep, message);
            };
            let message = format!(
                "{name}: its clock is {:+.6} s against that of {first} in the middle of the run and gains {:.2} ppm, by {} packets there and {} back; times between the two may be off by {:.1} us",
                clock.offset_ns as f64 / 1e9,
                clock.drift_ppm,
                clock.packets.0,
                clock.packets.1,
                error / 1000.0
            );
            Problem::info(Code::ClockStep, message)
        });
        rows.collect()
    }
}

/// Reads a recording and sends its records, with times and numbers as the joined recording has them.
fn produce(
    recording: &Recording,
    tag: &Tag,
    clock: &Aligned,
    sender: SyncSender<Batch>,
) -> Result<Summary, JoinError> {
    let fields = Fields::new();
    let mut batch = Batch::with_room(BATCH);
    let summary = recording.open()?.for_each(|event| {
        let record = batch.push(&event);
        record[0] = clock.mapping.of(record[0]);
        tag.record(&fields, record);
        if batch.words() >= BATCH {
            // The receiver takes everything; it is gone only if it panicked.
            let _ = sender.send(std::mem::replace(&mut batch, Batch::with_room(BATCH)));
        }
    })?;
    let _ = sender.send(batch);
    Ok(summary)
}

/// Records of one recording that arrive in batches.
struct Queue {
    receiver: Receiver<Batch>,
    batch: Batch,
    at: usize,
}

impl Queue {
    fn new(receiver: Receiver<Batch>) -> Queue {
        Queue {
            receiver,
            batch: Batch::default(),
            at: 0,
        }
    }

    /// Time of the next record; `None` at the end.
    fn next_ns(&mut self) -> Option<u64> {
        while self.at >= self.batch.words() {
            self.batch = self.receiver.recv().ok()?;
            self.at = 0;
        }
        self.batch.time_at(self.at)
    }

    fn take(&mut self) -> Option<Event<'_>> {
        let Some((event, next)) = self.batch.at(self.at) else {
            // Nothing that is sent is unknown; were it, it would end here.
            self.at = self.batch.words();
            return None;
        };
        self.at = next;
        Some(event)
    }
}

fn merge(queues: &mut [Queue], receive: &mut impl FnMut(Event<'_>)) {
    loop {
        let mut first: Option<(u64, usize)> = None;
        for (number, queue) in queues.iter_mut().enumerate() {
            if let Some(time) = queue.next_ns()
                && first.is_none_or(|(least, _)| time < least)
            {
                first = Some((time, number));
            }
        }
        let Some((_, number)) = first else { return };
        if let Some(event) = queues[number].take() {
            receive(event);
        }
    }
}
