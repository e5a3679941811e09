//! Faults of the reference tunnel that its truth log has packet by packet.

use anyhow::{Context, Result, ensure};
use vpnbench::lab::tunnel::truth::{Fate, Way};

use crate::run::{End, Run};

fn scenario(settings: &str, benchmark: &str) -> String {
    format!(
        "name = \"books\"\n[wire]\nbackend = \"none\"\n[vpn]\nname = \"reference\"\n\
         [vpn.settings]\ntruth_log = true\n{settings}\n[benchmark]\n{benchmark}\n"
    )
}

const TCP: &str = "name = \"tcp\"\nduration = \"1s\"";

/// Everything that both daemons did, beside their stages.
fn beside_truth(run: &Run) -> Result<()> {
    for (end, other) in [(End::A, End::B), (End::B, End::A)] {
        let send = run.stage("daemon-send", end)?;
        let lost = run.count(end, Way::Transmit, Fate::Lost)?;
        let read = run.truth(end, Way::Transmit)?;
        let read = read.iter().filter(|line| line.copy.is_none()).count() as u64;
        run.equal("read from the device", send.entered, read)?;
        run.lost("lost in the sender's daemon", send, lost)?;
        // Whatever a kernel hides, the daemon's own threads are seen: what they read and send.
        ensure!(
            (send.lost..=send.lost + send.inside).contains(&lost) && send.entered == read,
            "{lost} of {read} lost in truth: {send:?}"
        );
        let receive = run.stage("daemon-receive", end)?;
        let lost = run.count(other, Way::Receive, Fate::Lost)?;
        run.lost("lost in the receiver's daemon", receive, lost)?;
    }
    Ok(())
}

pub(crate) fn lossless() -> Result<()> {
    let run = Run::of(&scenario(
        "",
        "name = \"tcp\"\nduration = \"1s\"\nbidir = true",
    ))?;
    beside_truth(&run)?;
    run.adds_up()?;
    let ledger = run.report.ledger.as_ref().context("no ledger")?;
    let lost: u64 = ledger.stages.iter().map(|stage| stage.lost).sum();
    run.equal("lost anywhere", lost, 0)?;
    ensure!(ledger.stages.len() >= 14, "stages are missing: {ledger:#?}");
    Ok(())
}

/// Losses at each place of a daemon, one after the other and together.
fn drops(of: Way, entry: &str, exit: &str) -> Result<()> {
    let (way, end) = match of {
        Way::Transmit => ("transmit", End::A),
        Way::Receive => ("receive", End::B),
    };
    for (place, faults) in [
        ("entry", format!("drop_entry = {entry}")),
        ("exit", format!("drop_exit = {exit}")),
        (
            "entry and exit",
            format!("drop_entry = {entry}\ndrop_exit = {exit}"),
        ),
    ] {
        crate::table::case(&format!("drops at {place} of the daemon ({way})"));
        let run = Run::of(&scenario(
            &format!("[vpn.settings.faults.{way}]\n{faults}"),
            TCP,
        ))?;
        let lost = run.count(end, of, Fate::Lost)?;
        ensure!(lost > 3, "hardly any traffic: {lost} lost");
        beside_truth(&run)?;
        run.adds_up()?;
    }
    Ok(())
}

pub(crate) fn drops_at_the_sender() -> Result<()> {
    drops(Way::Transmit, "{ every = 97 }", "{ probability = 0.01 }")
}

pub(crate) fn drops_at_the_receiver() -> Result<()> {
    drops(Way::Receive, "{ every = 89 }", "{ every = 131 }")
}

pub(crate) fn duplicates() -> Result<()> {
    let faults = "[vpn.settings.faults.transmit]\nduplicate = { every = 61 }";
    let run = Run::of(&scenario(faults, TCP))?;
    for end in [End::A, End::B] {
        let lines = run.truth(end, Way::Transmit)?;
        let copies = lines.iter().filter(|line| line.copy.is_some()).count() as u64;
        let stage = run.stage("daemon-send", end)?;
        // The copy has a number of its own outside: nothing tells it from a packet of the daemon's,
        // nor which of the packets of a batch it is. One that is taken for a packet of the next batch
        // makes a loss and a copy too many, so the two are compared together.
        let more = stage.duplicated + stage.originated;
        run.equal("copies", more.saturating_sub(stage.lost), copies)?;
        ensure!(stage.lost * 100 <= stage.entered, "{stage:?}");
    }
    run.adds_up()
}

pub(crate) fn size_limit() -> Result<()> {
    let faults = "[vpn.settings.faults.transmit]\nsize_limit = 1000";
    let udp = "name = \"udp\"\nduration = \"1s\"\nrate_bps = 4000000\nlength = 1200";
    let run = Run::of(&scenario(faults, udp))?;
    let lost = run.count(End::A, Way::Transmit, Fate::Lost)?;
    ensure!(lost > 200, "{lost} were too large");
    beside_truth(&run)?;
    run.adds_up()
}

/// What the daemon's own log says about the time inside, and what the packets say.
pub(crate) fn delay() -> Result<()> {
    let faults = "[vpn.settings.faults.transmit]\ndelay = \"8ms\"";
    let run = Run::of(&scenario(
        faults,
        "name = \"ping\"\ncount = 40\ninterval = \"20ms\"",
    ))?;
    beside_truth(&run)?;
    for end in [End::A, End::B] {
        let lines = run.truth(end, Way::Transmit)?;
        let mut inside: Vec<f64> = lines
            .iter()
            .filter(|line| line.fate == Fate::Carried)
            .map(|line| (line.ns - line.entered_ns) as f64 / 1000.0)
            .collect();
        ensure!(!inside.is_empty(), "nothing was carried");
        inside.sort_by(f64::total_cmp);
        let truth = inside[inside.len() / 2];
        let found = run.time("daemon-send", end)?.p50_us;
        run.close("median inside the daemon", found, truth)?;
        ensure!(truth >= 8000.0, "the tunnel did not delay: {truth} us");
    }
    run.adds_up()
}
