//! The tunnel itself reorders.

use vpnbench_common::catalog::{ProbeId, Tap};

use crate::explain::facts::{Facts, Load};
use crate::explain::model::Evidence;
use crate::explain::rule::{Judgement, Known, Need, Rule};
use crate::explain::{bounds, confidence, units};

pub(super) const RULE: Rule = Rule {
    id: "tunnel-reordering",
    claim: "the tunnel itself delivers inner packets out of order (parallel workers)",
    judged: "reordered inner arrivals at `tun.write` (RFC 4737, section 4.1), beyond the share of outer arrivals that the wire reordered",
    needs: &[
        Need::Tunnel,
        Need::Packets,
        Need::BothEnds,
        Need::Probe(ProbeId::NetifReceiveSkb),
        Need::Probe(ProbeId::NetDevQueue),
    ],
    remedy: "keep the packets of a flow in order inside the daemon: one worker for each flow, or restore the order before sending and before writing to the TUN device; one worker (GOMAXPROCS=1, --workers 1) shows what it is worth",
    refuted_by: "inner packets leave the tunnel in the order in which they entered it",
    consequence_of: &["tunnel-duplicates"],
    lower_bound: false,
    judge,
};

fn judge(facts: &Facts<'_>) -> Judgement {
    let Some(way) = &facts.way else {
        return Judgement::unseen("no packet passed a tap");
    };
    let rows = facts.outputs.reordering.taps.iter();
    let row = rows
        .filter(|row| row.tap == Tap::TunWrite.name() && row.namespace == way.receiver)
        .max_by_key(|row| row.packets);
    let Some(row) = row else {
        return Judgement::unseen("no numbered inner packets left the tunnel");
    };
    let inner = row
        .added
        .map_or(row.reordered, |added| u64::try_from(added).unwrap_or(0));
    let wire = super::path_reordering::added(facts);
    if wire.is_none() && inner > 0 {
        return Judgement::unseen(super::path_reordering::UNNUMBERED);
    }
    let wire_ratio = wire.map_or(0.0, |moved| {
        moved.reordered as f64 / (moved.packets as f64).max(1.0)
    });
    let by_tunnel = (inner as f64 - wire_ratio * row.packets as f64).max(0.0);
    let share = match (&facts.tcp, facts.load) {
        (Some(tcp), Load::Tcp) => tcp.spurious_share(),
        _ => by_tunnel / (row.packets as f64).max(1.0),
    };
    // With a wire that reorders too, only what exceeds it can be the tunnel's, and its units are others.
    let probability = if wire_ratio > bounds::REORDERED {
        confidence::ratio_above(
            by_tunnel,
            row.packets as f64,
            wire_ratio.max(bounds::REORDERED),
        )
    } else {
        confidence::ratio_above(by_tunnel, row.packets as f64, bounds::REORDERED)
    };
    Known {
        probability,
        share: Some(share),
        summary: format!(
            "{} of {} inner units leave the tunnel out of order; the wire reorders {} of the outer ones",
            units::count(inner),
            units::count(row.packets),
            units::percent(wire_ratio)
        ),
        evidence: vec![
            Evidence::new("reordered inner arrivals", row.ratio, "ratio", "reordering").expected("0"),
            Evidence::new("reordered on the wire", wire_ratio, "ratio", "reordering"),
            Evidence::new("extent, 99th percentile", row.extent_p99.unwrap_or(0.0), "packets", "reordering"),
        ],
        remedy: None,
    }
    .into()
}
