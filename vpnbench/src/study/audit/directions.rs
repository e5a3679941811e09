//! `audit-direction-mix`: sender and receiver of different flows, or one direction for both.

use super::{Corrected, Evidence, Finding, number};
use crate::study::metrics::find as metric;
use crate::study::model::{Direction, Row, Study};
use crate::study::statistics::mean;

/// A sender's and a receiver's figure of different flows differ by more than this, while those of
/// the same flow agree within a tenth of it: then the gap is one between directions.
const GAP: f64 = 0.10;

/// Finds systems whose directions differ so that mixing them looks like loss, and totals that
/// leave out a direction.
#[must_use]
pub fn find(study: &Study) -> Vec<Finding> {
    let mut findings = Vec::new();
    for profile in &study.profiles {
        for system in &study.systems {
            findings.extend(mixed(study, system, profile));
        }
    }
    findings.extend(half_of_the_flows(study));
    findings
}

fn rows<'a>(
    study: &'a Study,
    system: &'a str,
    profile: &'a str,
    name: &'a str,
    direction: Direction,
) -> Vec<&'a Row> {
    study
        .rows_of(system, profile, "tcp", name)
        .filter(|row| row.direction == direction && !super::dead_flows::is_dead(study, row))
        .collect()
}

fn values(rows: &[&Row]) -> Vec<f64> {
    rows.iter().map(|row| row.value).collect()
}

fn mixed(study: &Study, system: &str, profile: &str) -> Option<Finding> {
    let sent = rows(study, system, profile, "sent_bps", Direction::Forward);
    let received = rows(study, system, profile, "received_bps", Direction::Forward);
    let reverse = rows(study, system, profile, "received_bps", Direction::Reverse);
    let (sent_mean, received_mean, reverse_mean) = (
        mean(&values(&sent))?,
        mean(&values(&received))?,
        mean(&values(&reverse))?,
    );
    let across = (sent_mean - reverse_mean) / sent_mean;
    let within = (sent_mean - received_mean) / sent_mean;
    if across.abs() < GAP || within.abs() > across.abs() / 10.0 {
        return None;
    }
    let throughput = metric("tcp.throughput")?;
    let mut evidence: Vec<Evidence> = sent
        .iter()
        .map(|row| Evidence::row(row, format!("{}: forward flow, by its sender", row.link())))
        .collect();
    evidence.extend(received.iter().map(|row| {
        Evidence::row(
            row,
            format!("{}: the same flow, by its receiver", row.link()),
        )
    }));
    evidence.extend(reverse.iter().map(|row| {
        Evidence::row(
            row,
            format!(
                "{}: the flow of the other direction, by its receiver",
                row.link()
            ),
        )
    }));
    Some(Finding {
        class: "audit-direction-mix".to_owned(),
        id: format!("audit-direction-mix:tcp/{system}/{profile}"),
        title: format!(
            "{system} at {profile}: forward sender and reverse receiver differ by {} %, but sender and receiver of one flow by {} %",
            number(across * 100.0),
            number(within * 100.0)
        ),
        systems: vec![system.to_owned()],
        profile: Some(profile.to_owned()),
        benchmark: "tcp".to_owned(),
        evidence,
        corrected: vec![Corrected {
            figure: format!("tcp.received@{system}/{profile}"),
            unit: throughput.unit.to_owned(),
            plain: Some(reverse_mean * throughput.scale),
            sound: Some(received_mean * throughput.scale),
            formula: "end.sum_received of the forward flow, not end.sum_received_bidir_reverse".to_owned(),
        }],
        effect: "a gap between sender and receiver read from these two is no loss and no ACK effect: the two directions simply ran at different rates".to_owned(),
    })
}

/// Totals of a bidirectional test that add up the forward flows only.
fn half_of_the_flows(study: &Study) -> Option<Finding> {
    let profile = study
        .baseline()
        .or(study.profiles.first().map(String::as_str))?;
    let throughput = metric("parallel.throughput")?;
    let mut corrected = Vec::new();
    let mut evidence = Vec::new();
    let mut systems = Vec::new();
    for system in &study.systems {
        let sum = |direction: Direction| {
            let rows = study
                .rows_of(system, profile, "parallel", "sent_bps")
                .filter(move |row| row.direction == direction);
            rows.map(|row| row.value).sum::<f64>() * throughput.scale
        };
        let (forward, reverse) = (sum(Direction::Forward), sum(Direction::Reverse));
        if reverse <= 0.0 {
            continue;
        }
        let row = study
            .rows_of(system, profile, "parallel", "sent_bps")
            .find(|row| row.direction == Direction::Reverse);
        evidence.extend(row.map(|row| {
            Evidence::row(
                row,
                format!("{}: a reverse flow that ran at the same time", row.link()),
            )
        }));
        systems.push(system.clone());
        corrected.push(Corrected {
            figure: format!("parallel.throughput@{system}/{profile}"),
            unit: throughput.unit.to_owned(),
            plain: Some(forward),
            sound: Some(forward + reverse),
            formula: "sum_sent plus sum_sent_bidir_reverse of all links".to_owned(),
        });
    }
    (!systems.is_empty()).then(|| Finding {
        class: "audit-direction-mix".to_owned(),
        id: format!("audit-direction-mix:parallel/{profile}"),
        title: "a parallel total that adds up forward flows only leaves out as many reverse flows that ran at the same time".to_owned(),
        systems,
        profile: Some(profile.to_owned()),
        benchmark: "parallel".to_owned(),
        evidence,
        corrected,
        effect: "a total over all flows is about twice as large; a ratio of it to one direction of a single test mixes directions".to_owned(),
    })
}
