//! The wire loses packets.

use vpnbench_common::catalog::ProbeId;

use crate::explain::facts::Facts;
use crate::explain::loss;
use crate::explain::model::Evidence;
use crate::explain::rule::{Judgement, Need, Rule};

pub(super) const RULE: Rule = Rule {
    id: "path-loss",
    claim: "outer packets leave one host and never reach the other",
    judged: "the ledger between `outer.tx` of one host and `outer.rx` of the other, packet by packet; how they are distributed (Gilbert 1960) is shown beside; their cost as for all losses",
    needs: &[
        Need::Packets,
        Need::BothEnds,
        Need::Probe(ProbeId::NetDevStartXmit),
        Need::Probe(ProbeId::NetifReceiveSkb),
    ],
    remedy: "repair the path, or use a sender that loss hurts less: sysctl net.ipv4.tcp_congestion_control=bbr; forward error correction where the tunnel offers it",
    refuted_by: "every outer packet that left arrives",
    consequence_of: &["gso-batch-impairment"],
    lower_bound: false,
    judge,
};

fn judge(facts: &Facts<'_>) -> Judgement {
    let mut judgement = loss::judge(facts, &["wire"], "the wire between the hosts");
    if let Judgement::Known(known) = &mut judgement
        && let Some(row) = loss::structure(facts)
        && let Some(mean) = row.run_mean
    {
        known.evidence.push(
            Evidence::new(
                format!("mean length of a run of lost {} packets", row.level),
                mean,
                "packets",
                "ledger.structure",
            )
            .expected("1 where losses are independent"),
        );
    }
    judgement
}
