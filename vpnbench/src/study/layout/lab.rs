//! Runs of `vpnbench lab`: any folder with `benchmark.json` and `scenario.toml` is a run, whatever
//! the folders above it are called.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::Value;

use super::files::{entries, json, relative, text};
use crate::study::import::{Flow, Place, Sink};
use crate::study::model::{Failure, Outcome, Study, Test};

/// Folders deeper than this are not looked into.
const DEEPEST: usize = 8;

/// Whether there is a run below a folder.
pub(super) fn is(root: &Path) -> bool {
    !runs(root, DEEPEST).is_empty()
}

fn runs(folder: &Path, depth: usize) -> Vec<PathBuf> {
    if folder.join("scenario.toml").is_file() && folder.join("benchmark.json").is_file() {
        return vec![folder.to_owned()];
    }
    if depth == 0 {
        return Vec::new();
    }
    let folders = entries(folder)
        .into_iter()
        .filter(|entry| entry.is_dir() && !entry.is_symlink());
    folders
        .flat_map(|folder| runs(&folder, depth - 1))
        .collect()
}

/// Reads all runs; those of one system, profile and benchmark are replicates.
pub(super) fn read(root: &Path) -> Study {
    let runs = runs(root, DEEPEST);
    let parts: Vec<Study> = runs.par_iter().map(|folder| one(root, folder)).collect();
    let mut study = Study::default();
    for part in parts {
        study.append(part);
    }
    study.number_runs(|_| true);
    study
}

fn one(root: &Path, folder: &Path) -> Study {
    let mut study = Study::of_files(2);
    let path = folder.join("benchmark.json");
    let scenario = match text(root, &folder.join("scenario.toml"))
        .map(|text| toml::from_str::<toml::Table>(&text))
    {
        Ok(Ok(scenario)) => scenario,
        Ok(Err(error)) => {
            study.problems.push(super::super::model::Problem {
                path: relative(root, &folder.join("scenario.toml")),
                pointer: String::new(),
                message: format!("is damaged TOML: {error}"),
            });
            return study;
        }
        Err(problem) => {
            study.problems.push(problem);
            return study;
        }
    };
    let word = |section: &str, key: &str| {
        let value = scenario.get(section)?.get(key)?.as_str()?;
        (!value.is_empty()).then(|| value.to_owned())
    };
    let place = Place {
        system: word("vpn", "name").unwrap_or_else(|| "none".to_owned()),
        profile: word("wire", "profile").unwrap_or_else(|| "baseline".to_owned()),
        benchmark: word("benchmark", "name").unwrap_or_else(|| "unknown".to_owned()),
        source: Some("a".to_owned()),
        target: Some("b".to_owned()),
        run: 0,
        path: relative(root, &path),
    };
    let outcome = match json(root, &path) {
        Ok(document) => {
            // `vpnbench.benchmark.v1` holds the result in a field of its own.
            let prefix = if document.get("benchmark").is_some() {
                "/benchmark"
            } else {
                ""
            };
            let mut sink = Sink::new(&place, &document, prefix);
            let any = benchmark(&mut sink);
            let (rows, problems) = (sink.rows, sink.problems);
            study.rows.extend(rows);
            study.problems.extend(problems);
            if any {
                Outcome::Done
            } else {
                let message = document
                    .get("error")
                    .and_then(Value::as_str)
                    .unwrap_or("holds no measurement")
                    .to_owned();
                Outcome::Failed {
                    failure: Failure::Other,
                    message,
                    pointer: "/error".to_owned(),
                }
            }
        }
        Err(problem) => {
            let failed = Outcome::Failed {
                failure: Failure::Damaged,
                message: problem.message.clone(),
                pointer: String::new(),
            };
            study.problems.push(problem);
            failed
        }
    };
    study.tests.push(Test {
        system: place.system,
        profile: place.profile,
        benchmark: place.benchmark,
        source: place.source,
        target: place.target,
        run: 0,
        outcome,
        attempts: None,
        duration_s: None,
        conditions: std::collections::BTreeMap::new(),
        path: place.path,
        pointer: String::new(),
    });
    study
}

/// The lab's normalised benchmark result.
fn benchmark(sink: &mut Sink<'_>) -> bool {
    let mut any = false;
    for (metric, unit, pointer, scale) in [
        ("sent_bps", "bit/s", "/throughput_bps_sent", 1.0),
        ("received_bps", "bit/s", "/throughput_bps_received", 1.0),
        ("bandwidth_bps", "bit/s", "/throughput_bps_received", 1.0),
        ("retransmits", "1", "/retransmits", 1.0),
        ("lost_percent", "%", "/loss_ratio", 100.0),
        ("loss_percent", "%", "/loss_ratio", 100.0),
        ("rtt_avg_ms", "ms", "/rtt_mean_us", 1e-3),
        ("rtt_max_ms_max", "ms", "/rtt_us/max", 1e-3),
    ] {
        any |= sink.take(metric, unit, pointer, scale, Flow::default());
    }
    any
}
