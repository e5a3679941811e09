//! The daemon loses packets it has taken.

use vpnbench_common::catalog::ProbeId;

use crate::explain::facts::Facts;
use crate::explain::loss;
use crate::explain::rule::{Judgement, Need, Rule};

pub(super) const RULE: Rule = Rule {
    id: "tunnel-loss",
    claim: "packets enter the daemon and never leave it",
    judged: "the ledger between `tun.read` and `outer.queue` and between `outer.recv` and `tun.write`: went in, did not come out, and had time to; their cost as for all losses",
    needs: &[
        Need::Daemon,
        Need::Packets,
        Need::Probe(ProbeId::NetDevQueue),
        Need::Probe(ProbeId::ConsumeSkb),
        Need::Probe(ProbeId::KfreeSkb),
    ],
    remedy: "the daemon drops by itself: look at its own counters and log (full queues between its threads, replay window, rate limits, packets it takes for too large), and at its settings for queue lengths",
    refuted_by: "a balanced ledger of the daemon: as many out as in",
    consequence_of: &[
        "no-udp-backpressure",
        "size-dependent-loss",
        "serialized-send-pipeline",
    ],
    lower_bound: false,
    judge,
};

fn judge(facts: &Facts<'_>) -> Judgement {
    loss::judge(facts, &loss::DAEMONS, "the daemon")
}
