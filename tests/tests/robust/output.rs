//! Where the trace and the report go: full, closed, stopped, refused.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use vpnbench_tests::netns::run;

use crate::ending::script;
use crate::recorder::{Place, Recorder, SOON, problems, report, wait};
use crate::traffic::{Sender, Stream, Wire, units};

/// A small file system, unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(place: &Place, size: &str) -> Result<Self> {
        let path = place.path("disk");
        std::fs::create_dir(&path)?;
        run(&format!(
            "mount -t tmpfs -o size={size} tmpfs {}",
            path.display()
        ))?;
        Ok(Self(path))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A mount that is left shows as a directory that cannot be removed.
        let _ = run(&format!("umount {}", self.0.display()));
    }
}

pub(crate) fn full_disk() -> Result<()> {
    let (place, wire) = (Place::new()?, Wire::new()?);
    let disk = Disk::mount(&place, "128k")?;
    let trace = disk.0.join("run.vbt");
    let _stream = Stream::start(&wire.a)?;
    let line = format!("record {} -o {}", wire.select(), trace.display());
    let recorder = Recorder::start(&place, &line)?;
    let ended = recorder.ended(&place, Duration::from_secs(30))?;
    let name = trace.display().to_string();
    ended.expect(
        1,
        &[&name, "No space left", "vpnbench report", "ended by disk"],
    )?;
    let report = report(&trace)?;
    ensure!(report["capture"]["complete"] == false);
    ensure!(units(&report, "outer.tx", "vd0") > 0, "no packet was kept");
    ensure!(!problems(&report).is_empty());
    Ok(())
}

pub(crate) fn closed_stdout() -> Result<()> {
    let (place, wire) = (Place::new()?, Wire::new()?);
    let (reader, writer) = std::io::pipe()?;
    let line = format!("attach {} -o TRACE --duration 300ms", wire.select());
    let recorder = Recorder::start_to(&place, &line, writer.into())?;
    drop(reader);
    let ended = recorder.ended(&place, SOON)?;
    ended.expect(0, &[])?;
    ensure!(!ended.stderr.contains("roken pipe"), "{}", ended.stderr);
    place.report()?;
    Ok(())
}

pub(crate) fn closed_trace_reader() -> Result<()> {
    let (place, wire) = (Place::new()?, Wire::new()?);
    let _stream = Stream::start(&wire.a)?;
    let (mut reader, writer) = std::io::pipe()?;
    let line = format!("record {} -o - -- sleep 600", wire.select());
    let recorder = Recorder::start_to(&place, &line, writer.into())?;
    let mut trace = vec![0; 4096];
    reader.read_exact(&mut trace)?;
    drop(reader);
    let ended = recorder.ended(&place, SOON)?;
    ended.expect(0, &["standard output", "the reader of the trace went away"])
}

pub(crate) fn stopped_trace_reader() -> Result<()> {
    const PACKETS: u64 = 20_000;
    let (place, wire) = (Place::new()?, Wire::new()?);
    let sender = Sender::new(&wire.a)?;
    let before = Instant::now();
    ensure!(sender.burst(PACKETS) == PACKETS);
    let before = before.elapsed();
    let (mut reader, writer) = std::io::pipe()?;
    let line = format!("record {} --buffer 256KiB -o -", wire.select());
    let recorder = Recorder::start_to(&place, &line, writer.into())?;
    wait("a recorder that is blocked", || {
        sender.burst(200);
        is_writing(recorder.pid())
    })?;
    let during = Instant::now();
    ensure!(sender.burst(PACKETS) == PACKETS);
    let during = during.elapsed();
    // Watching costs something; being blocked would take for ever.
    ensure!(
        during < before * 5 + Duration::from_millis(200),
        "{before:?}, then {during:?}"
    );
    ensure!(
        is_writing(recorder.pid()),
        "it was not blocked all the time"
    );
    let trace = place.trace();
    let reading = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map(|_| bytes)
    });
    recorder.signal(Signal::SIGINT)?;
    recorder.ended(&place, SOON)?.expect(0, &[" lost, "])?;
    let bytes = reading
        .join()
        .map_err(|_| anyhow::anyhow!("the reader panicked"))??;
    std::fs::write(&trace, bytes)?;
    let report = place.report()?;
    ensure!(report["capture"]["complete"] == false);
    let lost = report["capture"]["lost"].as_u64().unwrap_or(0);
    ensure!(lost > PACKETS / 2, "{lost} events lost");
    let problems = problems(&report);
    ensure!(
        problems.contains("events of net_dev_start_xmit were lost"),
        "{problems}"
    );
    let seen = units(&report, "outer.tx", "vd0");
    ensure!(seen > 0, "no packet was kept");
    Ok(())
}

/// Whether the drain thread is inside write(2).
fn is_writing(pid: u32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    tasks.into_iter().flatten().flatten().any(|task| {
        let read = |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let call = format!("{} ", nix::libc::SYS_write);
        read("comm").trim() == "vpnbench-drain" && read("syscall").starts_with(&call)
    })
}

pub(crate) fn output_refused() -> Result<()> {
    let (place, wire) = (Place::new()?, Wire::new()?);
    let (select, flag) = (wire.select(), place.path("flag"));
    let command = script(&place, &format!("touch {}\n", flag.display()))?;
    let missing = place.path("missing/run.vbt").display().to_string();
    let directory = place.path("tmp").display().to_string();
    for (line, name, why) in [
        (
            format!("record {select} -o {missing} -- {command}"),
            &missing,
            "No such file",
        ),
        (
            format!("attach {select} -o {missing} -- {command}"),
            &missing,
            "No such file",
        ),
        (
            format!("record {select} -o {directory} -- {command}"),
            &directory,
            "s a directory",
        ),
        (
            format!("attach {select} --report-file {missing} -- {command}"),
            &missing,
            "No such file",
        ),
    ] {
        place.run(&line)?.expect(1, &[name, why])?;
        ensure!(!flag.exists(), "the command ran: {line}");
    }
    Ok(())
}

pub(crate) fn private_trace() -> Result<()> {
    let (place, wire) = (Place::new()?, Wire::new()?);
    // An older file that others may read becomes private too.
    std::fs::write(place.trace(), "old")?;
    std::fs::set_permissions(place.trace(), std::fs::Permissions::from_mode(0o644))?;
    place
        .run(&format!("record {} -o TRACE -- true", wire.select()))?
        .expect(0, &[])?;
    let mode = std::fs::metadata(place.trace())?.permissions().mode();
    ensure!(mode & 0o777 == 0o600, "mode {mode:o}");
    // --quiet says nothing when all is well.
    let ended = place.run(&format!(
        "--quiet record {} -o TRACE -- true",
        wire.select()
    ))?;
    ended.expect(0, &[])?;
    ensure!(ended.stderr.is_empty(), "{}", ended.stderr);
    Ok(())
}

pub(crate) fn one_document() -> Result<()> {
    let (place, wire) = (Place::new()?, Wire::new()?);
    let command = script(&place, "echo to stdout\necho to stderr >&2\n")?;
    let select = wire.select();
    let ended = place.run(&format!("attach {select} --report json -- {command}"))?;
    ended.expect(0, &["to stdout", "to stderr"])?;
    let report: Value = serde_json::from_str(&ended.stdout)?;
    ensure!(report["schema"] == "vpnbench.report.v1");
    // With the report elsewhere the command has its own stdout.
    let file = place.path("report.json");
    let file_name = file.display();
    let line = format!("attach {select} --report json --report-file {file_name} -- {command}");
    let ended = place.run(&line)?;
    ended.expect(0, &["to stderr"])?;
    ensure!(ended.stdout == "to stdout\n", "{}", ended.stdout);
    let report: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    ensure!(report["run"]["end_reason"] == "command");
    Ok(())
}
