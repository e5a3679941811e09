//! System calls and copies are what the bottleneck does.

use vpnbench_common::catalog::ProbeId;

use crate::explain::confidence;
use crate::explain::facts::Facts;
use crate::explain::model::Evidence;
use crate::explain::rule::{Judgement, Known, Need, Rule};
use crate::explain::units;

pub(super) const RULE: Rule = Rule {
    id: "syscall-bound",
    claim: "most on-CPU time of the bottleneck is per-packet system calls and copies; batch sizes near 1",
    judged: "share of the CPU time of a daemon with a saturated thread that is inside its recorded packet calls (docs/threads.md), more than half, and at least one call for each packet. Without a saturated thread the claim is refuted",
    needs: &[
        Need::Daemon,
        Need::Probe(ProbeId::SchedSwitch),
        Need::Probe(ProbeId::SysExit),
    ],
    remedy: "move more with each call: sendmmsg and recvmmsg, UDP GSO and GRO, IFF_VNET_HDR with TSO on the TUN device, io_uring",
    refuted_by: "less than half of the CPU time is in calls, or calls move several packets",
    consequence_of: &[],
    lower_bound: false,
    judge,
};

fn judge(facts: &Facts<'_>) -> Judgement {
    let Some(daemon) = super::cpu::busiest(facts) else {
        return Judgement::unseen("no daemon carried packets while its threads were watched");
    };
    let (Some(inside), Some(calls)) = (daemon.call_share, daemon.calls_per_packet) else {
        return Judgement::unseen("the daemon's packet calls were not recorded");
    };
    let saturated = daemon
        .bottleneck
        .as_ref()
        .map_or(0.0, |limit| limit.saturated_share);
    let most = confidence::time_above(inside, daemon.cpu_s, super::cpu::SLICE_S, 0.5);
    Known {
        probability: if saturated > 0.0 && calls >= 1.0 {
            most
        } else {
            0.0
        },
        share: Some(inside * saturated),
        summary: format!(
            "{} of the CPU time of {} is inside packet calls, {calls:.1} of them for each packet",
            units::percent(inside),
            daemon.comm
        ),
        evidence: vec![
            Evidence::new(
                "CPU time inside packet calls",
                inside,
                "of the CPU time",
                "daemons",
            )
            .expected("below 50 %"),
            Evidence::new("calls for each packet", calls, "calls", "daemons")
                .expected("well below 1"),
            Evidence::new(
                "saturated thread: running or runnable with work",
                saturated,
                "of the time",
                "daemons",
            ),
        ],
        remedy: None,
    }
    .into()
}
