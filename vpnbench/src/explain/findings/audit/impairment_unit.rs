//! The impairment acted on units, not packets.

use vpnbench_common::catalog::{ProbeId, Tap};

use crate::explain::facts::Facts;
use crate::explain::model::Evidence;
use crate::explain::rule::{Judgement, Known, Need, Rule};
use crate::explain::{bounds, confidence, units};

pub(in crate::explain::findings) const RULE: Rule = Rule {
    id: "audit-impairment-unit",
    claim: "the impairment acted on other units than packets, so that it is not the same impairment for a side with other units",
    judged: "a queueing discipline of the outer device that impairs (netem) with units of more than one segment in it",
    needs: &[Need::Packets, Need::Probe(ProbeId::NetDevStartXmit)],
    remedy: "impair packets: behind a device without offloads, or with segmentation offload switched off on both sides, and compare again",
    refuted_by: "units of one segment at the impairment on all sides",
    consequence_of: &[],
    lower_bound: false,
    judge,
};

fn judge(facts: &Facts<'_>) -> Judgement {
    let environment = &facts.context.start.environment;
    let mut impaired = Vec::new();
    for place in &environment.namespaces {
        let links = place
            .links
            .iter()
            .filter(|link| link.qdiscs.iter().any(|qdisc| qdisc.kind == "netem"));
        impaired.extend(
            links.map(|link| (facts.context.namespace_name(place.netns), link.name.clone())),
        );
    }
    if impaired.is_empty() {
        return Judgement::inapplicable("no netem is on a watched device");
    }
    let rows = facts.outputs.coalescing.iter();
    let here = rows.filter(|row| {
        row.tap == Tap::OuterQueue.name()
            && impaired.iter().any(|(place, device)| {
                *place == row.namespace && row.device.as_deref() == Some(device.as_str())
            })
    });
    let Some(row) = here.max_by_key(|row| row.segments) else {
        return Judgement::unseen("no packet with payload reached the impaired device");
    };
    let merged = row.segments as f64 * row.merged_ratio;
    Known {
        probability: confidence::ratio_above(merged, row.segments as f64, bounds::MATERIAL),
        share: Some(row.merged_ratio),
        summary: format!(
            "netem saw {} units of {:.1} segments",
            units::count(row.units),
            row.segments_per_unit
        ),
        evidence: vec![
            Evidence::new(
                "segments for each unit at netem",
                row.segments_per_unit,
                "segments",
                "coalescing",
            )
            .expected("1"),
        ],
        remedy: None,
    }
    .into()
}
