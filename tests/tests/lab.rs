//! The lab removes what it made, however a run ends, and never touches the caller's namespace.
//! Needs root. Cases that signal or kill a run do so to a child: this same program, started again.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vpnbench::lab::benchmark::Spec;
use vpnbench::lab::{self, Bench, LabError, LabOptions, Run, Vpn, signals};

/// Set in the child: it runs the lab instead of the tests.
#[path = "lab/cores.rs"]
mod cores;

const CHILD: &str = "VPNBENCH_LAB_CHILD";

type Outcome = Result<(), Failed>;

fn main() -> ExitCode {
    if std::env::var_os(CHILD).is_some() {
        return child();
    }
    let mut arguments = Arguments::from_args();
    // One after the other: each case compares the machine before and after.
    arguments.test_threads = Some(1);
    let trials = CASES.iter().map(trial).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

struct Case {
    name: &'static str,
    needs: &'static [&'static str],
    run: fn() -> Outcome,
}

const TUN: &str = "/dev/net/tun";
const WIREGUARD: &[&str] = &[TUN, "wireguard-go", "wg", "iperf3"];

const CASES: &[Case] = &[
    Case {
        name: "a_tunnel_carries_a_benchmark_and_vanishes",
        needs: WIREGUARD,
        run: carries_a_benchmark,
    },
    Case {
        name: "the_bare_wire_answers_and_vanishes",
        needs: &["ping"],
        run: bare_wire,
    },
    Case {
        name: "every_host_of_a_ring_reaches_every_other",
        needs: &["ping"],
        run: ring,
    },
    Case {
        name: "a_sysctl_is_set_in_its_host_only",
        needs: &["ping"],
        run: sysctl_of_a_host,
    },
    Case {
        name: "daemons_and_benchmark_keep_to_their_cores",
        needs: &[TUN, "iperf3"],
        run: cores::kept,
    },
    Case {
        name: "a_client_does_not_outlive_its_run",
        needs: &["ping"],
        run: client_is_ended,
    },
    Case {
        name: "a_daemon_that_ends_is_quoted",
        needs: &[TUN],
        run: daemon_that_ends,
    },
    Case {
        name: "a_daemon_that_never_comes_up_times_out",
        needs: &[TUN],
        run: daemon_that_hangs,
    },
    Case {
        name: "a_missing_daemon_is_a_skip",
        needs: &[TUN],
        run: missing_daemon,
    },
    Case {
        name: "a_panic_unwinds",
        needs: WIREGUARD,
        run: panic_unwinds,
    },
    Case {
        name: "sigint_ends_a_run",
        needs: WIREGUARD,
        run: sigint_ends_a_run,
    },
    Case {
        name: "sigint_ends_a_start",
        needs: &[TUN],
        run: sigint_ends_a_start,
    },
    Case {
        name: "down_removes_what_kill_9_left_and_nothing_else",
        needs: WIREGUARD,
        run: kill_then_down,
    },
];

fn trial(case: &'static Case) -> Trial {
    let has = |need: &str| match need.starts_with('/') {
        true => Path::new(need).exists(),
        false => lab::benchmark::is_installed(need),
    };
    let missing = case.needs.iter().find(|need| !has(need));
    let skip = match missing {
        _ if !nix::unistd::geteuid().is_root() => Some("skipped: needs root".to_owned()),
        Some(need) => Some(format!("skipped: {need} not found")),
        None => None,
    };
    let trial = Trial::test(case.name, || leaving_no_trace(case.run));
    match skip {
        Some(reason) => trial.with_ignored_flag(true).with_kind(reason),
        None => trial,
    }
}

fn lasting(bench: Bench, duration: Duration) -> Spec {
    let mut spec = Spec::from(bench);
    spec.set_duration(duration);
    spec
}

fn options(vpn: Vpn, bench: Bench) -> LabOptions {
    LabOptions {
        vpn: vpn.into(),
        benchmark: lasting(bench, Duration::from_secs(1)),
        topology: lab::Topology::default(),
        wire: lab::WireSpec::default(),
        seed: 1,
        sysctls: lab::Sysctls::default(),
        cpus: lab::Cpus::default(),
        logs: None,
    }
}

fn carries_a_benchmark() -> Outcome {
    let run = lab::start(&options(Vpn::WireguardGo, Bench::Tcp))?;
    let traces = Traces::of(&run);
    let output = run.client()?.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    check(
        output.status.success(),
        format!("the client failed: {text}"),
    )?;
    check(text.contains("sum_received"), format!("no summary: {text}"))?;
    let device = &run.tunnel.a.device;
    let devices = fs::read_to_string("/proc/net/dev")?;
    check(
        !devices.contains(device.as_str()),
        format!("{device} is in the caller's namespace"),
    )?;
    run.finish()?;
    traces.check_gone()
}

fn bare_wire() -> Outcome {
    let run = lab::start(&options(Vpn::None, Bench::Ping))?;
    let traces = Traces::of(&run);
    let output = run.client()?.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    check(
        text.contains(" 0% packet loss"),
        format!("ping lost packets: {text}"),
    )?;
    drop(run);
    traces.check_gone()
}

fn ring() -> Outcome {
    let topology = lab::Topology {
        kind: lab::TopologyKind::Ring,
        ..lab::Topology::default()
    };
    let run = lab::start(&LabOptions {
        topology,
        ..options(Vpn::None, Bench::Ping)
    })?;
    let traces = Traces::of(&run);
    let labels: Vec<&str> = run.hosts.iter().map(|host| host.label.as_str()).collect();
    check(labels == ["lom", "yuki", "luna"], format!("{labels:?}"))?;
    for (from, to) in run.hosts.links() {
        let mut addresses = vec![to.ipv4.to_string()];
        addresses.extend(to.ipv6.map(|address| address.to_string()));
        for address in addresses {
            let mut ping = lab::netns::command(&from.netns, "ping")?;
            let output = ping
                .args(["-c", "3", "-i", "0.05", "-W", "2", &address])
                .output()?;
            let text = String::from_utf8_lossy(&output.stdout);
            let (from, to) = (&from.label, &to.label);
            check(
                text.contains(" 0% packet loss"),
                format!("{from} to {to} at {address}: {text}"),
            )?;
        }
    }
    drop(run);
    traces.check_gone()
}

fn sysctl_of_a_host() -> Outcome {
    const NAME: &str = "/proc/sys/net/ipv4/tcp_reordering";
    let only_a = |name: &str, value: &str| {
        let mut options = options(Vpn::None, Bench::Ping);
        let entries = options.sysctls.hosts.entry("a".to_owned()).or_default();
        entries.insert(name.to_owned(), value.to_owned());
        options
    };
    let read = |host: &lab::Host| -> Result<String, Failed> {
        let output = lab::netns::command(&host.netns, "cat")?
            .arg(NAME)
            .output()?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let run = lab::start(&only_a("net.ipv4.tcp_reordering", "17"))?;
    check(read(&run.hosts.a)? == "17", "it was not set")?;
    check(read(&run.hosts.b)? != "17", "the other host changed too")?;
    run.finish()?;
    for name in [
        "net.core.rmem_max_of_nobody",
        "kernel.sysrq",
        "net.../../kernel/sysrq",
    ] {
        let refused = lab::start(&only_a(name, "1"));
        let text = refused
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default();
        check(text.contains(name), format!("{name}: {text}"))?;
    }
    Ok(())
}

fn client_is_ended() -> Outcome {
    let duration = Duration::from_secs(600);
    let run = lab::start(&LabOptions {
        benchmark: lasting(Bench::Ping, duration),
        ..options(Vpn::None, Bench::Ping)
    })?;
    let mut client = run.client()?.stdout(Stdio::null()).spawn()?;
    check(client.try_wait()?.is_none(), "the client ended at once")?;
    run.finish()?;
    let ended = client.try_wait()?;
    let _reaped = client.kill().and_then(|()| client.wait());
    check(ended.is_some(), "the client outlived its run")
}

fn daemon_that_ends() -> Outcome {
    let text = failing_start("echo 'no such device today' >&2; exit 3")?;
    check(
        text.contains("wireguard-go ended"),
        format!("unexpected: {text}"),
    )?;
    check(
        text.contains("no such device today"),
        format!("the log is not quoted: {text}"),
    )
}

fn daemon_that_hangs() -> Outcome {
    let text = failing_start("echo thinking; exec sleep 1000")?;
    check(text.contains("waited 10 s"), format!("unexpected: {text}"))?;
    check(
        text.contains("thinking"),
        format!("the log is not quoted: {text}"),
    )
}

fn missing_daemon() -> Outcome {
    let empty = tempfile::tempdir()?;
    let output = child_command()
        .env("PATH", empty.path())
        .env("XDG_CACHE_HOME", empty.path())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    check(
        text.contains("skipped: wireguard-go not found"),
        format!("unexpected: {text}"),
    )
}

fn panic_unwinds() -> Outcome {
    let run = lab::start(&options(Vpn::WireguardGo, Bench::Tcp))?;
    let traces = Traces::of(&run);
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _run = run;
        panic!("in the middle of a run");
    }));
    std::panic::set_hook(hook);
    check(result.is_err(), "it did not panic")?;
    traces.check_gone()
}

fn sigint_ends_a_run() -> Outcome {
    let mut held = Held::start(&mut child_command())?;
    let traces = held.traces()?;
    kill(held.pid(), Signal::SIGINT)?;
    held.child.wait()?;
    traces.check_gone()
}

fn sigint_ends_a_start() -> Outcome {
    let fake = fake_daemon("touch \"$0.started\"; exec sleep 1000")?;
    let mut child = child_with(&fake).stdout(Stdio::piped()).spawn()?;
    let started = fake.path().join("wireguard-go.started");
    wait_for("the daemon to start", || started.exists())?;
    let asked = Instant::now();
    kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGINT)?;
    child.wait()?;
    check(
        asked.elapsed() < Duration::from_secs(4),
        "it took the whole time limit",
    )
}

fn kill_then_down() -> Outcome {
    let live = lab::start(&options(Vpn::WireguardGo, Bench::Tcp))?;
    let mut held = Held::start(&mut child_command())?;
    let traces = held.traces()?;
    held.child.kill()?;
    held.child.wait()?;
    check(!traces.left().is_empty(), "nothing was left to remove")?;
    lab::down()?;
    traces.check_gone()?;
    check(
        live.client()?.output()?.status.success(),
        "the live run was touched",
    )?;
    Ok(live.finish()?)
}

// The child: holds a run until a signal arrives.

fn child() -> ExitCode {
    match lab::start(&options(Vpn::WireguardGo, Bench::Tcp)) {
        Ok(run) => {
            announce(&Traces::of(&run).to_line());
            while signals::received() == 0 {
                thread::park_timeout(Duration::from_millis(20));
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            announce(&error.to_string());
            ExitCode::from(if matches!(error, LabError::Interrupted) {
                130
            } else {
                1
            })
        }
    }
}

#[allow(clippy::print_stdout, reason = "the parent reads this line")]
fn announce(line: &str) {
    println!("{line}");
}

fn child_command() -> Command {
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"));
    let mut command = Command::new(program);
    command.env(CHILD, "1");
    command
}

/// A child that finds the program in `fake` instead of the real daemon.
fn child_with(fake: &tempfile::TempDir) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = child_command();
    command.env("PATH", format!("{}:{path}", fake.path().display()));
    command
}

fn fake_daemon(script: &str) -> Result<tempfile::TempDir, Failed> {
    let folder = tempfile::tempdir()?;
    let program = folder.path().join("wireguard-go");
    fs::write(&program, format!("#!/bin/sh\n{script}\n"))?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    Ok(folder)
}

/// What the child says when its daemon is this script.
fn failing_start(script: &str) -> Result<String, Failed> {
    let fake = fake_daemon(script)?;
    let output = child_with(&fake).output()?;
    check(!output.status.success(), "the start succeeded")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A child that holds a run; it does not outlive its test.
struct Held {
    child: Child,
}

impl Held {
    fn start(command: &mut Command) -> Result<Held, Failed> {
        Ok(Held {
            child: command.stdout(Stdio::piped()).spawn()?,
        })
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX))
    }

    fn traces(&mut self) -> Result<Traces, Failed> {
        let stdout = self.child.stdout.take().ok_or("no standard output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        Traces::from_line(&line).ok_or_else(|| Failed::from(format!("it said: {line}")))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Already ended in the good case; then both fail, which is fine.
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// By what a run can be found on the machine.
struct Traces {
    id: String,
    pids: Vec<u32>,
}

impl Traces {
    fn of(run: &Run) -> Traces {
        let ends = [&run.tunnel.a.daemon, &run.tunnel.b.daemon, &run.server];
        let pids = ends.into_iter().flatten().map(lab::Process::pid).collect();
        Traces {
            id: run.id.clone(),
            pids,
        }
    }

    fn to_line(&self) -> String {
        let pids: Vec<String> = self.pids.iter().map(u32::to_string).collect();
        format!("{} {}", self.id, pids.join(" "))
    }

    fn from_line(line: &str) -> Option<Traces> {
        let mut words = line.split_whitespace();
        let id = words.next()?.to_owned();
        let pids: Option<Vec<u32>> = words.map(|word| word.parse().ok()).collect();
        Some(Traces {
            id,
            pids: pids.filter(|pids| !pids.is_empty())?,
        })
    }

    fn left(&self) -> Vec<String> {
        let names = |folder: &str| -> Vec<String> {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            entries
                .map(|entry| entry.path().display().to_string())
                .collect()
        };
        let folders = ["/run/netns", "/run/vpnbench", "/var/run/wireguard"];
        let files = folders
            .into_iter()
            .flat_map(names)
            .filter(|name| name.contains(&self.id));
        let processes = self.pids.iter().filter(|pid| is_running(**pid));
        files
            .chain(processes.map(|pid| format!("process {pid}")))
            .collect()
    }

    fn check_gone(&self) -> Outcome {
        let left = self.left();
        check(left.is_empty(), format!("left behind: {}", left.join(", ")))
    }
}

/// A zombie has ended: an orphan stays one until the machine's init gets round to it.
fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

/// The caller's namespace: links, routes and settings.
fn snapshot() -> BTreeMap<String, String> {
    let mut snapshot = BTreeMap::new();
    let links = fs::read_dir("/sys/class/net")
        .into_iter()
        .flatten()
        .flatten();
    for link in links {
        snapshot.insert(
            format!("link {}", link.file_name().to_string_lossy()),
            String::new(),
        );
    }
    let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
    snapshot.insert("routes".to_owned(), routes);
    for route in fs::read_to_string("/proc/net/ipv6_route")
        .unwrap_or_default()
        .lines()
    {
        // Destination, next hop and device; the columns between count uses.
        let fields: Vec<&str> = route.split_whitespace().collect();
        let device = fields.last().copied().unwrap_or_default();
        let key = [&fields[..5.min(fields.len())], &[device]]
            .concat()
            .join(" ");
        snapshot.insert(format!("route6 {key}"), String::new());
    }
    add_settings(Path::new("/proc/sys/net"), &mut snapshot);
    snapshot
}

fn add_settings(folder: &Path, snapshot: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            add_settings(&path, snapshot);
        } else if !path.ends_with("nf_conntrack_count") {
            let value = fs::read_to_string(&path).unwrap_or_default();
            snapshot.insert(path.display().to_string(), value);
        }
    }
}

/// Runs a case and compares the caller's namespace before and after.
fn leaving_no_trace(case: fn() -> Outcome) -> Outcome {
    let before = snapshot();
    case()?;
    let after = snapshot();
    let differs = |name: &&String| before.get(*name) != after.get(*name);
    let changed: Vec<&String> = before.keys().chain(after.keys()).filter(differs).collect();
    check(
        changed.is_empty(),
        format!("the caller's namespace changed: {changed:?}"),
    )
}

fn wait_for(what: &str, condition: impl Fn() -> bool) -> Outcome {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        check(Instant::now() < deadline, format!("waited 10 s for {what}"))?;
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn check(holds: bool, otherwise: impl Into<String>) -> Outcome {
    if holds {
        Ok(())
    } else {
        Err(Failed::from(otherwise.into()))
    }
}
