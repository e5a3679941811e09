//! What `vpnbench doctor` says on each kernel, kept in tests/doctor/.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::run;

/// The kept file of a kernel.
fn kept(kernel: &str) -> Result<PathBuf> {
    Ok(run::root()?
        .join("tests/doctor")
        .join(format!("{kernel}.json")))
}

/// Compares a report with the kept one, or keeps it.
pub(super) fn check(kernel: &str, report: &Path, bless: bool) -> Result<()> {
    let kept = kept(kernel)?;
    let read = |path: &Path| {
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let found = read(report)?;
    if bless {
        if let Some(folder) = kept.parent() {
            fs::create_dir_all(folder)?;
        }
        return fs::write(&kept, found).with_context(|| format!("cannot write {}", kept.display()));
    }
    let parse = |text: &str| serde_json::from_str(text).map(|report| essence(&report));
    let (before, now) = (parse(&read(&kept)?)?, parse(&found)?);
    let different = differences(&before, &now);
    if !different.is_empty() {
        bail!(
            "the doctor's report on {kernel} differs from {}:\n  {}\nif that is right: cargo xtask \
             vm --kernel {kernel} --bless doctor",
            kept.display(),
            different.join("\n  ")
        );
    }
    Ok(())
}

/// What must not change: not the release and the sizes of things, which each update changes.
fn essence(report: &Value) -> Value {
    let checks = report["checks"].as_array().into_iter().flatten();
    let checks: Vec<Value> = checks
        .map(|check| json!({ "name": check["name"], "ok": check["ok"] }))
        .collect();
    json!({ "verdict": report["verdict"], "checks": checks, "probes": report["probes"] })
}

fn differences(before: &Value, now: &Value) -> Vec<String> {
    let mut different = Vec::new();
    if before["verdict"] != now["verdict"] {
        different.push(format!(
            "verdict {} is {}",
            before["verdict"], now["verdict"]
        ));
    }
    for list in ["checks", "probes"] {
        let of = |report: &Value| report[list].as_array().cloned().unwrap_or_default();
        let (before, now) = (of(before), of(now));
        different.extend(
            before
                .iter()
                .filter(|row| !now.contains(row))
                .map(|row| format!("no longer: {row}")),
        );
        different.extend(
            now.iter()
                .filter(|row| !before.contains(row))
                .map(|row| format!("now: {row}")),
        );
    }
    different
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_of_the_kernel_is_no_difference_and_a_lost_probe_is() {
        let report = |release: &str, status: &str| {
            essence(&json!({
                "kernel": release,
                "verdict": "ready",
                "checks": [{ "name": "BTF", "ok": true, "found": release }],
                "probes": [{ "name": "tcp_probe", "status": status }],
            }))
        };
        let before = report("6.1.0-55", "attachable");
        assert!(differences(&before, &report("6.1.0-56", "attachable")).is_empty());
        let lost = differences(&before, &report("6.1.0-55", "missing"));
        assert_eq!(lost.len(), 2, "{lost:?}");
        assert!(lost[0].contains("no longer") && lost[1].contains("missing"));
    }
}
