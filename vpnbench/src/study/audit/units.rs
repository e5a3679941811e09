//! `audit-unit`: a figure whose magnitude contradicts the others of the same run.

use super::{Corrected, Evidence, Finding, number};
use crate::study::model::Study;
use crate::study::statistics::mean;

/// Finds stated impairments that are not what a host applied. Figures of a text that are off by a
/// power of 1000 are found where the text's claims are held against the data.
#[must_use]
pub fn find(study: &Study) -> Vec<Finding> {
    effective(study).into_iter().collect()
}

/// A stated delay that the round trip shows once, not twice, is the sum of both directions, not
/// what one host applies.
fn effective(study: &Study) -> Option<Finding> {
    let (reference, baseline) = (study.reference()?, study.baseline()?);
    let rtt = |profile: &str| {
        let rows: Vec<f64> = study
            .rows_of(reference, profile, "ping", "rtt_avg_ms")
            .map(|row| row.value)
            .collect();
        mean(&rows)
    };
    let idle = rtt(baseline)?;
    let mut evidence = Vec::new();
    let mut corrected = Vec::new();
    for stated in study
        .impairments
        .iter()
        .filter(|stated| stated.system == reference)
    {
        let (Some(delay), Some(loaded)) = (stated.delay_ms, rtt(&stated.profile)) else {
            continue;
        };
        let added = loaded - idle;
        // One-way delay D on both hosts adds 2 D; what the file states was added about once.
        if delay <= 0.0 || (added / delay - 1.0).abs() > 0.35 {
            continue;
        }
        evidence.push(Evidence {
            path: stated.path.clone(),
            pointer: "/settings/latency_ms".to_owned(),
            value: format!("{} ms", number(delay)),
            note: format!(
                "the mean RTT rose by {} ms, not by {} ms",
                number(added),
                number(2.0 * delay)
            ),
        });
        corrected.push(Corrected {
            figure: format!("impairment delay of one host at {}", stated.profile),
            unit: "ms".to_owned(),
            plain: Some(delay),
            sound: Some(delay / 2.0),
            formula: "half of what is stated, as each of the two hosts applies it once".to_owned(),
        });
    }
    (!evidence.is_empty()).then(|| Finding {
        class: "audit-unit".to_owned(),
        id: "audit-unit:impairment/effective".to_owned(),
        title: "the stated impairment is the sum over both directions of a link, not what one host applies".to_owned(),
        systems: vec![reference.to_owned()],
        profile: None,
        benchmark: "impairment".to_owned(),
        evidence,
        corrected,
        effect: "quoted per host it is twice too strong; loss and reordering are stated in the same way".to_owned(),
    })
}
