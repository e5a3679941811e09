//! Reads a trace while it is recorded, and shows it. The analyses are those of `report`, fed as events come;
//! for each interval a copy of them is ended, and the difference to the one before is shown.
//!
//! Three threads beside the recording's: one that reads and analyses, one that has the terminal or writes to
//! standard output, and the recording's own, which asks whether to end.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Seek as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::live::run_command;
use super::logger;
use super::offline::conclude;
use super::screen;
use super::{ExitStatus, Failure};
use crate::analysis::{Analyses, Context};
use crate::explain::Given;
use crate::record::{Observer, Outcome, Request, command_of};
use crate::report::live::{Moment, plain};
use crate::report::table::Screen;
use crate::report::{self, Recording, Report};
use crate::trace::{self, Event, Reader, Summary};

/// Shortest interval.
const INTERVAL_NS: u64 = 1_000_000_000;
/// An interval is at least so many times as long as it took to end the analyses of the last one.
const SPARING: u32 = 8;
/// Pause where the trace has no more yet.
const PAUSE: Duration = Duration::from_millis(20);

/// How a recording is shown while it is made.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form {
    /// A table for each interval on standard output.
    Tables(Screen),
    /// A line of JSON likewise.
    Lines,
    /// The whole terminal.
    Screen {
        /// Whether in colours.
        colour: bool,
    },
    /// Not at all.
    Nothing,
}

/// Looks on.
pub(super) struct Onlooker(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    form: Form,
    wants_end: Arc<AtomicBool>,
    /// Set when the recording ends: whoever shows it stops.
    ending: Arc<AtomicBool>,
    /// Set when nothing more will be written.
    over: Arc<AtomicBool>,
    threads: Mutex<Threads>,
}

#[derive(Debug, Default)]
struct Threads {
    follower: Option<JoinHandle<anyhow::Result<(Analyses, Summary)>>>,
    show: Option<JoinHandle<io::Result<()>>>,
    shown: Option<io::Result<()>>,
}

impl Onlooker {
    /// Somebody who shows the next recording like this.
    pub(super) fn new(form: Form) -> Result<Onlooker, Failure> {
        if matches!(form, Form::Screen { .. }) {
            screen::terminal()?;
        }
        Ok(Onlooker(Arc::new(Shared {
            form,
            wants_end: Arc::default(),
            ending: Arc::default(),
            over: Arc::default(),
            threads: Mutex::default(),
        })))
    }

    /// Records and shows it; the report of the whole recording.
    pub(super) fn run(self, request: &mut Request) -> Result<(Outcome, Report), Failure> {
        let shared = self.0;
        request.observer = Some(shared.clone());
        let mut command = command_of(&request.selector);
        let mut complaints = None;
        if matches!(shared.form, Form::Screen { .. }) {
            request.progress = false;
            request.quiet = true;
            if let Some(command) = &mut command {
                complaints = Some(away_from_terminal(command)?);
            }
            logger::hold();
        }
        let outcome = run_command(request, command);
        shared.over.store(true, Ordering::Release);
        shared.ending();
        logger::release();
        if let Some(mut complaints) = complaints {
            // What the command wrote while it had no terminal.
            complaints
                .rewind()
                .context("cannot read a temporary file")?;
            let written = outcome.as_ref().ok().and_then(|one| one.output.as_ref());
            for chunk in written.into_iter().flat_map(|output| &output.chunks) {
                io::stdout().write_all(chunk.text.as_bytes())?;
            }
            io::copy(&mut complaints, &mut io::stderr())?;
        }
        let outcome = outcome?;
        let mut threads = shared.threads();
        if let Some(Err(error)) = threads.shown.take() {
            return Err(error.into());
        }
        let follower = threads.follower.take();
        let follower = follower.context("the recording ended before it was looked at")?;
        let (analyses, summary) = join(follower)?;
        Ok((outcome, conclude(analyses, &summary, &Given::default())))
    }
}

/// Takes the command's input and errors off the terminal; where the errors go.
fn away_from_terminal(command: &mut Command) -> anyhow::Result<File> {
    let file = tempfile::tempfile().context("cannot create a temporary file")?;
    let errors = file.try_clone().context("cannot copy a descriptor")?;
    command.stdin(Stdio::null()).stderr(errors);
    Ok(file)
}

fn join<T>(thread: JoinHandle<T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

impl Shared {
    fn threads(&self) -> MutexGuard<'_, Threads> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Shared {
    fn started(&self, trace: File) {
        let (send, moments) = channel();
        let growing = Growing {
            file: trace,
            over: self.over.clone(),
        };
        let guard = EndsRecording(self.wants_end.clone());
        let wanted = !matches!(self.form, Form::Nothing);
        let follower = std::thread::spawn(move || {
            let _guard = guard;
            follow(growing, wanted.then_some(send))
        });
        let mut threads = self.threads();
        threads.follower = Some(follower);
        if !wanted {
            return;
        }
        let (form, ending) = (self.form, self.ending.clone());
        let guard = EndsRecording(self.wants_end.clone());
        threads.show = Some(std::thread::spawn(move || {
            let _guard = guard;
            match form {
                Form::Tables(screen) => write_each(&moments, &ending, |moment, out| {
                    plain::write(moment, screen, out)
                }),
                Form::Lines => write_each(&moments, &ending, plain::write_json),
                Form::Screen { colour } => screen::live(&moments, &ending, colour),
                Form::Nothing => Ok(()),
            }
        }));
    }

    fn wants_end(&self) -> bool {
        self.wants_end.load(Ordering::Acquire)
    }

    fn ending(&self) {
        self.ending.store(true, Ordering::Release);
        let show = self.threads().show.take();
        if let Some(show) = show {
            let shown = join(show);
            self.threads().shown = Some(shown);
        }
    }
}

/// Ends the recording when whoever shows it is done, or has panicked.
struct EndsRecording(Arc<AtomicBool>);

impl Drop for EndsRecording {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Writes each moment to standard output until the recording ends.
fn write_each(
    moments: &Receiver<Arc<Moment>>,
    ending: &AtomicBool,
    write: impl Fn(&Moment, &mut dyn io::Write) -> io::Result<()>,
) -> io::Result<()> {
    let mut out = io::stdout();
    loop {
        match moments.recv_timeout(PAUSE) {
            Ok(moment) => {
                let mut text = Vec::new();
                write(&moment, &mut text)?;
                out.write_all(&text)?;
                out.flush()?;
            }
            Err(RecvTimeoutError::Timeout) if !ending.load(Ordering::Acquire) => {}
            Err(_) => return Ok(()),
        }
    }
}

/// A file that is still being written: its end is the end once the recording is over.
struct Growing {
    file: File,
    over: Arc<AtomicBool>,
}

impl Read for Growing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let over = self.over.load(Ordering::Acquire);
            match self.file.read(buffer) {
                Ok(0) if !over => sleep(PAUSE),
                read => return read,
            }
        }
    }
}

fn follow(
    growing: Growing,
    moments: Option<Sender<Arc<Moment>>>,
) -> anyhow::Result<(Analyses, Summary)> {
    let reader = Reader::named(growing, "the trace")?;
    let mut follower = Follower {
        analyses: Analyses::new(reader.start()),
        last_ns: reader.start().clock.monotonic_ns,
        interval_ns: INTERVAL_NS,
        before: None,
        moments,
    };
    let summary = reader.follow(&mut follower);
    Ok((follower.analyses, summary))
}

/// Feeds the analyses and ends a copy of them for each interval.
struct Follower {
    analyses: Analyses,
    /// End of the last interval.
    last_ns: u64,
    interval_ns: u64,
    before: Option<Arc<Moment>>,
    /// None where nobody wants to see any.
    moments: Option<Sender<Arc<Moment>>>,
}

impl trace::Receiver for Follower {
    const LIVE: bool = true;

    fn event(&mut self, event: Event<'_>) -> bool {
        self.analyses.observe(&event);
        true
    }

    fn pause(&mut self, so_far: &Summary) {
        let Some(moments) = &self.moments else { return };
        let now_ns = self.analyses.span().last_ns.unwrap_or(0);
        let passed = now_ns.saturating_sub(self.last_ns);
        if passed < self.interval_ns {
            return;
        }
        let begun = Instant::now();
        let context = Context::of(so_far);
        let (outputs, found) = self.analyses.clone().finish(&context);
        let recording = Recording {
            bytes: Some(so_far.bytes),
            ..Recording::default()
        };
        let report = report::build(&context, outputs, found, recording);
        let before = self.before.as_ref().map(|moment| &moment.report);
        let time_s = context.seconds_since_start(now_ns);
        let moment = Moment::new(before, report, time_s, passed as f64 / 1e9);
        let moment = Arc::new(moment);
        if moments.send(moment.clone()).is_err() {
            self.moments = None;
        }
        self.before = Some(moment);
        self.last_ns = now_ns;
        let least = begun.elapsed() * SPARING;
        self.interval_ns = INTERVAL_NS.max(u64::try_from(least.as_nanos()).unwrap_or(u64::MAX));
    }
}

/// Whether standard input and output are a terminal, which a screen needs.
pub(super) fn on_terminal() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// The failure of a screen without a terminal.
pub(super) fn no_terminal() -> Failure {
    let error = anyhow::anyhow!("--tui needs a terminal as standard input and output");
    let hint =
        "without --tui `vpnbench threads` writes a table a second, --format jsonl lines of JSON";
    Failure::new(ExitStatus::Usage, error, hint)
}
