//! `cargo xtask zoo`: every scenario, several seeds, and which findings each led to.
//!
//! Each run has a directory in target/zoo (`SCENARIO/SEED`) with an `outcome.json` once it is complete; what
//! is there is not run again, so the zoo may be stopped at any time and taken up later. The matrix is made
//! from all that is there.

mod matrix;
mod order;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use matrix::Run;

use crate::run;

/// What to run.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Scenarios; all of them when none is named
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Runs of each, with seeds 1 to N
    #[arg(long, value_name = "N", default_value_t = 3)]
    seeds: u64,
    /// Begin no further run after this many seconds
    #[arg(long, value_name = "SECONDS")]
    within: Option<u64>,
    /// Also take one of two faults away, N runs of each variant, to see which of them is the larger one
    #[arg(long, value_name = "N")]
    order: Option<u64>,
    /// Only make the matrix from the runs that are there
    #[arg(long)]
    matrix: bool,
}

/// Runs what is missing, prints the matrix and writes docs/zoo.md when all scenarios take part.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let names = names(&arguments.names)?;
    let home = run::target_dir()?.join("zoo");
    if !arguments.matrix {
        let program = program()?;
        make_runs(arguments, &program, &names, &home)?;
        if let Some(repeat) = arguments.order {
            order::make(&program, &names, repeat, &home)?;
        }
    }
    let mut runs = Vec::new();
    for name in &names {
        for seed in 1..=arguments.seeds {
            runs.extend(Run::read(&place(&home, name, seed), name)?);
        }
    }
    let mut text = matrix::text(&runs, names.len(), arguments.seeds);
    text.push_str(&order::section(&names, &home)?);
    println!("{text}");
    if arguments.names.is_empty() {
        let path = run::root()?.join("docs/zoo.md");
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn place(home: &Path, name: &str, seed: u64) -> PathBuf {
    home.join(name).join(seed.to_string())
}

/// Scenarios that expect something, or those named.
fn names(given: &[String]) -> Result<Vec<String>> {
    let folder = run::root()?.join("vpnbench/scenarios");
    let mut all = Vec::new();
    for entry in
        fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let path = entry?.path();
        let text = fs::read_to_string(&path)?;
        let name = path
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned());
        all.extend(name.filter(|_| text.contains("[expect]")));
    }
    all.sort();
    if given.is_empty() {
        return Ok(all);
    }
    if let Some(unknown) = given.iter().find(|name| !all.contains(name)) {
        bail!("there is no scenario \"{unknown}\" that expects a finding");
    }
    Ok(given.to_vec())
}

fn program() -> Result<PathBuf> {
    // A copy that a build does not replace half-way, if the caller made one.
    let program = match std::env::var_os("VPNBENCH") {
        Some(path) => PathBuf::from(path),
        None => run::target_dir()?.join("debug/vpnbench"),
    };
    if !program.exists() {
        bail!(
            "{} is not there: cargo build --workspace",
            program.display()
        );
    }
    Ok(program)
}

/// Seed by seed, so that an early stop leaves every scenario with as many runs.
fn make_runs(arguments: &Arguments, program: &Path, names: &[String], home: &Path) -> Result<()> {
    let begun = Instant::now();
    for seed in 1..=arguments.seeds {
        for name in names {
            let directory = place(home, name, seed);
            if directory.join("outcome.json").exists() {
                continue;
            }
            let limit = arguments.within.map(Duration::from_secs);
            if limit.is_some_and(|limit| begun.elapsed() >= limit) {
                println!(
                    "stopped after {} s; repeat the command to go on",
                    begun.elapsed().as_secs()
                );
                return Ok(());
            }
            one(program, name, seed, &directory)?;
        }
    }
    Ok(())
}

fn one(program: &Path, name: &str, seed: u64, directory: &Path) -> Result<()> {
    let begun = Instant::now();
    let output = Command::new(program)
        .args([
            "lab",
            "run",
            name,
            "--seed",
            &seed.to_string(),
            "--report",
            "json",
            "-o",
        ])
        .arg(directory)
        .stdin(Stdio::null())
        .output()
        .context("cannot start vpnbench")?;
    let seconds = begun.elapsed().as_secs();
    println!("{name} {seed}: {} after {seconds} s", output.status);
    if !directory.join("outcome.json").exists() {
        // What is wrong with this machine is wrong with the next run too.
        bail!(
            "{name} left no outcome: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    // The matrix needs the report only; traces of all runs are gigabytes.
    match fs::remove_file(directory.join("run.vbt")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
