//! What runs leave on disk.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Output;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use vpnbench_tests::binary::vpnbench;

/// Runs `vpnbench lab` with arguments.
pub(crate) fn lab(arguments: &[&str]) -> Result<Output> {
    Ok(vpnbench().arg("lab").args(arguments).output()?)
}

/// Standard error of a run, for messages.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A JSON file of a run.
pub(crate) fn json(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok(serde_json::from_str(&text)?)
}

/// Options of the shortest benchmark there is.
pub(crate) const SHORT_PING: [&str; 4] = ["--bench", "ping", "--duration", "400ms"];

pub(crate) fn directory() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let place = folder.path().to_string_lossy().into_owned();
    let mut arguments = vec!["run", "--vpn", "none", "-o", &place, "--report", "json"];
    arguments.extend(SHORT_PING);
    let output = lab(&arguments)?;
    ensure!(output.status.success(), "{}", stderr(&output));
    let printed: Value = serde_json::from_slice(&output.stdout)?;
    let kept = json(&folder.path().join("report.json"))?;
    ensure!(printed == kept, "the printed report is not the kept one");
    ensure!(
        kept["taps"].as_array().is_some_and(|taps| !taps.is_empty()),
        "no taps: {kept}"
    );
    let outcome = json(&folder.path().join("outcome.json"))?;
    ensure!(outcome["status"] == "done", "{outcome}");
    ensure!(
        outcome["vpn"] == "none" && outcome["benchmark"] == "ping",
        "{outcome}"
    );
    let named = |figure: &&Value| figure["name"] == "rtt_us_mean";
    let rtt = outcome["figures"]
        .as_array()
        .and_then(|all| all.iter().find(named));
    ensure!(
        rtt.is_some_and(|rtt| rtt["value"].as_f64() > Some(0.0)),
        "{outcome}"
    );
    let benchmark = json(&folder.path().join("benchmark.json"))?;
    ensure!(
        benchmark.to_string().contains("\"kind\":\"ping\""),
        "{benchmark}"
    );
    ensure!(
        folder.path().join("ping.txt").is_file(),
        "no output of the tool itself"
    );
    let environment = json(&folder.path().join("environment.json"))?;
    let namespaces = environment["environment"]["namespaces"].as_array();
    ensure!(
        namespaces.is_some_and(|all| !all.is_empty()),
        "{environment}"
    );
    ensure!(folder.path().join("run.vbt").is_file(), "no trace");
    // The effective scenario runs again and asks for the same.
    let scenario = folder.path().join("scenario.toml");
    let shown = lab(&[
        "scenario",
        "show",
        "--complete",
        &scenario.to_string_lossy(),
    ])?;
    ensure!(shown.status.success(), "{}", stderr(&shown));
    ensure!(String::from_utf8_lossy(&shown.stdout) == fs::read_to_string(&scenario)?);
    Ok(())
}

pub(crate) fn repetitions() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let place = folder.path().to_string_lossy().into_owned();
    let mut arguments = vec![
        "run",
        "-o",
        &place,
        "--repeat",
        "3",
        "--warm-up",
        "1",
        "--seed",
        "40",
    ];
    arguments.extend(SHORT_PING);
    arguments.push("--no-record");
    let output = lab(&arguments)?;
    ensure!(output.status.success(), "{}", stderr(&output));
    let summary = json(&folder.path().join("summary.json"))?;
    ensure!(summary["runs"] == 3 && summary["done"] == 3, "{summary}");
    let seeds: Result<Vec<Value>> = ["001", "002", "003"]
        .iter()
        .map(|name| Ok(json(&folder.path().join(name).join("outcome.json"))?["seed"].clone()))
        .collect();
    ensure!(
        seeds? == [40, 41, 42],
        "each repetition has a seed of its own"
    );
    ensure!(!folder.path().join("004").exists());
    Ok(())
}

pub(crate) fn sysctls() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let place = folder.path().to_string_lossy().into_owned();
    let output = lab(&[
        "run",
        "-o",
        &place,
        "--bench",
        "tcp",
        "--duration",
        "1s",
        "--set",
        "sysctls.net.ipv4.tcp_reordering=17",
        "--set",
        "sysctls.b.net.ipv4.tcp_sack=0",
    ])?;
    ensure!(output.status.success(), "{}", stderr(&output));
    let environment = json(&folder.path().join("environment.json"))?;
    let namespaces = environment["environment"]["namespaces"]
        .as_array()
        .context("a list")?;
    for namespace in namespaces {
        let sysctls = &namespace["sysctls"];
        let is_b = namespace["name"]
            .as_str()
            .is_some_and(|name| name.ends_with("-b"));
        let sack = if is_b { "0" } else { "1" };
        ensure!(sysctls["net.ipv4.tcp_reordering"] == "17", "{sysctls}");
        ensure!(sysctls["net.ipv4.tcp_sack"] == sack, "{sysctls}");
    }
    Ok(())
}

/// Each daemon gets the share of a core that the scenario gives it.
pub(crate) fn daemon_share() -> Result<()> {
    const SHARE: f64 = 0.2;
    let folder = tempfile::tempdir()?;
    let place = folder.path().to_string_lossy().into_owned();
    let share = format!("cpus.daemon_share={}%", 100.0 * SHARE);
    let run = [
        "run",
        "--vpn",
        "reference",
        "--bench",
        "tcp",
        "--duration",
        "2s",
    ];
    let output = lab(&[&run[..], &["--set", &share, "-o", &place]].concat())?;
    ensure!(output.status.success(), "{}", stderr(&output));
    let outcome = json(&folder.path().join("outcome.json"))?;
    if outcome["status"] == "skipped" {
        ensure!(
            outcome["reason"]
                .as_str()
                .is_some_and(|why| why.contains("control group"))
        );
        return Ok(());
    }
    let report = json(&folder.path().join("report.json"))?;
    let duration_s = report["run"]["duration_s"]
        .as_f64()
        .context("no duration")?;
    let mut used: BTreeMap<u64, f64> = BTreeMap::new();
    for thread in report["threads"].as_array().context("no threads")? {
        if thread["role"] == "daemon" {
            let cpu_s = thread["cpu_s"].as_f64().context("no CPU time")?;
            *used
                .entry(thread["pid"].as_u64().context("no process")?)
                .or_default() += cpu_s;
        }
    }
    // Flat out both would take far more; one period of a tenth of a second may begin before the recording does.
    let most = SHARE * (duration_s + 0.1) + 0.02;
    ensure!(used.len() == 2, "{used:?}");
    ensure!(
        used.values().all(|cpu_s| *cpu_s <= most),
        "{used:?}, at most {most} s each"
    );
    ensure!(
        used.values()
            .any(|cpu_s| *cpu_s >= 0.5 * SHARE * duration_s),
        "{used:?}"
    );
    Ok(())
}

/// The embedded wire holds TAP devices, too: they are outer devices, whatever is tunnelled.
pub(crate) fn wires() -> Result<()> {
    for (vpn, tunnels) in [("none", 0), ("reference", 2)] {
        let folder = tempfile::tempdir()?;
        let place = folder.path().to_string_lossy().into_owned();
        let wire = ["--set", "wire.backend=embedded", "--profile", "medium"];
        let run = ["run", "--vpn", vpn, "--duration", "1s", "-o", &place];
        let output = lab(&[&run[..], &wire, &["--bench", "tcp"]].concat())?;
        let said = stderr(&output);
        ensure!(output.status.success(), "{said}");
        ensure!(!said.contains("new tunnel"), "{said}");
        let report = json(&folder.path().join("report.json"))?;
        let found = report["tunnels"].as_array().map(Vec::len);
        ensure!(found == Some(tunnels), "{vpn}: {found:?} tunnels");
        ensure!(
            report["run"]["changes"] == serde_json::json!([]),
            "{report}"
        );
        let taps = report["taps"].as_array().context("no taps")?;
        let of_wire = |tap: &&Value| {
            let device = tap["device"].as_str().unwrap_or_default();
            device.starts_with("wire-")
        };
        let names: Vec<&str> = taps
            .iter()
            .filter(of_wire)
            .filter_map(|tap| tap["tap"].as_str())
            .collect();
        ensure!(
            names.contains(&"outer.tx") && !names.iter().any(|name| name.starts_with("tun.")),
            "{vpn}: {names:?}"
        );
    }
    Ok(())
}
