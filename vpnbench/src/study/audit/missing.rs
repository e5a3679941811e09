//! `audit-missing-samples`: an average or sum over the survivors only.

use super::{Evidence, Finding, corrected, rank_effect};
use crate::study::metrics::{Aggregate, METRICS};
use crate::study::model::{Row, Study, Test};

/// Finds cells with fewer results than the design has, results kept from later attempts, and
/// averages that leave out runs that were lost altogether.
#[must_use]
pub fn find(study: &Study) -> Vec<Finding> {
    let mut findings = survivors(study);
    findings.extend(retried(study));
    findings.extend(lost_runs(study));
    findings
}

fn survivors(study: &Study) -> Vec<Finding> {
    let mut findings = Vec::new();
    for benchmark in study.benchmarks() {
        for profile in &study.profiles {
            for system in &study.systems {
                let tests: Vec<&Test> = study.tests_of(system, profile, benchmark).collect();
                let gone: Vec<&Test> = tests
                    .iter()
                    .copied()
                    .filter(|test| !test.outcome.is_done())
                    .collect();
                if !gone.is_empty() && gone.len() < tests.len() {
                    findings.push(survivor(
                        study,
                        benchmark,
                        system,
                        profile,
                        &gone,
                        tests.len(),
                    ));
                }
            }
        }
    }
    findings
}

fn survivor(
    study: &Study,
    benchmark: &str,
    system: &str,
    profile: &str,
    gone: &[&Test],
    design: usize,
) -> Finding {
    let metrics: Vec<_> = METRICS
        .iter()
        .filter(|metric| metric.rows.0 == benchmark)
        .collect();
    let sum = metrics
        .iter()
        .find(|metric| metric.aggregate == Aggregate::Sum);
    let (how, formula) = match sum {
        Some(_) => (
            "a sum over them is too small",
            "mean per live link x links of the design",
        ),
        None => (
            "a mean over them leaves out the worst links",
            "unknown: the missing links' values are not in the data",
        ),
    };
    let effect = match sum {
        Some(metric) => rank_effect(study, metric, system, profile),
        None => "no ranking of this cell is sound while links are missing".to_owned(),
    };
    let here = design - gone.len();
    Finding {
        class: "audit-missing-samples".to_owned(),
        id: format!("audit-missing-samples:{benchmark}/{system}/{profile}"),
        title: format!(
            "{benchmark} of {system} at {profile} rests on {here} of {design} links; {how}"
        ),
        systems: vec![system.to_owned()],
        profile: Some(profile.to_owned()),
        benchmark: benchmark.to_owned(),
        evidence: gone
            .iter()
            .map(|test| Evidence::test(test, format!("{}: no result", test.link())))
            .collect(),
        corrected: sum
            .map(|metric| corrected(study, metric, system, profile, formula))
            .into_iter()
            .collect(),
        effect,
    }
}

/// Results that are the last of several attempts: the failed ones are discarded, so that what is
/// averaged is conditional on success.
fn retried(study: &Study) -> Vec<Finding> {
    let mut findings = Vec::new();
    for benchmark in study.benchmarks() {
        let retried: Vec<&Test> = study
            .tests
            .iter()
            .filter(|test| {
                test.benchmark == benchmark
                    && test.outcome.is_done()
                    && test.attempts.is_some_and(|n| n > 1)
            })
            .collect();
        if retried.is_empty() {
            continue;
        }
        let done = study
            .tests
            .iter()
            .filter(|test| test.benchmark == benchmark && test.outcome.is_done())
            .count();
        let mut systems: Vec<String> = retried.iter().map(|test| test.system.clone()).collect();
        systems.dedup();
        systems.sort();
        systems.dedup();
        findings.push(Finding {
            class: "audit-missing-samples".to_owned(),
            id: format!("audit-missing-samples:{benchmark}/attempts"),
            title: format!(
                "{} of {done} results of {benchmark} come from a second or later attempt; the failed ones are discarded",
                retried.len()
            ),
            systems,
            profile: None,
            benchmark: benchmark.to_owned(),
            evidence: retried
                .iter()
                .map(|test| Evidence {
                    path: test.path.clone(),
                    pointer: "/meta/test_attempts".to_owned(),
                    value: test.attempts.map_or_else(String::new, |n| n.to_string()),
                    note: format!("{} at {}, {}", test.system, test.profile, test.link()),
                })
                .collect(),
            corrected: Vec::new(),
            effect: "these cells show how the system does when it works, not how often it works".to_owned(),
        });
    }
    findings
}

/// A run in which every ping was lost has no RTT, so the mean RTT leaves it out, while the mean
/// loss counts it as 100 %.
fn lost_runs(study: &Study) -> Vec<Finding> {
    let mut findings = Vec::new();
    for system in &study.systems {
        let lost: Vec<&Row> = study
            .profiles
            .iter()
            .flat_map(|profile| study.rows_of(system, profile, "ping", "loss_percent_max"))
            .filter(|row| row.value >= 100.0)
            .collect();
        let Some(first) = lost.first() else { continue };
        let partial = lost.iter().filter_map(|row| {
            let mean = study.beside(row, "loss_percent")?;
            Some(format!(
                "{} at {}: mean loss {} %",
                row.link(),
                row.profile,
                super::number(mean.value)
            ))
        });
        findings.push(Finding {
            class: "audit-missing-samples".to_owned(),
            id: format!("audit-missing-samples:ping/{system}/lost-runs"),
            title: format!(
                "{} ping runs of {system} lost every packet: their RTT is left out of the mean, their 100 % is averaged into the loss",
                lost.len()
            ),
            systems: vec![system.clone()],
            profile: (lost.len() == 1).then(|| first.profile.clone()),
            benchmark: "ping".to_owned(),
            evidence: lost.iter().map(|row| Evidence::row(row, format!("{}: worst run", row.link()))).collect(),
            corrected: Vec::new(),
            effect: format!(
                "the average loss is that of one failed run, not a rate at which packets are lost ({}); a harness time-out is stored the same way",
                partial.collect::<Vec<_>>().join("; ")
            ),
        });
    }
    findings
}
