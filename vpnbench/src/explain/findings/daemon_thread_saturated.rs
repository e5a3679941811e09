//! One thread of the daemon is the limit.

use vpnbench_common::catalog::ProbeId;

use crate::analysis::threads::SATURATED_SHARE;
use crate::explain::facts::Facts;
use crate::explain::model::Evidence;
use crate::explain::rule::{Judgement, Known, Need, Rule};
use crate::explain::{confidence, units};

pub(super) const RULE: Rule = Rule {
    id: "daemon-thread-saturated",
    claim: "one daemon thread is on-CPU (nearly) all the time while work waits for it",
    judged: "share of the time between the daemon's first and last packet in which the thread was running or runnable while packets waited in the queues that it drains (docs/threads.md), against the bound of that analysis; a time slice of the scheduler is one observation. The share is the part of it in which it ran: the rest waited for a core",
    needs: &[
        Need::Daemon,
        Need::Probe(ProbeId::SchedSwitch),
        Need::Probe(ProbeId::SysExit),
    ],
    remedy: "spread its work: several queues (IFF_MULTI_QUEUE), a thread for each direction, offloads that make each packet cheaper (TUN GSO and GRO, UDP GSO and GRO), a faster cipher",
    refuted_by: "the thread sleeps while packets wait, or nothing waits",
    consequence_of: &["syscall-bound", "crypto-bound", "small-datagram-overhead"],
    lower_bound: false,
    judge,
};

fn judge(facts: &Facts<'_>) -> Judgement {
    let limits = &facts.outputs.threads.limits;
    let Some(daemon) = super::cpu::busiest(facts) else {
        return Judgement::unseen("no daemon carried packets while its threads were watched");
    };
    let all = limits.iter().flat_map(|limits| &limits.ceilings);
    let threads = all.filter(|limit| limit.tid.is_some());
    let Some(most) = threads.max_by(|a, b| a.saturated_share.total_cmp(&b.saturated_share)) else {
        return Known {
            probability: 0.0,
            summary: format!(
                "no thread of {} ran with work for a thousandth of the time",
                daemon.comm
            ),
            ..Known::default()
        }
        .into();
    };
    let stage = most.stage.clone().unwrap_or_else(|| "unknown".to_owned());
    Known {
        probability: confidence::time_above(
            most.saturated_share,
            daemon.window_s,
            super::cpu::SLICE_S,
            SATURATED_SHARE,
        ),
        share: Some(most.working_share),
        summary: format!(
            "{} had work waiting and ran or wanted to run {} of the time, most of it in {stage}",
            most.comm,
            units::percent(most.saturated_share)
        ),
        evidence: vec![
            Evidence::new(
                "running or runnable while work waited",
                most.saturated_share,
                "of the time",
                "daemons",
            )
            .expected(format!("below {}", units::percent(SATURATED_SHARE))),
            Evidence::new(
                "of this, running",
                most.working_share,
                "of the time",
                "daemons",
            ),
            Evidence::new(
                "what the daemon could carry at most",
                most.ceiling_packets_per_s,
                "packets/s",
                "daemons",
            ),
            Evidence::new(
                "what it carried",
                daemon.packets_per_s,
                "packets/s",
                "daemons",
            ),
        ],
        remedy: None,
    }
    .into()
}
