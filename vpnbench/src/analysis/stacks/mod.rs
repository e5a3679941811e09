//! Stack samples: whose, in which group of functions, and as folded stacks.
//!
//! A sample stands for the time since the one before on its core (1 / the sampling rate); only watched threads are
//! sampled. The kernel's clock interrupt cannot sample code that runs with interrupts off: that time
//! falls to where they come on again.

pub mod off_cpu;
pub mod rules;

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use vpnbench_common::catalog::ProbeId;
use vpnbench_common::event;

use super::{Context, Problem};
use crate::trace::Event;
use rules::{Group, Rules, Side};

/// Distinct stacks kept.
const STACKS_MAX: usize = 100_000;

/// Samples of one process by group.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProcessSamples {
    /// Process.
    pub pid: u32,
    /// Samples.
    pub samples: u64,
    /// Of these, by group of functions; they add up to `samples`.
    pub by_group: BTreeMap<String, u64>,
    /// Samples whose user frames have no symbol.
    pub unresolved: u64,
}

/// What the samples came to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Output {
    /// Most samples first.
    pub processes: Vec<ProcessSamples>,
    /// Stacks, outermost function first and `;` between, with their samples; by name.
    pub folded: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Stack {
    tgid: u32,
    kernel: Box<[u64]>,
    user: Box<[u64]>,
}

/// Counts stacks.
#[derive(Debug, Clone, Default)]
pub struct Stacks {
    counts: FxHashMap<Stack, u64>,
    uncounted: u64,
}

impl Stacks {
    /// Takes one event.
    pub fn observe(&mut self, event: &Event<'_>) {
        let Event::Sample(sample) = event else { return };
        // The others are those of threads that sleep ([`off_cpu`]).
        if sample.header.probe != ProbeId::CpuClock as u8 {
            return;
        }
        let stack = stack(sample);
        if self.counts.len() >= STACKS_MAX && !self.counts.contains_key(&stack) {
            self.uncounted += 1;
            return;
        }
        *self.counts.entry(stack).or_default() += 1;
    }

    /// Whether there was a sample.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Samples by process and group, and folded.
    #[must_use]
    pub fn finish(self, context: &Context<'_>, rules: &Rules) -> (Output, Vec<Problem>) {
        let mut output = Output::default();
        let mut processes: BTreeMap<u32, ProcessSamples> = BTreeMap::new();
        for (stack, count) in &self.counts {
            let process = processes.entry(stack.tgid).or_default();
            process.pid = stack.tgid;
            process.samples += count;
            let group = group(context, rules, stack);
            *process.by_group.entry(group.name().to_owned()).or_default() += count;
            let unknown = |address: &u64| user(context, stack.tgid, *address).is_none();
            if !stack.user.is_empty() && stack.user.iter().all(unknown) {
                process.unresolved += count;
            }
            *output.folded.entry(fold(context, stack)).or_default() += count;
        }
        output.processes = processes.into_values().collect();
        output
            .processes
            .sort_by_key(|one| (std::cmp::Reverse(one.samples), one.pid));
        let mut problems = Vec::new();
        if self.uncounted > 0 {
            let message = format!(
                "{} samples of more than {STACKS_MAX} different stacks were not counted",
                self.uncounted
            );
            problems.push(Problem::data_loss("cpu", message));
        }
        (output, problems)
    }
}

fn stack(sample: &event::Sample) -> Stack {
    let part = |frames: &[u64], depth: u16| frames[..usize::from(depth).min(frames.len())].into();
    Stack {
        tgid: sample.tgid,
        kernel: part(&sample.kernel, sample.kernel_depth),
        user: part(&sample.user, sample.user_depth),
    }
}

fn user<'a>(context: &Context<'a>, tgid: u32, address: u64) -> Option<&'a str> {
    let known = context.symbols.user.get(&tgid)?;
    known.get(&address).map(String::as_str)
}

fn kernel<'a>(context: &Context<'a>, address: u64) -> Option<&'a str> {
    context.symbols.kernel.get(&address).map(String::as_str)
}

/// The group of a sample: that of the first frame, from the innermost, that has one.
fn group(context: &Context<'_>, rules: &Rules, stack: &Stack) -> Group {
    let inside = stack.kernel.iter().find_map(|address| {
        let symbol = kernel(context, *address)?;
        rules.group(Side::Kernel, symbol)
    });
    if let Some(group) = inside {
        return group;
    }
    if !stack.kernel.is_empty() {
        return Group::SystemCall;
    }
    let outside = stack.user.iter().find_map(|address| {
        let symbol = user(context, stack.tgid, *address)?;
        rules.group(Side::User, symbol)
    });
    outside.unwrap_or(Group::Other)
}

/// The line of a folded stack, as flame graphs take it (github.com/brendangregg/FlameGraph).
fn fold(context: &Context<'_>, stack: &Stack) -> String {
    let process = context.start.environment.threads.iter();
    let process = process
        .filter(|one| one.tgid == stack.tgid)
        .min_by_key(|one| one.tid != stack.tgid);
    let mut frames = vec![match process {
        Some(process) => format!("{} ({})", process.comm, stack.tgid),
        None => format!("pid {}", stack.tgid),
    }];
    frames.extend(self::frames(context, stack));
    frames.join(";")
}

/// Functions of a stack, outermost first; those of the kernel end in `_[k]`.
fn frames(context: &Context<'_>, stack: &Stack) -> Vec<String> {
    let name = |symbol: Option<&str>, address: u64| match symbol {
        Some(symbol) => symbol
            .split_once("+0x")
            .map_or(symbol, |(name, _)| name)
            .replace(';', ":"),
        None => format!("{address:#x}"),
    };
    let outer = stack.user.iter().rev();
    let outer = outer.map(|&address| name(user(context, stack.tgid, address), address));
    let inner = stack.kernel.iter().rev();
    let inner = inner.map(|&address| name(kernel(context, address), address) + "_[k]");
    outer.chain(inner).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::model::{Start, Symbols};

    fn sample(kernel: &[u64], user: &[u64]) -> event::Sample {
        let mut sample: event::Sample = bytemuck::Zeroable::zeroed();
        sample.tgid = 7;
        sample.header.probe = ProbeId::CpuClock as u8;
        sample.kernel[..kernel.len()].copy_from_slice(kernel);
        sample.user[..user.len()].copy_from_slice(user);
        (sample.kernel_depth, sample.user_depth) = (kernel.len() as u16, user.len() as u16);
        sample
    }

    #[test]
    fn groups_add_up_to_the_samples() {
        let names = |all: &[(u64, &str)]| -> BTreeMap<u64, String> {
            all.iter()
                .map(|(at, name)| (*at, (*name).to_owned()))
                .collect()
        };
        let symbols = Symbols {
            kernel: names(&[
                (1, "rep_movs_alternative+0x2"),
                (2, "tun_do_read+0x1 [tun]"),
            ]),
            user: [(
                7,
                names(&[(10, "main+0x5 [openvpn]"), (11, "[libcrypto.so.3]")]),
            )]
            .into(),
            ..Symbols::default()
        };
        let (start, lost) = (Start::default(), BTreeMap::new());
        let context = Context::new(&start, None, &[], &symbols, &lost);
        let mut stacks = Stacks::default();
        for (kernel, user) in [
            (&[1, 2][..], &[10][..]),
            (&[2], &[10]),
            (&[99], &[10]),
            (&[], &[11, 10]),
            (&[], &[10]),
            (&[], &[10]),
            (&[], &[55]),
        ] {
            stacks.observe(&Event::Sample(&sample(kernel, user)));
        }
        let (output, problems) = stacks.finish(&context, &Rules::default());
        assert_eq!(problems, []);
        let [process] = &output.processes[..] else {
            panic!("one process: {output:?}")
        };
        let expected = [
            ("copy", 1),
            ("crypto", 1),
            ("network", 1),
            ("other", 3),
            ("system-call", 1),
        ];
        let expected = expected.map(|(name, count)| (name.to_owned(), count));
        assert_eq!(process.by_group, expected.into());
        assert_eq!(process.by_group.values().sum::<u64>(), process.samples);
        assert_eq!(process.unresolved, 1);
        assert_eq!(output.folded.values().sum::<u64>(), 7);
        assert_eq!(output.folded["pid 7;main;[libcrypto.so.3]"], 1);
        assert_eq!(
            output.folded["pid 7;main;tun_do_read_[k];rep_movs_alternative_[k]"],
            1
        );
    }
}
