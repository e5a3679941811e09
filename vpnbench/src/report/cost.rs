//! What the programs in the kernel cost: by BPF statistics where the recorder could switch them on, else
//! estimated from the events.

use std::collections::BTreeMap;

use vpnbench_common::catalog::{Group, probe_row};

use super::model::KernelCost;
use crate::analysis::statistics::{self, Interval};
use crate::analysis::{Context, Outputs};
use crate::trace::model::{CAPTURED, StatisticsWindows};

/// ns of kernel time per stored event by BPF statistics on one machine; docs/threads.md says which and how.
const NS_PER_EVENT: [(Group, f64); 7] = [
    (Group::Packets, 280.0),
    (Group::Daemon, 500.0),
    (Group::Drops, 440.0),
    (Group::Tcp, 510.0),
    (Group::Syscalls, 990.0),
    (Group::Threads, 300.0),
    (Group::Stacks, 14_000.0),
];

/// `capture.kernel_cost` of the report.
pub(super) fn kernel(context: &Context<'_>, outputs: &Outputs) -> Option<KernelCost> {
    let end = context.end.filter(|end| end.reason != CAPTURED)?;
    let measured = end.bpf_statistics?;
    let mut by_group: BTreeMap<String, f64> = BTreeMap::new();
    for count in &end.counts {
        let Some(row) = probe_row(count.id) else {
            continue;
        };
        let ns = match (measured, count.ns_per_run, count.runs) {
            (true, Some(ns), Some(runs)) => ns * runs as f64,
            (true, ..) => 0.0,
            (false, ..) => per_event(row.group) * count.events as f64,
        };
        *by_group.entry(row.group.name().to_owned()).or_default() += ns / 1e9;
    }
    let cpu_s: f64 = by_group.values().sum();
    let watched: f64 = outputs.threads.threads.iter().map(|one| one.cpu_s).sum();
    let method = if measured { "measured" } else { "estimated" };
    let windows = end.bpf_windows.filter(|_| measured);
    let sampled_share = windows.map_or(1.0, |windows| windows.share);
    Some(KernelCost {
        method: method.to_owned(),
        sampled_share: measured.then_some(sampled_share),
        cpu_s,
        interval_s: windows.and_then(|windows| interval(cpu_s, windows)),
        by_group,
        share_of_workload: (watched > 0.0).then(|| (cpu_s + end.tool_cpu_s) / watched),
    })
}

/// Student's t with one degree of freedom less than there are windows; no cost is below 0.
fn interval(cpu_s: f64, windows: StatisticsWindows) -> Option<Interval> {
    let t = statistics::quantile(windows.count.checked_sub(1)? as f64)?;
    let half = t * windows.variance_s2?.sqrt();
    Some(Interval {
        low: (cpu_s - half).max(0.0),
        high: cpu_s + half,
    })
}

fn per_event(group: Group) -> f64 {
    let of_group = NS_PER_EVENT.iter().find(|(one, _)| *one == group);
    of_group.map_or(0.0, |(_, ns)| *ns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::threads::ThreadTime;
    use crate::trace::model::{End, ProbeCount, Start, Symbols};
    use vpnbench_common::catalog::ProbeId;

    fn cost(counts: Vec<ProbeCount>, on: Option<bool>, reason: &str) -> Option<KernelCost> {
        sampled(counts, on, reason, None)
    }

    fn sampled(
        counts: Vec<ProbeCount>,
        on: Option<bool>,
        reason: &str,
        bpf_windows: Option<StatisticsWindows>,
    ) -> Option<KernelCost> {
        let end = End {
            bpf_statistics: on,
            bpf_windows,
            counts,
            tool_cpu_s: 0.25,
            reason: reason.to_owned(),
            ..End::default()
        };
        let (start, symbols, lost) = (Start::default(), Symbols::default(), BTreeMap::new());
        let context = Context::new(&start, Some(&end), &[], &symbols, &lost);
        let mut outputs = Outputs::default();
        outputs.threads.threads = vec![ThreadTime {
            cpu_s: 10.0,
            ..ThreadTime::default()
        }];
        kernel(&context, &outputs)
    }

    fn count(id: ProbeId, ns_per_run: Option<f64>, runs: Option<u64>) -> ProbeCount {
        ProbeCount {
            id: id as u8,
            events: 1_000_000,
            ns_per_run,
            runs,
            ..ProbeCount::default()
        }
    }

    #[test]
    fn statistics_are_summed_by_group_and_without_them_it_is_an_estimate() {
        let counts = vec![
            count(ProbeId::SchedSwitch, Some(100.0), Some(2_000_000)),
            count(ProbeId::NetDevStartXmit, Some(50.0), Some(1_000_000)),
            count(ProbeId::NetifReceiveSkb, None, None),
        ];
        let measured = cost(counts, Some(true), "command").expect("a cost");
        assert_eq!(measured.method, "measured");
        assert!(
            (measured.by_group["threads"] - 0.2).abs() < 1e-9,
            "{measured:?}"
        );
        assert!(
            (measured.by_group["packets"] - 0.05).abs() < 1e-9,
            "{measured:?}"
        );
        let share = measured.share_of_workload.expect("a share");
        assert!((share - 0.05).abs() < 1e-9, "{measured:?}");
        let events = || vec![count(ProbeId::SchedSwitch, None, None)];
        let estimated = cost(events(), Some(false), "command").expect("a cost");
        assert_eq!(estimated.method, "estimated");
        assert!(estimated.cpu_s > 0.0, "{estimated:?}");
        assert_eq!(estimated.sampled_share, None);
        assert_eq!(cost(events(), None, "command"), None, "an older trace");
        assert_eq!(cost(Vec::new(), Some(false), CAPTURED), None);
    }

    #[test]
    fn windows_give_the_share_and_the_interval() {
        let counts = || vec![count(ProbeId::SchedSwitch, Some(100.0), Some(2_000_000))];
        let always = cost(counts(), Some(true), "command").expect("a cost");
        assert_eq!((always.sampled_share, always.interval_s), (Some(1.0), None));
        let windows = StatisticsWindows {
            count: 2,
            share: 0.1,
            variance_s2: Some(1e-6),
        };
        let some = sampled(counts(), Some(true), "command", Some(windows)).expect("a cost");
        // t(1) = 12.706; the runs are those of the whole recording already.
        let interval = some.interval_s.expect("two windows");
        assert!((some.cpu_s - 0.2).abs() < 1e-9, "{some:?}");
        assert!((interval.high - 0.212_706).abs() < 1e-5, "{some:?}");
        assert_eq!(some.sampled_share, Some(0.1));
        let one = StatisticsWindows {
            count: 1,
            variance_s2: None,
            ..windows
        };
        let one = sampled(counts(), Some(true), "command", Some(one)).expect("a cost");
        assert_eq!(one.interval_s, None);
    }
}
