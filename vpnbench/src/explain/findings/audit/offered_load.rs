//! Traffic beside the benchmark's.

use vpnbench_common::catalog::{ProbeId, Tap};

use crate::explain::facts::Facts;
use crate::explain::model::Evidence;
use crate::explain::rule::{Judgement, Known, Need, Rule};
use crate::explain::{bounds, confidence, units};

pub(in crate::explain::findings) const RULE: Rule = Rule {
    id: "audit-offered-load",
    claim: "the path carried more than the benchmark says it offered (extra flows, hidden directions, background work)",
    judged: "inner bytes at the sender's first tap that belong to none of the benchmark's connections, of all bytes there",
    needs: &[
        Need::Benchmark,
        Need::Packets,
        Need::Probe(ProbeId::NetDevQueue),
    ],
    remedy: "stop what else sends through the tunnel, or count it: the sides of a comparison must carry the same",
    refuted_by: "the benchmark's own connections make up the traffic",
    consequence_of: &[],
    lower_bound: false,
    judge,
};

fn judge(facts: &Facts<'_>) -> Judgement {
    let Some((result, way)) = facts.outputs.benchmark.as_ref().zip(facts.way.as_ref()) else {
        return Judgement::inapplicable("the benchmark's own result is not known");
    };
    if !["tcp", "udp", "parallel"].contains(&result.load()) {
        return Judgement::inapplicable("the benchmark does not measure throughput");
    }
    if result.connections.is_empty() {
        return Judgement::inapplicable("the benchmark does not tell its connections");
    }
    let remote: Vec<String> = result
        .connections
        .iter()
        .map(|one| format!(":{}", one.remote_port))
        .collect();
    let tap = if facts.context.start.tunnels.is_empty() {
        Tap::OuterTx
    } else {
        Tap::TunTx
    };
    let (mut own, mut foreign, mut packets) = (0u64, 0u64, 0u64);
    for row in facts.flows_at(tap, &way.sender) {
        packets += row.segments;
        let mine = remote
            .iter()
            .any(|port| row.dst.ends_with(port.as_str()) || row.src.ends_with(port.as_str()));
        if mine {
            own += row.bytes;
        } else {
            foreign += row.bytes;
        }
    }
    let all = (own + foreign) as f64;
    if all == 0.0 {
        return Judgement::unseen("no flow was seen at the sender's first tap");
    }
    let part = foreign as f64 / all;
    Known {
        probability: confidence::ratio_above(
            part * packets as f64,
            packets as f64,
            bounds::MATERIAL,
        ),
        share: Some(part),
        summary: format!(
            "{} of the bytes are not the benchmark's",
            units::percent(part)
        ),
        evidence: vec![Evidence::new("bytes of other flows", part, "ratio", "flows").expected("0")],
        remedy: None,
    }
    .into()
}
