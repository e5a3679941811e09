//! `audit-offered-load`: the sides were not loaded alike.

use super::{Evidence, Finding, number};
use crate::study::model::{Direction, Row, Study};
use crate::study::statistics::mean;

/// Offered loads that differ by more than this factor are not one experiment.
const FACTOR: f64 = 2.0;

/// Finds floods of different strength, and forward figures taken under a reverse load.
#[must_use]
pub fn find(study: &Study) -> Vec<Finding> {
    let mut findings: Vec<Finding> = study
        .systems
        .iter()
        .filter_map(|system| across_profiles(study, system))
        .collect();
    findings.extend(
        study
            .profiles
            .iter()
            .filter_map(|profile| across_systems(study, profile)),
    );
    findings.extend(both_ways(study));
    findings
}

fn offered<'a>(study: &'a Study, system: &'a str, profile: &'a str) -> Vec<&'a Row> {
    study
        .rows_of(system, profile, "udp", "sent_bps")
        .filter(|row| row.direction == Direction::Forward)
        .collect()
}

fn average(rows: &[&Row]) -> Option<f64> {
    mean(&rows.iter().map(|row| row.value).collect::<Vec<_>>())
}

/// The same flood, offered at another rate under another profile: something between the sender and
/// the wire stopped (or began) to push back.
fn across_profiles(study: &Study, system: &str) -> Option<Finding> {
    let cells: Vec<(&str, Vec<&Row>, f64)> = study
        .profiles
        .iter()
        .filter_map(|profile| {
            let rows = offered(study, system, profile);
            let rate = average(&rows)?;
            Some((profile.as_str(), rows, rate))
        })
        .collect();
    let low = cells.iter().min_by(|a, b| a.2.total_cmp(&b.2))?;
    let high = cells.iter().max_by(|a, b| a.2.total_cmp(&b.2))?;
    if low.2 <= 0.0 || high.2 / low.2 < FACTOR {
        return None;
    }
    let mut evidence = Vec::new();
    for (profile, rows, _) in [low, high] {
        for row in rows {
            evidence.push(Evidence::row(
                row,
                format!("{} at {profile}: offered by the sender", row.link()),
            ));
            evidence.extend(
                study
                    .beside(row, "lost_percent")
                    .map(|row| Evidence::row(row, "lost of it")),
            );
        }
    }
    Some(Finding {
        class: "audit-offered-load".to_owned(),
        id: format!("audit-offered-load:udp/{system}"),
        title: format!(
            "UDP flood of {system}: {} Mbit/s are offered at {} and {} Mbit/s at {}",
            number((low.2 / 1e6).round()),
            low.0,
            number((high.2 / 1e6).round()),
            high.0
        ),
        systems: vec![system.to_owned()],
        profile: None,
        benchmark: "udp".to_owned(),
        evidence,
        corrected: Vec::new(),
        effect: "receiver rate and loss under these profiles are answers to different questions; a steady receiver rate hides that most packets are dropped where the sender is no longer held back".to_owned(),
    })
}

/// Systems flooded at rates that differ by much under one profile.
fn across_systems(study: &Study, profile: &str) -> Option<Finding> {
    let mut cells: Vec<(&str, Vec<&Row>, f64)> = study
        .systems
        .iter()
        .filter_map(|system| {
            let rows = offered(study, system, profile);
            let rate = average(&rows)?;
            Some((system.as_str(), rows, rate))
        })
        .collect();
    cells.sort_by(|a, b| a.2.total_cmp(&b.2));
    let (low, high) = (cells.first()?, cells.last()?);
    if cells.len() < 2 || low.2 <= 0.0 || high.2 / low.2 < FACTOR {
        return None;
    }
    let evidence = cells.iter().flat_map(|(system, rows, _)| {
        let row = rows.first().map(|row| {
            Evidence::row(
                row,
                format!("{system}, {}: offered by the sender", row.link()),
            )
        });
        let block = rows
            .first()
            .and_then(|row| study.beside(row, "block_bytes"))
            .map(|row| Evidence::row(row, "datagram size"));
        row.into_iter().chain(block)
    });
    Some(Finding {
        class: "audit-offered-load".to_owned(),
        id: format!("audit-offered-load:udp/{profile}"),
        title: format!(
            "UDP flood at {profile}: {} is offered {} Mbit/s, {} {} Mbit/s: loss percentages do not compare",
            low.0,
            number((low.2 / 1e6).round()),
            high.0,
            number((high.2 / 1e6).round())
        ),
        systems: cells.iter().map(|(system, _, _)| (*system).to_owned()).collect(),
        profile: Some(profile.to_owned()),
        benchmark: "udp".to_owned(),
        evidence: evidence.collect(),
        corrected: Vec::new(),
        effect: "loss = 1 - received / offered: with the receivers alike, it mostly restates how fast the sender could write".to_owned(),
    })
}

/// A forward figure of a bidirectional test is that of a link that carries another flow.
fn both_ways(study: &Study) -> Option<Finding> {
    let tests: Vec<_> = study
        .tests
        .iter()
        .filter(|test| {
            test.benchmark == "tcp"
                && test
                    .conditions
                    .get("bidirectional")
                    .is_some_and(|value| value == "1")
        })
        .collect();
    let first = tests.first()?;
    let reverse = study.rows.iter().find(|row| {
        row.path == first.path && row.metric == "sent_bps" && row.direction == Direction::Reverse
    })?;
    let forward = study.beside(
        &Row {
            direction: Direction::Forward,
            ..reverse.clone()
        },
        "sent_bps",
    )?;
    let mut systems: Vec<String> = tests.iter().map(|test| test.system.clone()).collect();
    systems.sort();
    systems.dedup();
    Some(Finding {
        class: "audit-offered-load".to_owned(),
        id: "audit-offered-load:tcp/bidirectional".to_owned(),
        title: format!("{} \"single stream\" TCP tests carry two streams, one each way; the tables show the forward one", tests.len()),
        systems,
        profile: None,
        benchmark: "tcp".to_owned(),
        evidence: vec![
            Evidence::row(forward, format!("{} of {}: forward", forward.link(), forward.system)),
            Evidence::row(reverse, format!("{} of {}: at the same time, reverse", reverse.link(), reverse.system)),
        ],
        corrected: Vec::new(),
        effect: "ACKs of each stream share the queue with the data of the other: the figures are those of a loaded return path, and the CPU work is twice what the throughput suggests".to_owned(),
    })
}
