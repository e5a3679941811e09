//! The impairment acts on multi-segment units.

use vpnbench_common::catalog::{ProbeId, Tap};

use crate::analysis::coalescing::Coalescing;
use crate::explain::facts::Facts;
use crate::explain::loss;
use crate::explain::model::Evidence;
use crate::explain::rule::{Judgement, Known, Need, Rule};
use crate::explain::{bounds, confidence, units};

pub(super) const RULE: Rule = Rule {
    id: "gso-batch-impairment",
    claim: "the qdisc or impairment acts on multi-segment skb units, so loss, delay and reordering hit whole batches",
    judged: "segments in each unit that left by the outer device, and either losses in runs of at least twice the length that independent losses would have, or reordering that moves units of several segments",
    needs: &[
        Need::Packets,
        Need::BothEnds,
        Need::Probe(ProbeId::NetDevStartXmit),
        Need::Probe(ProbeId::NetifReceiveSkb),
    ],
    remedy: "impair packets, not units: impair behind a device without offloads, or switch segmentation offload off on the outer device (ethtool -K DEV tx-udp-segmentation off gso off), and compare again",
    refuted_by: "units of one segment at the impairment, or losses of single segments out of larger units",
    consequence_of: &[],
    lower_bound: false,
    judge,
};

/// The busiest device of a tap.
fn rows_at<'a>(facts: &Facts<'a>, tap: Tap, namespace: &str) -> Option<&'a Coalescing> {
    let rows = facts.outputs.coalescing.iter();
    rows.filter(|row| row.tap == tap.name() && row.namespace == namespace)
        .max_by_key(|row| row.segments)
}

fn judge(facts: &Facts<'_>) -> Judgement {
    let Some(way) = &facts.way else {
        return Judgement::unseen("no packet passed a tap");
    };
    let Some(left) = rows_at(facts, Tap::OuterTx, &way.sender) else {
        return Judgement::unseen("no unit with payload left by the outer device");
    };
    let wire = loss::at(facts, &["wire"]).unwrap_or_default();
    let runs = loss::structure(facts);
    let lost_each = runs.and_then(|row| row.run_mean).unwrap_or(0.0);
    let independent = runs.map_or(1.0, |row| 1.0 / (1.0 - row.ratio.min(0.99)));
    let moved = super::path_reordering::added(facts);
    let merged = confidence::ratio_above(
        left.segments as f64 * left.merged_ratio,
        left.segments as f64,
        0.5,
    );
    let count = runs.map_or(0, |row| row.runs) as f64;
    let whole = if lost_each >= 2.0 * independent {
        confidence::ratio_above(count, count, 0.5)
    } else {
        0.0
    };
    // What arrives in single packets was not moved as a unit.
    let arrived = rows_at(facts, Tap::OuterRx, &way.receiver);
    let kept = arrived.is_some_and(|row| 2.0 * row.segments_per_unit >= left.segments_per_unit);
    let moved = moved.filter(|_| kept);
    let (reordered, share_reordered) = moved.map_or((0.0, 0.0), |moved| {
        let ratio = confidence::ratio_above(
            moved.reordered as f64,
            moved.packets as f64,
            bounds::REORDERED,
        );
        (ratio, super::path_reordering::share(facts, &moved))
    });
    let (material, share) = loss::cost(facts, &wire);
    let by_loss = confidence::both(whole, material);
    Known {
        probability: confidence::both(merged, by_loss.max(reordered)),
        share: Some(if by_loss > 0.5 {
            share + share_reordered
        } else {
            share_reordered
        }),
        summary: format!(
            "units of {:.1} segments reach the wire; it lost {} segments, in runs of {lost_each:.1}",
            left.segments_per_unit,
            units::count(wire.lost)
        ),
        evidence: vec![
            Evidence::new(
                "segments for each unit at the wire",
                left.segments_per_unit,
                "segments",
                "coalescing",
            )
            .expected("1"),
            Evidence::new("mean run of losses", lost_each, "packets", "ledger.structure")
                .expected(format!("{independent:.1} if single packets are lost")),
            Evidence::new(
                "units reordered",
                moved.map_or(0.0, |moved| moved.reordered as f64),
                "units",
                "reordering",
            ),
        ],
        remedy: None,
    }
    .into()
}
