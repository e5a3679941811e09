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
    judged: "share of the CPU time of a daemon with a thread that had work for most of the time, interrupts on top of it left out, that is inside its recorded packet calls (docs/threads.md), more than half, and at least one call for each packet; where stacks were sampled, the share of samples inside the kernel instead. Without such a thread the claim is refuted",
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

/// Groups of stack samples (groups.txt) that are what system calls do.
const KERNEL: [&str; 4] = ["system-call", "copy", "network", "scheduler"];

fn judge(facts: &Facts<'_>) -> Judgement {
    let Some(daemon) = super::cpu::busiest(facts) else {
        return Judgement::unseen("no daemon carried packets while its threads were watched");
    };
    let (Some(in_calls), Some(calls)) = (daemon.call_share, daemon.calls_per_packet) else {
        return Judgement::unseen("the daemon's packet calls were not recorded");
    };
    let soft = daemon.stages.iter().find(|stage| stage.stage == "softirq");
    let soft = soft.map_or(0.0, |stage| stage.cpu_s / daemon.cpu_s.max(1e-9));
    let sampled = super::cpu::samples(facts, daemon).map(|own| {
        let kernel = KERNEL.iter().filter_map(|group| own.by_group.get(*group));
        kernel.sum::<u64>() as f64 / (super::cpu::own_samples(own) as f64).max(1.0)
    });
    let inside = sampled.unwrap_or(in_calls / (1.0 - soft).max(1e-9));
    let saturated = super::cpu::bottleneck(daemon).map_or(0.0, |limit| limit.saturated_share);
    let most = confidence::time_above(inside, daemon.cpu_s, super::cpu::SLICE_S, 0.5);
    Known {
        probability: if saturated > 0.0 && calls >= 1.0 {
            most
        } else {
            0.0
        },
        share: Some(inside * saturated),
        summary: format!(
            "{} of the CPU time of {} is in system calls, {calls:.1} packet calls for each packet",
            units::percent(inside),
            daemon.comm
        ),
        evidence: vec![
            Evidence::new(
                "CPU time in recorded packet calls",
                in_calls,
                "of the CPU time",
                "daemons",
            ),
            Evidence::new(
                "CPU time in system calls",
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
