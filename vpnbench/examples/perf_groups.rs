//! perf's stacks by vpnbench's groups of functions, to compare both on one run:
//!
//! ```text
//! perf script -F pid,ip,sym,symoff,dso -i perf.data | cargo run -p vpnbench --example perf_groups
//! ```
#![allow(
    clippy::print_stdout,
    reason = "a table on standard output is what it is for"
)]

use std::collections::BTreeMap;

use vpnbench::analysis::Context;
use vpnbench::analysis::stacks::{Stacks, rules::Rules};
use vpnbench::trace::Event;
use vpnbench::trace::model::{Start, Symbols};
use vpnbench_common::catalog::ProbeId;
use vpnbench_common::event::Sample;

/// Addresses from here on are the kernel's.
const KERNEL: u64 = 1 << 63;

fn main() -> std::io::Result<()> {
    let (mut stacks, mut symbols) = (Stacks::default(), Symbols::default());
    let mut sample: Sample = bytemuck::Zeroable::zeroed();
    let mut take = |sample: &mut Sample| {
        if sample.tgid != 0 && sample.kernel_depth + sample.user_depth > 0 {
            sample.header.probe = ProbeId::CpuClock as u8;
            stacks.observe(&Event::Sample(sample));
        }
        *sample = bytemuck::Zeroable::zeroed();
    };
    for line in std::io::stdin().lines() {
        let line = line?;
        let Some((first, rest)) = line.trim().split_once(' ') else {
            // An empty line ends a sample, a number alone begins one.
            take(&mut sample);
            sample.tgid = line.trim().parse().unwrap_or(0);
            continue;
        };
        let Ok(address) = u64::from_str_radix(first, 16) else {
            continue;
        };
        let (name, file) = rest.rsplit_once('(').unwrap_or((rest, ")"));
        let file = file.trim_end_matches(')').rsplit('/').next().unwrap_or("");
        let text = match name.trim() {
            "[unknown]" => format!("[{file}]"),
            name => format!("{name} [{file}]"),
        };
        let (frames, depth) = match address >= KERNEL {
            true => (&mut sample.kernel, &mut sample.kernel_depth),
            false => (&mut sample.user, &mut sample.user_depth),
        };
        let Some(place) = frames.get_mut(usize::from(*depth)) else {
            continue;
        };
        (*place, *depth) = (address, *depth + 1);
        match address >= KERNEL {
            true => symbols.kernel.insert(address, text),
            false => {
                let of_process = symbols.user.entry(sample.tgid).or_default();
                of_process.insert(address, text)
            }
        };
    }
    take(&mut sample);
    let (start, lost) = (Start::default(), BTreeMap::new());
    let context = Context::new(&start, None, &[], &symbols, &lost);
    let (output, _) = stacks.finish(&context, &Rules::default());
    for process in output.processes {
        println!("pid {}: {} samples", process.pid, process.samples);
        for (group, samples) in &process.by_group {
            let share = *samples as f64 / process.samples as f64 * 100.0;
            println!("  {group:<12} {share:>5.1} %  ({samples})");
        }
    }
    Ok(())
}
