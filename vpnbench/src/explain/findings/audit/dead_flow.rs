//! A flow that moved nothing and counts as a success.

use crate::explain::bounds;
use crate::explain::facts::Facts;
use crate::explain::model::Evidence;
use crate::explain::rule::{Judgement, Known, Need, Rule};
use crate::explain::units;

pub(in crate::explain::findings) const RULE: Rule = Rule {
    id: "audit-dead-flow",
    claim: "a flow that moved (almost) nothing counts as a success",
    judged: "a benchmark of throughput that ended without an error although its receiver got less than a window without scaling",
    needs: &[Need::Benchmark],
    remedy: "do not average this run with others: count it as a failure, and look for what kept the flow from starting (size-dependent-loss, first packets lost)",
    refuted_by: "every flow of the benchmark moved more than its first window",
    consequence_of: &[],
    lower_bound: false,
    judge,
};

fn judge(facts: &Facts<'_>) -> Judgement {
    let Some(result) = &facts.outputs.benchmark else {
        return Judgement::inapplicable("the benchmark's own result is not known");
    };
    if !["tcp", "parallel", "udp"].contains(&result.load()) {
        return Judgement::inapplicable("the benchmark does not measure throughput");
    }
    let parts = if result.parts.is_empty() {
        std::slice::from_ref(result)
    } else {
        result.parts.as_slice()
    };
    let moved = |part: &crate::analysis::benchmark::Benchmark| {
        let bits = part.throughput_bps_received.zip(part.duration_s);
        part.bytes_received
            .or(bits.map(|(bps, seconds)| (bps * seconds / 8.0) as u64))
    };
    let known: Vec<u64> = parts
        .iter()
        .filter(|part| part.error.is_none())
        .filter_map(moved)
        .collect();
    let Some(least) = known.iter().min() else {
        return Judgement::unseen("the benchmark does not say how much arrived");
    };
    let dead = known
        .iter()
        .filter(|bytes| **bytes < bounds::DEAD_FLOW_BYTES)
        .count();
    Known {
        probability: if dead > 0 { 1.0 } else { 0.0 },
        share: Some(dead as f64 / known.len() as f64),
        summary: format!(
            "{dead} of {} flows moved next to nothing; the smallest {}",
            known.len(),
            units::bytes(*least)
        ),
        evidence: vec![
            Evidence::new(
                "least that a flow moved",
                *least as f64,
                "bytes",
                "benchmark",
            )
            .expected(format!(
                "more than {}",
                units::bytes(bounds::DEAD_FLOW_BYTES)
            )),
        ],
        remedy: None,
    }
    .into()
}
