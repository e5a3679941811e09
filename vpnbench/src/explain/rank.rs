//! The order of findings.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::findings::rule;
use super::model::{Finding, Verdict};

/// Audits that leave the figure what it is.
const REMARKS: [&str; 1] = ["audit-impairment-void"];
/// Of its own share, what another must account for to stand before what follows from it.
const NEARLY_ALL: f64 = 0.75;

/// Supported audits of the figure, then supported findings by their share, each below those it follows from: the main one,
/// and all that account for nearly as much; then what a sender waits for in consequence, and remarks; then
/// the unknown ones, those that could apply first; then the refuted ones.
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

/// Of the findings that something follows from, the one with the largest share, if that accounts for a quarter of it or more:
/// a cause of less is a cause of something else too, and says little about this one. Besides, those that account for
/// nearly all of it.
fn causes_of(finding: &Finding, all: &[Finding]) -> Vec<String> {
    let share = |finding: &Finding| finding.share.unwrap_or(0.0);
    let own = share(finding);
    let mut causes: Vec<&Finding> = all
        .iter()
        .filter(|other| other.id != finding.id && finding.consequence_of.contains(&other.id))
        .collect();
    causes.sort_by(|a, b| share(b).total_cmp(&share(a)));
    let counts = |(at, cause): &(usize, &&Finding)| {
        let least = if *at == 0 { 0.25 } else { NEARLY_ALL };
        share(cause) >= least * own
    };
    let causes = causes.iter().enumerate().filter(counts);
    causes.map(|(_, cause)| cause.id.clone()).collect()
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
    fn all_that_account_for_nearly_as_much_come_first() {
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
