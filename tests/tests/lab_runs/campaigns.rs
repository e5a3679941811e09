//! Matrix and ablation: resuming, results, refusing another plan's directory.

use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vpnbench_tests::binary::vpnbench;
use vpnbench_tests::machine;

use super::layout::{SHORT_PING, json, lab, stderr};

/// A child that does not outlive its test.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // Already ended in the good case; then both fail, which is fine.
        let _killed = self.0.kill();
        let _reaped = self.0.wait();
    }
}

pub(crate) fn matrix() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let place = folder.path().to_string_lossy().into_owned();
    let mut arguments = vec![
        "matrix",
        "--vpn",
        "none,wireguard-go",
        "--repeat",
        "4",
        "-o",
        &place,
    ];
    arguments.extend(["--vary", "run.stacks=false,true", "--no-record"]);
    arguments.extend(["--set", "benchmark.name=ping", "--duration", "800ms"]);
    let mut command = vpnbench();
    command.arg("lab").args(&arguments);
    let child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let mut child = Guard(child);
    let pid = child.0.id();
    let state = folder.path().join("state.json");
    let finished = || Some(json(&state).ok()?["finished"].as_array()?.len());
    let deadline = Instant::now() + Duration::from_secs(60);
    while finished().is_none_or(|count| count < 2) {
        ensure!(
            Instant::now() < deadline,
            "two runs took more than a minute"
        );
        ensure!(child.0.try_wait()?.is_none(), "it ended early");
        thread::sleep(Duration::from_millis(5));
    }
    kill(Pid::from_raw(pid.try_into()?), Signal::SIGINT)?;
    let status = child.0.wait()?;
    ensure!(status.code() == Some(1), "{status}");
    ensure!(
        machine::runs_of(pid).is_empty(),
        "the interrupted run is still there"
    );
    let before = json(&folder.path().join("matrix.json"))?;
    ensure!(before["complete"] == false, "it was interrupted");
    let had = finished().context("a state")?;
    ensure!((2..16).contains(&had), "{had}");
    let first = json(&state)?["finished"][0]["outcome"]["started_at"].clone();

    let output = lab(&arguments)?;
    ensure!(output.status.success(), "{}", stderr(&output));
    ensure!(stderr(&output).contains(&format!("{had} of 16 runs are there already")));
    let after = json(&folder.path().join("matrix.json"))?;
    ensure!(after["complete"] == true && after["runs"].as_array().map(Vec::len) == Some(16));
    ensure!(
        after["runs"][0]["outcome"]["started_at"] == first,
        "a finished run was made again"
    );
    let table = String::from_utf8_lossy(&output.stdout);
    ensure!(
        table.contains("wireguard-go") && table.contains("4/4"),
        "{table}"
    );
    let csv = std::fs::read_to_string(folder.path().join("matrix.csv"))?;
    ensure!(csv.lines().count() == 17, "{csv}");
    ensure!(
        folder
            .path()
            .join("none/run.stacks=true/004/outcome.json")
            .is_file()
    );
    Ok(())
}

pub(crate) fn ablation() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let place = folder.path().to_string_lossy().into_owned();
    let mut arguments = vec!["ablate", "-o", &place, "--repeat", "2", "--no-record"];
    arguments.extend([
        "--switch",
        "run.stacks=true",
        "--switch",
        "sysctls.net.ipv4.tcp_sack=0",
    ]);
    arguments.extend(["--set", "benchmark.name=ping", "--duration", "400ms"]);
    let output = lab(&arguments)?;
    ensure!(output.status.success(), "{}", stderr(&output));
    let ablation = json(&folder.path().join("ablation.json"))?;
    ensure!(
        ablation["base_done"] == 2 && ablation["complete"] == true,
        "{ablation}"
    );
    let switches = ablation["switches"].as_array().context("a list")?;
    ensure!(switches.len() == 2 && switches[1]["switch"] == "sysctls.net.ipv4.tcp_sack=0");
    ensure!(
        switches.iter().all(|switch| switch["done"] == 2),
        "{ablation}"
    );
    Ok(())
}

pub(crate) fn other_plan() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let place = folder.path().to_string_lossy().into_owned();
    let mut arguments = vec!["matrix", "--vpn", "none", "--no-record", "-o", &place];
    arguments.extend(SHORT_PING);
    let output = lab(&arguments)?;
    ensure!(output.status.success(), "{}", stderr(&output));
    arguments.extend(["--seed", "2"]);
    let output = lab(&arguments)?;
    ensure!(output.status.code() == Some(1), "{}", stderr(&output));
    ensure!(
        stderr(&output).contains("holds other runs"),
        "{}",
        stderr(&output)
    );
    Ok(())
}
