//! Inner packets cross the tunnel more than once.

use vpnbench_common::catalog::ProbeId;

use crate::explain::facts::Facts;
use crate::explain::model::Evidence;
use crate::explain::rule::{Judgement, Known, Need, Rule};
use crate::explain::{bounds, confidence, units};

pub(super) const RULE: Rule = Rule {
    id: "tunnel-duplicates",
    claim: "inner packets cross the tunnel more than once",
    judged: "inner packets that arrive at the receiver's tunnel device more than once, by their own identity; a retransmission of the application's TCP is a packet of its own",
    needs: &[
        Need::Tunnel,
        Need::Packets,
        Need::BothEnds,
        Need::Probe(ProbeId::NetDevStartXmit),
        Need::Probe(ProbeId::NetifReceiveSkb),
    ],
    remedy: "switch off the tunnel's own retransmission or multipath duplication, or have it wait for an answer before it repeats; the transport inside repeats what is lost anyway",
    refuted_by: "each inner packet arrives at most once",
    consequence_of: &[],
    lower_bound: false,
    judge,
};

fn judge(facts: &Facts<'_>) -> Judgement {
    let rows = &facts.outputs.pairing.ledger.inner;
    let delivered: u64 = rows.iter().map(|row| row.delivered).sum();
    let duplicated: u64 = rows.iter().map(|row| row.duplicated).sum();
    if delivered == 0 {
        return Judgement::unseen("no inner packet was followed from end to end");
    }
    let ratio = duplicated as f64 / delivered as f64;
    Known {
        probability: confidence::ratio_above(
            duplicated as f64,
            (delivered + duplicated) as f64,
            bounds::DATAGRAM_LOSS,
        ),
        share: Some(ratio),
        summary: format!(
            "{} inner packets arrived again, of {} that arrived ({})",
            units::count(duplicated),
            units::count(delivered),
            units::percent(ratio)
        ),
        evidence: vec![
            Evidence::new(
                "inner packets that arrived again",
                duplicated as f64,
                "packets",
                "ledger.inner",
            )
            .expected("0"),
            Evidence::new("of those delivered", ratio, "ratio", "ledger.inner").expected("0"),
        ],
        remedy: None,
    }
    .into()
}
