//! The wire delivers out of order.

use vpnbench_common::catalog::{ProbeId, Tap};

use crate::explain::facts::{Facts, Load};
use crate::explain::model::Evidence;
use crate::explain::rule::{Judgement, Known, Need, Rule};
use crate::explain::{bounds, confidence, units};

pub(super) const RULE: Rule = Rule {
    id: "path-reordering",
    claim: "the wire delivers outer packets out of order",
    judged: "reordered arrivals at `outer.rx` beyond those at `outer.tx` (RFC 4737, section 4.1). For TCP the share is the time that recoveries cost which were not needed; in Disorder a sender goes on sending",
    needs: &[
        Need::Packets,
        Need::BothEnds,
        Need::Probe(ProbeId::NetDevStartXmit),
        Need::Probe(ProbeId::NetifReceiveSkb),
    ],
    remedy: "keep a flow on one path and one queue (no packet-wise balancing, jitter without reordering); where the path cannot be changed, let TCP wait longer: sysctl net.ipv4.tcp_reordering=30",
    refuted_by: "outer packets arrive in the order in which they left",
    consequence_of: &["gso-batch-impairment"],
    lower_bound: false,
    judge,
};

/// Why the order on the wire may not be known.
pub(super) const UNNUMBERED: &str = "outer packets carry no numbers that tell their order (with UDP segmentation offload IP IDs repeat)";

/// Arrivals that the wire reordered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Moved {
    pub(super) packets: u64,
    pub(super) reordered: u64,
    /// 99th percentile of how late, us.
    pub(super) late_us: Option<f64>,
    /// 99th percentile of the extent in packets.
    pub(super) extent: Option<f64>,
    /// 3-reordered arrivals.
    pub(super) beyond: u64,
}

/// Reordering that arises between the hosts, in the direction of the load.
pub(super) fn added(facts: &Facts<'_>) -> Option<Moved> {
    let receiver = &facts.way.as_ref()?.receiver;
    let rows = facts.outputs.reordering.taps.iter();
    let row = rows
        .filter(|row| row.tap == Tap::OuterRx.name() && row.namespace == *receiver)
        .max_by_key(|row| row.packets)
        .filter(|row| row.packets > 0)?;
    let added = row.added.unwrap_or(0);
    let bound = bounds::REORDERED * row.packets as f64;
    let sender = &facts.way.as_ref()?.sender;
    let left = facts.outputs.reordering.taps.iter().find(|other| {
        other.tap == Tap::OuterTx.name()
            && other.namespace == *sender
            && other.numbering == row.numbering
            && other.direction == row.direction
    });
    let disordered = left.is_some_and(|left| left.ratio > bounds::REORDERED);
    // A sender numbers in order. Where it does not, the numbers repeat (UDP segmentation offload), and
    // only that nothing changed on the wire can be said.
    if disordered && added.unsigned_abs() as f64 > bound {
        return None;
    }
    let reordered = row
        .added
        .map_or(row.reordered, |_| u64::try_from(added).unwrap_or(0));
    Some(Moved {
        packets: row.packets,
        reordered: reordered.min(row.packets),
        late_us: row.late_time_us_p99,
        extent: row.extent_p99,
        beyond: row
            .n_reordering
            .get(bounds::DUPTHRESH - 1)
            .copied()
            .unwrap_or(0),
    })
}

/// Share of the problem that reordering accounts for.
pub(super) fn share(facts: &Facts<'_>, moved: &Moved) -> f64 {
    match (&facts.tcp, facts.load) {
        (Some(tcp), Load::Tcp) => tcp.spurious_share(),
        _ => moved.reordered as f64 / (moved.packets as f64).max(1.0),
    }
}

fn judge(facts: &Facts<'_>) -> Judgement {
    let Some(moved) = added(facts) else {
        return Judgement::unseen(UNNUMBERED);
    };
    let ratio = moved.reordered as f64 / (moved.packets as f64).max(1.0);
    let mut evidence = vec![
        Evidence::new(
            "reordered on the wire",
            ratio,
            "of the arrivals",
            "reordering",
        )
        .expected("0"),
        Evidence::new(
            "3-reordered, which a fast retransmit takes for lost",
            moved.beyond as f64,
            "arrivals",
            "reordering",
        )
        .expected("0"),
    ];
    evidence.extend(
        moved
            .late_us
            .map(|us| Evidence::new("lateness, 99th percentile", us, "us", "reordering")),
    );
    evidence.extend(
        moved.extent.map(|packets| {
            Evidence::new("extent, 99th percentile", packets, "packets", "reordering")
        }),
    );
    Known {
        probability: confidence::ratio_above(
            moved.reordered as f64,
            moved.packets as f64,
            bounds::REORDERED,
        ),
        share: Some(share(facts, &moved)),
        summary: format!(
            "the wire delivers {} of {} outer units out of order ({})",
            units::count(moved.reordered),
            units::count(moved.packets),
            units::percent(ratio)
        ),
        evidence,
        remedy: None,
    }
    .into()
}
