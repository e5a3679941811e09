//! The tunnel, its namespace or its daemon goes, or changes, while recording.

use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use vpnbench_tests::netns::run;
use vpnbench_tests::wireguard::Pair;

use crate::ending::script;
use crate::recorder::{Place, Recorder, SOON, changes, wait};
use crate::traffic::units;

fn ping(pair: &Pair, packets: u32) -> Result<()> {
    pair.a
        .exec(&format!("ping -q -c {packets} -i 0.01 -W 5 10.98.0.2"))?;
    Ok(())
}

fn select(pair: &Pair) -> String {
    format!("--netns {} --tun {}", pair.a.name, pair.wg_a.device)
}

pub(crate) fn device() -> Result<()> {
    let (place, pair) = (Place::new()?, Pair::new()?);
    ping(&pair, 1)?;
    let mut recorder = Recorder::start(&place, &format!("record {} -o TRACE", select(&pair)))?;
    ping(&pair, 10)?;
    let device = &pair.wg_a.device;
    pair.a.ip(&format!("link del {device}"))?;
    recorder.wait_line(&format!("device {device} is gone"))?;
    // It waits for a daemon that is being restarted.
    let ended = recorder.ended(&place, Duration::from_secs(20))?;
    ended.expect(0, &["ended by device"])?;
    let report = place.report()?;
    ensure!(report["run"]["end_reason"] == "device");
    let changes = changes(&report);
    ensure!(
        changes.contains(&format!("device {device} is gone")),
        "{changes}"
    );
    ensure!(units(&report, "tun.tx", device) >= 10);
    Ok(())
}

/// A command that ends when the file `flag` is there.
fn until_flag(place: &Place) -> Result<String> {
    let flag = place.path("flag");
    script(
        place,
        &format!("while [ ! -e {} ]; do sleep 0.02; done\n", flag.display()),
    )
}

pub(crate) fn device_under_command() -> Result<()> {
    let (place, pair) = (Place::new()?, Pair::new()?);
    ping(&pair, 1)?;
    let line = format!(
        "record {} -o TRACE -- {}",
        select(&pair),
        until_flag(&place)?
    );
    let mut recorder = Recorder::start(&place, &line)?;
    ping(&pair, 10)?;
    let device = &pair.wg_a.device;
    pair.a.ip(&format!("link del {device}"))?;
    recorder.wait_line(&format!("device {device} is gone"))?;
    std::fs::write(place.path("flag"), "")?;
    recorder
        .ended(&place, SOON)?
        .expect(0, &["ended by command"])?;
    let report = place.report()?;
    ensure!(report["run"]["command_status"]["code"] == 0);
    ensure!(changes(&report).contains("is gone"));
    ensure!(units(&report, "tun.tx", device) >= 10);
    Ok(())
}

pub(crate) fn namespace() -> Result<()> {
    let (place, mut pair) = (Place::new()?, Pair::new()?);
    ping(&pair, 1)?;
    let line = format!(
        "attach {} -o TRACE -- {}",
        select(&pair),
        until_flag(&place)?
    );
    let mut recorder = Recorder::start(&place, &line)?;
    ping(&pair, 10)?;
    let device = pair.wg_a.device.clone();
    run(&format!("ip netns del {}", pair.a.name))?;
    pair.wg_a.stop();
    recorder.wait_line(&format!("device {device} is gone"))?;
    std::fs::write(place.path("flag"), "")?;
    let ended = recorder.ended(&place, SOON)?;
    // Its name is free again, so that the guard finds what it expects.
    run(&format!("ip netns add {}", pair.a.name))?;
    ended.expect(0, &["trace kept in"])?;
    // The recorder held the namespace open; with it the wire goes.
    wait("the end of the namespace", || {
        pair.b.ip("link show vd0").is_err()
    })?;
    let report = place.report()?;
    ensure!(changes(&report).contains("is gone"));
    ensure!(units(&report, "tun.tx", &device) >= 10);
    Ok(())
}

pub(crate) fn daemon_restarts() -> Result<()> {
    let (place, mut pair) = (Place::new()?, Pair::new()?);
    ping(&pair, 1)?;
    let mut recorder = Recorder::start(&place, &format!("record {} -o TRACE", select(&pair)))?;
    ping(&pair, 10)?;
    let device = pair.wg_a.device.clone();
    pair.wg_a.stop();
    recorder.wait_line(&format!("device {device} is gone"))?;
    // Another daemon with another port, under the same device name.
    pair.wg_a.port = 51999;
    pair.wg_a.restart(&pair.a, "10.98.0.1/24")?;
    pair.wg_a
        .peer(&pair.wg_b, "10.99.0.2:51820", "10.98.0.2/32")?;
    recorder.wait_line(&format!("device {device} is back"))?;
    recorder.wait_line(":51999")?;
    ping(&pair, 20)?;
    recorder.signal(Signal::SIGINT)?;
    recorder.ended(&place, SOON)?.expect(0, &["51999"])?;
    let report = place.report()?;
    let changes = changes(&report);
    for text in ["is gone", "is back", "opened", ":51999"] {
        ensure!(changes.contains(text), "no '{text}' in {changes}");
    }
    for (tap, device) in [("tun.tx", device.as_str()), ("outer.tx", "vd0")] {
        let seen = units(&report, tap, device);
        ensure!(seen >= 30, "{seen} units at {tap}");
    }
    Ok(())
}

pub(crate) fn daemon_opens_socket() -> Result<()> {
    let (place, pair) = (Place::new()?, Pair::new()?);
    ping(&pair, 1)?;
    let mut recorder = Recorder::start(&place, &format!("record {} -o TRACE", select(&pair)))?;
    ping(&pair, 10)?;
    run(&format!("wg set {} listen-port 51998", pair.wg_a.device))?;
    recorder.wait_line(":51998")?;
    ping(&pair, 20)?;
    recorder.signal(Signal::SIGINT)?;
    recorder
        .ended(&place, SOON)?
        .expect(0, &["new outer socket"])?;
    let report = place.report()?;
    let changes = changes(&report);
    ensure!(changes.contains(":51998"), "{changes}");
    for (tap, device) in [("tun.tx", pair.wg_a.device.as_str()), ("outer.tx", "vd0")] {
        let seen = units(&report, tap, device);
        ensure!(seen >= 30, "{seen} units at {tap}");
    }
    Ok(())
}
