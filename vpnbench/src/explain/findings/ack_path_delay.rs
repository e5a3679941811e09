//! Acknowledgements are late.

use vpnbench_common::catalog::ProbeId;

use crate::explain::facts::Facts;
use crate::explain::model::Evidence;
use crate::explain::rule::{Judgement, Known, Need, Rule};
use crate::explain::{confidence, units};

pub(super) const RULE: Rule = Rule {
    id: "ack-path-delay",
    claim: "acknowledgements are delayed or compressed on the return path",
    judged: "median time of an acknowledgement from the receiver's device to the sender's TCP, less the wire's own (its median on the way there or back, whichever is less: a wire that is slower back than there delays acknowledgements), as a share of the median round trip: material from a third on, since a round trip has three parts besides (the way there, the receiver, the wire back), and above 1 ms, the granularity of timers (RFC 9002, section 6.1.2)",
    needs: &[
        Need::Tcp,
        Need::BothEnds,
        Need::Probe(ProbeId::TcpProbe),
        Need::Probe(ProbeId::NetDevStartXmit),
    ],
    remedy: "look where the way back waits (the stages of the opposite direction): queues of the receiver's daemon, its scheduling, an asymmetric path; give small packets a way past large ones (fq_codel on the tunnel device)",
    refuted_by: "acknowledgements cross the tunnel in the time the wire takes",
    consequence_of: &[
        "cpu-contention",
        "daemon-thread-saturated",
        "periodic-stall",
    ],
    lower_bound: false,
    judge,
};

/// Part of the round trip from which the way back stands out.
const PART: f64 = 1.0 / 3.0;

/// Delays below the granularity of timers change nothing (RFC 9002, section 6.1.2: 1 ms).
const GRANULARITY_US: f64 = 1000.0;

fn judge(facts: &Facts<'_>) -> Judgement {
    let flow = facts
        .outputs
        .tcp_flows
        .iter()
        .max_by_key(|flow| flow.limits.acked_bytes);
    let limits = flow.map(|flow| &flow.limits);
    let Some((limits, back)) = limits.and_then(|limits| Some((limits, limits.acks.return_us?)))
    else {
        return Judgement::unseen("no acknowledgement was seen at both ends");
    };
    let Some(rtt) = limits.rtt_us else {
        return Judgement::unseen("the sender has no RTT samples");
    };
    let Some(wire_back) = facts.stage_back("wire").map(|stage| stage.p50_us) else {
        return Judgement::unseen("the wire's own time back is not known");
    };
    let there = facts.stage("wire").map(|stage| stage.p50_us);
    let wire = there.map_or(wire_back, |there| there.min(wire_back));
    let excess = (back.p50 - wire).max(0.0);
    let part = if rtt.p50 > 0.0 { excess / rtt.p50 } else { 0.0 };
    let seconds = limits.times.busy_s;
    let compressed = limits.acks.compressed_share;
    let mut evidence = vec![
        Evidence::new(
            "time of an acknowledgement on its way back, median",
            back.p50,
            "us",
            "tcp_flows.acks",
        )
        .expected(units::duration(wire / 1e6)),
        Evidence::new("wire of that direction, median", wire_back, "us", "stages"),
        Evidence::new("round trip, median", rtt.p50, "us", "tcp_flows"),
    ];
    evidence.extend(compressed.map(|share| {
        Evidence::new(
            "acknowledgements that arrive compressed",
            share,
            "of the groups of three",
            "tcp_flows.acks",
        )
    }));
    let known = Known {
        probability: if excess > GRANULARITY_US {
            confidence::time_above(part.min(1.0), seconds, rtt.p50 / 1e6, PART)
        } else {
            0.0
        },
        share: Some(part.min(1.0)),
        summary: format!(
            "an acknowledgement takes {} back to the sender, on a wire of {}: {} of the round trip more than it must",
            units::duration(back.p50 / 1e6),
            units::duration(wire / 1e6),
            units::percent(part.min(1.0))
        ),
        evidence,
        remedy: None,
    };
    // Late on the wire itself: nothing in the hosts makes it so.
    match 2.0 * (wire_back - wire) > excess {
        true => Judgement::Alone(known),
        false => known.into(),
    }
}
