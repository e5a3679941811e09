//! What is said, with which status, when something is wrong; and that nothing stays.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use vpnbench_tests::binary::vpnbench;
use vpnbench_tests::machine;

use super::layout::{SHORT_PING, json, lab, stderr};

pub(crate) fn bad_files() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("x.toml");
    let cases = [
        ("[wire]\nunti = \"skb\"\n", ":2:1: unknown field `unti`"),
        (
            "[wire]\nunit = \"frame\"\n",
            ":2:8: unknown variant `frame`",
        ),
        (
            "[wire]\nbackend = \"netem\"\nmodel = \"exact\"\nloss = \"1%\"\n",
            ":3:1: wire.model",
        ),
        ("[benchmark]\nname = \"tcp\"\n\n[benchmark]\n", ":4:"),
        ("[vpn]\nname = \"openvpnn\"\n", ":2:8: "),
        (
            "[sysctls.lom]\n\"net.ipv4.tcp_sack\" = 0\n",
            ":1:10: sysctls.lom: there is no such host",
        ),
    ];
    for (text, expected) in cases {
        fs::write(&path, text)?;
        let name = path.to_string_lossy().into_owned();
        let output = lab(&["run", &name])?;
        let said = stderr(&output);
        ensure!(
            output.status.code() == Some(2),
            "{text:?}: {:?} {said}",
            output.status
        );
        ensure!(
            said.contains(&format!("{name}{expected}")),
            "{text:?}: {said}"
        );
        ensure!(output.stdout.is_empty());
    }
    let output = lab(&["run", "--set", "wire.unit=frame"])?;
    ensure!(output.status.code() == Some(2));
    ensure!(stderr(&output).contains("--set wire.unit=frame: unknown variant"));
    let output = lab(&["run", "/no/such/file.toml"])?;
    ensure!(output.status.code() == Some(2) && stderr(&output).contains("/no/such/file.toml"));
    let output = lab(&["matrix", "--vpn", "none,vpnx", "-o", "/nowhere"])?;
    ensure!(output.status.code() == Some(2) && stderr(&output).contains("vpnx"));
    Ok(())
}

pub(crate) fn missing_sysctl() -> Result<()> {
    let mut arguments = vec!["run", "--set", "sysctls.net.ipv4.tcp_no_such_thing=1"];
    arguments.extend(SHORT_PING);
    let output = lab(&arguments)?;
    let said = stderr(&output);
    ensure!(output.status.code() == Some(1), "{said}");
    ensure!(
        said.contains("tcp_no_such_thing") && said.contains("[sysctls]"),
        "{said}"
    );
    Ok(())
}

/// A folder with a daemon of that name that does this.
fn fake(name: &str, script: &str) -> Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    let program = folder.path().join(name);
    fs::write(&program, format!("#!/bin/sh\n{script}\n"))?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    Ok(folder)
}

pub(crate) fn missing_tool() -> Result<()> {
    let empty = tempfile::tempdir()?;
    let mut command = vpnbench();
    // Nor from the lab's own cache.
    command.env("PATH", empty.path()).env("HOME", empty.path());
    command.env("XDG_CACHE_HOME", empty.path());
    let output = command
        .args(["lab", "run", "--vpn", "wireguard-go"])
        .output()?;
    let said = stderr(&output);
    ensure!(output.status.code() == Some(1), "{said}");
    ensure!(
        said.contains("skipped: ") && said.contains("not found"),
        "{said}"
    );
    Ok(())
}

pub(crate) fn silent_daemon() -> Result<()> {
    let fake = fake("wireguard-go", "echo thinking; exec sleep 1000")?;
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = vpnbench();
    command.env("PATH", format!("{}:{path}", fake.path().display()));
    let mut child = command
        .args(["lab", "run", "--vpn", "wireguard-go"])
        .stderr(std::process::Stdio::piped())
        .spawn()?;
    let pid = child.id();
    let status = child.wait()?;
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().expect("piped"), &mut said)?;
    ensure!(status.code() == Some(1), "{said}");
    ensure!(
        said.contains("waited") && said.contains("thinking"),
        "{said}"
    );
    ensure!(
        machine::runs_of(pid).is_empty(),
        "the run is still registered"
    );
    Ok(())
}

pub(crate) fn hanging_benchmark() -> Result<()> {
    let begun = Instant::now();
    let output = lab(&[
        "run",
        "--bench",
        "ping",
        "--duration",
        "10m",
        "--no-record",
        "--set",
        "run.limit=2s",
    ])?;
    let said = stderr(&output);
    ensure!(output.status.code() == Some(4), "{said}");
    ensure!(said.contains("had not ended after 2 s"), "{said}");
    ensure!(
        begun.elapsed() < Duration::from_secs(60),
        "it was not ended"
    );
    Ok(())
}

/// iperf3 with --json ends with status 0 when its server goes away in the middle.
pub(crate) fn server_dies() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let place = folder.path().to_string_lossy().into_owned();
    for record in [true, false] {
        let mut command = vpnbench();
        command.args([
            "lab",
            "run",
            "--bench",
            "tcp",
            "--duration",
            "60s",
            "-o",
            &place,
        ]);
        if !record {
            command.arg("--no-record");
        }
        let quiet = std::process::Stdio::null;
        let mut child = command.stdout(quiet()).stderr(quiet()).spawn()?;
        let killed = kill_server(child.id());
        let status = child.wait()?;
        killed?;
        ensure!(status.code() == Some(4), "recorded: {record}: {status}");
        let outcome = json(&folder.path().join("outcome.json"))?;
        ensure!(outcome["status"] == "benchmark_failed", "{outcome}");
        let reason = outcome["reason"].as_str().unwrap_or_default();
        ensure!(!reason.is_empty(), "{outcome}");
        let benchmark = json(&folder.path().join("benchmark.json"))?;
        ensure!(benchmark["benchmark"]["complete"] == false, "{benchmark}");
        if record {
            let report = json(&folder.path().join("report.json"))?;
            let said = report["benchmark"]["error"].as_str();
            ensure!(said.is_some_and(|said| reason.contains(said)), "{report}");
        }
    }
    Ok(())
}

/// Kills the iperf3 server of a run once its client has sent for a while.
fn kill_server(lab: u32) -> Result<()> {
    let is = |pid: &str, word: &str| {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split('\0').next() == Some("iperf3") && line.split('\0').any(|one| one == word)
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        // Any of its threads may have started it. Each list ends with a space.
        let tasks = fs::read_dir(format!("/proc/{lab}/task"))?.flatten();
        let all = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
        let all: String = all.collect();
        let server = all.split_whitespace().find(|pid| is(pid, "--server"));
        if let Some(server) = server
            && has_received(server, 1_000_000)
        {
            let pid = nix::unistd::Pid::from_raw(server.parse()?);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL)?;
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "no benchmark came to run");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether so many bytes came into a process's namespace: the test is on its way.
fn has_received(pid: &str, bytes: u64) -> bool {
    let table = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    let received = table.lines().filter_map(|line| {
        let (name, counters) = line.split_once(':')?;
        let first = counters.split_whitespace().next()?;
        (name.trim() != "lo").then(|| first.parse::<u64>().ok())?
    });
    received.sum::<u64>() > bytes
}

pub(crate) fn port_in_use() -> Result<()> {
    // WireGuard's own port: the daemon in host b has it.
    let settings = ["--set", "benchmark.port=51820"];
    let run = [
        "run",
        "--vpn",
        "wireguard-go",
        "--bench",
        "stream",
        "--no-record",
    ];
    let output = lab(&[&run[..], &settings].concat())?;
    let said = stderr(&output);
    ensure!(output.status.code() == Some(1), "{said}");
    let named = ["UDP port 51820", "wireguard-go, pid", "choose another port"];
    ensure!(named.iter().all(|part| said.contains(part)), "{said}");
    Ok(())
}
