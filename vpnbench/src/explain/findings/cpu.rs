//! What the claims about threads share.

use crate::analysis::threads::DaemonLimits;
use crate::explain::facts::Facts;
use crate::explain::model::Evidence;
use crate::explain::rule::{Judgement, Known};
use crate::explain::{confidence, units};

/// How long a thread runs or waits at least: a base slice of the scheduler (`sysctl_sched_base_slice`,
/// kernel/sched/fair.c: 0.7 ms and more), rounded up.
pub(super) const SLICE_S: f64 = 0.003;

/// The daemon whose thread is nearest to its limit.
pub(super) fn busiest<'a>(facts: &Facts<'a>) -> Option<&'a DaemonLimits> {
    let most = |daemon: &DaemonLimits| {
        let shares = daemon.ceilings.iter().filter(|limit| limit.tid.is_some());
        shares
            .map(|limit| limit.saturated_share)
            .fold(0.0, f64::max)
    };
    let limits = facts.outputs.threads.limits.iter();
    limits.max_by(|a, b| most(a).total_cmp(&most(b)))
}

/// Judges "most of the bottleneck's samples are in these groups".
pub(super) fn sampled(facts: &Facts<'_>, groups: &[&str], what: &str) -> Judgement {
    let Some(daemon) = busiest(facts) else {
        return Judgement::unseen("no daemon carried packets while its threads were watched");
    };
    let Some(limit) = &daemon.bottleneck else {
        return Known {
            probability: 0.0,
            summary: format!("no thread of {} is a bottleneck", daemon.comm),
            ..Known::default()
        }
        .into();
    };
    let samples = facts.outputs.stacks.as_ref();
    let own = samples.and_then(|all| all.processes.iter().find(|one| one.pid == daemon.pid));
    let Some(own) = own else {
        return Judgement::unseen("no stacks of the bottleneck were sampled (--stacks)");
    };
    let hits: u64 = groups
        .iter()
        .filter_map(|group| own.by_group.get(*group))
        .sum();
    let ratio = hits as f64 / (own.samples as f64).max(1.0);
    Known {
        probability: confidence::ratio_above(hits as f64, own.samples as f64, 0.5),
        share: Some(ratio * limit.saturated_share),
        summary: format!(
            "{} of {} samples of {} are {what} ({})",
            units::count(hits),
            units::count(own.samples),
            daemon.comm,
            units::percent(ratio)
        ),
        evidence: vec![
            Evidence::new(format!("samples {what}"), ratio, "ratio", "cpu").expected("below 50 %"),
            Evidence::new(
                "samples without a symbol",
                own.unresolved as f64,
                "samples",
                "cpu",
            )
            .expected("0"),
            Evidence::new(
                "saturated thread: running or runnable with work",
                limit.saturated_share,
                "of the time",
                "daemons",
            ),
        ],
        remedy: None,
    }
    .into()
}
