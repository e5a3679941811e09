//! What the report concludes: scenarios whose cause must be found (needs root), and recordings that do
//! not allow a conclusion, which must say so.

use std::path::Path;
use std::process::{ExitCode, Output};

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Arguments;
use serde_json::Value;
use vpnbench_tests::binary::vpnbench;
use vpnbench_tests::timeline::Timeline;
use vpnbench_tests::trials::{Trials, trial};

#[path = "findings/odd.rs"]
mod odd;

/// A handful of scenarios of different kinds: losses at three places, order, copies, a limit of the
/// receiver. All of them: `cargo xtask zoo`.
const SCENARIOS: &[&str] = &[
    "demo",
    "path-loss",
    "tunnel-loss",
    "tun-queue-overflow",
    "path-reordering",
    "tunnel-duplicates",
    "receiver-window-limited",
];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let mut trials = Trials::new(&arguments);
    for name in SCENARIOS {
        trials.add_as_root(name, &["iperf3"], || found(name));
    }
    for (name, body) in odd::CASES {
        trials.add(trial(name, body), None);
    }
    let conclusion = libtest_mimic::run(
        &Arguments {
            test_threads: Some(1),
            ..arguments
        },
        trials.finish(),
    );
    conclusion.exit_code()
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
