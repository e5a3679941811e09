//! Commands that need the kernel.

use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use super::args::{AttachArgs, CaptureArgs, DoctorArgs, Format, RecordArgs, ReportFormat};
use super::offline::{analyse, failed_on, write_form};
use super::onlooker::{Form, Onlooker};
use super::output::Output;
use super::values::{Destination, chosen_probes};
use super::{ExitStatus, Failure};
use crate::probe::discover::{self, Selector};
use crate::probe::doctor;
use crate::record::{self, Outcome, Reason, RecordError, Request, command_of};
use crate::report::units;

/// `vpnbench doctor`
pub(super) fn doctor(args: DoctorArgs, output: &mut Output) -> Result<ExitStatus, Failure> {
    let report = super::doctor::examine();
    output.to(&Destination::Stdout, |out, screen| match args.format {
        Format::Text => report.write_text(screen, out),
        Format::Json => report.write_json(out),
    })?;
    Ok(match report.verdict {
        crate::report::doctor::Verdict::Blocked => ExitStatus::NotAllowed,
        _ => ExitStatus::Done,
    })
}

/// `vpnbench attach`
pub(super) fn attach(args: AttachArgs, output: &mut Output) -> Result<ExitStatus, Failure> {
    let destination = args.report_file.unwrap_or(Destination::Stdout);
    let stdout_is_ours = args.report != ReportFormat::Text && destination == Destination::Stdout;
    // Without a name, so that nothing is left of it however this process ends.
    let temporary = tempfile::tempfile().context("cannot create a temporary file for the trace")?;
    let trace = args
        .output
        .clone()
        .unwrap_or_else(|| format!("/proc/self/fd/{}", temporary.as_raw_fd()).into());
    // While the privileges to create it are there, and before the command runs.
    let mut target = output.open(&destination)?;
    let mut request = request(args.capture, trace.clone(), stdout_is_ours);
    let (outcome, report) = match args.tui {
        true => {
            let form = Form::Screen {
                colour: output.screen().colour,
            };
            Onlooker::new(form)?.run(&mut request)?
        }
        false => (run(&request)?, analyse(&trace)?),
    };
    output.write_to(&mut target, write_form(&report, args.report))?;
    match &args.output {
        Some(path) => log::info!("trace kept in {}", path.display()),
        None => log::info!("the trace was temporary; keep it with -o FILE"),
    }
    let ended = status(&outcome);
    Ok(match failed_on(&report, &args.fail_on) {
        Some(matched) if ended == ExitStatus::Done => matched,
        _ => ended,
    })
}

/// `vpnbench record`
pub(super) fn record(args: RecordArgs, _output: &mut Output) -> Result<ExitStatus, Failure> {
    let to_stdout = args.output == Path::new("-");
    let name = args.output.display().to_string();
    let output = if to_stdout {
        PathBuf::from("/dev/stdout")
    } else {
        args.output
    };
    let request = request(args.capture, output, to_stdout);
    let outcome = run(&request)?;
    log::info!(
        "{name}: {} events, {} lost, {}; ended by {}",
        units::count(outcome.totals.events),
        units::count(outcome.totals.lost),
        units::bytes(outcome.totals.bytes),
        outcome.reason.name(),
    );
    Ok(status(&outcome))
}

/// Records, with what goes wrong as exit status and next step.
pub(super) fn run(request: &Request) -> Result<Outcome, Failure> {
    run_command(request, command_of(&request.selector))
}

/// The same with a command made by the caller.
pub(super) fn run_command(request: &Request, command: Option<Command>) -> Result<Outcome, Failure> {
    doctor::may_record().map_err(|error| {
        let hint = "run it as root (sudo vpnbench ..); `vpnbench doctor` says what is missing";
        Failure::new(ExitStatus::NotAllowed, error.into(), hint)
    })?;
    record::record(request, command, &mut say).map_err(failure)
}

/// Tells the user something on standard error.
pub(super) fn say(sentence: &str) {
    log::warn!("{sentence}");
}

/// The exit status and hint of a recording that could not be made.
pub(super) fn failure(error: RecordError) -> Failure {
    match error {
        RecordError::Attach(error) if error.is_unsupported() => {
            let hint = "`vpnbench doctor` says what this kernel and user may do";
            Failure::new(ExitStatus::NotAllowed, error.into(), hint)
        }
        RecordError::Discover(discover::Error::Ambiguous { .. }) => {
            let hint = "name the tunnel with --tun, --pid or --netns";
            Failure::new(ExitStatus::Usage, error.into(), hint)
        }
        RecordError::Command { .. } => {
            let hint = "the command after -- is searched in PATH; nothing was recorded";
            Failure::new(ExitStatus::BenchmarkFailed, error.into(), hint)
        }
        other => other.into(),
    }
}

/// How a recording that was made ends the process.
pub(super) fn status(outcome: &Outcome) -> ExitStatus {
    if outcome.write_error.is_some() {
        return ExitStatus::Failed;
    }
    match &outcome.command {
        Some(command) if command.code != Some(0) && outcome.reason == Reason::Command => {
            match (command.code, command.signal) {
                (Some(code), _) => log::warn!("the command failed with status {code}"),
                (_, Some(signal)) => log::warn!("the command was ended by signal {signal}"),
                _ => log::warn!("the command failed"),
            }
            ExitStatus::BenchmarkFailed
        }
        _ => ExitStatus::Done,
    }
}

/// The recording that these options ask for.
pub(super) fn request(capture: CaptureArgs, output: PathBuf, stdout_is_ours: bool) -> Request {
    Request {
        selector: Selector {
            tun: (!capture.tun.is_empty()).then(|| capture.tun.join(",")),
            outer: capture.outer.map(|outer| outer.to_string()),
            pid: capture.pid,
            comm: capture.comm,
            netns: capture.netns,
            peer: capture.peer,
            command: capture.command,
        },
        probes: chosen_probes(&capture.probes),
        threads: !capture.no_threads,
        stacks: capture.stacks,
        buffer_bytes: capture.buffer.bytes(),
        keep_payload: capture.keep_payload,
        duration: capture.duration,
        output,
        stdout_is_ours,
        quiet: false,
        progress: log::log_enabled!(log::Level::Warn),
        second_interrupt_ends: true,
        observer: None,
    }
}
