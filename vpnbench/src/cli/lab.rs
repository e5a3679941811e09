//! `vpnbench lab`: arguments only; the lab itself is in `crate::lab`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::output::Output;
use super::values::parse_duration;
use super::{ExitStatus, Failure};

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
    Run(LabRun),
    /// Take down what an interrupted run left behind
    Down,
}

/// `vpnbench lab run`
#[derive(Debug, Clone, Args)]
pub struct LabRun {
    /// VPN daemon, or `none` for the bare link
    #[arg(long, value_name = "NAME", default_value = "none")]
    pub vpn: String,
    /// Benchmark tool
    #[arg(long, value_name = "NAME", default_value = "iperf3")]
    pub bench: String,
    /// How long the benchmark runs
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub duration: Duration,
    /// Directory of the results
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

/// Runs a command of the lab.
pub(super) fn run(_args: LabArgs, _output: &mut Output) -> Result<ExitStatus, Failure> {
    Err(anyhow::anyhow!("the lab is not built in yet").into())
}
