//! Reads a trace: one pass, all events in the order of time, and what is missing.

use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::Path;

use super::codec::Shapes;
use super::error::TraceError;
use super::event::Event;
use super::format::{
    FILE_HEADER, FILE_MAGIC, FRAME_HEADER, FrameHeader, frame_type, is_checksum, u32_at,
};
use super::frames::Frames;
use super::model::Start;
use super::pass::{Pass, Receiver, Summary, metadata};
use super::problem::{Code, Problem, Problems};
use super::upgrade::{FORMAT_VERSION, shapes};

/// A file or standard input.
#[derive(Debug)]
pub enum Input {
    /// A file.
    File(File),
    /// Standard input, for the path `-`.
    Stdin(io::Stdin),
}

impl Input {
    /// Opens a file, or standard input for `-`.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn open(path: &Path) -> io::Result<Input> {
        if path == Path::new("-") {
            return Ok(Input::Stdin(io::stdin()));
        }
        File::open(path).map(Input::File)
    }

    /// Name of what a path stands for, for messages.
    #[must_use]
    pub fn name(path: &Path) -> String {
        if path == Path::new("-") {
            return "standard input".to_owned();
        }
        path.display().to_string()
    }
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
        let name = Input::name(path);
        match Input::open(path) {
            Ok(input) => Reader::named(input, &name),
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
        let start = read_start(&mut frames, &path, &mut problems)?;
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
        let receive = |event: Event<'_>| receive(event).goes_on();
        Ok(self.hand_out(&mut Whole(receive)))
    }

    /// Hands all events of a trace that is still being written to `receiver`, as they come; `input`
    /// waits for more where the file ends, until the recording is over.
    #[must_use]
    pub fn follow(self, receiver: &mut impl Receiver) -> Summary {
        self.hand_out(receiver)
    }

    fn hand_out<T: Receiver>(self, receiver: &mut T) -> Summary {
        let mut counted = Counted {
            events: 0,
            receiver,
        };
        let mut pass = Pass::new(self.start, self.shapes, self.problems);
        let mut frames = self.frames;
        pass.run(&mut frames, &mut counted);
        pass.finish(&frames, counted.events)
    }
}

/// The receiver of a trace that is complete.
struct Whole<F>(F);

impl<F: FnMut(Event<'_>) -> bool> Receiver for Whole<F> {
    const LIVE: bool = false;

    fn event(&mut self, event: Event<'_>) -> bool {
        (self.0)(event)
    }
}

struct Counted<'a, T> {
    events: u64,
    receiver: &'a mut T,
}

impl<T: Receiver> Receiver for Counted<'_, T> {
    const LIVE: bool = T::LIVE;

    fn event(&mut self, event: Event<'_>) -> bool {
        self.events += 1;
        self.receiver.event(event)
    }

    fn pause(&mut self, so_far: &Summary) {
        self.receiver.pause(so_far);
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
    let bytes = frames.peek(FILE_HEADER + FRAME_HEADER).map_err(failed)?;
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
    let intact = signature && is_checksum(&bytes[..12], u32_at(bytes, 12));
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
fn read_start<R: Read>(
    frames: &mut Frames<R>,
    path: &str,
    problems: &mut Problems,
) -> Result<Start, TraceError> {
    let offset = frames.offset();
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
    match frames.next(problems).map_err(failed)? {
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
