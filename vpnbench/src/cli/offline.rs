//! Commands that need neither the kernel nor privileges.

use std::io;
use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;

use super::args::{Cli, ReportArgs, ReportFormat};
use super::output::Output;
use super::values::Destination;
use super::{ExitStatus, Failure};
use crate::analysis::{Analyses, Context, Problem, Severity};
use crate::explain::{self, Given, Verdict};
use crate::report::table::Screen;
use crate::report::{self, Recording, Report};
use crate::trace::{self, Reader, Summary};

/// `vpnbench report`
pub(super) fn report(args: ReportArgs, output: &mut Output) -> Result<ExitStatus, Failure> {
    let report = match (args.traces.as_slice(), args.at.as_slice()) {
        ([path], []) => analyse(path)?,
        (traces, captures) => super::joined::traces(traces, captures)?,
    };
    write_report(&report, args.format, &args.output, output)?;
    Ok(failed_on(&report, &args.fail_on).unwrap_or(ExitStatus::Done))
}

/// Exit status 5 if a finding that the user named is supported.
pub(super) fn failed_on(report: &Report, named: &[String]) -> Option<ExitStatus> {
    let matched = report
        .findings
        .iter()
        .filter(|finding| finding.verdict == Verdict::Supported && named.contains(&finding.id));
    let ids: Vec<&str> = matched.map(|finding| finding.id.as_str()).collect();
    if ids.is_empty() {
        return None;
    }
    log::warn!("--fail-on matched: {}", ids.join(", "));
    Some(ExitStatus::FindingMatched)
}

/// `vpnbench explain`
pub(super) fn explain(id: Option<&str>, output: &mut Output) -> Result<ExitStatus, Failure> {
    let text = match id {
        Some(id) => {
            let found = explain::findings::rule(id).ok_or_else(|| {
                let error = anyhow::anyhow!("there is no finding \"{id}\"");
                let hint = "`vpnbench explain` without an id lists all of them";
                Failure::new(ExitStatus::Usage, error, hint)
            })?;
            explain::text::describe(found)
        }
        None => explain::findings::all()
            .map(|rule| format!("{:<28} {}\n", rule.id, rule.claim))
            .collect(),
    };
    output.to(&Destination::Stdout, |out, _| {
        out.write_all(text.as_bytes())
    })?;
    Ok(ExitStatus::Done)
}

/// Writes a report in one of its forms.
pub(super) fn write_report(
    report: &Report,
    format: ReportFormat,
    destination: &Destination,
    output: &mut Output,
) -> Result<(), Failure> {
    output.to(destination, write_form(report, format))
}

/// Writes a report in one of its forms to whatever it is given.
pub(super) fn write_form(
    report: &Report,
    format: ReportFormat,
) -> impl FnOnce(&mut dyn io::Write, Screen) -> io::Result<()> {
    move |out, screen| match format {
        ReportFormat::Text => report::terminal::write(report, screen, out),
        ReportFormat::Json => report::json::write(report, out),
        ReportFormat::Jsonl => report::jsonl::write(report, out),
        ReportFormat::Html => report::html::write(report, out),
        ReportFormat::Markdown => report::markdown::write(report, out),
    }
}

/// Reads a trace once, from a file or for `-` from stdin, and analyses it.
pub(super) fn analyse(path: &Path) -> anyhow::Result<Report> {
    analyse_given(path, &Given::default())
}

/// The same, with what the caller knows about the run.
pub(super) fn analyse_given(path: &Path, given: &Given) -> anyhow::Result<Report> {
    let reader = Reader::open(path)?;
    let mut analyses = Analyses::new(reader.start());
    let summary = super::lanes::follow_all(&mut analyses, |feed| {
        reader.for_each(|event| feed.observe(&event))
    })?;
    Ok(conclude(analyses, &summary, given))
}

/// Ends the analyses of a recording that was read and composes its report.
pub(super) fn conclude(analyses: Analyses, summary: &Summary, given: &Given) -> Report {
    let context = Context::of(summary);
    let problems = summary.problems.iter().map(|problem| Problem {
        severity: match problem.severity {
            trace::Severity::Info => Severity::Info,
            trace::Severity::DataLoss => Severity::DataLoss,
            trace::Severity::Error => Severity::Error,
        },
        part: "trace".to_owned(),
        message: problem.message.clone(),
    });
    let recording = Recording {
        bytes: Some(summary.bytes),
        truncated: summary.truncated,
        problems: problems.collect(),
        given: given.clone(),
    };
    let (outputs, found) = analyses.finish(&context);
    report::build(&context, outputs, found, recording)
}

/// `vpnbench completions`
pub(super) fn completions(shell: Shell, output: &mut Output) -> Result<ExitStatus, Failure> {
    // The generator panics when its writer fails, so it gets one that cannot.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "vpnbench", &mut script);
    output.to(&Destination::Stdout, |out, _| out.write_all(&script))?;
    Ok(ExitStatus::Done)
}

/// `vpnbench man`
pub(super) fn man(command: Option<&str>, output: &mut Output) -> Result<ExitStatus, Failure> {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    let page = match command {
        None => root,
        Some(name) => {
            let found = root.find_subcommand(name).cloned();
            let Some(found) = found else {
                let names: Vec<&str> = root
                    .get_subcommands()
                    .map(clap::Command::get_name)
                    .collect();
                let error = anyhow::anyhow!("there is no command \"{name}\"");
                let hint = format!("commands: {}", names.join(", "));
                return Err(Failure::new(ExitStatus::Usage, error, hint));
            };
            found.display_name(format!("vpnbench-{name}"))
        }
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(page)
        .render(&mut text)
        .context("cannot write the manual page")?;
    output.to(&Destination::Stdout, |out, _| out.write_all(&text))?;
    Ok(ExitStatus::Done)
}

/// `vpnbench schema`
pub(super) fn schema(output: &mut Output) -> Result<ExitStatus, Failure> {
    let schema = report::json::schema();
    output.to(&Destination::Stdout, |out, _| {
        serde_json::to_writer_pretty(&mut *out, &schema).map_err(io::Error::from)?;
        out.write_all(b"\n")
    })?;
    Ok(ExitStatus::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
