//! `vpnbench threads`: which thread does what, what it costs and which is the limit.

use std::collections::BTreeMap;
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
use crate::analysis::stacks::off_cpu::{OffCpu, Sleep};
use crate::analysis::stacks::{self, Stacks, rules::Rules};
use crate::analysis::threads::ThreadTime;
use crate::report::Report;
use crate::report::live::plain;
use crate::report::terminal::threads;
use crate::trace::Reader;

/// Longest sleeps in the JSON document.
const SLEEPS: usize = 1000;

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
    let samples = match wants_stacks || args.off_cpu.is_some() {
        true => Some(samples(&trace, &rules, wants_stacks)?),
        false => None,
    };
    let sleeps = samples.as_ref().map_or(&[][..], |samples| &samples.sleeps);
    let samples = samples.as_ref().map(|samples| &samples.on_cpu);
    if let Some(samples) = samples.filter(|_| wants_stacks) {
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
        let lines = off_cpu(&report, sleeps);
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
            let document = document(&report, samples.filter(|_| wants_stacks), sleeps);
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

/// Stacks of a trace.
struct Samples {
    on_cpu: stacks::Output,
    /// Longest first; none without `--stacks`.
    sleeps: Vec<Sleep>,
}

/// The stacks of a trace; `required` if it must have samples of the CPU clock.
fn samples(trace: &Path, rules: &Rules, required: bool) -> anyhow::Result<Samples> {
    let reader = Reader::open(trace)?;
    let (mut stacks, mut off_cpu) = (Stacks::default(), OffCpu::default());
    let summary = reader.for_each(|event| {
        stacks.observe(&event);
        off_cpu.observe(&event);
    })?;
    anyhow::ensure!(
        !required || !stacks.is_empty(),
        "there are no stack samples in it: record with --stacks"
    );
    let context = Context::of(&summary);
    Ok(Samples {
        on_cpu: stacks.finish(&context, rules).0,
        sleeps: off_cpu.finish(&context),
    })
}

/// Lines `process;thread;where it slept ms`: the functions where stacks were recorded, behind them who
/// ended the wait, innermost function first as in an off-wake flame graph; else the system call.
fn off_cpu(report: &Report, sleeps: &[Sleep]) -> Vec<String> {
    let mut lines = BTreeMap::new();
    let mut add = |thread: &ThreadTime, what: &str, time: f64| {
        let (pid, comm, tid) = (thread.pid, &thread.comm, thread.tid);
        let line = format!("pid {pid};{comm} ({tid});{what}");
        *lines.entry(line).or_insert(0.0) += time * 1000.0;
    };
    for thread in &report.threads {
        add(thread, "waits for a core", thread.runqueue_wait_s);
        let blocked = &thread.blocked_s;
        let (mut known, mut all) = (0.0, 0.0);
        for sleep in sleeps.iter().filter(|one| one.tid == thread.tid) {
            known += sleep.slept_s;
            add(thread, &sleeping(report, sleep), sleep.slept_s);
        }
        for (what, time) in blocked.kinds() {
            if known == 0.0 {
                add(thread, what, time);
            }
            all += time;
        }
        if known > 0.0 {
            // Sleeps that began before the recording, or whose stack found no room.
            add(thread, "no stack recorded", (all - known).max(0.0));
        }
    }
    let lines = lines.into_iter();
    let lines = lines.map(|(line, ms)| (line, ms.round() as u64));
    let lines = lines.filter(|(_, ms)| *ms > 0);
    lines.map(|(line, ms)| format!("{line} {ms}")).collect()
}

/// The functions of a sleep, and of who ended it.
fn sleeping(report: &Report, sleep: &Sleep) -> String {
    let mut frames = sleep.stack.clone();
    if let Some(waker) = &sleep.woken_by {
        let named = report.threads.iter().find(|one| one.tid == waker.tid);
        let comm = named.map_or("thread", |one| &one.comm);
        frames.push(format!("woken by {comm} ({})", waker.tid));
        frames.extend(waker.stack.iter().rev().cloned());
    }
    frames.join(";")
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
fn document(
    report: &Report,
    samples: Option<&stacks::Output>,
    sleeps: &[Sleep],
) -> serde_json::Value {
    json!({
        "schema": "vpnbench.threads.v1",
        "run": report.run,
        "threads": report.threads,
        "daemon_limits": report.daemon_limits,
        "wakings": report.wakings,
        "cpu": report.cpu,
        "samples": samples.map(|samples| &samples.processes),
        "sleeps": &sleeps[..sleeps.len().min(SLEEPS)],
        "capture": report.capture,
    })
}
