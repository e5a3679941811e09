//! `audit-impairment-unit` and `audit-impairment-void`: the impairment was not the same for all,
//! or did not act as its name says.

use super::{Corrected, Evidence, Finding, number};
use crate::study::model::{Impairment, Row, Study};
use crate::study::statistics::{mean, median};
use crate::study::tables::segments;

/// Systems whose exposure differs by more than this were not impaired alike.
const FACTOR: f64 = 3.0;
/// Draws of the simulated generator; its hits have a standard error of at most 0.2 % of the draws.
const DRAWS: u32 = 200_000;

/// Finds both.
#[must_use]
pub fn find(study: &Study) -> Vec<Finding> {
    let mut findings: Vec<Finding> = study
        .profiles
        .iter()
        .filter_map(|profile| units(study, profile))
        .collect();
    findings.extend(void_reordering(study));
    findings.extend(clipped_jitter(study));
    findings
}

/// Reordering that the sender's TCP saw, per 1000 segments.
fn exposure(study: &Study, system: &str, profile: &str) -> Option<(f64, Vec<Evidence>)> {
    let mut rates = Vec::new();
    let mut evidence = Vec::new();
    for row in study.rows_of(system, profile, "tcp", "reord_seen") {
        if super::dead_flows::is_dead(study, row) || row.value == 0.0 {
            continue;
        }
        let Some(segments) = segments(study, row).filter(|segments| *segments > 1000.0) else {
            continue;
        };
        rates.push(1000.0 * row.value / segments);
        if evidence.is_empty() {
            evidence.push(Evidence::row(
                row,
                format!(
                    "{system}, {}: segments seen reordered by the sender's TCP, of about {} sent",
                    row.link(),
                    number(segments.round())
                ),
            ));
        }
    }
    // One link may run over another transport; the median is not moved by it.
    Some((median(&rates)?, evidence))
}

fn units(study: &Study, profile: &str) -> Option<Finding> {
    if Some(profile) == study.baseline() {
        return None;
    }
    let mut cells: Vec<(&str, f64, Vec<Evidence>)> = study
        .systems
        .iter()
        .filter_map(|system| {
            let (rate, evidence) = exposure(study, system, profile)?;
            Some((system.as_str(), rate, evidence))
        })
        .collect();
    cells.sort_by(|a, b| a.1.total_cmp(&b.1));
    let (least, most) = (cells.first()?, cells.last()?);
    if cells.len() < 2 || most.1 / least.1 < FACTOR {
        return None;
    }
    let corrected = cells.iter().map(|(system, rate, _)| Corrected {
        figure: format!("reordering seen per 1000 segments@{system}/{profile}"),
        unit: "per 1000".to_owned(),
        plain: None,
        sound: Some(*rate),
        formula: "1000 x reord_seen / (bytes / MSS), median over links".to_owned(),
    });
    let corrected: Vec<Corrected> = corrected.collect();
    Some(Finding {
        class: "audit-impairment-unit".to_owned(),
        id: format!("audit-impairment-unit:tcp/{profile}"),
        title: format!(
            "the same profile {profile} reordered {} of 1000 segments of {} and {} of {}",
            number(least.1),
            least.0,
            number(most.1),
            most.0
        ),
        systems: cells.iter().map(|(system, _, _)| (*system).to_owned()).collect(),
        profile: Some(profile.to_owned()),
        benchmark: "tcp".to_owned(),
        evidence: cells.into_iter().flat_map(|(_, _, evidence)| evidence).collect(),
        corrected,
        effect: "netem draws once per skb: super-packets of many segments are lost, delayed and reordered as one, single packets one by one. Systems were impaired differently, so throughput under this profile ranks units of sending as much as tunnels".to_owned(),
    })
}

/// A reordering percentage that the correlated generator of netem never reaches.
fn void_reordering(study: &Study) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut seen = Vec::new();
    for stated in &study.impairments {
        let (Some(percent), Some(correlation)) =
            (stated.reorder_percent, stated.reorder_correlation_percent)
        else {
            continue;
        };
        if percent <= 0.0 || correlation <= 0.0 || seen.contains(&stated.profile) {
            continue;
        }
        seen.push(stated.profile.clone());
        // What a host applied is half of what the file states, if it states effective values.
        let hits = [percent, percent / 2.0].map(|percent| netem_hits(percent, correlation));
        if hits[0] * 10.0 > percent {
            continue;
        }
        findings.push(void(stated, percent, correlation, hits));
    }
    findings
}

fn void(stated: &Impairment, percent: f64, correlation: f64, hits: [f64; 2]) -> Finding {
    let profile = &stated.profile;
    Finding {
        class: "audit-impairment-void".to_owned(),
        id: format!("audit-impairment-void:reorder/{profile}"),
        title: format!("\"reorder {} % correlation {} %\" at {profile} reorders nothing: netem's correlated generator almost never draws so low", number(percent), number(correlation)),
        systems: Vec::new(),
        profile: Some(profile.clone()),
        benchmark: "impairment".to_owned(),
        evidence: vec![
            Evidence {
                path: stated.path.clone(),
                pointer: "/settings/reorder_percent".to_owned(),
                value: format!("{} %", number(percent)),
                note: format!("a simulation of the generator over {DRAWS} draws hits {} %; at half the value {} %", number(hits[0]), number(hits[1])),
            },
            Evidence {
                path: stated.path.clone(),
                pointer: "/settings/reorder_correlation".to_owned(),
                value: format!("{} %", number(correlation)),
                note: "x = (1 - rho) u + rho x' is not uniform: its tails vanish (get_crandom in net/sched/sch_netem.c)".to_owned(),
            },
        ],
        corrected: vec![Corrected {
            figure: format!("reordering by this option at {profile}"),
            unit: "%".to_owned(),
            plain: Some(percent),
            sound: Some(hits[0]),
            formula: "share of draws of get_crandom below the threshold".to_owned(),
        }],
        effect: "whatever reordering was seen came from the jitter, which reorders all that is sent closer together than it spreads; statements about reordering percentages do not hold".to_owned(),
    }
}

/// Percent of draws of netem's `get_crandom` at or below `percent` with a correlation
/// (`net/sched/sch_netem.c`: rho = correlation x 2^32, answer = (value (2^32 - rho) + last rho) >> 32).
fn netem_hits(percent: f64, correlation: f64) -> f64 {
    let scale = |percent: f64| (percent / 100.0 * f64::from(u32::MAX)).round() as u64;
    let (threshold, rho) = (scale(percent), scale(correlation) + 1);
    // xorshift64* (Vigna 2016): any uniform source gives the same share.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut last = 0x8000_0000_u64;
    let mut hits = 0u32;
    for _ in 0..DRAWS {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        let value = state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        last = (value * ((1u64 << 32) - rho) + last * rho) >> 32;
        // netem delays unless the threshold is below the draw: a hit is a draw up to it.
        hits += u32::from(last <= threshold);
    }
    100.0 * f64::from(hits) / f64::from(DRAWS)
}

/// Mean ping RTT of a system, and a row it comes from.
fn mean_rtt<'a>(study: &'a Study, system: &str, profile: &str) -> Option<(f64, &'a Row)> {
    let rows: Vec<&Row> = study
        .rows_of(system, profile, "ping", "rtt_avg_ms")
        .collect();
    let values: Vec<f64> = rows.iter().map(|row| row.value).collect();
    Some((mean(&values)?, rows.first().copied()?))
}

/// Jitter larger than the delay: what would leave in the past leaves at once, so the mean delay is
/// above the stated one.
fn clipped_jitter(study: &Study) -> Option<Finding> {
    let (reference, baseline) = (study.reference()?, study.baseline()?);
    let (idle, _) = mean_rtt(study, reference, baseline)?;
    let mut evidence = Vec::new();
    let mut corrected = Vec::new();
    for stated in study
        .impairments
        .iter()
        .filter(|stated| stated.system == reference)
    {
        let (Some(delay), Some(jitter), Some((loaded, row))) = (
            stated.delay_ms,
            stated.jitter_ms,
            mean_rtt(study, reference, &stated.profile),
        ) else {
            continue;
        };
        if jitter <= delay || delay <= 0.0 {
            continue;
        }
        // Per host half of both is applied; the mean of max(0, U(d - j, d + j)) is (d + j)^2 / 4 j.
        let (d, j) = (delay / 2.0, jitter / 2.0);
        let added = 2.0 * (d + j).powi(2) / (4.0 * j);
        evidence.push(Evidence {
            path: stated.path.clone(),
            pointer: "/settings/jitter_ms".to_owned(),
            value: format!("{} ms around {} ms", number(jitter), number(delay)),
            note: format!(
                "{} % of packets leave at once; expected rise of the RTT {} ms",
                number(100.0 * (j - d) / (2.0 * j)),
                number(added)
            ),
        });
        evidence.push(Evidence::row(
            row,
            format!(
                "measured rise of the mean RTT over {baseline}: {} ms",
                number(loaded - idle)
            ),
        ));
        corrected.push(Corrected {
            figure: format!("added RTT at {}", stated.profile),
            unit: "ms".to_owned(),
            plain: Some(delay),
            sound: Some(added),
            formula: "2 (d + j)^2 / 4 j with d, j half of what is stated; netem clips negative delays at zero".to_owned(),
        });
    }
    (!evidence.is_empty()).then(|| Finding {
        class: "audit-impairment-void".to_owned(),
        id: "audit-impairment-void:jitter".to_owned(),
        title: "jitter larger than the delay is clipped at zero: the profiles add more delay than stated and release part of the packets at once".to_owned(),
        systems: vec![reference.to_owned()],
        profile: None,
        benchmark: "impairment".to_owned(),
        evidence,
        corrected,
        effect: "with packets closer together than the jitter spreads, nearly every packet may overtake another: the profile is one of heavy reordering, whatever its reorder option says".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Measured on a 6.12 kernel: 5 % without correlation 981 of 20,000, with 50 % none.
    #[test]
    fn correlation_cancels_small_probabilities() {
        assert!((netem_hits(5.0, 0.0) - 5.0).abs() < 0.3);
        assert!(netem_hits(5.0, 50.0) < 0.1);
        assert!((netem_hits(50.0, 50.0) - 50.0).abs() < 1.0);
    }
}
