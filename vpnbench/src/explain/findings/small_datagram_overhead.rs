//! Small datagrams.

use vpnbench_common::catalog::{ProbeId, Tap};

use crate::explain::facts::Facts;
use crate::explain::loss;
use crate::explain::model::Evidence;
use crate::explain::rule::{Judgement, Known, Need, Rule};
use crate::explain::{bounds, confidence, units};

pub(super) const RULE: Rule = Rule {
    id: "small-datagram-overhead",
    claim: "the effective payload size makes the path packet-rate-bound",
    judged: "mean payload of the load's datagrams beside the tunnel's MTU, with packets lost in front of or inside a daemon. The share is what full-sized packets at the same packet rate would have carried of what was lost",
    needs: &[
        Need::Datagrams,
        Need::Daemon,
        Need::Packets,
        Need::Probe(ProbeId::KfreeSkb),
    ],
    remedy: "send larger datagrams (iperf3 -l 1300, as the MTU allows), or batch them: UDP GSO on the sender, GSO and GRO on the tunnel device",
    refuted_by: "with datagrams of full size the same packet rate is reached, that is the same bits are lost",
    consequence_of: &[],
    lower_bound: true,
    judge,
};

fn judge(facts: &Facts<'_>) -> Judgement {
    let Some(way) = &facts.way else {
        return Judgement::unseen("no packet passed a tap");
    };
    let mut rows: Vec<_> = facts
        .flows_at(Tap::TunTx, &way.sender)
        .filter(|row| row.protocol != "tcp")
        .collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.segments));
    let Some(row) = rows.first() else {
        return Judgement::unseen("no datagrams were seen at the tunnel device");
    };
    let payload = row.payload_bytes as f64 / (row.segments as f64).max(1.0);
    let tunnels = &facts.context.start.tunnels;
    let mtu = tunnels.first().map_or(0.0, |tunnel| f64::from(tunnel.mtu));
    if mtu <= 0.0 {
        return Judgement::unseen("the tunnel's MTU is not known");
    }
    let headers = row.bytes as f64 / (row.segments as f64).max(1.0) - payload;
    let full = (mtu - headers).max(payload);
    let lost = loss::at(
        facts,
        &[
            "tun-qdisc",
            "tun-queue",
            "daemon-send",
            "outer-socket",
            "daemon-receive",
        ],
    )
    .unwrap_or_default();
    let sent = facts.sent().unwrap_or(lost.entered).max(1) as f64;
    let loss = lost.lost as f64 / sent;
    let delivered = 1.0 - loss;
    // The same packets per second, full: how many of the bits offered they could carry.
    let carried = (delivered * full / payload.max(1.0)).min(1.0);
    let saved = (carried - delivered).max(0.0);
    let lossy = confidence::ratio_above(lost.lost as f64, sent, bounds::MATERIAL);
    // Full-sized packets would have to carry at least half of what was lost for size to be the reason.
    let small = confidence::ratio_above(saved * sent, (loss * sent).max(1.0), 0.5);
    Known {
        probability: confidence::both(lossy, small),
        share: Some(saved),
        summary: format!(
            "datagrams carry {payload:.0} bytes where {full:.0} fit; {} of them were lost for their number",
            units::percent(loss)
        ),
        evidence: vec![
            Evidence::new("payload of a datagram, mean", payload, "bytes", "flows").expected(format!("{full:.0}")),
            Evidence::new("lost in front of and inside daemons", loss, "ratio", "ledger").expected("0"),
            Evidence::new("headers of an inner packet", headers, "bytes", "flows"),
        ],
        remedy: None,
    }
    .into()
}
