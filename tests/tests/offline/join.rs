//! Two ends recorded apart, with clocks of their own, come to what one recording of both comes to.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use vpnbench::analysis::ledger::LedgerStage;
use vpnbench::import::{Import, Place, Plan, Source};
use vpnbench::report::Report;
use vpnbench::trace::Writer;
use vpnbench_tests::binary::vpnbench;

use crate::make::{BEGAN, Format, Link, Packet, connection_at_both};

/// How far ahead the second host's clock is, and how much it gains.
const AHEAD_NS: u64 = 3_000_000_000;
const GAINS_PPM: u64 = 50;

/// A moment of the first host's clock on the second one.
fn second(time_ns: u64) -> u64 {
    time_ns + AHEAD_NS + (time_ns - BEGAN) * GAINS_PPM / 1_000_000
}

fn shifted(packets: &[Packet]) -> Vec<Packet> {
    let moved = packets.iter().map(|one| Packet {
        time_ns: second(one.time_ns),
        ..one.clone()
    });
    moved.collect()
}

/// The report that vpnbench prints with these arguments.
pub(crate) fn report(arguments: &[&str]) -> Result<Report> {
    let output = vpnbench()
        .args(arguments)
        .args(["--format", "json"])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{arguments:?}: {said}");
    Ok(serde_json::from_slice(&output.stdout)?)
}

pub(crate) fn written(folder: &Path, name: &str, bytes: &[u8]) -> Result<PathBuf> {
    let path = folder.join(name);
    std::fs::write(&path, bytes)?;
    Ok(path)
}

/// A capture as a trace of its host.
pub(crate) fn as_trace(host: &str, capture: &[u8]) -> Result<Vec<u8>> {
    let plan = Plan {
        sources: vec![Source {
            host: host.to_owned(),
            place: Place::Outer,
            path: host.into(),
        }],
        ..Plan::default()
    };
    let import = Import::of(&plan, vec![Box::new(Cursor::new(capture.to_vec()))])?;
    let mut writer = Writer::create(Vec::new(), import.start())?;
    let mut failed = None;
    let summary = import.for_each(|event| {
        failed = writer.push(0, event.bytes()).err().or(failed.take());
    })?;
    ensure!(failed.is_none(), "{failed:?}");
    let end = summary.end.context("an end")?;
    writer.end_epoch(end.clock.monotonic_ns, &[])?;
    Ok(writer.finish(&end)?.0)
}

/// What must not depend on the clocks.
fn books(report: &Report) -> (Vec<LedgerStage>, Vec<String>) {
    let rows = report
        .ledger
        .iter()
        .flat_map(|ledger| ledger.stages.clone());
    let again = &report.retransmits;
    let verdicts = vec![
        format!("{:?} {:?}", again.total, again.by_cause),
        format!("{:?}", again.spurious),
        format!("{:?}", report.reordering),
    ];
    (rows.collect(), verdicts)
}

fn same(common: &Report, joined: &Report, what: &str) -> Result<()> {
    let (common, joined) = (books(common), books(joined));
    ensure!(
        !common.0.is_empty() && common == joined,
        "{what}: {common:?} {joined:?}"
    );
    Ok(())
}

pub(crate) fn clocks_of_their_own() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let both = connection_at_both()?;
    let nanoseconds = Format {
        nanoseconds: true,
        ..Format::PLAIN
    };
    let file = |packets: &[Packet]| nanoseconds.file(Link::Cooked, 65_536, packets);
    let client = written(folder.path(), "client.pcap", &file(&both.client))?;
    let server = written(folder.path(), "server.pcap", &file(&both.server))?;
    let moved = written(folder.path(), "moved.pcap", &file(&shifted(&both.server)))?;
    let at = |host: &str, path: &Path| format!("{host}:outer={}", path.display());
    let (client_at, server_at) = (at("client", &client), at("server", &server));
    let common = report(&["analyze", "--at", &client_at, "--at", &server_at])?;
    let moved_at = at("server", &moved);
    let joined = report(&["analyze", "--at", &client_at, "--at", &moved_at])?;
    same(&common, &joined, "captures")?;

    // One-way times are right within what is stated.
    let wire = |report: &Report| -> Result<Vec<(String, f64, f64)>> {
        let rows = report.stages.iter().filter(|row| row.name == "wire");
        rows.map(|row| {
            let error = row.uncertainty_us.context("an uncertainty")?;
            Ok((row.direction.clone(), row.p50_us, error))
        })
        .collect()
    };
    let found = wire(&joined)?;
    ensure!(found.len() == 2, "{found:?}");
    for (direction, median, error) in &found {
        ensure!(*error < 11_000.0, "{direction}: +- {error} us");
        let off = (median - both.one_way_us).abs();
        ensure!(
            off <= *error,
            "{direction}: {median} us, off by {off}, stated {error}"
        );
    }
    let says = |report: &Report, text: &str| {
        let mut problems = report.problems.iter();
        problems.any(|one| one.message.contains(text))
    };
    ensure!(says(&joined, "its clock is +3.00"), "{:?}", joined.problems);

    // The same as two traces, and as a trace with a capture.
    let first = written(
        folder.path(),
        "client.vbt",
        &as_trace("client", &std::fs::read(&client)?)?,
    )?;
    let moved_trace = as_trace("server", &std::fs::read(&moved)?)?;
    let moved_trace = written(folder.path(), "server.vbt", &moved_trace)?;
    let first = first.display().to_string();
    let traces = report(&["report", &first, &moved_trace.display().to_string()])?;
    same(&common, &traces, "traces")?;
    let mixed = report(&["report", &first, "--at", &moved_at])?;
    same(&common, &mixed, "a trace and a capture")
}
