//! Outer packets are dropped on the way out.

use vpnbench_common::catalog::ProbeId;

use crate::explain::facts::Facts;
use crate::explain::loss;
use crate::explain::model::Evidence;
use crate::explain::rule::{Judgement, Need, Rule};

pub(super) const RULE: Rule = Rule {
    id: "outer-send-drop",
    claim: "outer packets are refused or dropped on the way out (send buffer, qdisc)",
    judged: "drops between `outer.queue` and `outer.tx` and in the outer device's own queue; sends of the daemon that failed are shown beside",
    needs: &[Need::Packets, Need::Probe(ProbeId::KfreeSkb)],
    remedy: "the outer device takes less than the daemon sends: a longer queue (tc qdisc replace dev DEV root fq limit 10000, ip link set dev DEV txqueuelen N), a larger send buffer (net.core.wmem_max), or a sender that is paced to the device",
    refuted_by: "no drop of the outer device or its qdisc under the same load",
    consequence_of: &["gso-batch-impairment"],
    lower_bound: true,
    judge,
};

fn judge(facts: &Facts<'_>) -> Judgement {
    let mut judgement = loss::judge_drops(facts, &["outer-qdisc"], "the outer device's queue");
    if let Judgement::Known(known) = &mut judgement {
        let sends = ["sendto", "sendmsg", "sendmmsg", "write", "writev"];
        let daemons = facts.outputs.syscalls.iter();
        let refused: u64 = daemons
            .filter(|row| row.role == "daemon" && sends.contains(&row.syscall.as_str()))
            .map(|row| row.would_block + row.errors)
            .sum();
        known.evidence.push(
            Evidence::new(
                "sends of the daemon that failed",
                refused as f64,
                "calls",
                "syscalls",
            )
            .expected("0"),
        );
    }
    judgement
}
