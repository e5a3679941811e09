//! The layout of the published study's rig: `SYSTEM/PROFILE/N_HOST/TEST.json`, with tests of all
//! hosts at once in `SYSTEM/PROFILE/`. Several such trees side by side (one per date) are read as
//! campaigns: their names become part of the systems' names.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::Value;

use super::files::{entries, folders, json, name, relative};
use crate::study::import::{
    Flow, Place, Sink, harness, hyperfine, iperf3, ping, qperf, rist, timings,
};
use crate::study::model::{Failure, Impairment, Outcome, Problem, Study, Test};

/// File name to benchmark, for tests of one link.
const TESTS: &[(&str, &str)] = &[
    ("tcp_iperf3.json", "tcp"),
    ("udp_iperf3.json", "udp"),
    ("ping.json", "ping"),
    ("qperf.json", "quic"),
    ("rist_stream.json", "stream"),
    ("nix_cache.json", "download"),
    ("connection_timings.json", "connect"),
    ("reboot_connection_timings.json", "reconnect"),
];
/// The test of all links at once.
const PARALLEL: &str = "parallel_tcp_iperf3.json";

/// Whether a folder has this layout, or holds folders that have it.
pub(super) fn is(root: &Path) -> bool {
    is_campaign(root) || folders(root).iter().any(|folder| is_campaign(folder))
}

fn is_campaign(root: &Path) -> bool {
    folders(root).iter().any(|system| {
        folders(system)
            .iter()
            .any(|profile| !hosts(profile).is_empty() || profile.join(PARALLEL).is_file())
    })
}

/// Folders `N_HOST` of a profile.
fn hosts(profile: &Path) -> Vec<(PathBuf, String)> {
    let numbered = |folder: PathBuf| {
        let name = name(&folder);
        let (number, host) = name.split_once('_')?;
        number.parse::<u32>().ok()?;
        let known = TESTS.iter().any(|(file, _)| folder.join(file).exists());
        known.then(|| (folder, host.to_owned()))
    };
    folders(profile).into_iter().filter_map(numbered).collect()
}

/// Reads the tree.
pub(super) fn read(root: &Path) -> Study {
    let campaigns: Vec<(PathBuf, Option<String>)> = if is_campaign(root) {
        vec![(root.to_owned(), None)]
    } else {
        let found: Vec<PathBuf> = folders(root)
            .into_iter()
            .filter(|folder| is_campaign(folder))
            .collect();
        let several = found.len() > 1;
        found
            .into_iter()
            .map(|folder| {
                let label = several.then(|| name(&folder));
                (folder, label)
            })
            .collect()
    };
    let mut jobs = Vec::new();
    for (campaign, label) in &campaigns {
        for system in folders(campaign) {
            let title = label.as_ref().map_or_else(
                || name(&system),
                |label| format!("{}@{label}", name(&system)),
            );
            for profile in folders(&system) {
                jobs.extend(jobs_of(&title, &profile));
            }
        }
    }
    let parts: Vec<Study> = jobs.par_iter().map(|job| job.read(root)).collect();
    let mut study = Study::default();
    for part in parts {
        study.append(part);
    }
    study.add_missing();
    study
}

struct Job {
    system: String,
    profile: String,
    benchmark: &'static str,
    host: Option<String>,
    path: PathBuf,
}

fn jobs_of(system: &str, profile: &Path) -> Vec<Job> {
    let title = name(profile);
    let title = title
        .strip_suffix("_impairment")
        .unwrap_or(&title)
        .to_owned();
    let job = |benchmark, host: Option<String>, path: PathBuf| Job {
        system: system.to_owned(),
        profile: title.clone(),
        benchmark,
        host,
        path,
    };
    let mut jobs = Vec::new();
    for (folder, host) in hosts(profile) {
        for (file, benchmark) in TESTS {
            let path = folder.join(file);
            if path.exists() {
                jobs.push(job(benchmark, Some(host.clone()), path));
            }
        }
    }
    for entry in entries(profile) {
        match name(&entry).as_str() {
            PARALLEL => jobs.push(job("parallel", None, entry)),
            "tc_settings.json" => jobs.push(job("impairment", None, entry)),
            "timing_breakdown.json" => jobs.push(job("harness", None, entry)),
            _ => {}
        }
    }
    jobs
}

impl Job {
    fn place(&self, root: &Path) -> Place {
        Place {
            system: self.system.clone(),
            profile: self.profile.clone(),
            benchmark: self.benchmark.to_owned(),
            source: self.host.clone(),
            target: None,
            run: 0,
            path: relative(root, &self.path),
        }
    }

    fn read(&self, root: &Path) -> Study {
        let mut study = Study::of_files(1);
        let place = self.place(root);
        let document = match json(root, &self.path) {
            Ok(document) => document,
            Err(problem) => {
                if !matches!(self.benchmark, "impairment" | "harness") {
                    study
                        .tests
                        .push(test(&place, damaged(&problem), &Value::Null));
                }
                study.problems.push(problem);
                return study;
            }
        };
        match self.benchmark {
            "impairment" => impairment(&place, &document, &mut study),
            "harness" => campaign(&place, &document, &mut study),
            "parallel" => parallel(place, &document, &mut study),
            _ => single(place, &document, &mut study),
        }
        study
    }
}

fn damaged(problem: &Problem) -> Outcome {
    Outcome::Failed {
        failure: Failure::Damaged,
        message: problem.message.clone(),
        pointer: String::new(),
    }
}

/// A test of one link.
fn single(mut place: Place, document: &Value, study: &mut Study) {
    let text = |pointer: &str| {
        document
            .pointer(pointer)
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    place.source = text("/meta/source").or(place.source);
    place.target = text("/meta/target");
    let timing = matches!(place.benchmark.as_str(), "connect" | "reconnect");
    if !timing && document.get("status").and_then(Value::as_str) != Some("success") {
        study
            .tests
            .push(test(&place, failed(document, ""), document));
        return;
    }
    let prefix = if timing { "" } else { "/data" };
    let mut sink = Sink::new(&place, document, prefix);
    let any = match place.benchmark.as_str() {
        "tcp" | "udp" => iperf3::read(&mut sink),
        "ping" => ping::read(&mut sink),
        "quic" => qperf::read(&mut sink),
        "stream" => rist::read(&mut sink),
        "download" => hyperfine::read(&mut sink),
        _ => timings::read(&mut sink),
    };
    let (rows, problems) = (sink.rows, sink.problems);
    let outcome = if any {
        Outcome::Done
    } else {
        let message = "calls itself a success and holds no measurement".to_owned();
        study.problems.push(Problem {
            path: place.path.clone(),
            pointer: prefix.to_owned(),
            message: message.clone(),
        });
        Outcome::Failed {
            failure: Failure::Damaged,
            message,
            pointer: prefix.to_owned(),
        }
    };
    let mut test = test(&place, outcome, document);
    if matches!(place.benchmark.as_str(), "tcp" | "udp")
        && let Some(data) = document.get("data")
    {
        test.conditions = iperf3::conditions(data);
    }
    study.tests.push(test);
    study.rows.extend(rows);
    study.problems.extend(problems);
}

fn test(place: &Place, outcome: Outcome, document: &Value) -> Test {
    Test {
        system: place.system.clone(),
        profile: place.profile.clone(),
        benchmark: place.benchmark.clone(),
        source: place.source.clone(),
        target: place.target.clone(),
        run: place.run,
        outcome,
        attempts: document
            .pointer("/meta/test_attempts")
            .and_then(Value::as_u64),
        duration_s: document
            .pointer("/meta/duration_seconds")
            .and_then(Value::as_f64),
        conditions: std::collections::BTreeMap::new(),
        path: place.path.clone(),
        pointer: String::new(),
    }
}

/// How a test failed: from its own error, the tool's JSON in it and the service's log.
fn failed(document: &Value, prefix: &str) -> Outcome {
    let error = document
        .pointer(&format!("{prefix}/error"))
        .unwrap_or(&Value::Null);
    let logs = document
        .pointer(&format!("{prefix}/meta/service_logs"))
        .and_then(Value::as_str)
        .unwrap_or_default();
    if logs.contains("Message too long") {
        return Outcome::Failed {
            failure: Failure::DatagramTooLong,
            message: "the server's sendmsg failed with \"Message too long\"".to_owned(),
            pointer: format!("{prefix}/meta/service_logs"),
        };
    }
    let words = words(error);
    let failure = if let Some(limit) = limit(&words) {
        Failure::TimeLimit(Some(limit))
    } else if words.contains("timed out after")
        || error
            .get("returncode")
            .is_some_and(|code| *code == -1 || *code == "-1")
    {
        Failure::TimeLimit(None)
    } else if words.contains("index out of range") {
        Failure::Harness
    } else if [
        "connect to server",
        "stream socket",
        "receive results",
        "control socket",
    ]
    .iter()
    .any(|part| words.contains(part))
    {
        Failure::ControlConnection
    } else {
        Failure::Other
    };
    Outcome::Failed {
        failure,
        message: words,
        pointer: format!("{prefix}/error"),
    }
}

/// The telling part of an error.
fn words(error: &Value) -> String {
    let tool = |text: &str| {
        let start = text.find('{')?;
        let mut documents = serde_json::Deserializer::from_str(&text[start..]).into_iter::<Value>();
        let document = documents.next()?.ok()?;
        Some(document.get("error")?.as_str()?.to_owned())
    };
    let found = match error {
        Value::String(text) => tool(text).or_else(|| {
            let lines: Vec<&str> = text
                .lines()
                .map(str::trim)
                .filter(|line| !line.is_empty())
                .collect();
            lines.last().map(|line| (*line).to_owned())
        }),
        Value::Object(map) => {
            let text = |key: &str| {
                map.get(key)
                    .and_then(Value::as_str)
                    .filter(|text| !text.trim().is_empty())
            };
            let last = |text: &str| {
                text.lines()
                    .rev()
                    .map(str::trim)
                    .find(|line| !line.is_empty())
                    .map(str::to_owned)
            };
            text("stdout")
                .and_then(tool)
                .or_else(|| text("description").map(str::to_owned))
                .or_else(|| text("msg").map(str::to_owned))
                .or_else(|| text("stderr").and_then(last))
        }
        _ => None,
    };
    let found = found.unwrap_or_else(|| "no reason given".to_owned());
    found.chars().take(300).collect()
}

/// The limit in `... timed out after N seconds`.
fn limit(words: &str) -> Option<f64> {
    let rest = words.split("timed out after").nth(1)?;
    rest.split_whitespace().next()?.parse().ok()
}

/// The test of all links at once: a pair per link, each with a result or an error.
fn parallel(place: Place, document: &Value, study: &mut Study) {
    let Some(pairs) = document.pointer("/data/pairs").and_then(Value::as_array) else {
        study
            .tests
            .push(test(&place, failed(document, ""), document));
        return;
    };
    for (index, pair) in pairs.iter().enumerate() {
        let text = |key: &str| pair.get(key).and_then(Value::as_str).map(str::to_owned);
        let place = Place {
            source: text("source"),
            target: text("target"),
            ..place.clone()
        };
        let at = format!("/data/pairs/{index}");
        let result = pair
            .get("result")
            .filter(|result| iperf3::is(result) && iperf3::error(result).is_none());
        let Some(result) = result else {
            let mut test = test(&place, failed(document, &at), document);
            test.pointer = at;
            study.tests.push(test);
            continue;
        };
        let prefix = format!("{at}/result");
        let mut sink = Sink::new(&place, document, &prefix);
        iperf3::read(&mut sink);
        let mut test = test(&place, Outcome::Done, document);
        test.conditions = iperf3::conditions(result);
        test.pointer = at;
        study.tests.push(test);
        study.rows.extend(sink.rows);
        study.problems.extend(sink.problems);
    }
}

/// `timing_breakdown.json`.
fn campaign(place: &Place, document: &Value, study: &mut Study) {
    let mut sink = Sink::new(place, document, "");
    harness::read(&mut sink);
    study.rows.extend(sink.rows);
    study.problems.extend(sink.problems);
}

/// `tc_settings.json`. The rig writes effective values of both directions of a link, twice what
/// each host applies.
fn impairment(place: &Place, document: &Value, study: &mut Study) {
    let place = Place {
        benchmark: "impairment".to_owned(),
        ..place.clone()
    };
    let mut sink = Sink::new(&place, document, "/settings");
    let mut take = |key: &str, unit: &str| {
        sink.take(key, unit, &format!("/{key}"), 1.0, Flow::default())
            .then(|| sink.rows.last().map(|row| row.value))
            .flatten()
    };
    let found = Impairment {
        system: place.system.clone(),
        profile: place.profile.clone(),
        delay_ms: take("latency_ms", "ms"),
        jitter_ms: take("jitter_ms", "ms"),
        loss_percent: take("packet_loss_percent", "%"),
        reorder_percent: take("reorder_percent", "%"),
        reorder_correlation_percent: take("reorder_correlation", "%"),
        path: place.path.clone(),
    };
    study.problems.extend(sink.problems);
    if found.delay_ms.is_some() || found.loss_percent.is_some() {
        study.impairments.push(found);
    }
}
