//! Packets wait in the tunnel.

use vpnbench_common::catalog::ProbeId;

use crate::analysis::stages::StageTime;
use crate::explain::facts::Facts;
use crate::explain::loss;
use crate::explain::model::Evidence;
use crate::explain::rule::{Judgement, Known, Need, Rule};
use crate::explain::{bounds, confidence, units};

pub(super) const RULE: Rule = Rule {
    id: "tunnel-bufferbloat",
    claim: "packets wait inside the daemon far longer than the idle latency, without loss",
    judged: "median time in the daemon and in the queues in front of it above the bound for queueing and above the rest of the one-way time, with less than the material share lost there. A queue counts as one observation for each time that it holds its packets",
    needs: &[
        Need::Daemon,
        Need::Packets,
        Need::Probe(ProbeId::ConsumeSkb),
        Need::Probe(ProbeId::NetDevQueue),
    ],
    remedy: "shorten the daemon's queues or have them managed (CoDel, RFC 8289): its setting for queue lengths, txqueuelen of the TUN device, a smaller outer socket buffer; a rate limit in front of the tunnel just below what it carries (tc qdisc add dev TUN root cake bandwidth RATE)",
    refuted_by: "under the same load a packet spends less time inside the tunnel than on the wire",
    consequence_of: &[
        "daemon-thread-saturated",
        "cpu-contention",
        "serialized-send-pipeline",
        "crypto-bound",
        "syscall-bound",
    ],
    lower_bound: false,
    judge,
};

const INSIDE: [&str; 4] = ["tun-queue", "daemon-send", "outer-socket", "daemon-receive"];
const OUTSIDE: [&str; 2] = ["outer-qdisc", "wire"];

fn judge(facts: &Facts<'_>) -> Judgement {
    let rows = INSIDE.iter().filter_map(|name| facts.stage(name));
    let rows: Vec<&StageTime> = rows.filter(|row| !mixed_up(facts, row)).collect();
    if rows.is_empty() {
        return Judgement::unseen("no time inside the tunnel could be measured");
    }
    let inside: f64 = rows.iter().map(|row| row.p50_us).sum();
    let outside: f64 = OUTSIDE
        .iter()
        .filter_map(|name| facts.stage(name))
        .map(|row| row.p50_us)
        .sum();
    let whole = inside + outside;
    let part = if whole > 0.0 { inside / whole } else { 0.0 };
    // How much of the run lay above the bound: half of the packets if the median is there.
    let above = fraction_above(&rows, bounds::QUEUEING_US);
    let grain = (inside / 1e6).max(1e-6);
    let slow = confidence::both(
        confidence::time_above(above, facts.seconds(), grain, 0.5),
        confidence::time_above(part, facts.seconds(), grain, 0.5),
    );
    // A queue that overflows is another claim: this one is about waiting instead of losing.
    let lost = loss::at(facts, &INSIDE).unwrap_or_default();
    let overflow = confidence::ratio_above(lost.lost as f64, lost.entered as f64, bounds::MATERIAL);
    let probability = confidence::both(slow, 1.0 - overflow);
    let largest = rows.iter().max_by(|a, b| a.p50_us.total_cmp(&b.p50_us));
    let place = largest.map_or("", |row| row.name.as_str());
    let mut evidence = vec![
        Evidence::new(
            "time inside the tunnel, sum of medians",
            inside,
            "us",
            "stages",
        )
        .expected(format!(
            "below {}",
            units::duration(bounds::QUEUEING_US / 1e6)
        )),
        Evidence::new(
            "time on the wire and in its qdisc, sum of medians",
            outside,
            "us",
            "stages",
        ),
    ];
    evidence.extend(
        rows.iter()
            .map(|row| Evidence::new(format!("{}, median", row.name), row.p50_us, "us", "stages")),
    );
    let idle = facts
        .outputs
        .benchmark
        .as_ref()
        .and_then(|result| result.idle_rtt_us);
    evidence.extend(idle.and_then(|idle| {
        Some(Evidence::new(
            "round trip without load, median",
            idle.p50?,
            "us",
            "benchmark",
        ))
    }));
    Known {
        probability,
        share: Some(part),
        summary: format!(
            "a packet spends {} inside the tunnel and {} on the wire; most of it in {place}",
            units::duration(inside / 1e6),
            units::duration(outside / 1e6)
        ),
        evidence,
        remedy: None,
    }
    .into()
}

/// Whether a daemon's packets were matched by order, and so many that went in never came out that the time measured may be
/// the distance to the packet so many places behind: packets from daemon to daemon then stand for the user's.
fn mixed_up(facts: &Facts<'_>, row: &StageTime) -> bool {
    let book = facts
        .ledger_rows()
        .find(|book| book.name == row.name && book.direction == row.direction);
    let kept = book.map_or(0, |book| book.units.entered.saturating_sub(book.units.left));
    let between_us = facts.seconds() * 1e6 / (row.packets as f64).max(1.0);
    row.confidence.is_none()
        && ["order-and-size", "thread"].contains(&row.method.as_str())
        && row.p50_us <= (kept as f64 + 0.5) * between_us
}

/// Share of packets that spend more than `bound` in the stages together, by the quantiles of their sum
/// if they were all large together: an upper bound that is exact for one stage that dominates.
fn fraction_above(rows: &[&StageTime], bound: f64) -> f64 {
    let sum = |pick: fn(&StageTime) -> f64| rows.iter().map(|row| pick(row)).sum::<f64>();
    let points = [
        (1.0, 0.0),
        (0.5, sum(|row| row.p50_us)),
        (0.1, sum(|row| row.p90_us)),
        (0.01, sum(|row| row.p99_us)),
    ];
    for pair in points.windows(2) {
        let ((above, low), (less, high)) = (pair[0], pair[1]);
        if high >= bound {
            let way = if high > low {
                ((bound - low) / (high - low)).clamp(0.0, 1.0)
            } else {
                0.0
            };
            return above + (less - above) * way;
        }
    }
    0.0
}
