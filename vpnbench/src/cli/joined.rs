//! Reports of several recordings, joined.

use std::path::{Path, PathBuf};

use super::Failure;
use super::offline::conclude;
use crate::analysis::Analyses;
use crate::explain::Given;
use crate::import::{Place, Plan, Source};
use crate::join::{Joined, Recording, tag};
use crate::report::Report;
use crate::trace::{Reader, TraceError};

/// The report of traces and captures of one run.
pub(super) fn traces(paths: &[PathBuf], captures: &[Source]) -> Result<Report, Failure> {
    let mut recordings = Vec::new();
    let mut named: Vec<Source> = captures.to_vec();
    for path in paths {
        if is_capture(path)? {
            let host = path.file_stem().unwrap_or_default();
            named.push(Source {
                host: host.to_string_lossy().into_owned(),
                place: Place::Unknown,
                path: path.clone(),
            });
        } else {
            recordings.push(Recording::Trace(path.clone()));
        }
    }
    recordings.extend(by_host(&Plan {
        sources: named,
        ..Plan::default()
    }));
    join(recordings)
}

/// Whether a file is something else than a trace; what it is then is for the importer to say.
fn is_capture(path: &Path) -> Result<bool, Failure> {
    if path == Path::new("-") {
        return Ok(false);
    }
    match Reader::open(path) {
        Err(TraceError::NotATrace { .. }) => Ok(true),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(false),
    }
}

/// Captures of one host are one recording: they have one clock.
pub(super) fn by_host(plan: &Plan) -> Vec<Recording> {
    let mut hosts: Vec<&str> = Vec::new();
    for source in &plan.sources {
        if !hosts.contains(&source.host.as_str()) {
            hosts.push(&source.host);
        }
    }
    let plans = hosts.into_iter().map(|host| {
        let sources = plan.sources.iter().filter(|one| one.host == host);
        let local = plan.local.iter().filter(|one| one.0 == host);
        Recording::Captures(Plan {
            sources: sources.cloned().collect(),
            local: local.cloned().collect(),
            filter: plan.filter.clone(),
            beside: (plan.beside.iter().filter(|one| one.host == host))
                .cloned()
                .collect(),
        })
    });
    plans.collect()
}

/// Joins recordings and analyses them.
pub(super) fn join(recordings: Vec<Recording>) -> Result<Report, Failure> {
    let joined = Joined::new(recordings)?;
    let mut analyses = Analyses::new(joined.start());
    let summary = super::lanes::follow_all(&mut analyses, |feed| {
        joined.for_each(|event| feed.observe(&event))
    })?;
    let mut report = conclude(analyses, &summary, &Given::default());
    own_numbers(&mut report);
    Ok(report)
}

/// Numbers of processes as their machines have them.
fn own_numbers(report: &mut Report) {
    for thread in &mut report.threads {
        thread.pid = tag::plain(thread.pid);
        thread.tid = tag::plain(thread.tid);
    }
    for limits in &mut report.daemon_limits {
        limits.pid = tag::plain(limits.pid);
        let all = limits.ceilings.iter_mut();
        for limit in all.chain(limits.bottleneck.as_mut()) {
            limit.pid = tag::plain(limit.pid);
            limit.tid = limit.tid.map(tag::plain);
        }
    }
    for waking in &mut report.wakings {
        waking.pid = tag::plain(waking.pid);
        waking.waker_tid = tag::plain(waking.waker_tid);
        waking.woken_tid = tag::plain(waking.woken_tid);
    }
    for row in &mut report.syscalls {
        row.pid = tag::plain(row.pid);
    }
    for tunnel in report.tunnels.iter_mut().chain(report.tunnel.as_mut()) {
        if let Some(daemon) = &mut tunnel.daemon {
            daemon.pid = tag::plain(daemon.pid);
        }
    }
}
