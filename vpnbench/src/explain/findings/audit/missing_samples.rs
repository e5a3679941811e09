//! A sum over the survivors.

use crate::explain::facts::Facts;
use crate::explain::model::Evidence;
use crate::explain::rule::{Judgement, Known, Need, Rule};

pub(in crate::explain::findings) const RULE: Rule = Rule {
    id: "audit-missing-samples",
    claim: "an average or sum is over the survivors only",
    judged: "parts of the benchmark that did not come to their end, or objects that failed, beside those that did",
    needs: &[Need::Benchmark],
    remedy: "report how many parts there should have been and how many there were; do not average the rest",
    refuted_by: "all parts of the benchmark report a result",
    consequence_of: &[],
    lower_bound: false,
    judge,
};

fn judge(facts: &Facts<'_>) -> Judgement {
    let Some(result) = &facts.outputs.benchmark else {
        return Judgement::inapplicable("the benchmark's own result is not known");
    };
    let parts = result.parts.len() as u64;
    let failed = result
        .parts
        .iter()
        .filter(|part| part.error.is_some() || !part.complete)
        .count() as u64;
    let objects = result
        .transfers
        .as_ref()
        .map_or((0, 0), |all| (all.objects + all.failed, all.failed));
    let (all, missing) = (parts + objects.0, failed + objects.1);
    if all == 0 {
        return Judgement::inapplicable("the benchmark has one part only");
    }
    Known {
        probability: if missing > 0 { 1.0 } else { 0.0 },
        share: Some(missing as f64 / all as f64),
        summary: format!("{missing} of {all} parts of the benchmark have no result"),
        evidence: vec![
            Evidence::new(
                "parts without a result",
                missing as f64,
                "parts",
                "benchmark",
            )
            .expected("0"),
        ],
        remedy: None,
    }
    .into()
}
