//! `vpnbench analyze`: the report of other people's captures.

use super::args::AnalyzeArgs;
use super::joined::{by_host, join};
use super::offline::{conclude, failed_on, write_report};
use super::output::Output;
use super::{ExitStatus, Failure};
use crate::analysis::Analyses;
use crate::explain::Given;
use crate::import::{Import, ImportError, Place, Plan, Source};
use crate::join::Recording;
use crate::report::Report;

pub(super) fn run(args: &AnalyzeArgs, output: &mut Output) -> Result<ExitStatus, Failure> {
    let plan = plan(args)?;
    let report = match apart(&plan)? {
        Some(recordings) => join(recordings)?,
        None => together(&plan)?,
    };
    write_report(&report, args.format, &args.output, output)?;
    Ok(failed_on(&report, &args.fail_on).unwrap_or(ExitStatus::Done))
}

fn begin(plan: &Plan) -> Result<Import, Failure> {
    Import::open(plan).map_err(|error| {
        let status = match error {
            ImportError::Filter { .. } => ExitStatus::Usage,
            _ => ExitStatus::Failed,
        };
        Failure {
            status,
            error: error.into(),
            hint: None,
        }
    })
}

/// One recording for each host, whose clocks are told apart; `None` for one host, and where a pipe can be
/// read only once.
fn apart(plan: &Plan) -> Result<Option<Vec<Recording>>, Failure> {
    let pipe = plan.sources.iter().any(|one| one.path.as_os_str() == "-");
    let one = plan
        .sources
        .windows(2)
        .all(|pair| pair[0].host == pair[1].host);
    if pipe || one {
        return Ok(None);
    }
    // Seen together, the files tell best which addresses are whose.
    let plan = Plan {
        local: begin(plan)?.local(),
        ..plan.clone()
    };
    Ok(Some(by_host(&plan)))
}

/// All files with one clock.
fn together(plan: &Plan) -> Result<Report, Failure> {
    let import = begin(plan)?;
    let mut analyses = Analyses::new(import.start());
    let summary = super::lanes::follow_all(&mut analyses, |feed| {
        import.for_each(|event| feed.observe(&event))
    })?;
    Ok(conclude(analyses, &summary, &Given::default()))
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
        beside: args.beside.clone(),
    })
}
