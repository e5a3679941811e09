//! `vpnbench threads`: which thread does what, what it costs and which is the limit.

use std::fs;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use inferno::flamegraph;
use serde_json::json;

use super::args::{ThreadsArgs, ThreadsFormat};
use super::live::{request, status};
use super::offline::analyse;
use super::onlooker::{Form, Onlooker};
use super::output::Output;
use super::screen::{self, whole};
use super::values::Destination;
use super::{ExitStatus, Failure};
use crate::analysis::Context;
use crate::analysis::stacks::{self, Stacks, rules::Rules};
use crate::report::Report;
use crate::report::live::plain;
use crate::report::terminal::threads;
use crate::trace::Reader;

/// Analyses a trace, or records one that is not kept.
pub(super) fn threads(args: ThreadsArgs, output: &mut Output) -> Result<ExitStatus, Failure> {
    let rules = rules(args.groups.as_deref())?;
    // Without a name, so that nothing is left of it however this process ends.
    let temporary = tempfile::tempfile().context("cannot create a temporary file for the trace")?;
    let colour = output.screen().colour;
    let (trace, report, ended) = match &args.trace {
        Some(path) => (path.clone(), analyse(path)?, ExitStatus::Done),
        None => {
            let trace = PathBuf::from(format!("/proc/self/fd/{}", temporary.as_raw_fd()));
            let form = match (args.tui, args.format) {
                (true, _) => Form::Screen { colour },
                (_, ThreadsFormat::Text) => Form::Tables(output.screen()),
                (_, ThreadsFormat::Jsonl) => Form::Lines,
                (_, ThreadsFormat::Json) => Form::Nothing,
            };
            let ours = args.format != ThreadsFormat::Text;
            let mut request = request(args.capture.clone(), trace.clone(), ours);
            let (outcome, report) = Onlooker::new(form)?.run(&mut request)?;
            (trace, report, status(&outcome))
        }
    };
    let wants_stacks = args.folded.is_some() || args.flame_graph.is_some() || args.groups.is_some();
    let samples = match wants_stacks {
        true => Some(samples(&trace, &rules)?),
        false => None,
    };
    if let Some(samples) = &samples {
        let lines = samples.folded.iter();
        let lines: Vec<String> = lines
            .map(|(stack, count)| format!("{stack} {count}"))
            .collect();
        if let Some(path) = &args.folded {
            write(path, &(lines.join("\n") + "\n"))?;
        }
        if let Some(path) = &args.flame_graph {
            flame_graph(path, &lines, "CPU samples", "samples")?;
        }
    }
    if let Some(path) = &args.off_cpu {
        let lines = off_cpu(&report);
        match path.extension().is_some_and(|extension| extension == "svg") {
            true => flame_graph(path, &lines, "Off the CPU", "ms")?,
            false => write(path, &(lines.join("\n") + "\n"))?,
        }
    }
    if args.tui && args.trace.is_some() {
        screen::show(report, colour)?;
        return Ok(ended);
    }
    // Live, the lines have been written.
    if args.format == ThreadsFormat::Jsonl && args.trace.is_none() {
        return Ok(ended);
    }
    output.to(&Destination::Stdout, |out, screen| match args.format {
        ThreadsFormat::Text => {
            threads::write(&report, screen, out)?;
            threads::wakings(&report, screen, out)
        }
        ThreadsFormat::Jsonl => plain::write_json(&whole(report), out),
        ThreadsFormat::Json => {
            let document = document(&report, samples.as_ref());
            serde_json::to_writer_pretty(&mut *out, &document).map_err(io::Error::from)?;
            out.write_all(b"\n")
        }
    })?;
    Ok(ended)
}

fn rules(path: Option<&Path>) -> Result<Rules, Failure> {
    let Some(path) = path else {
        return Ok(Rules::default());
    };
    let name = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
    let own = Rules::parse(&text).map_err(|error| {
        let error = anyhow::Error::from(error).context(format!("{name} holds no rules"));
        let hint = "a rule is GROUP SIDE PATTERN; docs/threads.md has examples";
        Failure::new(ExitStatus::Usage, error, hint)
    })?;
    Ok(own.before(Rules::default()))
}

/// The stack samples of a trace.
fn samples(trace: &Path, rules: &Rules) -> anyhow::Result<stacks::Output> {
    let reader = Reader::open(trace)?;
    let mut stacks = Stacks::default();
    let summary = reader.for_each(|event| stacks.observe(&event))?;
    anyhow::ensure!(
        !stacks.is_empty(),
        "there are no stack samples in it: record with --stacks"
    );
    let context = Context::of(&summary);
    Ok(stacks.finish(&context, rules).0)
}

/// Lines `process;thread;what it waited for ms`.
fn off_cpu(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    for thread in &report.threads {
        let blocked = &thread.blocked_s;
        let mut add = |what: &str, time: f64| {
            let ms = (time * 1000.0).round() as u64;
            if ms > 0 {
                let (comm, tid) = (&thread.comm, thread.tid);
                lines.push(format!("pid {};{comm} ({tid});{what} {ms}", thread.pid));
            }
        };
        add("waits for a core", thread.runqueue_wait_s);
        for (what, time) in blocked.kinds() {
            add(what, time);
        }
    }
    lines
}

fn flame_graph(path: &Path, lines: &[String], title: &str, unit: &str) -> anyhow::Result<()> {
    let name = path.display();
    let mut file = fs::File::create(path).with_context(|| format!("cannot create {name}"))?;
    let mut options = flamegraph::Options::default();
    title.clone_into(&mut options.title);
    unit.clone_into(&mut options.count_name);
    let lines = lines.iter().map(String::as_str);
    flamegraph::from_lines(&mut options, lines, &mut file)
        .with_context(|| format!("cannot draw {name}"))
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The parts of the report that are about threads, with the same fields.
fn document(report: &Report, samples: Option<&stacks::Output>) -> serde_json::Value {
    json!({
        "schema": "vpnbench.threads.v1",
        "run": report.run,
        "threads": report.threads,
        "daemon_limits": report.daemon_limits,
        "wakings": report.wakings,
        "cpu": report.cpu,
        "samples": samples.map(|samples| &samples.processes),
        "capture": report.capture,
    })
}
