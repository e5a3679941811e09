//! The order of findings.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::bounds::MOST;
use super::findings::rule;
use super::model::{Finding, Verdict};

/// Audits that leave the figure what it is.
const REMARKS: [&str; 1] = ["audit-impairment-void"];

/// Supported audits of the figure, then supported findings by their share, each below those it follows from that account for
/// most of it; then what a sender waits for in consequence, and remarks; then
/// the unknown ones, those that could apply first; then the refuted ones.
pub(super) fn rank(mut findings: Vec<Finding>) -> Vec<Finding> {
    let supported: Vec<String> = findings
        .iter()
        .filter(|finding| finding.verdict == Verdict::Supported)
        .map(|finding| finding.id.clone())
        .collect();
    for finding in &mut findings {
        if finding.verdict == Verdict::Supported && !finding.stands_alone {
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
        // A figure that is none needs no explanation; one whose conditions are called wrongly does.
        (Verdict::Supported, _) if REMARKS.contains(&finding.id.as_str()) => 2,
        (Verdict::Supported, _) if finding.id.starts_with("audit-") => 0,
        // What a sender waits for is a state; with a cause it tells nothing that others do not.
        (Verdict::Supported, _) if is_state(finding) && !finding.consequence_of.is_empty() => 2,
        (Verdict::Supported, _) => 1,
        (Verdict::Unknown, true) => 3,
        (Verdict::Refuted, _) => 4,
        (Verdict::Unknown, false) => 5,
    }
}

fn is_state(finding: &Finding) -> bool {
    finding.id.ends_with("-limited")
}

fn by_share(one: &Finding, other: &Finding) -> Ordering {
    let share = |finding: &Finding| finding.share.unwrap_or(0.0);
    place(one)
        .cmp(&place(other))
        .then(share(other).total_cmp(&share(one)))
        .then(one.id.cmp(&other.id))
}

/// Of the findings that something follows from, those that account for most of it: a cause of less leaves the larger part
/// of it to something else.
fn causes_of(finding: &Finding, all: &[Finding]) -> Vec<String> {
    let share = |finding: &Finding| finding.share.unwrap_or(0.0);
    let causes = all.iter().filter(|other| {
        other.id != finding.id
            && finding.consequence_of.contains(&other.id)
            && share(other) >= MOST * share(finding)
    });
    causes.map(|cause| cause.id.clone()).collect()
}

/// Takes the findings in their order, each after its causes. The links have no cycle (a test of the
/// rules), so something can always be taken.
fn causes_first(mut rest: Vec<Finding>) -> Vec<Finding> {
    let mut ranked: Vec<Finding> = Vec::with_capacity(rest.len());
    let causes: BTreeMap<String, Vec<String>> = rest
        .iter()
        .map(|one| (one.id.clone(), causes_of(one, &rest)))
        .collect();
    while !rest.is_empty() {
        let waits = |finding: &Finding, rest: &[Finding]| {
            let mut causes = causes.get(&finding.id).into_iter().flatten();
            causes.any(|cause| rest.iter().any(|other| other.id == *cause))
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
    fn what_stands_alone_follows_from_nothing() {
        let mut late = supported("ack-path-delay", 0.9);
        let contention = supported("cpu-contention", 0.5);
        let ranked = order(vec![late.clone(), contention.clone()]);
        assert_eq!(ranked, ["cpu-contention", "ack-path-delay"]);
        late.stands_alone = true;
        let ranked = order(vec![late, contention]);
        assert_eq!(ranked, ["ack-path-delay", "cpu-contention"]);
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
    fn a_small_cause_holds_nothing_back() {
        let ranked = order(vec![
            supported("tun-queue-overflow", 0.5),
            supported("daemon-thread-saturated", 0.4),
            supported("cpu-contention", 0.2),
        ]);
        assert_eq!(
            ranked,
            [
                "daemon-thread-saturated",
                "tun-queue-overflow",
                "cpu-contention"
            ]
        );
    }

    #[test]
    fn all_that_account_for_most_of_it_come_first() {
        let ranked = order(vec![
            supported("audit-impairment-void", 1.0),
            supported("cpu-contention", 0.99),
            supported("tun-queue-overflow", 0.98),
            supported("daemon-thread-saturated", 0.9),
            supported("audit-dead-flow", 1.0),
        ]);
        assert_eq!(
            ranked,
            [
                "audit-dead-flow",
                "cpu-contention",
                "daemon-thread-saturated",
                "tun-queue-overflow",
                "audit-impairment-void",
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
