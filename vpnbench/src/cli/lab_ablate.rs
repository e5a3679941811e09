//! `vpnbench lab ablate`: one mechanism at a time.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;

use super::args::Format;
use super::lab::{campaign_failure, scenario_failure};
use super::lab_run::{Choice, campaign_run};
use super::output::Output;
use super::values::Destination;
use super::{ExitStatus, Failure};
use crate::lab::ablate::{self, Ablation, COALESCING};
use crate::lab::campaign::State;
use crate::lab::outcome::write_json;
use crate::lab::scenario::{Scenario, Setting, Switch};

/// Repetitions where scenario and command line ask for one: that gives no intervals.
const REPETITIONS: u32 = 5;

/// `vpnbench lab ablate`
#[derive(Debug, Clone, Args)]
pub struct AblateArgs {
    /// Scenario and changes; its [ablation] section may hold the switches.
    #[command(flatten)]
    pub choice: Choice,
    /// One change against the base, e.g. wire.unit=packet; KEY=VALUE;KEY=VALUE changes several
    /// keys at once; repeatable
    #[arg(long = "switch", value_name = "KEY=VALUE")]
    pub switches: Vec<Switch>,
    /// Figure for the table, by its name in outcome.json; repeatable
    #[arg(long = "figure", value_name = "NAME")]
    pub figures: Vec<String>,
    /// Directory for everything; runs that are finished there are not made again
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Form of the table
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: Format,
}

/// `vpnbench lab ablate`
pub(super) fn run(args: &AblateArgs, output: &mut Output) -> Result<ExitStatus, Failure> {
    let given = args.choice.source(Vec::new()).map_err(scenario_failure)?;
    let (source, mut settings) = given;
    let mut scenario = Scenario::parse(&source, &settings).map_err(scenario_failure)?;
    if scenario.run.repetitions == 1 {
        settings.push(Setting::new("run.repetitions", REPETITIONS.to_string()));
        scenario = Scenario::parse(&source, &settings).map_err(scenario_failure)?;
    }
    let switches = switches(args, &scenario)?;
    let campaign = ablate::plan(&source, &settings, &switches).map_err(scenario_failure)?;
    let directory = &args.output;
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    let mut state = State::open(directory, campaign.plan())?;
    let ended = campaign_run(&campaign, directory, &mut state);
    let mut ablation = Ablation::of(&campaign, &state);
    if !args.figures.is_empty() {
        ablation.main_figures.clone_from(&args.figures);
    }
    show(&ablation, directory, args.format, output)?;
    ended.map_err(campaign_failure)?;
    log::info!("everything is in {}", directory.display());
    Ok(match ablation.base_done {
        0 => ExitStatus::Failed,
        _ => ExitStatus::Done,
    })
}

/// The switches of the command line, else of the scenario, else the usual ones of the reference
/// tunnel.
fn switches(args: &AblateArgs, scenario: &Scenario) -> Result<Vec<Switch>, Failure> {
    if !args.switches.is_empty() {
        return Ok(args.switches.clone());
    }
    let wrong = |invalid: crate::lab::scenario::Invalid| {
        Failure::from(anyhow::anyhow!("{}: {}", invalid.key, invalid.message))
    };
    let given = scenario.ablation.switches().map_err(wrong)?;
    if !given.is_empty() {
        return Ok(given);
    }
    if scenario.vpn.name.name() != "reference" {
        let error = anyhow::anyhow!("nothing is switched");
        let hint = "give --switch KEY=VALUE, or a scenario with [ablation] switches; only the \
                    reference tunnel has usual ones";
        return Err(Failure::new(ExitStatus::Usage, error, hint));
    }
    let parse = |text: &&str| text.parse().map_err(anyhow::Error::msg);
    let usual: anyhow::Result<Vec<Switch>> = COALESCING.iter().map(parse).collect();
    Ok(usual?)
}

fn show(
    ablation: &Ablation,
    directory: &Path,
    format: Format,
    output: &mut Output,
) -> Result<(), Failure> {
    let path = directory.join("ablation.json");
    write_json(&path, ablation).with_context(|| format!("cannot write {}", path.display()))?;
    output.to(&Destination::Stdout, |out, screen| match format {
        Format::Text => ablation.write_table(screen, out),
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, ablation).map_err(std::io::Error::from)?;
            out.write_all(b"\n")
        }
    })
}
