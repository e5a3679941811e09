//! Acknowledgements are late.

use vpnbench_common::catalog::ProbeId;

use crate::explain::facts::Facts;
use crate::explain::model::Evidence;
use crate::explain::rule::{Judgement, Known, Need, Rule};
use crate::explain::way_back::{self, WayBack};
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

fn judge(facts: &Facts<'_>) -> Judgement {
    let way = match WayBack::of(facts) {
        Ok(way) => way,
        Err(why) => return Judgement::unseen(why),
    };
    let part = way.part();
    let mut evidence = vec![
        Evidence::new(
            "time of an acknowledgement on its way back, median",
            way.median_us,
            "us",
            "tcp_flows.acks",
        )
        .expected(units::duration(way.wire_us / 1e6)),
        Evidence::new(
            "wire of that direction, median",
            way.wire_back_us,
            "us",
            "stages",
        ),
        Evidence::new("round trip, median", way.rtt_us, "us", "tcp_flows"),
    ];
    evidence.extend(way.compressed.map(|share| {
        Evidence::new(
            "acknowledgements that arrive compressed",
            share,
            "of the groups of three",
            "tcp_flows.acks",
        )
    }));
    let known = Known {
        probability: if way.tells() {
            confidence::time_above(part, way.busy_s, way.rtt_us / 1e6, way_back::PART)
        } else {
            0.0
        },
        share: Some(part),
        summary: format!(
            "an acknowledgement takes {} back to the sender, on a wire of {}: {} of the round trip more than it must",
            units::duration(way.median_us / 1e6),
            units::duration(way.wire_us / 1e6),
            units::percent(part)
        ),
        evidence,
        remedy: None,
    };
    // Late on the wire itself: nothing in the hosts makes it so.
    match 2.0 * (way.wire_back_us - way.wire_us) > way.excess_us() {
        true => Judgement::Alone(known),
        false => known.into(),
    }
}
