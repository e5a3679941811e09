//! `vpnbench lab`: sets up a run, records it like `attach`, takes it down.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::args::Format;
use super::live::{failure, say};
use super::offline::{analyse, write_report};
use super::output::Output;
use super::values::{Destination, parse_duration};
use super::{ExitStatus, Failure};
use crate::lab::{self, Bench, LabError, LabOptions, Vpn};
use crate::probe::discover::Selector;
use crate::probe::netns::NetnsSpec;
use crate::record::{self, Outcome, Request};

/// Ring buffer of a lab run: both ends are recorded.
const BUFFER_BYTES: u64 = 128 << 20;

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

/// `vpnbench lab run`
#[derive(Debug, Clone, Args)]
pub struct LabRun {
    /// VPN daemon: wireguard-go, or none for the bare wire
    #[arg(long, value_name = "NAME", default_value = "none")]
    pub vpn: Vpn,
    /// Benchmark: tcp, udp (both iperf3) or ping
    #[arg(long, value_name = "NAME", default_value = "tcp")]
    pub bench: Bench,
    /// How long the benchmark runs
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub duration: Duration,
    /// Directory for trace, report and logs; without it only the report is printed
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Form of the report
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub report: Format,
}

/// Runs a command of the lab.
pub(super) fn run(args: LabArgs, output: &mut Output) -> Result<ExitStatus, Failure> {
    match args.command {
        LabCommand::Run(args) => run_one(args, output),
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

fn run_one(args: LabRun, output: &mut Output) -> Result<ExitStatus, Failure> {
    let options = LabOptions {
        vpn: args.vpn,
        bench: args.bench,
        duration: args.duration,
        topology: lab::Topology::default(),
        wire: lab::WireSpec::default(),
        seed: 1,
        client_arguments: Vec::new(),
        logs: args.output.clone(),
    };
    let run = lab::start(&options).map_err(lab_failure)?;
    let directory = match &args.output {
        Some(directory) => {
            fs::create_dir_all(directory)
                .with_context(|| format!("cannot create {}", directory.display()))?;
            directory.clone()
        }
        None => run.directory().to_owned(),
    };
    let trace = directory.join("run.vbt");
    let ends = [&run.tunnel.a, &run.tunnel.b];
    let request = Request {
        selector: Selector {
            tun: Some(ends.map(|end| end.device.as_str()).join(",")),
            netns: [&run.hosts.a, &run.hosts.b]
                .map(|host| NetnsSpec::Path(host.netns.clone()))
                .to_vec(),
            command: run.client_command.clone(),
            ..Selector::default()
        },
        probes: None,
        threads: true,
        stacks: false,
        buffer_bytes: BUFFER_BYTES,
        keep_payload: 0,
        duration: None,
        output: trace.clone(),
        stdout_is_ours: args.report == Format::Json,
        progress: false,
        second_interrupt_ends: false,
    };
    let client = run
        .client()
        .context("cannot prepare the benchmark's client")?;
    let outcome = record_apart(&request, client)?;
    let report = analyse(&trace)?;
    write_report(&report, args.report, &Destination::Stdout, output)?;
    if args.output.is_some() {
        let file = Destination::File(directory.join("report.json"));
        write_report(&report, Format::Json, &file, output)?;
    }
    run.finish().map_err(lab_failure)?;
    Ok(super::live::status(&outcome))
}

/// Records on a thread of its own: recording gives up privileges that taking the lab down needs,
/// and capabilities belong to threads.
fn record_apart(request: &Request, client: Command) -> Result<Outcome, Failure> {
    let recorded = std::thread::scope(|scope| {
        scope
            .spawn(|| record::record(request, Some(client), &mut say))
            .join()
    });
    recorded
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        .map_err(failure)
}

fn lab_failure(error: LabError) -> Failure {
    match error {
        LabError::NotPermitted => {
            let hint = "run it as root: the lab makes network namespaces";
            Failure::new(ExitStatus::NotAllowed, error.into(), hint)
        }
        other => other.into(),
    }
}
