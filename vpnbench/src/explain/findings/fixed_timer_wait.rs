//! Set-up waits for a timer.

use vpnbench_common::catalog::{ProbeId, Tap};

use crate::explain::facts::Facts;
use crate::explain::model::Evidence;
use crate::explain::rule::{Judgement, Known, Need, Rule};
use crate::explain::{bounds, units};

pub(super) const RULE: Rule = Rule {
    id: "fixed-timer-wait",
    claim: "recovery or set-up waits for a fixed timer",
    judged: "the longest silence between the first inner packet that asked for the tunnel and the first that crossed it, in which no outer packet arrived: nothing from outside ended it, so a timer did. Longer than the bound for silence, and most of the wait",
    needs: &[
        Need::Tunnel,
        Need::Packets,
        Need::BothEnds,
        Need::Probe(ProbeId::NetDevStartXmit),
        Need::Probe(ProbeId::NetifReceiveSkb),
    ],
    remedy: "find the timer in the daemon's configuration (keepalive, handshake retry, peer discovery interval) and shorten it: WireGuard PersistentKeepalive=5, Nebula punchy and handshakes.try_interval, Tinc PingInterval, Mycelium and Yggdrasil peer retry",
    refuted_by: "the wait differs from run to run, or ends when a packet arrives",
    consequence_of: &[],
    lower_bound: false,
    judge,
};

/// Packets of the shortest exchange: TCP's handshake.
const EXCHANGE: u64 = 3;

fn judge(facts: &Facts<'_>) -> Judgement {
    let Some(way) = &facts.way else {
        return Judgement::unseen("no packet passed a tap");
    };
    let first = |tap: Tap, namespace: &str| {
        let rows = facts.outputs.taps.iter();
        rows.filter(|row| row.tap == tap.name() && row.namespace == namespace)
            .map(|row| row.first_s)
            .min_by(f64::total_cmp)
    };
    let asked = first(Tap::TunQueue, &way.sender).or(first(Tap::TunTx, &way.sender));
    let crossed = first(Tap::TunWrite, &way.receiver);
    let outage = facts
        .outputs
        .benchmark
        .as_ref()
        .and_then(|result| result.outage.as_ref());
    let told = outage.and_then(|outage| outage.connect_s.or(outage.gap_s));
    let (Some(asked), Some(crossed)) = (asked, crossed) else {
        return Judgement::unseen("no inner packet was seen at both ends");
    };
    let seen = (crossed - asked).max(0.0);
    let (units, _) = facts.passed(Tap::TunWrite, &way.receiver).unwrap_or((0, 0));
    if units < EXCHANGE {
        return Judgement::unseen("the tunnel never carried an exchange, so no wait ended");
    }
    let wait = told.unwrap_or(seen).max(seen);
    let Some(silence) = longest_silence(facts, asked, asked + wait) else {
        return Judgement::unseen("the outer device was not watched from the start");
    };
    let length = silence.1 - silence.0;
    let mut evidence = vec![
        Evidence::new(
            "from the first inner packet to the first that crossed",
            seen,
            "s",
            "taps",
        ),
        Evidence::new(
            "longest silence of the outer path in it",
            length,
            "s",
            "stalls",
        )
        .expected(format!("below {}", units::duration(bounds::SILENCE_S))),
    ];
    evidence.extend(
        told.map(|told| Evidence::new("wait that the benchmark reports", told, "s", "benchmark")),
    );
    let probability = if length > bounds::SILENCE_S && length > 0.5 * wait {
        // One silence is one observation: certain for this run, since times are exact.
        1.0
    } else {
        0.0
    };
    Known {
        probability,
        share: Some(if wait > 0.0 {
            (length / wait).min(1.0)
        } else {
            0.0
        }),
        summary: format!(
            "nothing happened outside for {} of the {} until the tunnel carried a packet",
            units::duration(length),
            units::duration(wait)
        ),
        evidence,
        remedy: None,
    }
    .into()
}

/// The longest time without an outer packet inside a window, seconds after the start.
fn longest_silence(facts: &Facts<'_>, from: f64, to: f64) -> Option<(f64, f64)> {
    let way = facts.way.as_ref()?;
    let quiet = &facts.outputs.stalls;
    let outer = [Tap::OuterTx.name(), Tap::OuterRx.name()];
    let rows = quiet.iter().filter(|row| outer.contains(&row.tap.as_str()));
    let ends = [way.sender.as_str(), way.receiver.as_str()];
    let mut longest: Option<(f64, f64)> = None;
    for row in rows.filter(|row| ends.contains(&row.namespace.as_str())) {
        longest.get_or_insert((from, from));
        let gaps = row.gaps.iter().map(|gap| (gap.start_s, gap.end_s));
        for (start, stop) in gaps.chain([(0.0, row.first_s)]) {
            let (begin, end) = (start.max(from), stop.min(to));
            if end - begin > longest.map_or(0.0, |gap| gap.1 - gap.0) {
                longest = Some((begin, end));
            }
        }
    }
    longest
}
