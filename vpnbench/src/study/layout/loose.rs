//! Loose files of any folder: JSON of iperf3, hyperfine and flent, and the output of ping. The
//! folder says what it can: in `SYSTEM/PROFILE/file` the first two levels name them, in
//! `SYSTEM/file` the first one, otherwise the tree's own name is the system.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::Value;

use super::files::{entries, json, name, relative, text};
use crate::study::import::{Flow, Place, Sink, hyperfine, iperf3};
use crate::study::model::{Failure, Outcome, Study, Test};
use crate::study::statistics::mean;

/// Folders deeper than this are not looked into.
const DEEPEST: usize = 8;
/// Files beyond this number are not read.
const MOST: usize = 100_000;

/// Reads every file that looks like a result.
pub(super) fn read(root: &Path) -> Study {
    let mut files = Vec::new();
    collect(root, DEEPEST, &mut files);
    let parts: Vec<Study> = files.par_iter().map(|path| one(root, path)).collect();
    let mut study = Study::default();
    for part in parts {
        study.append(part);
    }
    // hyperfine's repetitions are runs of their own.
    study.number_runs(|row| row.metric != "time_s");
    study
}

fn collect(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) {
    for entry in entries(folder) {
        if files.len() >= MOST {
            return;
        }
        // A link could lead out of the tree or in a circle.
        if entry.is_symlink() {
            continue;
        }
        if entry.is_dir() && depth > 0 {
            collect(&entry, depth - 1, files);
        } else if entry
            .extension()
            .is_some_and(|end| end == "json" || end == "txt" || end == "log")
        {
            files.push(entry);
        }
    }
}

fn place(root: &Path, path: &Path) -> Place {
    let relative = relative(root, path);
    let folders: Vec<&str> = relative.split('/').rev().skip(1).collect();
    let own = std::fs::canonicalize(root).map_or_else(|_| name(root), |path| name(&path));
    let (system, profile) = match folders.as_slice() {
        [.., profile, system] => ((*system).to_owned(), (*profile).to_owned()),
        [system] => ((*system).to_owned(), "unknown".to_owned()),
        [] => (own, "unknown".to_owned()),
    };
    let profile = profile
        .strip_suffix("_impairment")
        .unwrap_or(&profile)
        .to_owned();
    Place {
        system,
        profile,
        path: relative,
        ..Place::default()
    }
}

fn one(root: &Path, path: &Path) -> Study {
    let mut study = Study::of_files(1);
    let mut place = place(root, path);
    if path.extension().is_some_and(|end| end != "json") {
        if let Ok(text) = text(root, path) {
            ping(place, &text, &mut study);
        }
        return study;
    }
    let document = match json(root, path) {
        Ok(document) => document,
        Err(problem) => {
            study.problems.push(problem);
            return study;
        }
    };
    let kind = kind(&document);
    let Some(benchmark) = kind else {
        return study;
    };
    benchmark.clone_into(&mut place.benchmark);
    let mut sink = Sink::new(&place, &document, "");
    let any = match benchmark {
        "tcp" | "udp" => iperf3::error(&document).is_none() && iperf3::read(&mut sink),
        "command" => hyperfine::read(&mut sink),
        _ => flent(&mut sink),
    };
    let outcome = if any {
        Outcome::Done
    } else {
        let message = iperf3::error(&document)
            .unwrap_or("holds no measurement")
            .to_owned();
        Outcome::Failed {
            failure: Failure::Other,
            message,
            pointer: "/error".to_owned(),
        }
    };
    let (rows, problems) = (sink.rows, sink.problems);
    study.rows.extend(rows);
    study.problems.extend(problems);
    let mut test = test(&place, outcome);
    if matches!(benchmark, "tcp" | "udp") {
        test.conditions = iperf3::conditions(&document);
    }
    study.tests.push(test);
    study
}

fn kind(document: &Value) -> Option<&'static str> {
    if iperf3::is(document) {
        Some(if iperf3::is_udp(document) {
            "udp"
        } else {
            "tcp"
        })
    } else if hyperfine::is(document) {
        Some("command")
    } else {
        let flent = document.get("metadata").is_some()
            && document.get("results").is_some_and(Value::is_object);
        flent.then_some("flent")
    }
}

fn test(place: &Place, outcome: Outcome) -> Test {
    Test {
        system: place.system.clone(),
        profile: place.profile.clone(),
        benchmark: place.benchmark.clone(),
        source: None,
        target: None,
        run: 0,
        outcome,
        attempts: None,
        duration_s: None,
        conditions: std::collections::BTreeMap::new(),
        path: place.path.clone(),
        pointer: String::new(),
    }
}

/// flent's series (file format version 3 and later): the mean of each series that has a unit we
/// know by its name, ping in ms and rates in Mbit/s.
fn flent(sink: &mut Sink<'_>) -> bool {
    let Some(results) = sink.get("/results").and_then(Value::as_object) else {
        return false;
    };
    let mut any = false;
    for (series, values) in results {
        let values: Vec<f64> = values
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_f64)
            .collect();
        let Some(mean) = mean(&values) else { continue };
        let lower = series.to_lowercase();
        let at = format!("/results/{}", series.replace('~', "~0").replace('/', "~1"));
        let (metric, unit, scale) = if lower.contains("ping") {
            ("rtt_avg_ms", "ms", 1.0)
        } else if lower.contains("tcp") || lower.contains("udp") {
            ("received_bps", "bit/s", 1e6)
        } else {
            continue;
        };
        sink.derive(metric, unit, &at, mean * scale, Flow::default());
        any = true;
    }
    any
}

/// The closing lines of `ping` (iputils): `10 packets transmitted, 9 received, 10% packet loss`
/// and `rtt min/avg/max/mdev = 0.1/0.2/0.3/0.0 ms`.
fn ping(mut place: Place, text: &str, study: &mut Study) {
    let Some(counts) = text
        .lines()
        .find(|line| line.contains("packets transmitted"))
    else {
        return;
    };
    "ping".clone_into(&mut place.benchmark);
    let document = Value::Null;
    let mut sink = Sink::new(&place, &document, "");
    let loss = counts.split(", ").find_map(|part| {
        part.strip_suffix("% packet loss")?
            .trim()
            .parse::<f64>()
            .ok()
    });
    if let Some(loss) = loss.filter(|loss| (0.0..=100.0).contains(loss)) {
        sink.derive("loss_percent", "%", "", loss, Flow::default());
    }
    let rtt = text.lines().find_map(|line| {
        line.trim()
            .strip_prefix("rtt min/avg/max/mdev = ")?
            .split(' ')
            .next()
    });
    let values: Vec<f64> = rtt
        .into_iter()
        .flat_map(|rtt| rtt.split('/'))
        .filter_map(|part| part.parse().ok())
        .collect();
    if let [min, avg, max, mdev] = values.as_slice() {
        for (metric, value) in [
            ("rtt_min_ms", min),
            ("rtt_avg_ms", avg),
            ("rtt_max_ms", max),
            ("rtt_mdev_ms", mdev),
        ] {
            sink.derive(metric, "ms", "", *value, Flow::default());
        }
    }
    let rows = sink.rows;
    let outcome = if rows.is_empty() {
        Outcome::Failed {
            failure: Failure::Other,
            message: "has no summary".to_owned(),
            pointer: String::new(),
        }
    } else {
        Outcome::Done
    };
    study.rows.extend(rows);
    study.tests.push(test(&place, outcome));
}
