//! `vpnbench analyze`: the report of other people's captures.

use super::args::AnalyzeArgs;
use super::offline::{conclude, failed_on, write_report};
use super::output::Output;
use super::{ExitStatus, Failure};
use crate::analysis::Analyses;
use crate::explain::Given;
use crate::import::{Import, ImportError, Place, Plan, Source};

pub(super) fn run(args: &AnalyzeArgs, output: &mut Output) -> Result<ExitStatus, Failure> {
    let plan = plan(args)?;
    let import = Import::open(&plan).map_err(|error| {
        let status = match error {
            ImportError::Filter { .. } => ExitStatus::Usage,
            _ => ExitStatus::Failed,
        };
        Failure {
            status,
            error: error.into(),
            hint: None,
        }
    })?;
    let start = import.start().clone();
    let mut analyses = Analyses::new(&start);
    let summary = import.for_each(|event| analyses.observe(&event))?;
    let report = conclude(&start, analyses, summary, &Given::default());
    write_report(&report, args.format, &args.output, output)?;
    Ok(failed_on(&report, &args.fail_on).unwrap_or(ExitStatus::Done))
}

/// The files and where they were captured.
fn plan(args: &AnalyzeArgs) -> Result<Plan, Failure> {
    let named = |place, paths: &[std::path::PathBuf]| -> Vec<Source> {
        let paths = paths.iter().cloned();
        paths.map(|path| Source::at(place, path)).collect()
    };
    let mut sources = named(Place::Unknown, &args.captures);
    sources.extend(named(Place::Inner, &args.inner));
    sources.extend(named(Place::Outer, &args.outer));
    sources.extend(args.at.iter().cloned());
    for (name, _) in &args.local {
        if !sources.iter().any(|source| source.host == *name) {
            let error = anyhow::anyhow!("--local names \"{name}\", of which there is no capture");
            let hint = "write --local HOST=ADDR with a host of --at";
            return Err(Failure::new(ExitStatus::Usage, error, hint));
        }
    }
    Ok(Plan {
        sources,
        local: args.local.clone(),
        filter: args.filter.clone(),
    })
}
