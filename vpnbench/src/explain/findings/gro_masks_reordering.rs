//! Coalescing hides reordering from TCP.

use vpnbench_common::catalog::{ProbeId, Tap};

use crate::explain::facts::Facts;
use crate::explain::model::Evidence;
use crate::explain::rule::{Judgement, Known, Need, Rule};
use crate::explain::{bounds, confidence, units};

pub(super) const RULE: Rule = Rule {
    id: "gro-masks-reordering",
    claim: "coalescing before the TCP stack hides reordering that a plain path would expose",
    judged: "outer arrivals that the wire reordered, and units of several segments at `tun.write`: every segment of such a unit but the first reaches TCP in order whatever order it had. The share is that of the segments that were merged",
    needs: &[
        Need::Tcp,
        Need::Tunnel,
        Need::Packets,
        Need::BothEnds,
        Need::Probe(ProbeId::NetDevStartXmit),
        Need::Probe(ProbeId::NetifReceiveSkb),
    ],
    remedy: "compare with a path that does not coalesce: ethtool -K TUN gro off on the receiver (and the daemon's own GRO), or add the same to the plain path; the difference between the two is this effect and not the tunnel's speed",
    refuted_by: "with GRO of the tunnel switched off TCP sees no more reordering than before",
    consequence_of: &[],
    lower_bound: false,
    judge,
};

fn judge(facts: &Facts<'_>) -> Judgement {
    let Some(way) = &facts.way else {
        return Judgement::unseen("no packet passed a tap");
    };
    let rows = facts.outputs.coalescing.iter();
    let written = rows
        .filter(|row| row.tap == Tap::TunWrite.name() && row.namespace == way.receiver)
        .max_by_key(|row| row.segments);
    let (Some(written), Some(moved)) = (written, super::path_reordering::added(facts)) else {
        return Judgement::unseen("the receiver's tunnel device and the wire were not both seen");
    };
    let reorders = confidence::ratio_above(
        moved.reordered as f64,
        moved.packets as f64,
        bounds::REORDERED,
    );
    let merged = written.segments as f64 * written.merged_ratio;
    let merges = confidence::ratio_above(merged, written.segments as f64, bounds::MATERIAL);
    let hidden = 1.0 - written.units as f64 / (written.segments as f64).max(1.0);
    Known {
        probability: confidence::both(reorders, merges),
        share: Some(hidden * super::path_reordering::share(facts, &moved)),
        summary: format!(
            "the wire reorders {} of {} outer units, and the tunnel hands TCP units of {:.1} segments",
            units::count(moved.reordered),
            units::count(moved.packets),
            written.segments_per_unit
        ),
        evidence: vec![
            Evidence::new("segments for each unit written to the tunnel device", written.segments_per_unit, "segments", "coalescing").expected("1"),
            Evidence::new("segments that were merged", written.merged_ratio, "ratio", "coalescing"),
            Evidence::new("outer units that the wire reordered", moved.reordered as f64, "units", "reordering"),
        ],
        remedy: None,
    }
    .into()
}
