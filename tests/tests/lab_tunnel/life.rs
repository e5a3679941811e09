//! Start, end and neighbours of the reference tunnel.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vpnbench::lab::tunnel::settings::{Threads, Transport};
use vpnbench::lab::tunnel::{PartSettings, Settings};
use vpnbench_tests::binary::vpnbench;
use vpnbench_tests::netns::wait_for;
use vpnbench_tests::tunnel::Rig;

/// No end may take longer; how long it really takes is in docs/lab-tunnel.md.
const END_LIMIT: Duration = Duration::from_secs(5);

pub(super) fn end() -> Result<()> {
    let pipeline = Settings {
        threads: Threads::Pipeline,
        ..Settings::default()
    };
    let quic = Settings {
        transport: Transport::Quic,
        ..Settings::default()
    };
    for settings in [Settings::default(), Settings::plain(), pipeline, quic] {
        let mut rig = Rig::new(&settings)?;
        rig.datagrams(false, 50, 100)?.1.check()?;
        let (took, account) = rig.end(1, Signal::SIGTERM)?;
        ensure!(took < END_LIMIT, "it took {took:?}");
        ensure!(account.reason == "exit", "{}", account.reason);
        ensure!(account.transmit.inside == 0, "{:?}", account.transmit);
        ensure!(
            account.threads.iter().all(|thread| thread.cpu_ns.is_some()),
            "CPU time is missing"
        );
        ensure!(
            rig.a.namespace.ip("link show tun").is_err(),
            "the device is still there"
        );
    }
    Ok(())
}

pub(super) fn kill_9() -> Result<()> {
    let mut rig = Rig::new(&Settings::default())?;
    rig.datagrams(true, 50, 100)?.1.check()?;
    rig.end(1, Signal::SIGKILL)?;
    ensure!(
        rig.a.namespace.ip("link show tun").is_err(),
        "the device is still there"
    );
    Ok(())
}

pub(super) fn relay() -> Result<()> {
    let rig = Rig::with_relay(&Settings::default())?;
    let (numbers, books) = rig.datagrams(false, 300, 500)?;
    books.check()?;
    ensure!(numbers.len() == 300, "{} arrived", numbers.len());
    let account = rig.end_relay()?;
    let (a, b) = (books.a.transmit.output.parts, books.b.transmit.output.parts);
    ensure!(
        account.received[0] >= a && account.received[1] >= b,
        "{account:?}, {a} and {b} sent"
    );
    ensure!(
        account.sent == [account.received[1], account.received[0]],
        "{account:?}"
    );
    ensure!((account.strangers, account.failed) == (0, 0), "{account:?}");
    Ok(())
}

pub(super) fn wrong_settings() -> Result<()> {
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let part = PartSettings {
        device: "vbwrong".to_owned(),
        local: address,
        peer: address,
        listen: true,
        key: "00".repeat(32),
        account: None,
        truth: None,
        settings: Settings::default(),
    };
    let json = serde_json::to_string(&part)?;
    for (from, to, named) in [
        ("\"mtu\":1420", "\"mtu\":9", "mtu"),
        (
            "\"tun_gso\":true",
            "\"tun_gso\":true,\"tun_gzo\":1",
            "tun_gzo",
        ),
        ("\"key\":\"00", "\"key\":\"x", "key"),
        ("\"transport\":\"udp\"", "\"transport\":\"ipx\"", "ipx"),
    ] {
        let changed = json.replacen(from, to, 1);
        ensure!(changed != json, "nothing was changed for {named}");
        let output = vpnbench()
            .args(["lab", "part", "tunnel", &changed])
            .output()?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success(), "{named}: it started");
        ensure!(text.contains(named), "{named} is not named: {text}");
    }
    Ok(())
}

/// `attach` finds device, daemon and socket, and its taps agree with the tunnel's own account.
pub(super) fn recorder() -> Result<()> {
    let rig = Rig::new(&Settings::default())?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("report.json");
    let mut command = vpnbench();
    command.args([
        "attach",
        "--netns",
        &rig.a.namespace.name,
        "--tun",
        "tun",
        "--duration",
        "60s",
    ]);
    command
        .args(["--report", "json", "--report-file"])
        .arg(&file);
    let log = folder.path().join("log");
    let mut child = command
        .stdout(std::process::Stdio::null())
        .stderr(std::fs::File::create(&log)?)
        .spawn()?;
    let text = || std::fs::read_to_string(&log).unwrap_or_default();
    let ready = wait_for(Duration::from_secs(60), || text().contains("recording to"));
    if !ready && text().contains("not permitted") {
        let _ended = child.kill().and_then(|()| child.wait());
        return Ok(());
    }
    ensure!(ready, "it does not record: {}", text());
    let before = rig.settle()?;
    rig.datagrams(false, 320, 700)?;
    super::switches::transfer(&rig, false)?;
    let after = rig.settle()?;
    kill_pid(child.id())?;
    child.wait()?;
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    let taps = report["taps"]
        .as_array()
        .with_context(|| format!("no taps: {report}"))?;
    let of = |name: &str| -> Option<(u64, u64)> {
        let row = taps.iter().find(|row| row["tap"] == name)?;
        Some((row["units"].as_u64()?, row["segments"].as_u64()?))
    };
    let (old, new) = (&before.a.transmit, &after.a.transmit);
    let read = (
        new.input.units - old.input.units,
        new.input.parts - old.input.parts,
    );
    ensure!(
        of("tun.read") == Some(read),
        "tun.read {:?}, account {read:?}",
        of("tun.read")
    );
    let sent = (
        new.output.units - old.output.units,
        new.output.parts - old.output.parts,
    );
    ensure!(
        of("outer.queue") == Some(sent),
        "outer.queue {:?}, account {sent:?}",
        of("outer.queue")
    );
    ensure!(
        sent.1 > sent.0 && read.1 > read.0,
        "no super-packets: {read:?} {sent:?}"
    );
    Ok(())
}

fn kill_pid(pid: u32) -> Result<()> {
    Ok(kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGINT)?)
}
