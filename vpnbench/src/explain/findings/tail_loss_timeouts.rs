//! Throughput is lost in timers.

use vpnbench_common::catalog::ProbeId;

use crate::explain::facts::Facts;
use crate::explain::model::Evidence;
use crate::explain::rule::{Judgement, Known, Need, Rule};
use crate::explain::{bounds, confidence, units};

pub(super) const RULE: Rule = Rule {
    id: "tail-loss-timeouts",
    claim: "throughput is lost in RTO/TLP waits rather than in fast recovery",
    judged: "time from the last event before a retransmission timeout to the timeout, plus 2 srtt for each tail loss probe that was needed (RFC 8985, section 7.2), of the time with unacknowledged data, and more than the time in fast recovery",
    needs: &[
        Need::Tcp,
        Need::Probe(ProbeId::TcpRetransmitSkb),
        Need::Probe(ProbeId::TcpCongStateSet),
    ],
    remedy: "avoid losses at the end of what is sent: keep connections open and busy (HTTP keep-alive, pipelining), keep net.ipv4.tcp_early_retrans=3, and lower the smallest timeout on paths with a short RTT: ip route change ... rto_min 50ms",
    refuted_by: "time waiting for timers stays below the time in fast recovery",
    consequence_of: &[
        "path-loss",
        "tunnel-loss",
        "tun-queue-overflow",
        "outer-receive-overflow",
        "outer-send-drop",
        "size-dependent-loss",
    ],
    lower_bound: false,
    judge,
};

fn judge(facts: &Facts<'_>) -> Judgement {
    let Some(tcp) = &facts.tcp else {
        return Judgement::inapplicable("no TCP sender carried the load");
    };
    let total = &facts.outputs.retransmits;
    let spurious = tcp.spurious_ratio().unwrap_or(0.0);
    let probes = total.by_cause.tlp as f64 * (1.0 - spurious);
    let probe_wait = probes * 2.0 * tcp.grain_s();
    let waited = tcp.rto_wait_s + probe_wait;
    let share = waited / tcp.busy_s;
    let timers = (total.by_cause.rto + total.by_cause.tlp) as f64;
    // Each timer is one event of a wait, so the waits are as many observations as there were timers.
    let grain = if timers > 0.0 {
        waited / timers
    } else {
        tcp.grain_s()
    };
    let mut probability = confidence::time_above(share, tcp.busy_s, grain, bounds::MATERIAL);
    if waited <= tcp.recovery_s {
        probability = 0.0;
    }
    Known {
        probability,
        share: Some(share),
        summary: format!(
            "{} of {} busy time went into waiting for timers, {} into fast recovery",
            units::duration(waited),
            units::duration(tcp.busy_s),
            units::duration(tcp.recovery_s)
        ),
        evidence: vec![
            Evidence::new(
                "waiting for retransmission timeouts",
                tcp.rto_wait_s,
                "s",
                "tcp_flows",
            )
            .expected("0"),
            Evidence::new(
                "waiting for tail loss probes",
                probe_wait,
                "s",
                "retransmits",
            ),
            Evidence::new(
                "retransmission timeouts",
                total.by_cause.rto as f64,
                "segments",
                "retransmits",
            ),
            Evidence::new(
                "tail loss probes",
                total.by_cause.tlp as f64,
                "segments",
                "retransmits",
            ),
        ],
        remedy: None,
    }
    .into()
}
