//! `audit-dead-flow`: a flow that moved (almost) nothing counted as a success.

use super::{Evidence, Finding, corrected, name, rank_effect};
use crate::study::metrics::METRICS;
use crate::study::model::{Direction, Row, Study};

/// Segments a sender may send before the first acknowledgement (RFC 6928). A flow of many seconds
/// whose receiver got no more than that never got past its first window.
const INITIAL_WINDOW: f64 = 10.0;
/// Segment size where the file does not state one: IPv6's minimum MTU less headers.
const SMALLEST_MSS: f64 = 1220.0;

/// Whether the flow a row belongs to is dead. Only TCP flows can be: what a UDP flood loses is its
/// result.
#[must_use]
pub fn is_dead(study: &Study, row: &Row) -> bool {
    if row.benchmark != "tcp" && row.benchmark != "parallel" {
        return false;
    }
    let Some(received) = study.beside(row, "received_bytes") else {
        return false;
    };
    let forward = Row {
        direction: Direction::Forward,
        flow: 0,
        ..row.clone()
    };
    let mss = study
        .beside(&forward, "mss_bytes")
        .map_or(SMALLEST_MSS, |row| row.value);
    received.value <= INITIAL_WINDOW * mss
}

/// Finds cells with dead flows.
#[must_use]
pub fn find(study: &Study) -> Vec<Finding> {
    let mut findings = Vec::new();
    for benchmark in ["tcp", "parallel"] {
        for profile in &study.profiles {
            for system in &study.systems {
                let all: Vec<&Row> = study
                    .rows_of(system, profile, benchmark, "received_bytes")
                    .collect();
                let dead: Vec<&Row> = all
                    .iter()
                    .copied()
                    .filter(|row| is_dead(study, row))
                    .collect();
                if !dead.is_empty() {
                    findings.push(finding(study, benchmark, system, profile, &dead, all.len()));
                }
            }
        }
    }
    findings
}

fn finding(
    study: &Study,
    benchmark: &str,
    system: &str,
    profile: &str,
    dead: &[&Row],
    all: usize,
) -> Finding {
    let formula = "without flows whose receiver got at most 10 segments in the whole test";
    let metrics: Vec<_> = METRICS
        .iter()
        .filter(|metric| {
            metric.rows.0 == benchmark && metric.figure(study, system, profile).dead > 0
        })
        .collect();
    let throughput = metrics
        .iter()
        .find(|metric| metric.id.ends_with(".throughput"));
    let effect = throughput.map_or_else(
        || {
            "only the reverse direction is dead; figures of both directions together are affected"
                .to_owned()
        },
        |metric| rank_effect(study, metric, system, profile),
    );
    let evidence = dead.iter().map(|row| {
        let sent = study
            .beside(row, "sent_bytes")
            .map_or_else(String::new, |sent| {
                format!(", sender wrote {} bytes", sent.value)
            });
        let direction = match row.direction {
            Direction::Forward => "forward",
            Direction::Reverse => "reverse",
        };
        Evidence::row(
            row,
            format!(
                "{} {direction}: received over the whole test{sent}",
                row.link()
            ),
        )
    });
    Finding {
        class: "audit-dead-flow".to_owned(),
        id: format!("audit-dead-flow:{benchmark}/{system}/{profile}"),
        title: format!(
            "{} of {all} {benchmark} flows of {system} at {profile} moved nothing and count as successes",
            dead.len()
        ),
        systems: vec![system.to_owned()],
        profile: Some(profile.to_owned()),
        benchmark: benchmark.to_owned(),
        evidence: evidence.collect(),
        corrected: metrics
            .iter()
            .map(|metric| corrected(study, metric, system, profile, formula))
            .collect(),
        effect: format!(
            "{effect}; touches {}",
            metrics
                .iter()
                .map(|metric| name(metric, system, profile))
                .collect::<Vec<_>>()
                .join(", ")
        ),
    }
}
