//! The TUN device's queue is full.

use vpnbench_common::catalog::ProbeId;

use crate::explain::facts::Facts;
use crate::explain::loss;
use crate::explain::model::Evidence;
use crate::explain::rule::{Judgement, Need, Rule};

pub(super) const RULE: Rule = Rule {
    id: "tun-queue-overflow",
    claim: "the TUN device's queue is full and the kernel drops inner packets",
    judged: "drops that the kernel reports between `tun.queue` and `tun.read` (`FULL_RING` in `tun_net_xmit`, drops of the device's qdisc); their cost as for all losses",
    needs: &[Need::Tunnel, Need::Packets, Need::Probe(ProbeId::KfreeSkb)],
    remedy: "the daemon reads more slowly than packets come: make it faster (offloads on the TUN device, more queues), pace the sender, or let it wait instead of drop (a qdisc with back pressure); a longer queue (ip link set dev TUN txqueuelen 5000) turns drops into delay",
    refuted_by: "no FULL_RING drop while the sender offers the same load",
    consequence_of: &[
        "daemon-thread-saturated",
        "cpu-contention",
        "syscall-bound",
        "crypto-bound",
        "serialized-send-pipeline",
        "small-datagram-overhead",
    ],
    lower_bound: true,
    judge,
};

fn judge(facts: &Facts<'_>) -> Judgement {
    let mut judgement = loss::judge_drops(
        facts,
        &["tun-qdisc", "tun-queue"],
        "the tunnel device's queue",
    );
    if let (Judgement::Known(known), Some(stage)) = (&mut judgement, facts.stage("tun-queue")) {
        let backlog = stage
            .backlog_max_packets
            .map(|most| Evidence::new("longest queue", most as f64, "packets", "stages"));
        known.evidence.extend(backlog);
    }
    judgement
}
