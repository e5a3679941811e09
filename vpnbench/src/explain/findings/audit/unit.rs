//! A figure whose magnitude contradicts the packets.

use crate::explain::facts::Facts;
use crate::explain::model::Evidence;
use crate::explain::rule::{Judgement, Known, Need, Rule};
use crate::explain::units;

pub(in crate::explain::findings) const RULE: Rule = Rule {
    id: "audit-unit",
    claim: "a figure's magnitude contradicts the others of the same run",
    judged: "throughput that the benchmark reports beside the payload that passed the taps, interval by interval: wrong by more than half of the factor that tells Mibit from Mbit apart (1.024), in most intervals and all one way; beyond the tolerance of docs/lab-benchmarks.md",
    needs: &[Need::Benchmark],
    remedy: "take the figure from the packets, and find the unit that the tool means (Mibit and Mbit, us and ms, sent and received)",
    refuted_by: "the benchmark's figure agrees with the packets within its tolerance",
    consequence_of: &[],
    lower_bound: false,
    judge,
};

fn judge(facts: &Facts<'_>) -> Judgement {
    let intervals = facts
        .outputs
        .benchmark
        .iter()
        .flat_map(|result| &result.intervals);
    let seen: Vec<_> = intervals
        .filter_map(|interval| interval.packets.as_ref())
        .collect();
    let judged: Vec<_> = seen.iter().filter(|seen| seen.agrees.is_some()).collect();
    if judged.len() < 2 {
        return Judgement::unseen("no interval of the benchmark could be laid beside packets");
    }
    // A receiver's interval may hold what was sent in the one before, so only one-sided errors count.
    let off = judged.iter().filter(|seen| seen.agrees == Some(false));
    let ratios: Vec<f64> = off
        .filter_map(|seen| seen.difference_ratio)
        .filter(|ratio| ratio.abs() > 0.012)
        .collect();
    let one_way = ratios.iter().filter(|ratio| **ratio > 0.0).count();
    let most = one_way.max(ratios.len() - one_way);
    let mean = ratios.iter().sum::<f64>() / (ratios.len() as f64).max(1.0);
    let probability =
        crate::explain::confidence::ratio_above(most as f64, judged.len() as f64, 0.5);
    Known {
        probability,
        share: Some(mean.abs()),
        summary: format!(
            "{most} of {} intervals disagree with the packets one way, by {} on average",
            judged.len(),
            units::percent(mean)
        ),
        evidence: vec![
            Evidence::new(
                "intervals that disagree",
                most as f64,
                "intervals",
                "benchmark.intervals",
            )
            .expected("0"),
            Evidence::new(
                "difference of the benchmark to the packets",
                mean,
                "ratio",
                "benchmark.intervals",
            )
            .expected("0"),
        ],
        remedy: None,
    }
    .into()
}
