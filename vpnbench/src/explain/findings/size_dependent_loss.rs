//! Packets above a size are lost.

use vpnbench_common::catalog::ProbeId;

use crate::explain::confidence;
use crate::explain::facts::{Facts, Load};
use crate::explain::model::Evidence;
use crate::explain::rule::{Judgement, Known, Need, Rule};
use crate::explain::{bounds, units};

pub(super) const RULE: Rule = Rule {
    id: "size-dependent-loss",
    claim: "packets above a size threshold are lost (PMTU black hole)",
    judged: "of at least 20 packets on either side of a size at least 90 % above and at most 10 % below are lost (docs/analysis.md, the ledger)",
    needs: &[
        Need::Packets,
        Need::BothEnds,
        Need::Probe(ProbeId::NetDevStartXmit),
        Need::Probe(ProbeId::NetifReceiveSkb),
    ],
    remedy: "lower the MTU of the tunnel device to the size that passes (ip link set dev TUN mtu N), let path MTU discovery work (allow ICMP), or probe for it: sysctl net.ipv4.tcp_mtu_probing=1",
    refuted_by: "packets larger than the threshold arrive as often as smaller ones",
    consequence_of: &[],
    lower_bound: false,
    judge,
};

fn judge(facts: &Facts<'_>) -> Judgement {
    let rows: Vec<_> = facts.outputs.pairing.ledger.structure.iter().collect();
    let packets: u64 = rows.iter().map(|row| row.packets).max().unwrap_or(0);
    if rows.is_empty() {
        return Judgement::unseen("no packet was followed from end to end");
    }
    let found = rows.iter().find(|row| row.size_threshold_bytes.is_some());
    let Some(row) = found else {
        return Known {
            probability: confidence::ratio_above(0.0, packets as f64, bounds::MATERIAL),
            summary: format!(
                "of {} packets followed, no size is lost more than others",
                units::count(packets)
            ),
            ..Known::default()
        }
        .into();
    };
    let arrives = row.size_threshold_bytes.unwrap_or(0);
    // Older reports do not have it.
    let vanishes = row.size_lost_bytes.unwrap_or(arrives + 1);
    let share = match facts.load {
        // TCP cannot go on at all without its full segments.
        Load::Tcp => 1.0,
        _ => row.ratio,
    };
    Known {
        probability: confidence::ratio_above(row.lost as f64, row.lost as f64, 0.9),
        share: Some(share),
        summary: format!(
            "{} packets of {vanishes} bytes and more are lost, those up to {arrives} bytes arrive",
            row.level
        ),
        evidence: vec![
            Evidence::new("size up to which packets arrive", f64::from(arrives), "bytes", "ledger.structure"),
            Evidence::new("size from which they are lost", f64::from(vanishes), "bytes", "ledger.structure"),
            Evidence::new("lost", row.lost as f64, "packets", "ledger.structure").expected("0"),
        ],
        remedy: Some(format!(
            "ip link set dev TUN mtu N so that packets stay below {vanishes} bytes at that place (the limit lies between {arrives} and {vanishes}: ping -M do -s SIZE finds it); sysctl net.ipv4.tcp_mtu_probing=1"
        )),
    }
    .into()
}
