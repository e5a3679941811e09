//! The daemon's outer socket receive buffer overflows.

use vpnbench_common::catalog::ProbeId;

use crate::explain::facts::Facts;
use crate::explain::loss;
use crate::explain::rule::{Judgement, Need, Rule};

pub(super) const RULE: Rule = Rule {
    id: "outer-receive-overflow",
    claim: "the daemon's outer socket receive buffer overflows",
    judged: "drops between `outer.rx` and `outer.recv` (`SOCKET_RCVBUFF`, `udp_fail_queue_rcv_skb`); their cost as for all losses",
    needs: &[Need::Daemon, Need::Packets, Need::Probe(ProbeId::KfreeSkb)],
    remedy: "give the socket more room (sysctl net.core.rmem_max=7500000 and the daemon's own setting for its receive buffer), or make the thread that reads it faster: recvmmsg, UDP GRO, a thread that only receives",
    refuted_by: "no SOCKET_RCVBUFF drop at the outer socket under the same load",
    consequence_of: &[
        "daemon-thread-saturated",
        "cpu-contention",
        "syscall-bound",
        "crypto-bound",
    ],
    lower_bound: true,
    judge,
};

fn judge(facts: &Facts<'_>) -> Judgement {
    if facts.outer_streams() {
        return Judgement::inapplicable("the daemon's packets are in TCP connections");
    }
    loss::judge_drops(facts, &["outer-socket"], "the daemon's outer socket")
}
