//! What watching costs, measured as CPU time for fixed work and paired with tcpdump in one run.
//!
//! A sender in one namespace floods a veth pair with small datagrams to a foreign hardware
//! address, so that the other end drops them as early as possible and nothing but the path is
//! paid for. Rounds alternate: nobody watches, tcpdump on both ends, vpnbench at the same two
//! points. The difference in busy time of the whole machine, divided by packets and points, is
//! the cost; medians over the rounds. Run it on an otherwise idle machine as root:
//! `cargo xtask bench`.
#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use aya::sys::{Stats, enable_stats};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use procfs::CurrentSI as _;
use vpnbench_tests::binary;
use vpnbench_tests::netns::{Namespace, connect, wait_for};

/// Datagrams of one round of the comparison.
const PACKETS: u64 = 1_500_000;
/// Rounds of the comparison.
const ROUNDS: usize = 5;
/// Time of the endurance phase.
const ENDURANCE: Duration = Duration::from_secs(10);
/// Payload bytes of a datagram.
const PAYLOAD: usize = 64;
/// How long to wait for a program to be ready or to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// The device between the namespaces.
const WIRE: &str = "vd0";
/// Ring buffer of vpnbench in every phase.
const BUFFER_MIB: u64 = 128;

/// Two namespaces and a place for files.
struct Bench {
    a: Namespace,
    b: Namespace,
    directory: tempfile::TempDir,
}

/// A part of the benchmark; arguments name those to run, none means all.
type Phase = fn(&Bench) -> Result<()>;

/// Programs that watch during a round.
struct Watchers(Vec<Child>);

fn main() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: needs root");
        return Ok(());
    }
    // `cargo test` also runs benches, with --test: building them is enough there.
    if std::env::args().any(|argument| argument == "--test") {
        return Ok(());
    }
    let bench = Bench::new()?;
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let phases: [(&str, Phase); 3] = [
        ("compare", Bench::compare),
        ("kernel", Bench::kernel_time),
        ("endurance", Bench::endurance),
    ];
    for (_, phase) in phases
        .iter()
        .filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|one| one == name))
    {
        phase(&bench)?;
    }
    Ok(())
}

impl Bench {
    fn new() -> Result<Self> {
        let (a, b) = (Namespace::new()?, Namespace::new()?);
        connect(&a, &b)?;
        // Foreign hardware address: the receiver drops it first thing (PACKET_OTHERHOST).
        a.ip("neigh replace 10.99.0.77 lladdr 02:00:00:00:00:77 dev vd0")?;
        let directory = tempfile::tempdir()?;
        Ok(Self { a, b, directory })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Sends datagrams from namespace a with two threads until `enough` of each; returns how many.
    fn flood(&self, enough: impl Fn(u64) -> bool + Send + Sync) -> Result<u64> {
        std::thread::scope(|scope| {
            let other = scope.spawn(|| self.send(&enough));
            let own = self.send(&enough)?;
            Ok(own
                + other
                    .join()
                    .map_err(|_| anyhow::anyhow!("a sender panicked"))??)
        })
    }

    /// Sends datagrams from namespace a until `enough`; returns how many.
    fn send(&self, enough: impl Fn(u64) -> bool + Send) -> Result<u64> {
        let netns = File::open(Path::new("/run/netns").join(&self.a.name))?;
        std::thread::scope(|scope| {
            let sender = scope.spawn(move || -> Result<u64> {
                setns(netns, CloneFlags::CLONE_NEWNET)?;
                let socket = UdpSocket::bind("0.0.0.0:0")?;
                socket.connect("10.99.0.77:9999")?;
                let payload = [0u8; PAYLOAD];
                let mut sent = 0;
                while !enough(sent) {
                    for _ in 0..256 {
                        // A full queue would be ENOBUFS; a veth has none.
                        socket.send(&payload)?;
                    }
                    sent += 256;
                }
                Ok(sent)
            });
            sender
                .join()
                .map_err(|_| anyhow::anyhow!("the sender panicked"))?
        })
    }

    fn tcpdump(&self) -> Result<Watchers> {
        let mut watchers = Watchers(Vec::new());
        for host in [&self.a, &self.b] {
            let file = self.path(&format!("{}.pcap", host.name));
            let _ = fs::remove_file(&file);
            let line = format!(
                "netns exec {} tcpdump -n -s 96 -B 65536 -i vd0 -w {}",
                host.name,
                file.display()
            );
            let mut command = Command::new("ip");
            command.args(line.split_whitespace());
            let child = command.stderr(Stdio::null()).spawn().context("tcpdump")?;
            watchers.0.push(child);
            // tcpdump writes the file header when its socket is open.
            ensure!(
                wait_for(PATIENCE, || file.metadata().is_ok()),
                "tcpdump does not start"
            );
        }
        Ok(watchers)
    }

    fn vpnbench(&self, probes: &str, device: &str) -> Result<(Watchers, Duration)> {
        let trace = self.path("run.vbt");
        let _ = fs::remove_file(&trace);
        let begun = Instant::now();
        let mut command = binary::vpnbench();
        command
            .args(["--quiet", "record", "--outer", device, "--probes", probes])
            .args(["--netns", &self.a.name, "--netns", &self.b.name])
            .args(["--buffer", &format!("{BUFFER_MIB}MiB")])
            .arg("--output")
            .arg(&trace);
        let watchers = Watchers(vec![command.spawn().context("vpnbench")?]);
        // The trace begins when everything is attached and watched.
        let ready = || fs::metadata(&trace).is_ok_and(|file| file.len() > 0);
        ensure!(wait_for(PATIENCE, ready), "vpnbench does not start");
        Ok((watchers, begun.elapsed()))
    }

    /// Busy seconds of the machine while one round of datagrams is sent and drained.
    fn round(&self, watch: impl FnOnce() -> Result<Watchers>) -> Result<f64> {
        let mut watchers = watch()?;
        let before = busy_s()?;
        self.send(|sent| sent >= PACKETS)?;
        watchers.stop()?;
        Ok(busy_s()? - before)
    }

    fn compare(&self) -> Result<()> {
        let (mut bare, mut dumped, mut watched) = (Vec::new(), Vec::new(), Vec::new());
        let points = "net_dev_start_xmit,netif_receive_skb";
        for _ in 0..ROUNDS {
            bare.push(self.round(|| Ok(Watchers(Vec::new())))?);
            dumped.push(self.round(|| self.tcpdump())?);
            watched.push(self.round(|| Ok(self.vpnbench(points, WIRE)?.0))?);
        }
        let per_packet_and_tap = |with: &[f64]| {
            let extra: Vec<f64> = with
                .iter()
                .zip(&bare)
                .map(|(with, bare)| with - bare)
                .collect();
            median(extra) / PACKETS as f64 / 2.0 * 1e6
        };
        let (tcpdump, vpnbench) = (per_packet_and_tap(&dumped), per_packet_and_tap(&watched));
        let report = self.report()?;
        let events = number(&report, &["capture", "events"])?;
        let lost = number(&report, &["capture", "lost"])?;
        let bytes = fs::metadata(self.path("run.vbt"))?.len() as f64;
        let dropped = self.packets_missing_in_pcaps()?;
        println!(
            "{PACKETS} datagrams, 2 taps, median of {ROUNDS} rounds, CPU time per packet and tap"
        );
        println!(
            "  tcpdump -s 96     {tcpdump:.3} us   ({dropped} packets not in its files, last round)"
        );
        println!(
            "  vpnbench          {vpnbench:.3} us   ({lost:.0} of {events:.0} events lost, last round)"
        );
        println!(
            "  ratio             {:.2}      (reach: at most 1.5)",
            vpnbench / tcpdump
        );
        println!(
            "  bytes per event   {:.1} on disk   (reach: at most 24)",
            bytes / events
        );
        Ok(())
    }

    /// What tcpdump did not store, from the sizes of its files (16 bytes per packet of overhead).
    fn packets_missing_in_pcaps(&self) -> Result<u64> {
        let record = (16 + 14 + 20 + 8 + PAYLOAD).min(16 + 96) as u64;
        let mut missing = 0;
        for host in [&self.a, &self.b] {
            let size = fs::metadata(self.path(&format!("{}.pcap", host.name)))?.len();
            missing += PACKETS.saturating_sub((size - 24) / record);
        }
        Ok(missing)
    }

    /// Kernel time per event by BPF's own statistics, which cost time themselves: its own round.
    /// A second round, in which other devices are watched, shows what of it is the statistics'
    /// two clock readings and the look whether the device is watched.
    fn kernel_time(&self) -> Result<()> {
        let _stats = enable_stats(Stats::RunTime).context("BPF statistics")?;
        let watched = self.ns_per_run(WIRE)?;
        let others = self.ns_per_run("lo")?;
        println!("kernel time per packet with BPF statistics on");
        for (name, ns) in &watched {
            let other = others.get(name).context("no such probe")?;
            println!(
                "  {name:<20} {ns:>4.0} ns, packets of other devices {other:>3.0} ns: the record costs {:>4.0} ns   (reach: at most 250 ns in all)",
                ns - other
            );
        }
        Ok(())
    }

    /// ns per run of each probe while packets pass the wire and `device` is watched.
    fn ns_per_run(&self, device: &str) -> Result<BTreeMap<String, f64>> {
        let (mut watchers, _) = self.vpnbench("packets", device)?;
        self.send(|sent| sent >= PACKETS)?;
        watchers.stop()?;
        let report = self.report()?;
        let probes = report["capture"]["probes"].as_array();
        let probes = probes.context("capture.probes")?.iter();
        let attached = probes.filter(|probe| probe["attached"] == true);
        attached
            .map(|probe| {
                let name = probe["name"].as_str().unwrap_or_default().to_owned();
                let ns = probe["ns_per_event"].as_f64().context("ns_per_event")?;
                Ok((name, ns))
            })
            .collect()
    }

    /// As many events as the machine makes for ten seconds, with the recorder on the same cores.
    fn endurance(&self) -> Result<()> {
        let (mut watchers, attached) = self.vpnbench("packets", WIRE)?;
        let cpu_before = watchers.cpu_s()?;
        let begun = Instant::now();
        let sent = self.flood(|_| begun.elapsed() >= ENDURANCE)?;
        let seconds = begun.elapsed().as_secs_f64();
        let peak = watchers.peak_bytes()?;
        let cpu = watchers.cpu_s()? - cpu_before;
        let stopping = Instant::now();
        watchers.stop()?;
        let detached = stopping.elapsed();
        let report = self.report()?;
        let events = number(&report, &["capture", "events"])?;
        let lost = number(&report, &["capture", "lost"])?;
        println!("{seconds:.0} s of flood, 3 taps, {sent} datagrams");
        println!(
            "  events per second {:.0}   (reach: 1,000,000)",
            events / seconds
        );
        println!("  lost              {lost:.0}   (reach: 0)");
        println!("  recorder CPU      {:.0} ns per event", cpu / events * 1e9);
        println!(
            "  attached in       {:.2} s   (reach: 1 s)",
            attached.as_secs_f64()
        );
        println!(
            "  stopped in        {:.2} s with the trace closed   (reach: 0.5 s to detach)",
            detached.as_secs_f64()
        );
        println!(
            "  peak memory       {} MiB with a buffer of {BUFFER_MIB} MiB   (reach: buffer + 64 MiB)",
            peak >> 20
        );
        Ok(())
    }

    fn report(&self) -> Result<serde_json::Value> {
        let output = binary::vpnbench()
            .args(["--quiet", "report", "--format", "json"])
            .arg(self.path("run.vbt"))
            .output()?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

impl Watchers {
    /// Ends them with SIGINT and waits.
    fn stop(&mut self) -> Result<()> {
        for child in &self.0 {
            kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGINT)?;
        }
        for child in &mut self.0 {
            let mut status = None;
            let ended = wait_for(PATIENCE, || {
                status = child.try_wait().ok().flatten();
                status.is_some()
            });
            if !ended {
                child.kill()?;
                bail!("a watcher does not end");
            }
        }
        self.0.clear();
        Ok(())
    }

    fn process(&self) -> Result<procfs::process::Process> {
        let child = self.0.first().context("no watcher")?;
        Ok(procfs::process::Process::new(i32::try_from(child.id())?)?)
    }

    fn cpu_s(&self) -> Result<f64> {
        let stat = self.process()?.stat()?;
        Ok((stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64)
    }

    fn peak_bytes(&self) -> Result<u64> {
        let peak = self.process()?.status()?.vmhwm.context("VmHWM")?;
        Ok(peak * 1024)
    }
}

impl Drop for Watchers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Busy seconds of all processors since boot.
fn busy_s() -> Result<f64> {
    let cpu = procfs::KernelStats::current()?.total;
    let busy = cpu.user + cpu.nice + cpu.system + cpu.irq.unwrap_or(0) + cpu.softirq.unwrap_or(0);
    Ok(busy as f64 / procfs::ticks_per_second() as f64)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn number(report: &serde_json::Value, path: &[&str]) -> Result<f64> {
    let found = path.iter().try_fold(report, |value, key| value.get(key));
    found
        .and_then(serde_json::Value::as_f64)
        .with_context(|| path.join("."))
}
