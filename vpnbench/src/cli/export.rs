//! `vpnbench export`: a trace in other tools' formats.

use std::path::PathBuf;

use anyhow::Context as _;

use super::args::{ExportArgs, ExportFormat};
use super::offline::conclude;
use super::output::Output;
use super::values::Destination;
use super::{ExitStatus, Failure};
use crate::analysis::stacks::Stacks;
use crate::analysis::{Analyses, Context};
use crate::explain::Given;
use crate::export::{Names, folded, lines, packets::Packets, perfetto::Timeline, tables::Tables};
use crate::trace::{Event, Reader, Summary};

pub(super) fn run(args: &ExportArgs, output: &mut Output) -> Result<ExitStatus, Failure> {
    // Names and symbols stand behind the events, so the trace is read twice.
    if args.trace.as_os_str() == "-" {
        let error = anyhow::anyhow!("standard input cannot be exported: a trace is read twice");
        let hint = "write it to a file first";
        return Err(Failure::new(ExitStatus::Usage, error, hint));
    }
    let summary = Reader::open(&args.trace)?.for_each(|_| ())?;
    let context = Context::of(&summary);
    let names = Names::new(&context);
    match args.to {
        ExportFormat::Parquet => tables(args, &summary, &names)?,
        ExportFormat::Jsonl => output.to(&args.output, |out, _| {
            each(args, |event| lines::write(&event, &names, &mut *out))
        })?,
        ExportFormat::Perfetto => {
            let mut left_out = 0;
            output.to(&args.output, |out, _| {
                let mut timeline = Timeline::begin(&context, &mut *out)?;
                each(args, |event| timeline.add(&event, &names, &mut *out))?;
                left_out = timeline.left_out;
                Ok(())
            })?;
            if left_out > 0 {
                log::warn!(
                    "{left_out} packets of stages that hold too many at a time are not drawn"
                );
            }
        }
        ExportFormat::Folded => {
            let mut samples = 0;
            output.to(&args.output, |out, _| {
                let mut stacks = Stacks::default();
                each(args, |event| {
                    stacks.observe(&event);
                    Ok::<(), std::io::Error>(())
                })?;
                samples = folded::write(stacks, &context, out)?;
                Ok(())
            })?;
            if samples == 0 {
                log::warn!("the trace has no stack samples: record with --stacks");
            }
        }
        ExportFormat::Pcapng => {
            let mut left_out = 0;
            output.to(&args.output, |out, _| {
                let mut packets = Packets::begin(&mut *out)?;
                each(args, |event| packets.add(&event, &names, &mut *out))?;
                left_out = packets.left_out;
                Ok(())
            })?;
            if left_out > 0 {
                log::info!("{left_out} packets without readable headers are left out");
            }
        }
    }
    Ok(ExitStatus::Done)
}

/// Reads the events once more.
fn each<E: From<std::io::Error>>(
    args: &ExportArgs,
    mut receive: impl FnMut(Event<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let failed = |error: crate::trace::TraceError| std::io::Error::other(error);
    let reader = Reader::open(&args.trace).map_err(failed)?;
    let mut result = Ok(());
    reader
        .for_each(|event| {
            result = receive(event);
            match result {
                Ok(()) => std::ops::ControlFlow::Continue(()),
                Err(_) => std::ops::ControlFlow::Break(()),
            }
        })
        .map_err(failed)?;
    result
}

fn tables(args: &ExportArgs, summary: &Summary, names: &Names) -> Result<(), Failure> {
    let Destination::File(folder) = &args.output else {
        let error = anyhow::anyhow!("tables are several files");
        let hint = "give a directory: vpnbench export TRACE --to parquet -o DIR";
        return Err(Failure::new(ExitStatus::Usage, error, hint));
    };
    let mut tables = Tables::create(folder, &summary.start)?;
    let mut analyses = Analyses::new(&summary.start);
    let mut failed = None;
    let read = Reader::open(&args.trace)?.for_each(|event| {
        analyses.observe(&event);
        match tables.add(&event, names) {
            Ok(()) => std::ops::ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                std::ops::ControlFlow::Break(())
            }
        }
    })?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    let report: PathBuf = tables.folder().join("report.json");
    tables.finish()?;
    let found = conclude(analyses, &read, &Given::default());
    let text = serde_json::to_vec(&found)?;
    std::fs::write(&report, text).with_context(|| format!("cannot write {}", report.display()))?;
    Ok(())
}
