//! What the report concludes: scenarios whose cause must be found (needs root), and recordings that do
//! not allow a conclusion, which must say so.

use std::path::Path;
use std::process::{Command, ExitCode, Output};

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;
use vpnbench_tests::binary::vpnbench;
use vpnbench_tests::timeline::Timeline;

#[path = "findings/odd.rs"]
mod odd;

/// A handful of scenarios of different kinds: losses at three places, order, copies, a limit of the
/// receiver. All of them: `cargo xtask zoo`.
const SCENARIOS: &[&str] = &[
    "path-loss",
    "tunnel-loss",
    "tun-queue-overflow",
    "path-reordering",
    "tunnel-duplicates",
    "receiver-window-limited",
];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let mut trials: Vec<Trial> = SCENARIOS.iter().map(|name| scenario(name)).collect();
    trials.extend(odd::CASES.iter().map(|(name, body)| {
        Trial::test(*name, move || {
            body().map_err(|error| Failed::from(format!("{error:?}")))
        })
    }));
    let conclusion = libtest_mimic::run(
        &Arguments {
            test_threads: Some(1),
            ..arguments
        },
        trials,
    );
    conclusion.exit_code()
}

fn scenario(name: &'static str) -> Trial {
    let skip = skipped();
    let body = move || found(name).map_err(|error| Failed::from(format!("{error:?}")));
    match skip {
        Some(reason) => Trial::test(name, body)
            .with_ignored_flag(true)
            .with_kind(reason),
        None => Trial::test(name, body),
    }
}

fn skipped() -> Option<&'static str> {
    if !nix::unistd::geteuid().is_root() {
        return Some("skipped: needs root");
    }
    let tool = Command::new("iperf3").arg("--version").output();
    tool.is_err().then_some("skipped: iperf3 not found")
}

/// The scenario's own expectations, as `lab run` judges them.
fn found(name: &str) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let output = vpnbench()
        .args(["lab", "run", name, "--report", "json", "-o"])
        .arg(directory.path())
        .output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let outcome = read(&directory.path().join("outcome.json"))?;
    let expectations = outcome["expectations"]
        .as_array()
        .context("no expectations")?;
    ensure!(!expectations.is_empty(), "{name} expects nothing");
    for one in expectations {
        let supported = &outcome["supported"];
        ensure!(
            one["met"] == true,
            "{one} is not met; supported: {supported}"
        );
    }
    Ok(())
}

fn read(path: &Path) -> Result<Value> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(serde_json::from_slice(&text)?)
}

/// What `vpnbench` prints for a timeline's trace, or for what `spoil` makes of its bytes.
fn printed(timeline: &str, spoil: fn(&mut Vec<u8>), format: &str) -> Result<Output> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("run.vbt");
    let mut bytes = Timeline::parse(timeline)?.trace()?;
    spoil(&mut bytes);
    std::fs::write(&path, bytes)?;
    let mut command = vpnbench();
    command.arg("report").arg(&path).args(["--format", format]);
    Ok(command.output()?)
}
