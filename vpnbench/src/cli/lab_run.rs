//! `vpnbench lab run`: one scenario, once or several times.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use super::args::ReportFormat;
use super::lab::{execute_failure, lab_failure, scenario_failure};
use super::live::say;
use super::offline::{analyse_given, write_report};
use super::output::Output;
use super::values::{Destination, parse_duration};
use super::{ExitStatus, Failure};
use crate::analysis::statistics::Summary;
use crate::lab::campaign::{Campaign, CampaignError, State};
use crate::lab::execute::{ExecuteError, Executed, Execution, execute};
use crate::lab::outcome::{RunOutcome, Status, write_json};
use crate::lab::scenario::{Scenario, ScenarioError, Setting, Source};
use crate::lab::{Bench, LabError, Vpn, table};
use crate::report::table::{Align, Table};

/// Which scenario, and what is changed in it.
#[derive(Debug, Clone, Args)]
pub struct Choice {
    /// Scenario file, or the name of one that `lab scenario list` shows
    #[arg(value_name = "SCENARIO")]
    pub scenario: Option<PathBuf>,
    /// Change a key of the scenario, e.g. wire.unit=packet; repeatable
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub settings: Vec<Setting>,
    /// Seed of everything random
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// How long the benchmark runs
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// How often each variant runs
    #[arg(long, value_name = "N")]
    pub repeat: Option<u32>,
    /// Runs made first and thrown away
    #[arg(long, value_name = "N")]
    pub warm_up: Option<u32>,
    /// Do not record: only the benchmark's own figures, and the probes cost nothing
    #[arg(long)]
    pub no_record: bool,
}

impl Choice {
    /// The scenario's text and the settings on top, `first` before those of the user.
    pub(super) fn source(
        &self,
        first: Vec<Setting>,
    ) -> Result<(Source, Vec<Setting>), ScenarioError> {
        let mut settings = first;
        settings.extend(self.settings.iter().cloned());
        let mut add = |key: &str, value: Option<String>| {
            settings.extend(value.map(|value| Setting::new(key, value)));
        };
        add("seed", self.seed.map(|seed| seed.to_string()));
        let duration = self
            .duration
            .map(|duration| format!("{}us", duration.as_micros()));
        add("benchmark.duration", duration);
        add("run.repetitions", self.repeat.map(|n| n.to_string()));
        add("run.warm_up", self.warm_up.map(|n| n.to_string()));
        add("run.record", self.no_record.then(|| "false".to_owned()));
        let source = match &self.scenario {
            Some(path) => Source::open(path)?,
            None => Source::empty(),
        };
        Ok((source, settings))
    }
}

/// `vpnbench lab run`
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Scenario and changes.
    #[command(flatten)]
    pub choice: Choice,
    /// VPN: short for --set vpn.name=NAME
    #[arg(long, value_name = "NAME")]
    pub vpn: Option<Vpn>,
    /// Benchmark: short for --set benchmark.name=NAME
    #[arg(long, value_name = "NAME")]
    pub bench: Option<Bench>,
    /// Impairment of the study: short for --set wire.profile=NAME
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// Directory for everything the run leaves; without it only the report is printed
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Form of the report
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub report: ReportFormat,
}

impl RunArgs {
    fn shorthands(&self) -> Vec<Setting> {
        let vpn = self.vpn.map(|vpn| Setting::new("vpn.name", vpn.name()));
        let bench = self
            .bench
            .map(|bench| Setting::new("benchmark.name", bench.name()));
        let profile = self
            .profile
            .as_ref()
            .map(|name| Setting::new("wire.profile", name));
        [vpn, bench, profile].into_iter().flatten().collect()
    }
}

/// `vpnbench lab run`
pub(super) fn run(args: &RunArgs, output: &mut Output) -> Result<ExitStatus, Failure> {
    let given = args
        .choice
        .source(args.shorthands())
        .map_err(scenario_failure)?;
    let (source, settings) = given;
    let scenario = Scenario::parse(&source, &settings).map_err(scenario_failure)?;
    for number in 1..=scenario.run.warm_up {
        let made = one(&scenario, number, None, true).map_err(execute_failure)?;
        log::info!("warm-up {number}: {}", made.outcome.status.name());
    }
    let mut outcomes = Vec::new();
    for repetition in 1..=scenario.run.repetitions {
        let many = scenario.run.repetitions > 1;
        let directory = args.output.as_ref().map(|directory| match many {
            true => directory.join(format!("{repetition:03}")),
            false => directory.clone(),
        });
        let quiet = args.report != ReportFormat::Text;
        let made = one(&scenario, repetition, directory.as_deref(), quiet);
        let made = made.map_err(execute_failure)?;
        if let Some(report) = &made.report {
            write_report(report, args.report, &Destination::Stdout, output)?;
        }
        if made.interrupted {
            return Err(lab_failure(LabError::Interrupted));
        }
        outcomes.push(made.outcome);
    }
    if outcomes.len() > 1 {
        summarise(&outcomes, args, output)?;
    }
    conclude(&outcomes)
}

/// One run, its sentences on standard error.
pub(super) fn one(
    scenario: &Scenario,
    repetition: u32,
    directory: Option<&Path>,
    quiet_stdout: bool,
) -> Result<Executed, ExecuteError> {
    let mut execution = Execution {
        scenario,
        repetition,
        directory,
        quiet_stdout,
        analyse: &analyse_given,
        say: &mut say,
    };
    execute(&mut execution)
}

/// Makes the runs of a campaign that are not there yet.
pub(super) fn campaign_run(
    campaign: &Campaign,
    directory: &Path,
    state: &mut State,
) -> Result<(), CampaignError<ExecuteError>> {
    let mut runner = |scenario: &Scenario, repetition: u32, place: Option<&Path>| {
        let made = one(scenario, repetition, place, true)?;
        match made.interrupted {
            true => Err(LabError::Interrupted.into()),
            false => Ok(made.outcome),
        }
    };
    let mut progress = |line: &str| log::info!("{line}");
    campaign.run(directory, state, &mut runner, &mut progress)
}

/// Exit status of the runs, the worst one deciding.
fn conclude(outcomes: &[RunOutcome]) -> Result<ExitStatus, Failure> {
    for outcome in outcomes {
        for expectation in &outcome.expectations {
            if expectation.met == Some(false) {
                log::warn!("{}", expectation.sentence());
            } else {
                log::info!("{}", expectation.sentence());
            }
        }
    }
    let bad = outcomes
        .iter()
        .find(|outcome| outcome.status != Status::Done);
    let Some(bad) = bad else {
        return Ok(ExitStatus::Done);
    };
    let reason = bad.reason.clone().unwrap_or_default();
    match bad.status {
        Status::Skipped => Err(lab_failure(LabError::Skipped(reason))),
        Status::Failed => Err(anyhow::anyhow!(reason).into()),
        _ => {
            log::warn!("{reason}");
            Ok(ExitStatus::BenchmarkFailed)
        }
    }
}

/// Table and file over all repetitions.
fn summarise(outcomes: &[RunOutcome], args: &RunArgs, output: &mut Output) -> Result<(), Failure> {
    let mut figures: Vec<(String, Summary)> = Vec::new();
    for figure in outcomes.iter().flat_map(|outcome| &outcome.figures) {
        let values: Vec<f64> = outcomes
            .iter()
            .filter(|outcome| outcome.status == Status::Done)
            .filter_map(|outcome| outcome.figure(&figure.name))
            .collect();
        let known = figures.iter().any(|(name, _)| *name == figure.name);
        if let Some(summary) = Summary::of(&values).filter(|_| !known) {
            figures.push((figure.name.clone(), summary));
        }
    }
    if let Some(directory) = &args.output {
        let path = directory.join("summary.json");
        let summary = serde_json::json!({
            "schema": "vpnbench.repetitions.v1",
            "runs": outcomes.len(),
            "done": outcomes.iter().filter(|run| run.status == Status::Done).count(),
            "figures": figures.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        });
        write_json(&path, &summary).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if args.report != ReportFormat::Text {
        return Ok(());
    }
    let columns = ["runs", "mean", "95 % from", "to", "least", "most"];
    let mut heads = vec![("figure", Align::Text)];
    heads.extend(columns.map(|name| (name, Align::Number)));
    let mut rows = Table::new(&heads);
    for (name, summary) in &figures {
        let text = |value: f64| table::value_text(name, value);
        let end = |pick: fn(&crate::analysis::statistics::Interval) -> f64| {
            let interval = summary.mean_interval.as_ref();
            interval.map_or("-".to_owned(), |interval| text(pick(interval)))
        };
        rows.row(vec![
            table::heading(name),
            summary.n.to_string(),
            text(summary.mean),
            end(|interval| interval.low),
            end(|interval| interval.high),
            text(summary.min),
            text(summary.max),
        ]);
    }
    output.to(&Destination::Stdout, |out, screen| {
        rows.write("\nREPETITIONS", screen, out)
    })
}
