//! `audit-tool-failure`: a failure of the tool or the harness read as one of the network.

use std::collections::{BTreeMap, BTreeSet};

use super::{Evidence, Finding, number};
use crate::study::model::{Failure, Outcome, Study, Test};

/// Groups failures by benchmark and kind.
#[must_use]
pub fn find(study: &Study) -> Vec<Finding> {
    let mut groups: BTreeMap<(&str, &str), Vec<(&Test, &Failure)>> = BTreeMap::new();
    for test in &study.tests {
        if let Outcome::Failed { failure, .. } = &test.outcome {
            groups
                .entry((&test.benchmark, kind(failure)))
                .or_default()
                .push((test, failure));
        }
    }
    groups
        .into_iter()
        .filter_map(|((benchmark, kind), tests)| finding(study, benchmark, kind, &tests))
        .collect()
}

fn kind(failure: &Failure) -> &'static str {
    match failure {
        Failure::TimeLimit(_) => "time-limit",
        Failure::DatagramTooLong => "datagram-too-long",
        Failure::Harness => "harness",
        Failure::ControlConnection => "control-connection",
        Failure::Damaged => "damaged",
        Failure::Other => "other",
    }
}

fn finding(
    study: &Study,
    benchmark: &str,
    kind: &str,
    tests: &[(&Test, &Failure)],
) -> Option<Finding> {
    let systems: BTreeSet<String> = tests.iter().map(|(test, _)| test.system.clone()).collect();
    let durations: Vec<f64> = tests
        .iter()
        .filter_map(|(test, _)| test.duration_s)
        .collect();
    let longest = durations.iter().copied().fold(0.0, f64::max);
    let (title, effect) = match kind {
        "datagram-too-long" => (
            format!("{benchmark} of {} failed in the sender's own kernel: datagrams larger than the tunnel's MTU were refused (EMSGSIZE), none was lost", list(&systems)),
            "the failure is the tool's fixed packet size against a small MTU, not the tunnel's handling of QUIC; it says nothing about loss, relays or NAT traversal".to_owned(),
        ),
        "harness" => (
            format!("{benchmark} of {} ends with an error of the harness's own parser", list(&systems)),
            "what the network did is not in the data".to_owned(),
        ),
        "control-connection" => (
            format!("{} {benchmark} tests failed on the tool's control connection, most within seconds", tests.len()),
            control_effect(study, benchmark, &durations),
        ),
        "time-limit" => (
            format!("{} {benchmark} tests were ended by the harness's time limit (longest after {} s)", tests.len(), number(longest)),
            "these are not failures to complete: only a lower bound of the time is known".to_owned(),
        ),
        "damaged" => (
            format!("{} {benchmark} files are damaged or empty", tests.len()),
            "nothing is known about these tests".to_owned(),
        ),
        _ => return None,
    };
    let mut shown: Vec<Evidence> = tests
        .iter()
        .map(|(test, _)| {
            let took = test
                .duration_s
                .map_or_else(String::new, |s| format!(", after {} s", number(s)));
            Evidence::test(
                test,
                format!("{} at {}, {}{took}", test.system, test.profile, test.link()),
            )
        })
        .collect();
    shown.truncate(60);
    Some(Finding {
        class: "audit-tool-failure".to_owned(),
        id: format!("audit-tool-failure:{benchmark}/{kind}"),
        title,
        systems: systems.into_iter().collect(),
        profile: None,
        benchmark: benchmark.to_owned(),
        evidence: shown,
        corrected: Vec::new(),
        effect,
    })
}

/// Where the bare link fails in the same way, the failure cannot rank tunnels.
fn control_effect(study: &Study, benchmark: &str, durations: &[f64]) -> String {
    let early = durations.iter().filter(|seconds| **seconds < 10.0).count();
    let reference = study.reference().is_some_and(|reference| {
        study.tests.iter().any(|test| {
            test.system == reference
                && test.benchmark == benchmark
                && matches!(
                    &test.outcome,
                    Outcome::Failed {
                        failure: Failure::ControlConnection,
                        ..
                    }
                )
        })
    });
    let bare = if reference {
        ", on the bare link too,"
    } else {
        ""
    };
    format!(
        "{early} of {} ended within 10 s{bare} before the measurement began: they are no sign of how well a tunnel carries the flood",
        durations.len()
    )
}

fn list(systems: &BTreeSet<String>) -> String {
    systems
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ")
}
