//! The order of findings.

use std::cmp::Ordering;

use super::findings::rule;
use super::model::{Finding, Verdict};

/// Supported audits, then supported findings by their share, each below those it follows from; then the unknown ones, those
/// that could apply first; then the refuted ones.
pub(super) fn rank(mut findings: Vec<Finding>) -> Vec<Finding> {
    let supported: Vec<String> = findings
        .iter()
        .filter(|finding| finding.verdict == Verdict::Supported)
        .map(|finding| finding.id.clone())
        .collect();
    for finding in &mut findings {
        if finding.verdict == Verdict::Supported {
            let causes = rule(&finding.id).map_or(&[][..], |rule| rule.consequence_of);
            let active = causes
                .iter()
                .filter(|id| supported.iter().any(|one| one == *id));
            finding.consequence_of = active.map(|id| (*id).to_owned()).collect();
        }
    }
    findings.sort_by(by_share);
    causes_first(findings)
}

fn place(finding: &Finding) -> u8 {
    match (finding.verdict, finding.applicable) {
        // A figure that is none needs no explanation.
        (Verdict::Supported, _) if finding.id.starts_with("audit-") => 0,
        (Verdict::Supported, _) => 1,
        (Verdict::Unknown, true) => 2,
        (Verdict::Refuted, _) => 3,
        (Verdict::Unknown, false) => 4,
    }
}

fn by_share(one: &Finding, other: &Finding) -> Ordering {
    let share = |finding: &Finding| finding.share.unwrap_or(0.0);
    place(one)
        .cmp(&place(other))
        .then(share(other).total_cmp(&share(one)))
        .then(one.id.cmp(&other.id))
}

/// Takes the findings in their order, each after all that it follows from. The links have no cycle (a
/// test of the rules), so something can always be taken.
fn causes_first(mut rest: Vec<Finding>) -> Vec<Finding> {
    let mut ranked: Vec<Finding> = Vec::with_capacity(rest.len());
    while !rest.is_empty() {
        let waits = |finding: &Finding, rest: &[Finding]| {
            let causes = &finding.consequence_of;
            rest.iter()
                .any(|other| other.id != finding.id && causes.contains(&other.id))
        };
        let next = (0..rest.len())
            .find(|at| !waits(&rest[*at], &rest))
            .unwrap_or(0);
        ranked.push(rest.remove(next));
    }
    ranked
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supported(id: &str, share: f64) -> Finding {
        Finding {
            id: id.to_owned(),
            verdict: Verdict::Supported,
            share: Some(share),
            applicable: true,
            ..Finding::default()
        }
    }

    fn order(findings: Vec<Finding>) -> Vec<String> {
        rank(findings)
            .into_iter()
            .map(|finding| finding.id)
            .collect()
    }

    #[test]
    fn a_consequence_is_below_its_cause() {
        let ranked = order(vec![
            supported("congestion-window-limited", 0.9),
            supported("path-loss", 0.6),
            supported("application-limited", 0.7),
        ]);
        assert_eq!(
            ranked,
            [
                "application-limited",
                "path-loss",
                "congestion-window-limited"
            ]
        );
    }

    #[test]
    fn a_cause_that_is_not_supported_holds_nothing_back() {
        let mut refuted = supported("path-loss", 0.0);
        refuted.verdict = Verdict::Refuted;
        let ranked = order(vec![refuted, supported("congestion-window-limited", 0.9)]);
        assert_eq!(ranked, ["congestion-window-limited", "path-loss"]);
    }
}
