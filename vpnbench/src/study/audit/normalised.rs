//! `audit-not-normalised`: counts compared across different durations, segment sizes or volumes.

use super::{Corrected, Evidence, Finding, number};
use crate::study::model::{Direction, Row, Study};
use crate::study::statistics::mean;
use crate::study::tables::{per_1000_segments, segments};

/// Finds counts whose comparison turns round once they are rates.
#[must_use]
pub fn find(study: &Study) -> Vec<Finding> {
    let mut findings = Vec::new();
    for profile in &study.profiles {
        findings.extend(
            study
                .systems
                .iter()
                .filter_map(|system| single_and_parallel(study, system, profile)),
        );
        findings.extend(ranks(study, profile));
    }
    findings
}

fn forward<'a>(
    study: &'a Study,
    system: &'a str,
    profile: &'a str,
    benchmark: &'a str,
) -> Vec<&'a Row> {
    study
        .rows_of(system, profile, benchmark, "retransmits")
        .filter(|row| row.direction == Direction::Forward)
        .collect()
}

/// A mean per flow set beside a sum over flows of another duration.
fn single_and_parallel(study: &Study, system: &str, profile: &str) -> Option<Finding> {
    let single = forward(study, system, profile, "tcp");
    let parallel = forward(study, system, profile, "parallel");
    let count_single = mean(&single.iter().map(|row| row.value).collect::<Vec<_>>())?;
    let count_parallel: f64 = parallel.iter().map(|row| row.value).sum();
    let rate = |rows: &[&Row]| {
        let rates: Vec<f64> = rows
            .iter()
            .filter_map(|row| {
                Some(
                    row.value
                        / study
                            .beside(row, "seconds")
                            .filter(|row| row.value > 0.0)?
                            .value,
                )
            })
            .collect();
        mean(&rates)
    };
    let per_segment = |rows: &[&Row]| {
        mean(
            &rows
                .iter()
                .filter_map(|row| per_1000_segments(study, row))
                .collect::<Vec<_>>(),
        )
    };
    let (rate_single, rate_parallel) = (rate(&single)?, rate(&parallel)?);
    // Only where the count rises by half and the rate per flow does not rise: the reading turns round.
    if count_parallel < 1.5 * count_single || rate_parallel > rate_single || count_single < 10.0 {
        return None;
    }
    let figure =
        |name: &str, unit: &str, plain: f64, sound: Option<f64>, formula: &str| Corrected {
            figure: format!("{name}@{system}/{profile}"),
            unit: unit.to_owned(),
            plain: Some(plain),
            sound,
            formula: formula.to_owned(),
        };
    let mut evidence: Vec<Evidence> = single
        .iter()
        .map(|row| Evidence::row(row, format!("{}: single, averaged over links", row.link())))
        .collect();
    evidence.extend(
        parallel
            .iter()
            .map(|row| Evidence::row(row, format!("{}: parallel, summed over links", row.link()))),
    );
    let seconds = |rows: &[&Row]| {
        rows.first()
            .and_then(|row| study.beside(row, "seconds"))
            .cloned()
    };
    evidence.extend(seconds(&single).map(|row| Evidence::row(&row, "duration of the single test")));
    evidence
        .extend(seconds(&parallel).map(|row| Evidence::row(&row, "duration of the parallel test")));
    Some(Finding {
        class: "audit-not-normalised".to_owned(),
        id: format!("audit-not-normalised:parallel/{system}/{profile}"),
        title: format!(
            "{system} at {profile}: {} retransmissions become {} in parallel, but per flow and second they do not rise: {} and {}",
            number(count_single.round()),
            number(count_parallel),
            number(rate_single),
            number(rate_parallel)
        ),
        systems: vec![system.to_owned()],
        profile: Some(profile.to_owned()),
        benchmark: "parallel".to_owned(),
        evidence,
        corrected: vec![
            figure(
                "retransmissions per flow and second, single",
                "1/s",
                count_single,
                Some(rate_single),
                "count / duration, mean over flows",
            ),
            figure(
                "retransmissions per flow and second, parallel",
                "1/s",
                count_parallel,
                Some(rate_parallel),
                "count / duration, mean over flows",
            ),
            figure(
                "retransmissions per 1000 segments, parallel",
                "per 1000",
                count_parallel,
                per_segment(&parallel),
                "1000 x count / (bytes / MSS)",
            ),
        ],
        effect:
            "the parallel count is a sum over several flows of longer tests: it shows no worsening"
                .to_owned(),
    })
}

/// Systems whose rank by count is not their rank by rate.
fn ranks(study: &Study, profile: &str) -> Option<Finding> {
    let mut all: Vec<(&str, f64, f64)> = Vec::new();
    for system in &study.systems {
        let rows = forward(study, system, profile, "tcp");
        let counts: Vec<f64> = rows.iter().map(|row| row.value).collect();
        let rates: Vec<f64> = rows
            .iter()
            .filter_map(|row| per_1000_segments(study, row))
            .collect();
        if let (Some(count), Some(rate)) = (mean(&counts), mean(&rates)) {
            all.push((system, count, rate));
        }
    }
    let order = |key: fn(&(&str, f64, f64)) -> f64| {
        let mut sorted = all.clone();
        sorted.sort_by(|a, b| key(a).total_cmp(&key(b)));
        sorted
            .into_iter()
            .map(|(name, _, _)| name)
            .collect::<Vec<_>>()
    };
    let (by_count, by_rate) = (order(|one| one.1), order(|one| one.2));
    let place =
        |order: &[&str], name: &str| order.iter().position(|other| *other == name).unwrap_or(0);
    let moved: Vec<&(&str, f64, f64)> = all
        .iter()
        .filter(|(name, _, _)| place(&by_count, name).abs_diff(place(&by_rate, name)) >= 3)
        .collect();
    if moved.is_empty() {
        return None;
    }
    let mut evidence = Vec::new();
    let mut corrected = Vec::new();
    for (name, count, rate) in &moved {
        let row = forward(study, name, profile, "tcp")
            .into_iter()
            .find(|row| segments(study, row).is_some())?;
        evidence.push(Evidence::row(
            row,
            format!("{name}, {}: retransmissions", row.link()),
        ));
        evidence.extend(
            study
                .beside(row, "sent_bytes")
                .map(|row| Evidence::row(row, "bytes the same flow sent")),
        );
        evidence.extend(
            study
                .beside(row, "mss_bytes")
                .map(|row| Evidence::row(row, "its segment size")),
        );
        corrected.push(Corrected {
            figure: format!("retransmit.rate@{name}/{profile}"),
            unit: "per 1000 segments".to_owned(),
            plain: Some(*count),
            sound: Some(*rate),
            formula: "1000 x retransmits / (bytes / MSS), mean over links; plain is the count"
                .to_owned(),
        });
    }
    let list: Vec<String> = moved
        .iter()
        .map(|(name, _, _)| {
            format!(
                "{name} {} -> {}",
                place(&by_count, name) + 1,
                place(&by_rate, name) + 1
            )
        })
        .collect();
    Some(Finding {
        class: "audit-not-normalised".to_owned(),
        id: format!("audit-not-normalised:tcp/{profile}"),
        title: format!(
            "retransmission counts at {profile} rank systems otherwise than rates per segment do: {}",
            list.join(", ")
        ),
        systems: moved
            .iter()
            .map(|(name, _, _)| (*name).to_owned())
            .collect(),
        profile: Some(profile.to_owned()),
        benchmark: "tcp".to_owned(),
        evidence,
        corrected,
        effect: format!(
            "fewest retransmissions per segment first: {}",
            by_rate.join(", ")
        ),
    })
}
