//! `vpnbench lab matrix`: a table of many runs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;

use super::args::Format;
use super::lab::{campaign_failure, scenario_failure};
use super::lab_run::{Choice, campaign_run};
use super::output::Output;
use super::values::Destination;
use super::{ExitStatus, Failure};
use crate::lab::campaign::{Campaign, State};
use crate::lab::matrix::{self, MatrixResult};
use crate::lab::outcome::write_json;
use crate::lab::scenario::{Axis, Scenario};

/// `vpnbench lab matrix`
#[derive(Debug, Clone, Args)]
pub struct MatrixArgs {
    /// Scenario and changes; its [matrix] section may hold the axes.
    #[command(flatten)]
    pub choice: Choice,
    /// VPNs: short for --vary vpn=..
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub vpn: Vec<String>,
    /// Impairments of the study: short for --vary profile=..
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub profile: Vec<String>,
    /// Benchmarks: short for --vary benchmark=..
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub bench: Vec<String>,
    /// Any key and its values, e.g. wire.unit=skb,packet; repeatable
    #[arg(long, value_name = "KEY=VALUES")]
    pub vary: Vec<Axis>,
    /// Directory for everything; runs that are finished there are not made again
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Form of the table
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: Format,
}

impl MatrixArgs {
    /// The axes: those of the scenario, each replaced by one of the same key on the command line.
    fn axes(&self, scenario: &Scenario) -> Result<Vec<Axis>, Failure> {
        let invalid = |invalid: crate::lab::scenario::Invalid| {
            Failure::from(anyhow::anyhow!("{}: {}", invalid.key, invalid.message))
        };
        let mut axes = scenario.matrix.axes().map_err(invalid)?;
        let short = [
            ("vpn", &self.vpn),
            ("profile", &self.profile),
            ("benchmark", &self.bench),
        ];
        let short = short.into_iter().filter(|(_, values)| !values.is_empty());
        let short = short.map(|(name, values)| Axis::new(name, values.clone()));
        for axis in short.chain(self.vary.iter().cloned()) {
            axes.retain(|other| other.key != axis.key);
            axes.push(axis);
        }
        axes.sort_by_key(Axis::rank);
        if axes.is_empty() {
            let error = anyhow::anyhow!("nothing is varied");
            let hint = "give --vpn, --profile, --bench or --vary, or a scenario with [matrix.axes]";
            return Err(Failure::new(ExitStatus::Usage, error, hint));
        }
        Ok(axes)
    }
}

/// `vpnbench lab matrix`
pub(super) fn run(args: &MatrixArgs, output: &mut Output) -> Result<ExitStatus, Failure> {
    let (source, settings) = args.choice.source(Vec::new()).map_err(scenario_failure)?;
    // The settings may mean something together with the axes only.
    let scenario = Scenario::parse(&source, &[]).map_err(scenario_failure)?;
    let axes = args.axes(&scenario)?;
    let campaign = matrix::plan(&source, &settings, &axes).map_err(scenario_failure)?;
    let directory = &args.output;
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    let mut state = State::open(directory, campaign.plan())?;
    let ended = campaign_run(&campaign, directory, &mut state);
    // Also after an interruption: what is finished is readable.
    let result = MatrixResult::of(&campaign, &state);
    write_files(&result, directory)?;
    show(&result, args.format, output)?;
    ended.map_err(campaign_failure)?;
    log::info!("everything is in {}", directory.display());
    Ok(conclude(&campaign, &result))
}

/// A matrix in which nothing could be run is a failure; one with gaps says so in its table.
fn conclude(campaign: &Campaign, result: &MatrixResult) -> ExitStatus {
    let done = result.rows.iter().any(|row| row.done > 0);
    if done || campaign.variants.is_empty() {
        ExitStatus::Done
    } else {
        ExitStatus::Failed
    }
}

fn write_files(result: &MatrixResult, directory: &Path) -> Result<(), Failure> {
    let path = directory.join("matrix.json");
    write_json(&path, result).with_context(|| format!("cannot write {}", path.display()))?;
    let path = directory.join("matrix.csv");
    let failed = || format!("cannot write {}", path.display());
    let file = File::create(&path).with_context(failed)?;
    result.write_csv(file).with_context(failed)?;
    Ok(())
}

fn show(result: &MatrixResult, format: Format, output: &mut Output) -> Result<(), Failure> {
    output.to(&Destination::Stdout, |out, screen| match format {
        Format::Text => result.write_table(screen, out),
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, result).map_err(std::io::Error::from)?;
            out.write_all(b"\n")
        }
    })
}
