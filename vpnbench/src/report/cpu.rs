//! The machine's cores, and samples by group.

use std::collections::BTreeMap;

use super::model::{CoreTime, Cpu, StackSamples};
use crate::analysis::{Context, stacks};
use crate::trace::model::CoreTicks;

/// `cpu` of the report; `None` if the recording did not end in order.
pub(super) fn cpu(context: &Context<'_>, stacks: Option<&stacks::Output>) -> Option<Cpu> {
    let end = context.end?;
    let mut by_group = BTreeMap::new();
    for process in stacks.iter().flat_map(|one| &one.processes) {
        for (group, samples) in &process.by_group {
            *by_group.entry(group.clone()).or_insert(0) += samples;
        }
    }
    let before = &context.start.environment.cores;
    let cores = end.environment.cores.iter().filter_map(|after| {
        let before = before.iter().find(|one| one.cpu == after.cpu)?;
        core(before, after)
    });
    Some(Cpu {
        softirq_s_by_core: end.softirq_s.iter().map(|core| core.iter().sum()).collect(),
        samples_by_group: stacks.is_some().then_some(by_group),
        processes: stacks.map_or_else(Vec::new, |one| one.processes.clone()),
        cores: cores.collect(),
        stacks: stacks.map_or_else(Vec::new, most),
    })
}

/// Stacks in the report.
const STACKS: usize = 1000;

/// Stacks with most samples.
fn most(output: &stacks::Output) -> Vec<StackSamples> {
    let mut all: Vec<StackSamples> = output
        .folded
        .iter()
        .map(|(stack, &samples)| StackSamples {
            stack: stack.clone(),
            samples,
        })
        .collect();
    all.sort_by_key(|one| std::cmp::Reverse(one.samples));
    all.truncate(STACKS);
    all
}

/// The difference of two readings; `None` if they ran backwards.
fn core(before: &CoreTicks, after: &CoreTicks) -> Option<CoreTime> {
    let seconds = |pick: fn(&CoreTicks) -> u64| -> Option<f64> {
        let ticks = pick(after).checked_sub(pick(before))?;
        Some(ticks as f64 / f64::from(after.ticks_per_s.max(1)))
    };
    Some(CoreTime {
        cpu: after.cpu,
        user_s: seconds(|one| one.user)?,
        system_s: seconds(|one| one.system)?,
        idle_s: seconds(|one| one.idle)?,
        irq_s: seconds(|one| one.irq)?,
        softirq_s: seconds(|one| one.softirq)?,
        steal_s: seconds(|one| one.steal)?,
    })
}
