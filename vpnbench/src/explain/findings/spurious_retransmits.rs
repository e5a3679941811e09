//! Retransmissions of data that had arrived.

use vpnbench_common::catalog::ProbeId;

use crate::explain::facts::Facts;
use crate::explain::model::Evidence;
use crate::explain::rule::{Judgement, Known, Need, Rule};
use crate::explain::{bounds, confidence, units};

pub(super) const RULE: Rule = Rule {
    id: "spurious-retransmits",
    claim: "retransmissions of data that had arrived: the sender's loss detection is too tight for the reordering on this path",
    judged: "segments sent again of which an earlier copy arrived: seen at the receiver, or by DSACK (RFC 2883), timestamps (RFC 3522) or undo. The share is the time of recoveries that were taken back, and of the others' time and reductions the spurious part",
    needs: &[
        Need::Tcp,
        Need::Probe(ProbeId::TcpRetransmitSkb),
        Need::Probe(ProbeId::TcpProbe),
    ],
    remedy: "let the sender wait longer before it gives a segment up (sysctl net.ipv4.tcp_reordering=30), or remove the reordering; the report's what-if section predicts what each setting would have saved",
    refuted_by: "most of what was sent again had not arrived",
    consequence_of: &[
        "path-reordering",
        "tunnel-reordering",
        "gso-batch-impairment",
        "tunnel-duplicates",
    ],
    lower_bound: false,
    judge,
};

fn judge(facts: &Facts<'_>) -> Judgement {
    let Some(tcp) = &facts.tcp else {
        return Judgement::inapplicable("no TCP sender carried the load");
    };
    if facts.outputs.retransmits.verdicts_incomplete {
        return Judgement::unseen(
            "events were lost that tell spurious retransmissions from others",
        );
    }
    if tcp.sent_again == 0 {
        return Known {
            probability: 0.0,
            summary: "nothing was sent again".to_owned(),
            ..Known::default()
        }
        .into();
    }
    let Some(ratio) = tcp.spurious_ratio() else {
        return Judgement::unseen("of no retransmission it is known whether its data had arrived");
    };
    let share = tcp.spurious_share();
    // Below this ratio the same retransmissions would cost too little to matter.
    let least = match share > 0.0 {
        true => bounds::MATERIAL * ratio / share,
        false => f64::INFINITY,
    };
    let probability = confidence::ratio_above(tcp.spurious as f64, tcp.judged as f64, least);
    let evidence_of = &facts.outputs.retransmits.spurious;
    Known {
        probability,
        share: Some(share),
        summary: format!(
            "{} of {} retransmissions resent data that had arrived ({})",
            units::count(tcp.spurious),
            units::count(tcp.judged),
            units::percent(ratio)
        ),
        evidence: vec![
            Evidence::new(
                "spurious",
                ratio,
                "of the retransmissions judged",
                "retransmits",
            )
            .expected("0"),
            Evidence::new(
                "receiver saw the original",
                evidence_of.original_seen as f64,
                "segments",
                "retransmits",
            ),
            Evidence::new(
                "reported by DSACK",
                evidence_of.dsack as f64,
                "segments",
                "retransmits",
            ),
            Evidence::new(
                "recoveries taken back",
                tcp.undone as f64,
                "episodes",
                "tcp_flows",
            )
            .expected("0"),
            Evidence::new(
                "time that recoveries and reductions cost",
                tcp.loss_share(),
                "of the busy time",
                "tcp_flows",
            ),
        ],
        remedy: predicted(facts),
    }
    .into()
}

/// The setting that the replay predicts most of.
fn predicted(facts: &Facts<'_>) -> Option<String> {
    let best = facts
        .outputs
        .what_if
        .iter()
        .filter(|one| one.change.contains("tcp_"))
        .min_by_key(|one| one.retransmits)?;
    (best.retransmits < facts.outputs.retransmits.total).then(|| {
        format!(
            "sysctl {}: predicted {} instead of {} retransmissions; or remove the reordering",
            best.change,
            units::count(best.retransmits),
            units::count(facts.outputs.retransmits.total)
        )
    })
}
