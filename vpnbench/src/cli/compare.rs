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
    let named = args.sides.iter().zip(names(&args.sides));
    let sides = named
        .map(|(path, name)| side(path, name))
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

/// What tells the paths apart: their components without those that all begin and all end with. The last component
/// where nothing is left of one.
fn names(paths: &[PathBuf]) -> Vec<String> {
    let split = |path: &PathBuf| -> Vec<String> {
        let parts = path.components();
        parts
            .map(|part| part.as_os_str().to_string_lossy().into_owned())
            .collect()
    };
    let mut all: Vec<Vec<String>> = paths.iter().map(split).collect();
    let last: Vec<String> = all
        .iter()
        .map(|one| one.last().cloned().unwrap_or_default())
        .collect();
    for _ in 0..2 {
        // From the end, then, turned round, from the beginning.
        while let Some(end) = all.first().and_then(|one| one.last().cloned())
            && all.iter().all(|one| one.last() == Some(&end))
        {
            for one in &mut all {
                one.pop();
            }
        }
        for one in &mut all {
            one.reverse();
        }
    }
    if all.iter().any(Vec::is_empty) {
        return last;
    }
    all.iter().map(|one| one.join("/")).collect()
}

fn side(path: &Path, name: String) -> anyhow::Result<Side> {
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
    Ok(Side { name, runs })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_called_by_what_tells_them_apart() {
        let named = |paths: &[&str]| names(&paths.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert_eq!(
            named(&["out/none/low/tcp", "out/tinc/low/tcp"]),
            ["none", "tinc"]
        );
        assert_eq!(named(&["/a/x.vbt", "/b/y.vbt"]), ["a/x.vbt", "b/y.vbt"]);
        assert_eq!(named(&["runs/x.vbt", "runs/y.vbt"]), ["x.vbt", "y.vbt"]);
        assert_eq!(named(&["runs/x", "runs/x"]), ["x", "x"]);
        assert_eq!(named(&["a/x", "b/a/x"]), ["x", "x"]);
    }
}
