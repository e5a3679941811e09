//! Signals, and two recorders at once.

use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::recorder::{Place, Recorder, SOON, problems};
use crate::traffic::{Sender, Stream, Wire, packets_from, units, wait_for_blocks};

/// A shell script as one word for [`Place::vpnbench`], which splits at spaces.
pub(crate) fn script(place: &Place, text: &str) -> Result<String> {
    let path = place.path("command.sh");
    std::fs::write(&path, text)?;
    Ok(format!("sh {}", path.display()))
}

pub(crate) fn kill_9() -> Result<()> {
    let (place, wire) = (Place::new()?, Wire::new()?);
    let _stream = Stream::start(&wire.a)?;
    let select = wire.select();
    let recorder = Recorder::start(&place, &format!("record {select} -o TRACE -- sleep 600"))?;
    ensure!(recorder.children().len() == 1, "the command does not run");
    wait_for_blocks(&place.trace())?;
    recorder.signal(Signal::SIGKILL)?;
    let ended = recorder.ended(&place, SOON)?;
    ensure!(ended.signal() == Some(9), "{ended:?}");
    let report = place.report()?;
    ensure!(report["capture"]["complete"] == false);
    ensure!(units(&report, "outer.tx", "vd0") > 0, "no packet was kept");
    let problems = problems(&report);
    ensure!(problems.contains("did not end in order"), "{problems}");
    Ok(())
}

pub(crate) fn kill_9_without_output() -> Result<()> {
    let (place, wire) = (Place::new()?, Wire::new()?);
    let select = wire.select();
    let recorder = Recorder::start(&place, &format!("attach {select} -- sleep 600"))?;
    recorder.signal(Signal::SIGKILL)?;
    let ended = recorder.ended(&place, SOON)?;
    ensure!(ended.signal() == Some(9), "{ended:?}");
    Ok(())
}

pub(crate) fn interrupt() -> Result<()> {
    ends_with(Signal::SIGINT)
}

pub(crate) fn terminate() -> Result<()> {
    ends_with(Signal::SIGTERM)
}

fn ends_with(signal: Signal) -> Result<()> {
    let (place, wire) = (Place::new()?, Wire::new()?);
    let sender = Sender::new(&wire.a)?;
    let select = wire.select();
    let recorder = Recorder::start(&place, &format!("attach {select} -o TRACE"))?;
    let sent = sender.burst(1000);
    recorder.signal(signal)?;
    let ended = recorder.ended(&place, SOON)?;
    ended.expect(0, &["recording to ", "trace kept in "])?;
    ensure!(
        ended.stdout.contains("CAPTURE complete"),
        "{}",
        ended.stdout
    );
    let report = place.report()?;
    ensure!(report["run"]["end_reason"] == "interrupt");
    let source = format!("10.99.0.1:{}", sender.port()?);
    let seen = packets_from(&report, "outer.tx", &source);
    ensure!(seen == sent, "{seen} of {sent} packets");
    Ok(())
}

pub(crate) fn interrupt_with_command() -> Result<()> {
    let (place, wire) = (Place::new()?, Wire::new()?);
    let text = "trap 'echo summary; exit 0' INT\necho ready >&2\nwhile :; do sleep 0.02; done\n";
    let (select, command) = (wire.select(), script(&place, text)?);
    let line = format!("attach {select} --report json -- {command}");
    let mut recorder = Recorder::start(&place, &line)?;
    recorder.wait_line("ready")?;
    recorder.signal(Signal::SIGINT)?;
    let ended = recorder.ended(&place, SOON)?;
    ended.expect(0, &["summary", "keep it with -o FILE"])?;
    let report: Value = serde_json::from_str(&ended.stdout)?;
    ensure!(report["run"]["end_reason"] == "interrupt");
    ensure!(report["run"]["command_status"]["code"] == 0);
    ensure!(report["capture"]["complete"] == true);
    Ok(())
}

pub(crate) fn interrupt_twice() -> Result<()> {
    let (place, wire) = (Place::new()?, Wire::new()?);
    let _stream = Stream::start(&wire.a)?;
    let text = "trap 'echo interrupted' INT\necho ready\nwhile :; do sleep 0.02; done\n";
    let (select, command) = (wire.select(), script(&place, text)?);
    let line = format!("attach {select} --report json -o TRACE -- {command}");
    let mut recorder = Recorder::start(&place, &line)?;
    recorder.wait_line("ready")?;
    wait_for_blocks(&place.trace())?;
    recorder.signal(Signal::SIGINT)?;
    recorder.wait_line("interrupted")?;
    recorder.signal(Signal::SIGINT)?;
    // Less than what a command gets to end by itself.
    let ended = recorder.ended(&place, Duration::from_secs(2))?;
    ensure!(ended.signal() == Some(2), "{ended:?}");
    ensure!(ended.stdout.is_empty(), "{}", ended.stdout);
    let report = place.report()?;
    ensure!(units(&report, "outer.tx", "vd0") > 0, "no packet was kept");
    let problems = problems(&report);
    ensure!(problems.contains("did not end in order"), "{problems}");
    Ok(())
}

pub(crate) fn two_recorders() -> Result<()> {
    let (one, two, wire) = (Place::new()?, Place::new()?, Wire::new()?);
    let sender = Sender::new(&wire.a)?;
    let line = format!("record {} -o TRACE", wire.select());
    let recorders = [
        (Recorder::start(&one, &line)?, &one),
        (Recorder::start(&two, &line)?, &two),
    ];
    let sent = sender.burst(5000);
    let source = format!("10.99.0.1:{}", sender.port()?);
    for (recorder, place) in recorders {
        recorder.signal(Signal::SIGINT)?;
        recorder.ended(place, SOON)?.expect(0, &[])?;
        let report = place.report()?;
        ensure!(report["capture"]["complete"] == true);
        for tap in ["outer.queue", "outer.tx"] {
            let seen = packets_from(&report, tap, &source);
            ensure!(seen == sent, "{tap}: {seen} of {sent} packets");
        }
    }
    Ok(())
}
