//! Threads of the path wait for a core.

use vpnbench_common::catalog::ProbeId;

use crate::explain::facts::Facts;
use crate::explain::model::Evidence;
use crate::explain::rule::{Judgement, Known, Need, Rule};
use crate::explain::{bounds, confidence, units};

pub(super) const RULE: Rule = Rule {
    id: "cpu-contention",
    claim: "runnable threads of the path wait for a core (run-queue delay), including softirq pressure",
    judged: "share of the time between the daemon's first and last packet in which the thread that waits most was runnable, not running, and packets waited for it (docs/threads.md); a time slice of the scheduler is one observation. It is a limit only where that thread had work for most of the time, running or waiting. Where several threads take the next packet by turns, as those of a Go program do, the daemon as a whole stands for the thread: the time in which one of them waited, and in which one ran or waited",
    needs: &[
        Need::Daemon,
        Need::Probe(ProbeId::SchedSwitch),
        Need::Probe(ProbeId::SchedWaking),
    ],
    remedy: "give the path cores of its own: fewer workers than cores, taskset or cpusets for daemon and benchmark, nothing else on the machine, the two ends on two machines",
    refuted_by: "threads with work run at once",
    consequence_of: &[],
    lower_bound: false,
    judge,
};

/// Of the time.
const MOST: f64 = 0.5;

fn judge(facts: &Facts<'_>) -> Judgement {
    let Some(daemon) = super::cpu::busiest(facts) else {
        return Judgement::unseen("no daemon carried packets while its threads were watched");
    };
    let all = &facts.outputs.threads;
    let threads = all.threads.iter().filter(|one| one.role == "daemon");
    let threads = threads.filter_map(|thread| {
        let waiting = (thread.saturated_share? - thread.working_share?).max(0.0);
        Some((waiting, thread.saturated_share?, &thread.comm))
    });
    let pools = all.limits.iter().filter(|one| one.pooled);
    let pools = pools.map(|one| (one.starved_share, one.attended_share, &one.comm));
    let order = |one: &(f64, f64, &String)| (one.1 > MOST, one.0);
    let longest = threads.chain(pools).max_by(|a, b| {
        let (a, b) = (order(a), order(b));
        a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
    });
    let Some((waiting, busy, comm)) = longest else {
        return Judgement::unseen("no thread of a daemon was followed");
    };
    let above =
        |share, bound| confidence::time_above(share, daemon.window_s, super::cpu::SLICE_S, bound);
    let cores = f64::from(facts.context.start.host.cpus);
    Known {
        probability: confidence::both(above(waiting, bounds::MATERIAL), above(busy, MOST)),
        share: Some(waiting),
        summary: format!(
            "{} waited for a core {} of the time while packets waited for it",
            comm,
            units::percent(waiting)
        ),
        evidence: vec![
            Evidence::new(
                "runnable without a core while work waited",
                waiting,
                "of the time",
                "threads",
            )
            .expected("0 %"),
            Evidence::new(
                "running or runnable while work waited",
                busy,
                "of the time",
                "threads",
            )
            .expected("below 50 %"),
            Evidence::new(
                "threads of the daemon that waited for a core, on average",
                daemon.waiting_for_core,
                "threads",
                "daemons",
            )
            .expected("0"),
            Evidence::new("cores", cores, "cores", "run"),
        ],
        remedy: None,
    }
    .into()
}
