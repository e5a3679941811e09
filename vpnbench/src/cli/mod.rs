//! The command line: typed arguments, dispatch, exit status.

mod analyze;
pub mod args;
pub mod compare;
mod doctor;
mod export;
mod joined;
pub mod lab;
pub mod lab_ablate;
pub mod lab_matrix;
pub mod lab_run;
pub mod lab_scenario;
mod lanes;
mod live;
mod logger;
mod offline;
mod onlooker;
mod output;
mod screen;
pub mod study;
mod threads;
pub mod values;
pub mod vpns;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser as _;

use args::{Cli, Command};
use output::Output;

/// How a command of vpnbench ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// Done.
    Done = 0,
    /// Failed.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// The kernel or the user's privileges do not allow it.
    NotAllowed = 3,
    /// The benchmark command itself failed.
    BenchmarkFailed = 4,
    /// A finding named with `--fail-on` was supported.
    FindingMatched = 5,
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> ExitCode {
        ExitCode::from(status as u8)
    }
}

/// Why a command could not do its work.
#[derive(Debug)]
pub struct Failure {
    /// Exit status.
    pub status: ExitStatus,
    /// What went wrong, outermost first.
    pub error: anyhow::Error,
    /// What to do next.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure with a status and a next step.
    #[must_use]
    pub fn new(status: ExitStatus, error: anyhow::Error, hint: impl Into<String>) -> Failure {
        Failure {
            status,
            error,
            hint: Some(hint.into()),
        }
    }

    /// Whether the reader of our output went away, which is not an error.
    fn is_closed_pipe(&self) -> bool {
        let mut causes = self.error.chain();
        causes.any(|cause| {
            cause
                .downcast_ref::<io::Error>()
                .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
        })
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure {
            status: ExitStatus::Failed,
            error: error.into(),
            hint: None,
        }
    }
}

/// Parses the arguments of this process, does what they say, reports errors on stderr.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout; a closed pipe there is not an error.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    logger::start(cli.global.quiet, cli.global.verbose);
    let mut output = Output::new(cli.global.color);
    let result = dispatch(cli.command, &mut output);
    let result = result.and_then(|status| {
        output.flush()?;
        Ok(status)
    });
    match result {
        Ok(status) => status.into(),
        Err(failure) if failure.is_closed_pipe() => ExitStatus::Done.into(),
        Err(failure) => {
            complain(&failure);
            failure.status.into()
        }
    }
}

/// Runs one command.
fn dispatch(command: Command, output: &mut Output) -> Result<ExitStatus, Failure> {
    match command {
        Command::Doctor(args) => live::doctor(args, output),
        Command::Attach(args) => live::attach(args, output),
        Command::Record(args) => live::record(args, output),
        Command::Threads(args) => threads::threads(args, output),
        Command::Report(args) => offline::report(args, output),
        Command::Analyze(args) => analyze::run(&args, output),
        Command::Export(args) => export::run(&args, output),
        Command::Compare(args) => compare::run(&args, output),
        Command::Explain { id } => offline::explain(id.as_deref(), output),
        Command::Lab(args) => lab::run(args, output),
        Command::Study(args) => study::run(&args, output),
        Command::Completions { shell } => offline::completions(shell, output),
        Command::Man { command } => offline::man(command.as_deref(), output),
        Command::Schema => offline::schema(output),
    }
}

fn complain(failure: &Failure) {
    let causes: Vec<String> = failure.error.chain().map(ToString::to_string).collect();
    let mut text = String::new();
    for cause in &causes {
        // Errors that already quote their cause are not repeated.
        if !text.contains(cause.as_str()) {
            let colon = if text.is_empty() { "" } else { ": " };
            text.push_str(colon);
            text.push_str(cause);
        }
    }
    let mut stderr = io::stderr().lock();
    let _ = writeln!(stderr, "vpnbench: error: {text}");
    if let Some(hint) = &failure.hint {
        let _ = writeln!(stderr, "  hint: {hint}");
    }
}
