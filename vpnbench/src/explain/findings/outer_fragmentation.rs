//! Outer packets are IP-fragmented, and fragments are lost.

use vpnbench_common::catalog::ProbeId;

use crate::explain::facts::Facts;
use crate::explain::loss;
use crate::explain::model::Evidence;
use crate::explain::rule::{Judgement, Known, Need, Rule};
use crate::explain::{bounds, confidence, units};

pub(super) const RULE: Rule = Rule {
    id: "outer-fragmentation",
    claim: "outer packets are IP-fragmented; fragments or reassemblies are lost",
    judged: "fragments at the outer taps, and `IpReasmFails` or fragments lost on the wire: a datagram of n fragments is lost with 1 - (1 - p)^n",
    needs: &[Need::Packets, Need::Probe(ProbeId::NetDevStartXmit)],
    remedy: "lower the tunnel's MTU until an outer packet fits the wire (wire MTU less the tunnel's overhead): ip link set dev TUN mtu 1420",
    refuted_by: "no outer packet is a fragment",
    consequence_of: &[],
    lower_bound: false,
    judge,
};

fn judge(facts: &Facts<'_>) -> Judgement {
    let rows = &facts.outputs.pairing.ledger.fragments;
    let sent: u64 = rows.iter().map(|row| row.sent).sum();
    let packets: u64 = loss::at(facts, &["outer-qdisc"])
        .map_or(0, |at| at.entered)
        .max(sent);
    if sent == 0 {
        return Known {
            probability: confidence::ratio_above(0.0, packets as f64, bounds::DATAGRAM_LOSS),
            summary: format!(
                "none of {} outer packets was a fragment",
                units::count(packets)
            ),
            ..Known::default()
        }
        .into();
    }
    let failed: u64 = rows.iter().filter_map(|row| row.reassemblies_failed).sum();
    let known = rows.iter().any(|row| row.reassemblies_failed.is_some());
    let wire = loss::at(facts, &["wire"]).unwrap_or_default();
    let lost = failed.max(wire.lost);
    if lost == 0 && !known {
        return Judgement::unseen("the counters of reassembly are missing");
    }
    let (probability, share) = loss::cost(
        facts,
        &loss::Lost {
            lost,
            entered: packets,
            ..wire
        },
    );
    Known {
        probability,
        share: Some(share),
        summary: format!(
            "{} fragments were sent; {} reassemblies failed",
            units::count(sent),
            units::count(failed)
        ),
        evidence: vec![
            Evidence::new(
                "fragments sent",
                sent as f64,
                "fragments",
                "ledger.fragments",
            )
            .expected("0"),
            Evidence::new(
                "reassemblies that failed",
                failed as f64,
                "datagrams",
                "ledger.fragments",
            )
            .expected("0"),
            Evidence::new("lost on the wire", wire.ratio(), "ratio", "ledger"),
        ],
        remedy: None,
    }
    .into()
}
