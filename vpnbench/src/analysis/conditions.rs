//! Conditions of the machine under which a run's CPU figures stand: noted, not judged. The bounds say from
//! where on a condition is worth a line; no figure depends on them.

use std::collections::BTreeMap;

use super::threads::Output;
use super::{Context, Problem};
use crate::trace::model::CoreTicks;

/// Share of a core's time that the hypervisor took.
const STEAL: f64 = 0.01;
/// Share of the highest frequency below which a core counts as slowed down.
const FREQUENCY: f64 = 0.9;
/// Share of all softirq time that one core did.
const ONE_CORE: f64 = 0.8;
/// Softirq time, as a share of one core, from which its spread matters.
const SOFTIRQ: f64 = 0.05;
/// Share of each end's CPU time that was spent on one core.
const BOTH_ENDS: f64 = 0.5;

const PART: &str = "conditions";

/// What is worth noting about the machine.
#[must_use]
pub fn conditions(context: &Context<'_>, threads: &Output) -> Vec<Problem> {
    let mut notes = Vec::new();
    let before = &context.start.environment.cores;
    let after = context.end.map_or(&[][..], |end| &end.environment.cores);
    for one in after {
        if let Some(first) = before.iter().find(|first| first.cpu == one.cpu) {
            notes.extend(stolen(first, one));
            notes.extend(slowed(first, one));
        }
    }
    let softirq = context.end.map_or(&[][..], |end| &end.softirq_s);
    let by_core: Vec<f64> = softirq.iter().map(|core| core.iter().sum()).collect();
    let span_s = whole(before, after);
    notes.extend(softirq_on_one(&by_core, span_s));
    notes.extend(both_ends(threads));
    notes
}

/// The ticks of both readings: (steal, all).
fn ticks(first: &CoreTicks, last: &CoreTicks) -> Option<(u64, u64)> {
    let all =
        |one: &CoreTicks| one.user + one.system + one.idle + one.irq + one.softirq + one.steal;
    let steal = last.steal.checked_sub(first.steal)?;
    let all = all(last).checked_sub(all(first))?;
    (all > 0).then_some((steal, all))
}

fn stolen(first: &CoreTicks, last: &CoreTicks) -> Option<Problem> {
    let (steal, all) = ticks(first, last)?;
    let share = steal as f64 / all as f64;
    (share >= STEAL).then(|| {
        let message = format!(
            "the hypervisor took {:.1} % of core {}'s time for others: what ran there waited without being seen to",
            100.0 * share,
            last.cpu
        );
        Problem::info(PART, message)
    })
}

fn slowed(first: &CoreTicks, last: &CoreTicks) -> Option<Problem> {
    let most = last.max_khz? as f64;
    let least = first.khz?.min(last.khz?) as f64;
    (least < FREQUENCY * most).then(|| {
        let message = format!(
            "core {} ran at {:.2} GHz of at most {:.2} GHz at an end of the run: CPU time per packet is that much higher",
            last.cpu,
            least / 1e6,
            most / 1e6
        );
        Problem::info(PART, message)
    })
}

/// Seconds between the two readings.
fn whole(before: &[CoreTicks], after: &[CoreTicks]) -> f64 {
    let spans = after.iter().filter_map(|last| {
        let first = before.iter().find(|first| first.cpu == last.cpu)?;
        let (_, all) = ticks(first, last)?;
        Some(all as f64 / f64::from(last.ticks_per_s.max(1)))
    });
    spans.fold(0.0, f64::max)
}

fn softirq_on_one(by_core: &[f64], span_s: f64) -> Option<Problem> {
    let sum: f64 = by_core.iter().sum();
    let (core, most) = by_core
        .iter()
        .copied()
        .enumerate()
        .max_by(|a, b| a.1.total_cmp(&b.1))?;
    let uneven = by_core.len() > 1 && most >= ONE_CORE * sum;
    (uneven && span_s > 0.0 && sum >= SOFTIRQ * span_s).then(|| {
        let message = format!(
            "core {core} did {:.0} % of all softirq work ({most:.2} s): packets of all flows went through it",
            100.0 * most / sum
        );
        Problem::info(PART, message)
    })
}

/// Daemons of several tunnels that did most of their work on the same core.
fn both_ends(threads: &Output) -> Option<Problem> {
    let mut by_daemon: BTreeMap<u32, BTreeMap<u16, f64>> = BTreeMap::new();
    for limits in &threads.limits {
        let own = threads.threads.iter().filter(|one| one.pid == limits.pid);
        let cores = by_daemon.entry(limits.pid).or_default();
        for core in own.flat_map(|one| &one.cores) {
            *cores.entry(core.cpu).or_default() += core.cpu_s;
        }
    }
    let mut places: BTreeMap<u16, Vec<u32>> = BTreeMap::new();
    for (pid, cores) in &by_daemon {
        let sum: f64 = cores.values().sum();
        let most = cores.iter().max_by(|a, b| a.1.total_cmp(b.1));
        if let Some((cpu, _)) = most.filter(|(_, time)| **time >= BOTH_ENDS * sum && sum > 0.0) {
            places.entry(*cpu).or_default().push(*pid);
        }
    }
    let (cpu, pids) = places.into_iter().find(|(_, pids)| pids.len() > 1)?;
    let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
    let message = format!(
        "core {cpu} did most of the work of both ends (processes {}): on two machines each would have it for itself",
        pids.join(" and ")
    );
    Some(Problem::info(PART, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::threads::{DaemonLimits, OnCpu, ThreadTime};
    use crate::trace::model::{End, Environment, Start, Symbols};

    fn core(cpu: u32, idle: u64, steal: u64, khz: u64) -> CoreTicks {
        CoreTicks {
            cpu,
            ticks_per_s: 100,
            idle,
            steal,
            khz: Some(khz),
            max_khz: Some(3_000_000),
            ..CoreTicks::default()
        }
    }

    fn daemon(pid: u32, cpu_s: [f64; 2]) -> (DaemonLimits, ThreadTime) {
        let limits = DaemonLimits {
            pid,
            ..DaemonLimits::default()
        };
        let cores = [(0, cpu_s[0]), (1, cpu_s[1])].map(|(cpu, cpu_s)| OnCpu { cpu, cpu_s });
        let thread = ThreadTime {
            pid,
            cores: cores.to_vec(),
            ..ThreadTime::default()
        };
        (limits, thread)
    }

    fn notes(cores: [CoreTicks; 2], softirq: [f64; 2], ends: [[f64; 2]; 2]) -> Vec<String> {
        let environment = |cores: Vec<CoreTicks>| Environment {
            cores,
            ..Environment::default()
        };
        let start = Start {
            environment: environment(vec![core(0, 0, 0, 3_000_000), core(1, 0, 0, 3_000_000)]),
            ..Start::default()
        };
        let end = End {
            environment: environment(cores.to_vec()),
            softirq_s: softirq.iter().map(|time| vec![*time, 0.0]).collect(),
            ..End::default()
        };
        let mut output = Output::default();
        for (pid, cpu_s) in (1..).zip(ends) {
            let (limits, thread) = daemon(pid, cpu_s);
            output.limits.push(limits);
            output.threads.push(thread);
        }
        let (symbols, lost) = (Symbols::default(), BTreeMap::new());
        let context = Context::new(&start, Some(&end), &[], &symbols, &lost);
        let found = conditions(&context, &output);
        found.into_iter().map(|one| one.message).collect()
    }

    #[test]
    fn an_even_machine_is_not_worth_a_line() {
        let cores = [core(0, 1000, 5, 2_900_000), core(1, 1000, 0, 3_000_000)];
        assert_eq!(notes(cores, [0.5, 0.4], [[1.0, 0.2], [0.2, 1.0]]), [""; 0]);
        // So little softirq time that its place does not matter.
        assert_eq!(notes(cores, [0.2, 0.0], [[1.0, 0.2], [0.2, 1.0]]), [""; 0]);
    }

    #[test]
    fn each_condition_is_named() {
        let cores = [core(0, 800, 200, 3_000_000), core(1, 1000, 0, 1_500_000)];
        let found = notes(cores, [0.9, 0.1], [[1.0, 0.2], [0.9, 0.1]]);
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(found[0].contains("20.0 % of core 0"), "{found:?}");
        assert!(found[1].contains("core 1 ran at 1.50 GHz"), "{found:?}");
        assert!(
            found[2].contains("core 0 did 90 % of all softirq"),
            "{found:?}"
        );
        assert!(found[3].contains("processes 1 and 2"), "{found:?}");
    }
}
