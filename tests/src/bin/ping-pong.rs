//! A fixed load for what watching costs: two threads on one core hand a byte to and fro through pipes, with
//! work in between. `ping-pong CPU ROUNDS WORK`; prints `{"cpu_s": ..., "switches": ...}`, the CPU time of the
//! process and how often its threads were switched out.
#![allow(clippy::print_stdout, reason = "its output is its result")]

use std::fs::File;
use std::hint::black_box;
use std::io::{Read as _, Write as _};

use anyhow::{Context as _, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use nix::unistd::{Pid, pipe};

fn main() -> Result<()> {
    let arguments: Vec<u64> = std::env::args()
        .skip(1)
        .map(|word| word.parse())
        .collect::<Result<_, _>>()?;
    let [cpu, rounds, work] = arguments[..] else {
        anyhow::bail!("usage: ping-pong CPU ROUNDS WORK");
    };
    let (to_other, to_us) = (pipe()?, pipe()?);
    let ours = (File::from(to_us.0), File::from(to_other.1));
    let theirs = (File::from(to_other.0), File::from(to_us.1));
    let other = std::thread::spawn(move || -> Result<()> {
        let (mut from, mut to) = theirs;
        pin(cpu)?;
        for _ in 0..rounds {
            from.read_exact(&mut [0])?;
            burn(work);
            to.write_all(&[0])?;
        }
        Ok(())
    });
    pin(cpu)?;
    let (mut from, mut to) = ours;
    for _ in 0..rounds {
        burn(work);
        to.write_all(&[0])?;
        from.read_exact(&mut [0])?;
    }
    let ended = other.join();
    ended.map_err(|_| anyhow::anyhow!("the other thread panicked"))??;
    let usage = getrusage(UsageWho::RUSAGE_SELF).context("getrusage")?;
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    let cpu_s = seconds(usage.user_time()) + seconds(usage.system_time());
    let switches = usage.voluntary_context_switches() + usage.involuntary_context_switches();
    println!("{{\"cpu_s\": {cpu_s:.6}, \"switches\": {switches}}}");
    Ok(())
}

/// Keeps the calling thread on a core.
fn pin(cpu: u64) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(usize::try_from(cpu)?)?;
    sched_setaffinity(Pid::from_raw(0), &set).context("sched_setaffinity")
}

/// Arithmetic that no optimiser shortens: a linear congruential generator.
fn burn(work: u64) {
    let mut value = work;
    for _ in 0..work {
        value = black_box(
            value
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1),
        );
    }
}
