//! `vpnbench compare`: sides from traces, reports or directories of runs.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;

use super::args::Format;
use super::offline::analyse;
use super::output::Output;
use super::values::Destination;
use super::{ExitStatus, Failure};
use crate::explain::compare::{self, RunFacts, Side};
use crate::report::{self, Report};

/// Directories looked into below a side: a campaign keeps its runs two levels down.
const DEPTH: usize = 3;

/// `vpnbench compare`
#[derive(Debug, Clone, Args)]
pub struct CompareArgs {
    /// Traces, JSON reports, or directories of `lab run`; a directory is one side with all its runs
    #[arg(required = true, num_args = 2.., value_name = "SIDE")]
    pub sides: Vec<PathBuf>,
    /// Form of the comparison
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: Format,
    /// Write the comparison to this file; - is stdout
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub output: Destination,
}

/// `vpnbench compare`
pub(super) fn run(args: &CompareArgs, output: &mut Output) -> Result<ExitStatus, Failure> {
    let sides = args
        .sides
        .iter()
        .map(|path| side(path))
        .collect::<anyhow::Result<Vec<Side>>>()?;
    let comparison = compare::compare(&sides);
    output.to(&args.output, |out, screen| match args.format {
        Format::Text => report::compare::write(&comparison, screen, out),
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, &comparison).map_err(std::io::Error::from)?;
            out.write_all(b"\n")
        }
    })?;
    Ok(ExitStatus::Done)
}

fn side(path: &Path) -> anyhow::Result<Side> {
    let mut runs = Vec::new();
    if path.is_dir() {
        collect(path, DEPTH, &mut runs)?;
        if runs.is_empty() {
            bail!(
                "{} holds no run: no report.json and no run.vbt below it",
                path.display()
            );
        }
    } else {
        runs.push(facts(path)?);
    }
    let name = path.file_name().unwrap_or(path.as_os_str());
    Ok(Side {
        name: name.to_string_lossy().into_owned(),
        runs,
    })
}

/// Runs in a directory and below, in the order of their names.
fn collect(directory: &Path, depth: usize, runs: &mut Vec<RunFacts>) -> anyhow::Result<()> {
    for name in ["report.json", "run.vbt"] {
        let path = directory.join(name);
        if path.exists() {
            runs.push(facts(&path)?);
            return Ok(());
        }
    }
    if depth == 0 {
        return Ok(());
    }
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut below: Vec<PathBuf> = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            below.push(path);
        }
    }
    below.sort();
    below
        .iter()
        .try_for_each(|path| collect(path, depth - 1, runs))
}

/// A JSON report by its first byte, else a trace.
fn facts(path: &Path) -> anyhow::Result<RunFacts> {
    let shown = path.display();
    let mut start = [0; 64];
    let mut file = File::open(path).with_context(|| format!("cannot read {shown}"))?;
    let length = file
        .read(&mut start)
        .with_context(|| format!("cannot read {shown}"))?;
    let first = start[..length]
        .iter()
        .find(|byte| !byte.is_ascii_whitespace());
    if first != Some(&b'{') {
        return Ok(report::compare::run_facts(&analyse(path)?));
    }
    let text = fs::read(path).with_context(|| format!("cannot read {shown}"))?;
    let report: Report = serde_json::from_slice(&text)
        .with_context(|| format!("{shown} is no report of this version"))?;
    if report.schema != report::model::SCHEMA {
        bail!(
            "{shown} has the schema \"{}\", not {}",
            report.schema,
            report::model::SCHEMA
        );
    }
    Ok(report::compare::run_facts(&report))
}
