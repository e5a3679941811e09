//! Every VPN of the lab that is installed here: it comes up, carries a benchmark, vpnbench finds
//! its device, daemon and outer socket, and it leaves nothing behind. Needs root.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;
use vpnbench::lab::hosts::TopologyKind;
use vpnbench::lab::vpn::listing::{self, Listed};
use vpnbench::lab::vpn::{Build, Spec};
use vpnbench::lab::{self, Bench, LabError, LabOptions, Vpn, benchmark};
use vpnbench_tests::binary;

type Outcome = Result<(), Failed>;

const TUN: &str = "/dev/net/tun";
/// VPNs whose adapters must connect three hosts.
const RING: [Vpn; 5] = [
    Vpn::None,
    Vpn::WireguardGo,
    Vpn::Nebula,
    Vpn::Tinc,
    Vpn::Yggdrasil,
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Two cores: daemons of several runs would starve each other.
    arguments.test_threads = Some(1);
    let mut trials = Vec::new();
    for listed in listing::list().vpns {
        let Ok(vpn) = listed.name.parse::<Vpn>() else {
            continue;
        };
        if vpn != Vpn::None {
            let name = format!("{}_is_seen_at_work_and_vanishes", listed.name);
            trials.push(trial(name, &listed, move || is_seen_at_work(vpn)));
        }
        for found in other_builds(&listed) {
            let build = found;
            let name = format!("{}_of_another_build_carries_packets", listed.name);
            trials.push(trial(name, &listed, move || {
                carries(vpn, build, TopologyKind::Pair)
            }));
        }
        if RING.contains(&vpn) {
            let name = format!("{}_connects_three_hosts", listed.name);
            trials.push(trial(name, &listed, move || {
                carries(vpn, Build::Any, TopologyKind::Ring)
            }));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(name: String, listed: &Listed, case: impl FnOnce() -> Outcome + Send + 'static) -> Trial {
    let skip = if !nix::unistd::geteuid().is_root() {
        Some("skipped: needs root".to_owned())
    } else if !Path::new(TUN).exists() {
        Some(format!("skipped: {TUN} not found"))
    } else if listed.name == "wireguard" && !kernel_has_wireguard() {
        Some("skipped: the kernel's wireguard module not found".to_owned())
    } else {
        let missing = listed.missing.first();
        missing.map(|program| format!("skipped: {program} not found"))
    };
    let trial = Trial::test(name, case);
    match skip {
        Some(reason) => trial.with_ignored_flag(true).with_kind(reason),
        None => trial,
    }
}

/// The builds of the daemon that a run does not take by itself.
fn other_builds(listed: &Listed) -> Vec<Build> {
    let daemon = listed.found.first().map(|found| found.program.clone());
    let found = listed.found.iter();
    found
        .filter(|found| Some(&found.program) == daemon.as_ref() && !found.preferred)
        .map(|found| found.build)
        .collect()
}

/// Asked by trying: a lab run of it is a skipped one where the kernel has none.
fn kernel_has_wireguard() -> bool {
    let started = lab::start(&options(Spec::from(Vpn::Wireguard), TopologyKind::Pair));
    !matches!(started, Err(LabError::Skipped(_)))
}

fn options(vpn: Spec, kind: TopologyKind) -> LabOptions {
    let mut benchmark = benchmark::Spec::from(Bench::Ping);
    benchmark.set_duration(Duration::from_secs(1));
    LabOptions {
        vpn,
        benchmark,
        topology: lab::Topology {
            kind,
            ..lab::Topology::default()
        },
        wire: lab::WireSpec::default(),
        seed: 1,
        sysctls: lab::Sysctls::default(),
        cpus: lab::Cpus::default(),
        logs: None,
    }
}

/// A run counts as started only once packets have passed between every two hosts.
fn carries(vpn: Vpn, build: Build, kind: TopologyKind) -> Outcome {
    let spec = Spec {
        name: vpn,
        build,
        ..Spec::default()
    };
    let run = lab::start(&options(spec, kind))?;
    let hosts = run.hosts.iter().count();
    check(run.tunnel.ends().count() == hosts, "an end is missing")?;
    let output = run.client()?.output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    check(
        text.contains(" 0% packet loss"),
        format!("ping lost packets: {text}"),
    )?;
    let id = run.id.clone();
    let pids: Vec<u32> = run
        .tunnel
        .ends()
        .filter_map(|end| end.daemon.as_ref())
        .map(lab::Process::pid)
        .collect();
    run.finish()?;
    check_gone(&id, &pids)
}

fn is_seen_at_work(vpn: Vpn) -> Outcome {
    let folder = tempfile::tempdir()?;
    let output = binary::vpnbench()
        .args(["lab", "run", "--vpn", vpn.name(), "--bench", "tcp"])
        .args([
            "--set",
            "benchmark.duration=1s",
            "--report",
            "json",
            "--output",
        ])
        .arg(folder.path())
        .output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    check(output.status.success(), format!("it failed: {errors}"))?;
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let tunnels = report["tunnels"].as_array().cloned().unwrap_or_default();
    check(tunnels.len() == 2, format!("not two ends: {tunnels:?}"))?;
    let mut id = String::new();
    let mut pids = Vec::new();
    for tunnel in &tunnels {
        let namespace = tunnel["namespace"].as_str().unwrap_or_default();
        id = namespace.split('-').nth(1).unwrap_or_default().to_owned();
        check(id.len() == 6, format!("no run in namespace {namespace:?}"))?;
        let outer = &tunnel["outer"];
        check(outer.is_object(), format!("no outer side: {tunnel}"))?;
        if vpn == Vpn::Wireguard {
            continue;
        }
        let pid = tunnel["daemon"]["pid"].as_u64().unwrap_or_default();
        check(pid > 0, format!("no daemon: {tunnel}"))?;
        pids.push(u32::try_from(pid)?);
        let protocol = outer["protocol"].as_str().unwrap_or_default();
        check(
            ["udp", "tcp"].contains(&protocol),
            format!("outer side: {outer}"),
        )?;
    }
    let taps = report["taps"].as_array().cloned().unwrap_or_default();
    let counted = |name: &str, device: &str| {
        taps.iter().any(|tap| {
            let on = tap["device"].as_str().unwrap_or_default();
            tap["tap"] == name && on.starts_with(device) && tap["segments"].as_u64() > Some(10)
        })
    };
    check(
        counted("outer.tx", "wire-"),
        "no packets of the daemon on the wire",
    )?;
    let written = vpn == Vpn::Wireguard || counted("tun.write", "");
    check(written, "no packets out of the tunnel")?;
    if vpn == Vpn::Wireguard {
        workers_are_known(&report["threads"])?;
    }
    check_gone(&id, &pids)
}

/// Workers that serve the kernel's queues were there before the recording and do the tunnel's work.
fn workers_are_known(threads: &Value) -> Outcome {
    let rows = threads.as_array().cloned().unwrap_or_default();
    let unnamed = rows.iter().filter(|row| row["comm"] == "?").count();
    check(unnamed == 0, format!("{unnamed} threads without a name"))?;
    let workers = rows.iter().filter(|row| {
        let name = row["comm"].as_str().unwrap_or_default();
        name.starts_with("kworker/") && row["role"] == "kernel"
    });
    let cpu_s: f64 = workers.filter_map(|row| row["cpu_s"].as_f64()).sum();
    check(cpu_s > 0.0, "no CPU time of kworkers")
}

/// Nothing with the run's id is left where runs and daemons put things, and no daemon runs.
fn check_gone(id: &str, pids: &[u32]) -> Outcome {
    let folders = ["/run", "/run/netns", "/run/vpnbench", "/var/run/wireguard"];
    let names = folders.iter().flat_map(|folder| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path().display().to_string())
    });
    let files = names.filter(|name| name.contains(id));
    let running = pids.iter().filter(|pid| is_running(**pid));
    let processes = running.map(|pid| format!("process {pid}"));
    let left: Vec<String> = files.chain(processes).collect();
    check(left.is_empty(), format!("left behind: {}", left.join(", ")))
}

/// A zombie has ended: an orphan stays one until the machine's init gets round to it.
fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

fn check(holds: bool, otherwise: impl Into<String>) -> Outcome {
    if holds {
        Ok(())
    } else {
        Err(Failed::from(otherwise.into()))
    }
}
