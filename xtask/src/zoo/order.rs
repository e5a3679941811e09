//! Which of two faults is the larger one: each scenario with two of them, once more with one taken away, and
//! whether reports rank them alike.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::matrix;

/// What the order is measured by.
const FIGURE: &str = "throughput_bps_received";

/// One of two faults.
#[derive(Debug)]
struct Fault {
    finding: String,
    switch: String,
    /// Throughput without it over throughput with both, and the interval of that ratio.
    ratio: Option<f64>,
    interval: Option<(f64, f64)>,
    /// Base runs whose reports support it and rank it above the other.
    above: usize,
}

/// Runs `vpnbench lab ablate` on each of these scenarios that has two faults and no result yet.
pub(super) fn make(program: &Path, names: &[String], repeat: u64, home: &Path) -> Result<()> {
    for name in names.iter().filter(|name| name.starts_with(matrix::MIXED)) {
        let directory = place(home, name);
        if directory.join("ablation.json").exists() && ablation(&directory)?["complete"] == true {
            continue;
        }
        let output = Command::new(program)
            .args(["lab", "ablate", name, "--repeat", &repeat.to_string(), "-o"])
            .arg(&directory)
            .stdin(Stdio::null())
            .output()
            .context("cannot start vpnbench")?;
        println!("{name}, one fault at a time: {}", output.status);
        if !directory.join("ablation.json").exists() {
            bail!("{name}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
    Ok(())
}

/// The section of docs/zoo.md; nothing where nothing was measured.
pub(super) fn section(names: &[String], home: &Path) -> Result<String> {
    let mut rows = String::new();
    for name in names {
        let directory = place(home, name);
        if directory.join("ablation.json").exists() {
            row(name, &directory, &mut rows)?;
        }
    }
    if rows.is_empty() {
        return Ok(rows);
    }
    Ok(format!(
        "\n## Two faults at once: which is the larger one\n\n\
         `cargo xtask zoo --order N` measures it with `vpnbench lab ablate`, which takes one of the two faults away.\n\
         Gain: throughput received without the fault over throughput with both, with its interval. The ranking is\n\
         right where the fault with the larger gain is ranked above the other one in most of the base's runs; where\n\
         the intervals overlap, the measurement does not tell which is larger.\n\n\
         | scenario | fault | gain | above the other in | ranking |\n| --- | --- | --- | --- | --- |\n{rows}"
    ))
}

fn row(name: &str, directory: &Path, rows: &mut String) -> Result<()> {
    let ablation = ablation(directory)?;
    let outcomes = base_outcomes(directory)?;
    let findings = &ablation["scenario"]["expect"]["findings"];
    let switches = ablation["switches"].as_array().context("no switches")?;
    let mut faults: Vec<Fault> = Vec::new();
    for (at, switch) in switches.iter().enumerate() {
        let effects = switch["effects"].as_array();
        let effect = effects.and_then(|all| all.iter().find(|one| one["figure"] == FIGURE));
        let effect = effect.unwrap_or(&Value::Null);
        faults.push(Fault {
            finding: findings[at]
                .as_str()
                .context("fewer findings than switches")?
                .to_owned(),
            switch: switch["switch"].as_str().unwrap_or_default().to_owned(),
            ratio: effect["ratio"].as_f64(),
            interval: interval(effect),
            above: 0,
        });
    }
    let [first, second] = &mut faults[..] else {
        bail!("{name} has {} switches instead of two", switches.len());
    };
    for supported in &outcomes {
        let rank = |fault: &Fault| supported.iter().position(|id| *id == fault.finding);
        match (rank(first), rank(second)) {
            (Some(a), Some(b)) if b < a => second.above += 1,
            (Some(_), _) => first.above += 1,
            (None, Some(_)) => second.above += 1,
            (None, None) => {}
        }
    }
    let verdict = verdict(first, second);
    for (at, fault) in faults.iter().enumerate() {
        let gain = match (fault.ratio, fault.interval) {
            (Some(ratio), Some((low, high))) => format!("{ratio:.2} ({low:.2} .. {high:.2})"),
            (Some(ratio), None) => format!("{ratio:.2}"),
            _ => "not measured".to_owned(),
        };
        let (name, verdict) = match at {
            0 => (name, verdict),
            _ => ("", ""),
        };
        let _ = writeln!(
            rows,
            "| {name} | {}, without: `{}` | {gain} | {} of {} | {verdict} |",
            fault.finding,
            fault.switch,
            fault.above,
            outcomes.len()
        );
    }
    Ok(())
}

/// The bootstrap's interval of the ratio, which takes four runs on a side, else Welch's of the difference.
fn interval(effect: &Value) -> Option<(f64, f64)> {
    let of = |name: &str| {
        let interval = &effect[name];
        interval["low"].as_f64().zip(interval["high"].as_f64())
    };
    let welch = || of("relative_interval").map(|(low, high)| (1.0 + low, 1.0 + high));
    of("ratio_interval").or_else(welch)
}

fn verdict(first: &Fault, second: &Fault) -> &'static str {
    let (Some(a), Some(b)) = (first.ratio, second.ratio) else {
        return "not measured";
    };
    let overlap = match (first.interval, second.interval) {
        (Some((low, high)), Some((other_low, other_high))) => {
            low <= other_high && other_low <= high
        }
        _ => true,
    };
    match (overlap, (a > b) == (first.above > second.above)) {
        (true, _) => "not told apart",
        (false, true) => "right",
        (false, false) => "wrong",
    }
}

fn place(home: &Path, name: &str) -> PathBuf {
    home.join("order").join(name)
}

fn ablation(directory: &Path) -> Result<Value> {
    let path = directory.join("ablation.json");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("cannot parse {}", path.display()))
}

/// The supported findings of each run of the base, ranked.
fn base_outcomes(directory: &Path) -> Result<Vec<Vec<String>>> {
    let folder = directory.join("base");
    let mut all = Vec::new();
    let entries =
        fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let run = matrix::Run::read(&entry?.path(), "")?;
        all.extend(run.map(matrix::Run::into_supported));
    }
    Ok(all)
}
