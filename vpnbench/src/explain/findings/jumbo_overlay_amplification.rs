//! One inner packet needs many outer packets.

use vpnbench_common::catalog::{ProbeId, Tap};

use crate::explain::facts::Facts;
use crate::explain::loss;
use crate::explain::model::Evidence;
use crate::explain::rule::{Judgement, Known, Need, Rule};
use crate::explain::{bounds, confidence, units};

pub(super) const RULE: Rule = Rule {
    id: "jumbo-overlay-amplification",
    claim: "one inner packet needs many outer packets, so outer loss is multiplied",
    judged: "outer segments for each inner segment n; a loss of p of the outer ones loses 1 - (1 - p)^n of the inner ones. The share is what n = 1 would have saved",
    needs: &[
        Need::Daemon,
        Need::Packets,
        Need::BothEnds,
        Need::Probe(ProbeId::NetDevStartXmit),
        Need::Probe(ProbeId::NetifReceiveSkb),
    ],
    remedy: "set the tunnel's MTU so that an inner packet fits one outer packet: ip link set dev TUN mtu 1420",
    refuted_by: "inner loss equals outer loss, or one outer packet carries each inner one",
    consequence_of: &[],
    lower_bound: false,
    judge,
};

fn judge(facts: &Facts<'_>) -> Judgement {
    let Some(way) = &facts.way else {
        return Judgement::unseen("no packet passed a tap");
    };
    let inner = facts.passed(Tap::TunTx, &way.sender);
    let outer = facts.passed(Tap::OuterTx, &way.sender);
    let (Some((_, inner)), Some((_, outer))) = (inner, outer) else {
        return Judgement::unseen("the sender's tunnel and outer devices were not both seen");
    };
    let each = outer as f64 / (inner as f64).max(1.0);
    let wire = loss::at(facts, &["wire"]).unwrap_or_default();
    let p = wire.ratio();
    let predicted = 1.0 - (1.0 - p).powf(each);
    let multiplied = confidence::ratio_above(outer as f64 - inner as f64, outer as f64, 0.5);
    let (material, whole) = loss::cost(facts, &wire);
    let saved = if predicted > 0.0 {
        1.0 - p / predicted
    } else {
        0.0
    };
    let evidence = vec![
        Evidence::new(
            "outer packets for each inner packet",
            each,
            "packets",
            "taps",
        )
        .expected("1"),
        Evidence::new("loss of outer packets", p, "ratio", "ledger"),
        Evidence::new(
            "loss of inner packets that follows",
            predicted,
            "ratio",
            "1 - (1 - p)^n",
        )
        .expected(units::percent(p)),
    ];
    Known {
        probability: if each < 1.5 {
            1.0 - bounds::SURE.max(1.0 - multiplied)
        } else {
            confidence::both(multiplied, material)
        },
        share: Some(whole * saved),
        summary: format!(
            "one inner packet needs {each:.1} outer ones, so a loss of {} becomes {}",
            units::percent(p),
            units::percent(predicted)
        ),
        evidence,
        remedy: None,
    }
    .into()
}
