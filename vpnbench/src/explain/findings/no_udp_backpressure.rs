//! A flood is accepted and thrown away inside.

use vpnbench_common::catalog::ProbeId;

use crate::explain::confidence;
use crate::explain::facts::Facts;
use crate::explain::loss;
use crate::explain::model::Evidence;
use crate::explain::rule::{Judgement, Known, Need, Rule};
use crate::explain::{bounds, units};

pub(super) const RULE: Rule = Rule {
    id: "no-udp-backpressure",
    claim: "a flood is accepted by the tunnel and thrown away inside instead of slowing the sender",
    judged: "datagrams that the daemon had taken and did not send on, lost in runs (mean longer than two, where independent losses of the same share p would have 1 / (1 - p)), as a full queue loses them",
    needs: &[
        Need::Datagrams,
        Need::Daemon,
        Need::Packets,
        Need::Probe(ProbeId::ConsumeSkb),
        Need::Probe(ProbeId::NetDevQueue),
    ],
    remedy: "offer no more than the tunnel carries (iperf3 -b RATE), or have the daemon stop reading from its TUN device while its queues are full: then the kernel's queue fills and a sender in the same host is slowed by its socket buffer",
    refuted_by: "with the daemon's queues full, it stops reading from the TUN device, or the sender's rate falls to what arrives",
    consequence_of: &[],
    lower_bound: false,
    judge,
};

/// Runs of losses with deliveries in between, from which the queue is seen to drain.
const RUNS: u64 = 4;

fn judge(facts: &Facts<'_>) -> Judgement {
    let Some(here) = loss::at(facts, &loss::DAEMONS) else {
        return Judgement::unseen("no book covers the daemon");
    };
    let sent = facts.sent().unwrap_or(here.entered).max(here.entered);
    let lost = here.lost as f64;
    let share = lost / (sent as f64).max(1.0);
    let structure = facts.outputs.pairing.ledger.structure.iter();
    let runs = structure
        .filter(|row| row.level == "inner")
        .max_by_key(|row| row.lost)
        .map(|row| (row.run_mean.unwrap_or(0.0), row.ratio, row.runs));
    let (mean, ratio, runs) = runs.unwrap_or((0.0, 0.0, 0));
    let independent = 1.0 / (1.0 - ratio.min(0.99));
    let in_runs = mean > 2.0 * independent && runs >= RUNS;
    let material = confidence::ratio_above(lost, sent as f64, bounds::MATERIAL);
    Known {
        probability: if in_runs { material } else { 0.0 },
        share: Some(share),
        summary: format!(
            "{} of {} datagrams were taken by the daemon and thrown away, in runs of {mean:.0}",
            units::count(here.lost),
            units::count(sent)
        ),
        evidence: vec![
            Evidence::new("lost inside the daemon", lost, "packets", "ledger").expected("0"),
            Evidence::new("mean run of losses", mean, "packets", "ledger.structure")
                .expected(format!("{independent:.1} if independent")),
        ],
        remedy: None,
    }
    .into()
}
