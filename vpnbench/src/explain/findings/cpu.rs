//! What the claims about threads share.

use crate::analysis::stacks::ProcessSamples;
use crate::analysis::threads::{DaemonLimits, Limit};
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

/// Its thread that had work for the largest part of the time, running or waiting for a core, if that is most of it.
pub(super) fn bottleneck(daemon: &DaemonLimits) -> Option<&Limit> {
    let threads = daemon.ceilings.iter().filter(|limit| limit.tid.is_some());
    threads
        .max_by(|a, b| a.saturated_share.total_cmp(&b.saturated_share))
        .filter(|limit| limit.saturated_share > 0.5)
}

/// Stack samples of a daemon, if some were taken.
pub(super) fn samples<'a>(facts: &Facts<'a>, daemon: &DaemonLimits) -> Option<&'a ProcessSamples> {
    let all = facts.outputs.stacks.as_ref()?;
    all.processes
        .iter()
        .find(|one| one.pid == daemon.pid && one.samples > 0)
}

/// Samples that are the daemon's own, without those in vpnbench's probes.
pub(super) fn own_samples(all: &ProcessSamples) -> u64 {
    let probes = all.by_group.get("probe").copied().unwrap_or(0);
    all.samples.saturating_sub(probes)
}

/// Judges "most of the bottleneck's samples are in these groups".
pub(super) fn sampled(facts: &Facts<'_>, groups: &[&str], what: &str) -> Judgement {
    let Some(daemon) = busiest(facts) else {
        return Judgement::unseen("no daemon carried packets while its threads were watched");
    };
    let Some(limit) = bottleneck(daemon) else {
        return Known {
            probability: 0.0,
            summary: format!("no thread of {} had work for most of the time", daemon.comm),
            ..Known::default()
        }
        .into();
    };
    let Some(own) = samples(facts, daemon) else {
        return Judgement::unseen("no stacks of the bottleneck were sampled (--stacks)");
    };
    let hits: u64 = groups
        .iter()
        .filter_map(|group| own.by_group.get(*group))
        .sum();
    let of = own_samples(own);
    let ratio = hits as f64 / (of as f64).max(1.0);
    Known {
        probability: confidence::ratio_above(hits as f64, of as f64, 0.5),
        share: Some(ratio * limit.saturated_share),
        summary: format!(
            "{} of {} samples of {} are {what} ({})",
            units::count(hits),
            units::count(of),
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
