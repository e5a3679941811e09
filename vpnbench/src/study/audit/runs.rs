//! `audit-too-few-runs`: a difference within the spread of the replicates.

use super::{Evidence, Finding, number};
use crate::study::metrics::{Metric, find as metric};
use crate::study::model::Study;
use crate::study::statistics::{mean, welch};

/// The rankings that are looked at.
const RANKINGS: &[&str] = &[
    "tcp.throughput",
    "ping.rtt",
    "udp.throughput",
    "download.time",
    "quic.throughput",
    "reconnect.time",
];

/// Finds rankings whose neighbours cannot be told apart.
#[must_use]
pub fn find(study: &Study) -> Vec<Finding> {
    let metrics = RANKINGS.iter().filter_map(|id| metric(id));
    metrics
        .flat_map(|metric| {
            study
                .profiles
                .iter()
                .filter_map(move |profile| ranking(study, metric, profile))
        })
        .collect()
}

fn ranking(study: &Study, metric: &Metric, profile: &str) -> Option<Finding> {
    let mut cells: Vec<(&str, Vec<f64>)> = study
        .systems
        .iter()
        .map(|system| {
            (
                system.as_str(),
                metric.samples(study, system, profile, true),
            )
        })
        .collect();
    cells.retain(|(_, samples)| samples.len() > 1);
    cells.sort_by(|a, b| {
        let order = mean(&a.1)
            .unwrap_or(0.0)
            .total_cmp(&mean(&b.1).unwrap_or(0.0));
        if metric.more_is_better {
            order.reverse()
        } else {
            order
        }
    });
    let pairs: Vec<(usize, super::super::statistics::Difference)> = (1..cells.len())
        .filter_map(|at| Some((at, welch(&cells[at - 1].1, &cells[at].1)?)))
        .collect();
    let unclear: Vec<_> = pairs
        .iter()
        .filter(|(_, difference)| !difference.is_beyond_spread())
        .collect();
    if unclear.is_empty() {
        return None;
    }
    let evidence = unclear.iter().flat_map(|(at, difference)| {
        let pair = [&cells[*at - 1], &cells[*at]];
        let note = format!(
            "{} - {} = {} {} (95 % interval {} to {}{})",
            pair[0].0,
            pair[1].0,
            number(difference.difference),
            metric.unit,
            number(difference.low),
            number(difference.high),
            difference
                .effect_size
                .map_or_else(String::new, |g| format!(", Hedges' g {g:.1}"))
        );
        pair.map(|(system, samples)| {
            let mut rows = metric.rows_in(study, system, profile);
            rows.retain(|row| !super::dead_flows::is_dead(study, row));
            let values: Vec<String> = samples.iter().map(|value| number(*value)).collect();
            Evidence {
                path: rows
                    .first()
                    .map_or_else(String::new, |row| row.path.clone()),
                pointer: rows
                    .first()
                    .map_or_else(String::new, |row| row.pointer.clone()),
                value: format!("{} {}", values.join(", "), metric.unit),
                note: format!("{system}, one run per link; {note}"),
            }
        })
    });
    let samples = cells
        .iter()
        .map(|(_, samples)| samples.len())
        .max()
        .unwrap_or(0);
    Some(Finding {
        class: "audit-too-few-runs".to_owned(),
        id: format!("audit-too-few-runs:{}/{profile}", metric.id),
        title: format!(
            "{} at {profile}: {} of {} neighbouring ranks are within the spread of {samples} runs",
            metric.id,
            unclear.len(),
            pairs.len()
        ),
        systems: cells.iter().map(|(system, _)| (*system).to_owned()).collect(),
        profile: Some(profile.to_owned()),
        benchmark: metric.rows.0.to_owned(),
        evidence: evidence.collect(),
        corrected: Vec::new(),
        effect: "the order of these neighbours is not shown by the data (Welch's interval over one run per link, which also counts real differences between links as spread)".to_owned(),
    })
}
