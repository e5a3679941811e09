//! How fast captures are analysed: one generated file, read by `vpnbench analyze`, by tshark
//! (fields with `tcp.analysis`) and by tcptrace (its default run) in one run: the quick two by turns.
//! Time is what a clock shows, memory the most that was resident (`VmHWM`). Reach: 100 times tshark,
//! 1.5 times tcptrace, 256 MiB. `cargo xtask bench`, on an otherwise idle machine.
//!
//! `captures [PACKETS] [only]`: with `only`, tshark is left out, which takes minutes.
#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]

#[path = "captures/traffic.rs"]
mod traffic;

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use procfs::process::Process;
use vpnbench_tests::binary;

/// Packets of the file.
const PACKETS: u64 = 5_200_000;
/// Connections that transfer at a time.
const PARALLEL: u32 = 16;
/// Pairs of runs of the quick programs; the median of their ratios is what counts.
const ROUNDS: usize = 9;
/// How often memory is looked at; the kernel keeps the mark in between.
const LOOK: Duration = Duration::from_millis(5);
/// What tshark is asked for, per packet.
const FIELDS: [&str; 9] = [
    "frame.time_epoch",
    "ip.src",
    "ip.dst",
    "tcp.stream",
    "tcp.len",
    "tcp.analysis.retransmission",
    "tcp.analysis.out_of_order",
    "tcp.analysis.duplicate_ack",
    "tcp.analysis.ack_rtt",
];

/// One run of a program.
#[derive(Debug, Clone, Copy)]
struct Cost {
    seconds: f64,
    cpu_s: f64,
    peak_mib: f64,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test` also runs benches, with --test: building them is enough there.
    if arguments.iter().any(|argument| argument == "--test") {
        return Ok(());
    }
    let packets = arguments.iter().find_map(|one| one.parse().ok());
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("generated.pcap");
    let mut out = BufWriter::with_capacity(1 << 20, File::create(&path)?);
    let truth = traffic::write(&mut out, packets.unwrap_or(PACKETS), PARALLEL)?;
    drop(out);
    let mib = path.metadata()?.len() >> 20;
    println!(
        "{} packets, {mib} MiB, {PARALLEL} connections at a time",
        truth.packets
    );
    check(&path, &truth)?;
    let analyze = |command: &mut Command| {
        command
            .args(["--quiet", "analyze", "--format", "json"])
            .arg(&path);
    };
    let ours = || cost(&mut binary::vpnbench(), analyze);
    let theirs = || {
        cost(&mut Command::new("tcptrace"), |command| {
            command.arg(&path);
        })
    };
    let ours = if is_there("tcptrace") {
        let rounds = pairs(ours, theirs)?;
        let ours = median(rounds.iter().map(|pair| pair.0));
        row("vpnbench analyze", ours);
        row("tcptrace", median(rounds.iter().map(|pair| pair.1)));
        let ratio = |pair: &(Cost, Cost)| pair.1.seconds / pair.0.seconds;
        let mut ratios: Vec<f64> = rounds.iter().map(ratio).collect();
        ratios.sort_by(f64::total_cmp);
        println!(
            "  {:.2} times as fast as tcptrace ({:.2} to {:.2} in {ROUNDS} pairs)   (reach: 1.5)",
            ratios[ROUNDS / 2],
            ratios[0],
            ratios[ROUNDS - 1]
        );
        ours
    } else {
        let rounds: Result<Vec<Cost>> = (0..ROUNDS).map(|_| ours()).collect();
        let ours = median(rounds?.into_iter());
        row("vpnbench analyze", ours);
        ours
    };
    if !arguments.iter().any(|argument| argument == "only") && is_there("tshark") {
        let theirs = cost(&mut Command::new("tshark"), |command| {
            command.arg("-r").arg(&path).args(["-T", "fields"]);
            for field in FIELDS {
                command.args(["-e", field]);
            }
        })?;
        row("tshark -T fields", theirs);
        println!(
            "  {:.0} times as fast as tshark     (reach: 100)",
            theirs.seconds / ours.seconds
        );
    }
    println!(
        "  {:.0} MiB                         (reach: 256)",
        ours.peak_mib
    );
    Ok(())
}

/// What is measured is right: packets and retransmissions as the file's maker counted them.
fn check(path: &Path, truth: &traffic::Truth) -> Result<()> {
    let output = binary::vpnbench()
        .args(["--quiet", "analyze", "--format", "json"])
        .arg(path)
        .output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let found = report["retransmits"]["total"].as_u64();
    ensure!(
        found == Some(truth.retransmitted),
        "{found:?} retransmissions, {} were made",
        truth.retransmitted
    );
    let flows = report["flows"].as_array().context("flows")?;
    let packets: u64 = flows
        .iter()
        .filter_map(|flow| flow["packets"].as_u64())
        .sum();
    ensure!(
        packets == truth.packets,
        "{packets} packets, {} were made",
        truth.packets
    );
    Ok(())
}

/// Whether a program is installed; says so if it is not.
fn is_there(name: &str) -> bool {
    let found = Command::new(name)
        .arg("-v")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if found.is_err() {
        println!("  skipped: {name} is not installed");
    }
    found.is_ok()
}

/// Both programs by turns: how fast the machine is changes from one minute to the next.
fn pairs(
    ours: impl Fn() -> Result<Cost>,
    theirs: impl Fn() -> Result<Cost>,
) -> Result<Vec<(Cost, Cost)>> {
    (0..ROUNDS).map(|_| Ok((ours()?, theirs()?))).collect()
}

/// The median by time.
fn median(all: impl Iterator<Item = Cost>) -> Cost {
    let mut all: Vec<Cost> = all.collect();
    all.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    all[all.len() / 2]
}

fn cost(command: &mut Command, arguments: impl FnOnce(&mut Command)) -> Result<Cost> {
    arguments(command);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let began = Instant::now();
    let mut child = command.spawn()?;
    let pid = i32::try_from(child.id())?;
    let ended = AtomicBool::new(false);
    let peak_bytes = std::thread::scope(|scope| {
        let watch = scope.spawn(|| peak(pid, &ended));
        let end = waitid(
            Id::Pid(Pid::from_raw(pid)),
            WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT,
        );
        ended.store(true, Ordering::Relaxed);
        end.map_err(anyhow::Error::from)?;
        watch
            .join()
            .map_err(|_| anyhow::anyhow!("the watch panicked"))
    });
    let seconds = began.elapsed().as_secs_f64();
    // What has ended and was not waited for still has its times.
    let stat = Process::new(pid)?.stat()?;
    let status = child.wait()?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(Cost {
        seconds,
        cpu_s: (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64,
        peak_mib: peak_bytes? as f64 / f64::from(1 << 20),
    })
}

/// The most memory that was resident, by the kernel's own mark, read until the process ends.
fn peak(pid: i32, ended: &AtomicBool) -> u64 {
    let mut most = 0;
    while !ended.load(Ordering::Relaxed) {
        let status = Process::new(pid).and_then(|process| process.status());
        let mark = status.ok().and_then(|status| status.vmhwm);
        most = most.max(mark.unwrap_or(0) * 1024);
        std::thread::sleep(LOOK);
    }
    most
}

fn row(name: &str, cost: Cost) {
    println!(
        "  {name:<18} {:>7.2} s, {:>7.2} s of CPU, {:>6.0} MiB",
        cost.seconds, cost.cpu_s, cost.peak_mib
    );
}
