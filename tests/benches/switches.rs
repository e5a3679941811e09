//! What watching costs a load that switches between threads 20,000 times a second: CPU time for fixed work
//! (`ping-pong`), alone and recorded with scheduling and system calls, in turn. Needs root and an otherwise
//! idle machine: `cargo xtask bench`, or this one alone with `--bench switches`. An argument is the number of
//! pairs.
#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vpnbench_tests::binary;

/// Pairs of runs, if no argument says otherwise.
const PAIRS: usize = 7;
/// Hand-overs to and fro: three seconds.
const ROUNDS: u64 = 30_000;
/// Switches per second of CPU time at which the cost is wanted.
const WANTED: f64 = 20_000.0;
/// Core of both threads; the recorder is free to run on the others.
const CPU: &str = "1";
const PING_PONG: &str = env!("CARGO_BIN_EXE_ping-pong");

/// A run of the load.
#[derive(Debug, Clone, Copy)]
struct Run {
    cpu_s: f64,
    switches: f64,
}

/// What the report of a recorded run says.
#[derive(Debug, Clone)]
struct Stated {
    recorder_s: f64,
    programs_s: f64,
    interval: String,
    share: f64,
    sampled: f64,
}

fn main() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: needs root");
        return Ok(());
    }
    // `cargo test` also runs benches, with --test: building them is enough there.
    if std::env::args().any(|argument| argument == "--test") {
        return Ok(());
    }
    let pairs = std::env::args().filter_map(|word| word.parse().ok()).next();
    let work = calibrate()?;
    println!(
        "pair  alone s  recorded s  more     recorder s  programs s (stated, interval)  stated"
    );
    let (mut alone, mut recorded, mut recorder) = (0.0, 0.0, 0.0);
    let mut more = Vec::new();
    let mut per_second = 0.0;
    let pairs = pairs.unwrap_or(PAIRS);
    for pair in 1..=pairs {
        let bare = run(&mut Command::new(PING_PONG), work)?;
        let (watched, stated) = watched(work)?;
        alone += bare.cpu_s;
        recorded += watched.cpu_s;
        recorder += stated.recorder_s;
        more.push(watched.cpu_s / bare.cpu_s - 1.0);
        per_second = bare.switches / bare.cpu_s;
        println!(
            "{pair:>4}  {:>7.3}  {:>10.3}  {:>5.2} %  {:>10.3}  {:>10.3} ({}, {:.0} % of the time)  {:.2} %",
            bare.cpu_s,
            watched.cpu_s,
            (watched.cpu_s / bare.cpu_s - 1.0) * 100.0,
            stated.recorder_s,
            stated.programs_s,
            stated.interval,
            stated.sampled * 100.0,
            stated.share * 100.0,
        );
    }
    more.sort_by(f64::total_cmp);
    println!("{per_second:.0} switches per second of CPU time; {pairs} pairs:");
    println!(
        "  the load takes {:.2} % more CPU time (median {:.2} %)   (reach: at most 5 %)",
        (recorded / alone - 1.0) * 100.0,
        more[more.len() / 2] * 100.0
    );
    println!(
        "  with the recorder's own {:.2} % more",
        ((recorded + recorder) / alone - 1.0) * 100.0
    );
    Ok(())
}

/// Work between two switches for [`WANTED`] of them a second of CPU time.
fn calibrate() -> Result<u64> {
    let mut work = 20_000;
    // The switch itself takes time: the second round corrects what the first left.
    for _ in 0..3 {
        let run = run(&mut Command::new(PING_PONG), work)?;
        let more_s = run.switches / WANTED - run.cpu_s;
        let idle = self::run(&mut Command::new(PING_PONG), 0)?;
        let per_unit = (run.cpu_s - idle.cpu_s) / work as f64;
        ensure!(per_unit > 0.0, "the load takes no time");
        work = (work as f64 + more_s / per_unit).max(1.0) as u64;
    }
    Ok(work)
}

fn run(command: &mut Command, work: u64) -> Result<Run> {
    command.args([CPU, &ROUNDS.to_string(), &work.to_string()]);
    let output = command.output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{error}");
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| line.starts_with('{'));
    let said: Value = serde_json::from_str(line.context("the load said nothing")?)?;
    Ok(Run {
        cpu_s: number(&said["cpu_s"])?,
        switches: number(&said["switches"])?,
    })
}

fn watched(work: u64) -> Result<(Run, Stated)> {
    let directory = tempfile::tempdir()?;
    let trace = directory.path().join("run.vbt");
    let mut command = binary::vpnbench();
    command
        .args(["--quiet", "record", "--outer", "lo", "--output"])
        .arg(&trace)
        .args(["--", PING_PONG]);
    // The load says what it took through the recorder.
    let run = run(&mut command, work)?;
    let output = binary::vpnbench()
        .args(["--quiet", "report", "--format", "json"])
        .arg(&trace)
        .output()?;
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let capture = &report["capture"];
    let events = number(&capture["events"])?;
    ensure!(events > 2.0 * ROUNDS as f64, "only {events} events");
    let cost = &capture["kernel_cost"];
    let ends = [&cost["interval_s"]["low"], &cost["interval_s"]["high"]];
    let ends = ends.map(|end| {
        end.as_f64()
            .map_or("-".to_owned(), |end| format!("{end:.3}"))
    });
    let stated = Stated {
        recorder_s: number(&capture["tool_cpu_s"])?,
        programs_s: number(&cost["cpu_s"])?,
        interval: ends.join(" to "),
        share: number(&cost["share_of_workload"])?,
        sampled: cost["sampled_share"].as_f64().unwrap_or(0.0),
    };
    Ok((run, stated))
}

fn number(value: &Value) -> Result<f64> {
    value
        .as_f64()
        .with_context(|| format!("{value} is no number"))
}
