//! Nothing limits the run.

use vpnbench_common::catalog::Tap;

use super::path_reordering;
use crate::explain::bounds;
use crate::explain::confidence;
use crate::explain::facts::{Facts, Load};
use crate::explain::loss;
use crate::explain::model::{Evidence, Finding, Verdict};
use crate::explain::rule::{Judgement, Rule, UNJUDGED};
use crate::explain::units;

pub(super) const RULE: Rule = Rule {
    id: "healthy",
    claim: "nothing on the path limits this run beyond the link itself",
    judged: "no other claim is supported, none that applies is unknown for want of a probe, an end or events (the order on the wire may be, where packets come out of the tunnel in order), and packets enough crossed the path: the posterior of the share lost lies below what is material",
    needs: &[],
    remedy: "nothing to do",
    refuted_by: "any other finding is supported",
    consequence_of: &[],
    lower_bound: false,
    judge: |_| Judgement::unseen("it is judged last, from all other findings"),
};

/// Judges it from all others.
pub(in crate::explain) fn conclude(facts: &Facts<'_>, findings: &[Finding]) -> Finding {
    let mut finding = Finding {
        id: RULE.id.to_owned(),
        refuted_by: Some(RULE.refuted_by.to_owned()),
        applicable: true,
        ..Finding::default()
    };
    let problems: Vec<&Finding> = findings
        .iter()
        .filter(|one| one.verdict == Verdict::Supported)
        .collect();
    if let Some(first) = problems
        .iter()
        .max_by(|a, b| certainty(a).total_cmp(&certainty(b)))
    {
        finding.verdict = Verdict::Refuted;
        finding.confidence = Some(certainty(first));
        finding.summary = format!("{} other findings are supported", problems.len());
        return finding;
    }
    let (lost, sent) = lost(facts);
    finding.evidence = vec![
        Evidence::new("packets that entered the path", sent, "packets", "ledger"),
        Evidence::new("of these, lost", lost, "packets", "ledger").expected("0"),
    ];
    let blind: Vec<&str> = findings
        .iter()
        .filter(|one| {
            one.verdict == Verdict::Unknown && one.applicable && !one.id.starts_with("audit-")
        })
        .filter(|one| one.summary.starts_with(UNJUDGED))
        .filter(|one| one.id != path_reordering::RULE.id || !in_order(facts))
        .map(|one| one.id.as_str())
        .collect();
    let known = 1.0 - confidence::ratio_above(lost, sent, bounds::MATERIAL);
    if facts.load == Load::Unknown && sent < 1.0 {
        finding.reason = Some("nothing crossed the path".to_owned());
    } else if !blind.is_empty() {
        finding.reason = Some(format!("not judged: {}", blind.join(", ")));
    } else if known < bounds::SURE {
        finding.reason = Some(format!(
            "{} packets are too few to tell",
            units::count(sent as u64)
        ));
    } else {
        finding.verdict = Verdict::Supported;
        finding.confidence = Some(known);
        finding.remedy = Some(RULE.remedy.to_owned());
    }
    finding.summary = match &finding.reason {
        Some(reason) => format!("nothing was found, but {reason}"),
        None => format!(
            "{} packets crossed the path, {} were lost, and nothing held them up",
            units::count(sent as u64),
            units::count(lost as u64)
        ),
    };
    finding
}

/// Whether what comes out of the tunnel at the load's receiver has numbers and is in order: then nothing suffers from the
/// order of outer packets without numbers.
fn in_order(facts: &Facts<'_>) -> bool {
    let Some(way) = &facts.way else {
        return false;
    };
    let rows = facts.outputs.reordering.taps.iter();
    let mut rows = rows
        .filter(|row| row.tap == Tap::TunWrite.name() && row.namespace == way.receiver)
        .filter(|row| row.packets > 0)
        .peekable();
    rows.peek().is_some() && rows.all(|row| row.reordered == 0)
}

fn certainty(finding: &Finding) -> f64 {
    finding.confidence.unwrap_or(0.0)
}

/// Packets lost anywhere, of those that entered.
fn lost(facts: &Facts<'_>) -> (f64, f64) {
    let lost = loss::at(facts, &loss::STAGES).map_or(0, |all| all.lost);
    let rows = facts.ledger_rows().map(|row| row.entered);
    (lost as f64, rows.max().unwrap_or(0) as f64)
}
