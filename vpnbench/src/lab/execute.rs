//! One run of a scenario from nothing to its directory: set up, record, analyse, take down, write.
//!
//! The directory then holds `scenario.toml` (the effective one, defaults included), `run.vbt`,
//! `report.json`, `environment.json`, `outcome.json` and `logs/`; docs/lab.md describes them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::error::{LabError, Result};
use super::outcome::{RunOutcome, Status, write_json};
use super::scenario::Scenario;
use super::{Run, signals, unrecorded};
use crate::analysis::benchmark::{self, Benchmark};
use crate::explain::Given;
use crate::record::{self, Outcome, Reason, RecordError, Request};
use crate::report::Report;
use crate::trace::Reader;
use crate::trace::model::CommandOutput;

/// Ring buffer of a lab run: both ends are recorded.
const BUFFER_BYTES: u64 = 128 << 20;

/// How a run is made.
pub struct Execution<'a> {
    /// What runs.
    pub scenario: &'a Scenario,
    /// Number of the repetition, from 1; it is added to the seed.
    pub repetition: u32,
    /// Where everything is kept; without it nothing is.
    pub directory: Option<&'a Path>,
    /// The benchmark's output belongs on standard error.
    pub quiet_stdout: bool,
    /// Analyses a trace, with what the lab knows about the run.
    pub analyse: &'a dyn Fn(&Path, &Given) -> anyhow::Result<Report>,
    /// Gets plain sentences for the user.
    pub say: &'a mut dyn FnMut(&str),
}

/// A run that was made.
#[derive(Debug)]
pub struct Executed {
    /// How it ended.
    pub outcome: RunOutcome,
    /// What the recording shows, if it was recorded.
    pub report: Option<Report>,
    /// Whether a signal ended it. What it had until then is kept, but it does not count.
    pub interrupted: bool,
}

/// Why a run could not be made, where the next one could not either.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    /// Not permitted, interrupted, or the directory cannot be written.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// The recorder does not work here.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The trace cannot be analysed.
    #[error(transparent)]
    Analysis(anyhow::Error),
}

/// Makes one run. What is wrong with this run alone (a daemon that is missing or never comes up, a
/// benchmark that fails) is in the outcome; what stops every run is an error.
///
/// # Errors
/// See [`ExecuteError`].
pub fn execute(execution: &mut Execution<'_>) -> std::result::Result<Executed, ExecuteError> {
    let scenario = seeded(execution.scenario, execution.repetition);
    let begun = Instant::now();
    let mut outcome = RunOutcome::begun(&scenario, execution.repetition, now());
    let place = Place::prepare(execution.directory, &scenario)?;
    let logs = place.kept.as_ref().map(|kept| kept.join("logs"));
    let report = match super::start(&scenario.options(logs)) {
        Ok(run) => measure(execution, &scenario, run, &place, &mut outcome)?,
        Err(stop @ (LabError::NotPermitted | LabError::Interrupted)) => return Err(stop.into()),
        Err(error) => {
            outcome = outcome.failed(&error);
            None
        }
    };
    outcome.duration_s = begun.elapsed().as_secs_f64();
    let interrupted = signals::check().is_err();
    if let Some(kept) = &place.kept {
        if let Some(report) = &report {
            let path = kept.join("report.json");
            write_json(&path, report).map_err(LabError::file("writing", &path))?;
        }
        if !interrupted {
            let written = outcome.write(kept);
            written.map_err(LabError::file("writing the outcome into", kept))?;
        }
    }
    Ok(Executed {
        outcome,
        report,
        interrupted,
    })
}

/// Repetitions are different experiments with the same options: each has a seed of its own.
fn seeded(scenario: &Scenario, repetition: u32) -> Scenario {
    let mut scenario = scenario.clone();
    let later = u64::from(repetition.saturating_sub(1));
    scenario.seed = scenario.seed.wrapping_add(later);
    scenario
}

/// Where a run's files go.
struct Place {
    /// The directory that stays.
    kept: Option<PathBuf>,
}

impl Place {
    fn prepare(directory: Option<&Path>, scenario: &Scenario) -> Result<Place> {
        let Some(kept) = directory else {
            return Ok(Place { kept: None });
        };
        fs::create_dir_all(kept).map_err(LabError::file("creating", kept))?;
        // That of an earlier run would say that this one is complete.
        super::registry::remove_file(&kept.join(super::outcome::FILE))?;
        let path = kept.join("scenario.toml");
        let text = scenario
            .to_toml()
            .map_err(LabError::failed("writing", path.display()))?;
        fs::write(&path, text).map_err(LabError::file("writing", &path))?;
        Ok(Place {
            kept: Some(kept.to_owned()),
        })
    }

    /// The directory that stays, or the one that vanishes with the run.
    fn of<'a>(&'a self, run: &'a Run) -> &'a Path {
        self.kept.as_deref().unwrap_or(run.directory())
    }
}

/// What a run measured.
struct Measured {
    /// Whether the benchmark did what it should, and if not, why.
    ended: std::result::Result<(), String>,
    /// What its client wrote.
    output: Option<CommandOutput>,
    /// What the recording shows.
    report: Option<Report>,
}

/// Runs the benchmark, recorded or not, takes the run down and fills in the outcome.
fn measure(
    execution: &mut Execution<'_>,
    scenario: &Scenario,
    mut run: Run,
    place: &Place,
    outcome: &mut RunOutcome,
) -> std::result::Result<Option<Report>, ExecuteError> {
    outcome.vpn_version.clone_from(&run.tunnel.version);
    if scenario.run.record && run.wire.holds_in_hosts() {
        let reason = "what waits in a host waits before the tap at its device: the report would take the wire's \
                      delay and reordering for the tunnel's; add --no-record (run.record = false), or place \
                      the impairment elsewhere";
        return Err(
            LabError::failed("recording", "the embedded wire with wire.place = \"host\"")(reason)
                .into(),
        );
    }
    let client = run
        .client()
        .map_err(LabError::failed("preparing", "the benchmark's client"))?;
    let measured = if scenario.run.record {
        recorded(execution, scenario, &mut run, client, place)?
    } else {
        let (ended, output) = unrecorded::run(client, &mut run, scenario.limit())?;
        Measured {
            ended,
            output: Some(output),
            report: None,
        }
    };
    if let Some(kept) = &place.kept {
        let path = kept.join("wire.json");
        let account = run.wire.account()?;
        write_json(&path, &account).map_err(LabError::file("writing", &path))?;
    }
    let command = &run.client_command;
    let result = match (&measured.report, &measured.output) {
        (Some(report), _) => report.benchmark.clone(),
        (None, Some(output)) => benchmark::read(command, output, None).map(|(result, _)| result),
        (None, None) => None,
    };
    if let (Some(kept), Some(output)) = (&place.kept, &measured.output) {
        let saved = super::benchmark::save(kept, command, output, result.as_ref());
        saved.map_err(LabError::file("writing the benchmark's result into", kept))?;
    }
    let complaint = result.as_ref().and_then(complaint);
    (outcome.status, outcome.reason) = match (measured.ended, complaint) {
        (Ok(()), None) => (Status::Done, None),
        (Ok(()), Some(reason)) => (Status::BenchmarkFailed, Some(reason)),
        (Err(reason), None) => (Status::BenchmarkFailed, Some(reason)),
        (Err(reason), Some(said)) => (Status::BenchmarkFailed, Some(format!("{reason}: {said}"))),
    };
    if let Some(result) = &result {
        outcome.add_benchmark(result);
    }
    if let Some(report) = &measured.report {
        outcome.add_report(scenario, report);
    }
    run.finish()?;
    Ok(measured.report)
}

/// What is wrong with a result, whatever status its tool ended with: iperf3 with --json ends with 0
/// even when its server went away.
fn complaint(result: &Benchmark) -> Option<String> {
    let incomplete = || "its output ends before its results".to_owned();
    let error = result.error.clone();
    error.or_else(|| (!result.complete).then(incomplete))
}

/// Runs the benchmark under the recorder.
fn recorded(
    execution: &mut Execution<'_>,
    scenario: &Scenario,
    run: &mut Run,
    client: Command,
    place: &Place,
) -> std::result::Result<Measured, ExecuteError> {
    let trace = place.of(run).join("run.vbt");
    let request = request(execution, scenario, run, trace.clone());
    let recorded = record_apart(&request, client, run, execution.say)?;
    if let Some(kept) = &place.kept {
        write_environment(&trace, kept)?;
    }
    let given = Given {
        wire: Some(super::asked::of(&run.wire.account()?)),
    };
    let report = (execution.analyse)(&trace, &given);
    Ok(Measured {
        ended: how_it_ended(&recorded, scenario),
        output: recorded.output,
        report: Some(report.map_err(ExecuteError::Analysis)?),
    })
}

/// What to record: both ends of the tunnel.
fn request(execution: &Execution<'_>, scenario: &Scenario, run: &Run, output: PathBuf) -> Request {
    Request {
        selector: run.selector(),
        probes: None,
        threads: true,
        stacks: scenario.run.stacks,
        buffer_bytes: BUFFER_BYTES,
        keep_payload: 0,
        duration: Some(scenario.limit()),
        output,
        stdout_is_ours: execution.quiet_stdout,
        // Its output is in the run's directory, and its figures are in the report.
        quiet: true,
        progress: false,
        second_interrupt_ends: false,
        observer: None,
    }
}

/// Records on a thread of its own: recording gives up privileges that taking the lab down needs,
/// and capabilities belong to threads. Meanwhile the run gives the client what it asks for.
fn record_apart(
    request: &Request,
    client: Command,
    run: &mut Run,
    say: &mut dyn FnMut(&str),
) -> std::result::Result<Outcome, ExecuteError> {
    let mut sentences = Vec::new();
    let (recorded, attended) = std::thread::scope(|scope| {
        let recording = scope.spawn(|| {
            record::record(request, Some(client), &mut |sentence| {
                sentences.push(sentence.to_owned());
            })
        });
        let attended = run.attend(&|| recording.is_finished());
        (recording.join(), attended)
    });
    sentences.iter().for_each(|sentence| say(sentence));
    let outcome = recorded.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    match attended {
        // The recording ended by the same signal, and its report is worth having.
        Ok(()) | Err(LabError::Interrupted) => Ok(outcome),
        Err(error) => Err(error.into()),
    }
}

/// Whether the benchmark did what it should, and if not, why.
fn how_it_ended(recorded: &Outcome, scenario: &Scenario) -> std::result::Result<(), String> {
    if let Some(error) = &recorded.write_error {
        return Err(format!("the trace could not be written: {error}"));
    }
    match (recorded.reason, &recorded.command) {
        (Reason::Command, Some(command)) => match (command.code, command.signal) {
            (Some(0), _) => Ok(()),
            (Some(code), _) => Err(format!("the benchmark failed with status {code}")),
            (_, Some(signal)) => Err(format!("the benchmark was ended by signal {signal}")),
            _ => Err("the benchmark failed".to_owned()),
        },
        (Reason::Duration, _) => Err(unrecorded::too_long(scenario.limit())),
        (reason, _) => Err(format!("the recording was ended by: {}", reason.name())),
    }
}

/// What the recorder found on the machine, as JSON beside the trace that holds it too.
fn write_environment(trace: &Path, kept: &Path) -> std::result::Result<(), ExecuteError> {
    let reader = Reader::open(trace).map_err(|error| ExecuteError::Analysis(error.into()))?;
    let start = reader.start();
    let path = kept.join("environment.json");
    let environment = serde_json::json!({
        "schema": "vpnbench.environment.v1",
        "host": start.host,
        "environment": start.environment,
        "devices": start.devices,
        "tunnels": start.tunnels,
    });
    write_json(&path, &environment).map_err(LabError::file("writing", &path))?;
    Ok(())
}

fn now() -> String {
    let now = OffsetDateTime::now_utc();
    let text = now.replace_nanosecond(0).unwrap_or(now).format(&Rfc3339);
    text.unwrap_or_default()
}
