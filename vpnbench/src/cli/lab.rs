//! `vpnbench lab`: sets up runs, records them like `attach`, takes them down.

use clap::{Args, Subcommand};

use super::lab_ablate::{self, AblateArgs};
use super::lab_matrix::{self, MatrixArgs};
use super::lab_run::{self, RunArgs};
use super::lab_scenario::{self, ScenarioCommand};
use super::output::Output;
use super::vpns::VpnArgs;
use super::{ExitStatus, Failure};
use crate::lab::campaign::CampaignError;
use crate::lab::execute::ExecuteError;
use crate::lab::scenario::ScenarioError;
use crate::lab::{self, LabError};

/// `vpnbench lab`
#[derive(Debug, Clone, Args)]
pub struct LabArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: LabCommand,
}

/// Commands of the lab.
#[derive(Debug, Clone, Subcommand)]
pub enum LabCommand {
    /// Build the hosts, start a VPN, run a benchmark, record it, take everything down
    Run(RunArgs),
    /// Run a table of many: VPNs, profiles, benchmarks, any key of a scenario
    Matrix(MatrixArgs),
    /// Switch one mechanism or sysctl at a time and say what each is worth
    Ablate(AblateArgs),
    /// The scenarios this program carries
    #[command(subcommand)]
    Scenario(ScenarioCommand),
    /// Take down what an interrupted run left behind
    Down,
    /// The VPNs the lab can run
    Vpn(VpnArgs),
    /// Run a program of the lab's own; the lab starts it itself
    #[command(hide = true)]
    Part(LabPart),
}

/// `vpnbench lab part`
#[derive(Debug, Clone, Args)]
pub struct LabPart {
    /// Which program
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Its settings, one JSON object
    #[arg(value_name = "SETTINGS_JSON")]
    pub settings: String,
}

/// Runs a command of the lab.
pub(super) fn run(args: LabArgs, output: &mut Output) -> Result<ExitStatus, Failure> {
    match args.command {
        LabCommand::Vpn(args) => super::vpns::run(&args, output),
        LabCommand::Run(args) => lab_run::run(&args, output),
        LabCommand::Matrix(args) => lab_matrix::run(&args, output),
        LabCommand::Ablate(args) => lab_ablate::run(&args, output),
        LabCommand::Scenario(command) => lab_scenario::run(&command, output),
        LabCommand::Down => {
            let removed = lab::down().map_err(lab_failure)?;
            log::info!("{} runs removed", removed.len());
            Ok(ExitStatus::Done)
        }
        LabCommand::Part(part) => {
            lab::part::run(&part.name, &part.settings).map_err(lab_failure)?;
            Ok(ExitStatus::Done)
        }
    }
}

/// A lab error as exit status and next step.
pub(super) fn lab_failure(error: LabError) -> Failure {
    match error {
        LabError::NotPermitted => {
            let hint = "run it as root: the lab makes network namespaces";
            Failure::new(ExitStatus::NotAllowed, error.into(), hint)
        }
        other => other.into(),
    }
}

/// A run that could not be made, as exit status and next step.
pub(super) fn execute_failure(error: ExecuteError) -> Failure {
    match error {
        ExecuteError::Lab(error) => lab_failure(error),
        ExecuteError::Record(error) => super::live::failure(error),
        ExecuteError::Analysis(error) => error.into(),
    }
}

/// A campaign that ended early. What was finished stays, and the same command goes on from there.
pub(super) fn campaign_failure(error: CampaignError<ExecuteError>) -> Failure {
    match error {
        CampaignError::Run(ExecuteError::Lab(error @ LabError::Interrupted)) => {
            let hint = "the finished runs are kept; the same command goes on from there";
            Failure::new(ExitStatus::Failed, error.into(), hint)
        }
        CampaignError::Run(error) => execute_failure(error),
        CampaignError::State(error) => error.into(),
    }
}

/// A scenario that cannot be used is wrong usage.
pub(super) fn scenario_failure(error: ScenarioError) -> Failure {
    let hint = "`vpnbench lab scenario show NAME` prints a complete one; docs/lab.md has all keys";
    Failure::new(ExitStatus::Usage, error.into(), hint)
}
