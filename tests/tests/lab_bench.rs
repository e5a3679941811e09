//! Each benchmark of the lab over the bare wire, the reference tunnel and real daemons gives a
//! plausible result that agrees with independent counts, and failures are said. Needs root.
//!
//! By default the bare wire and wireguard-go; `-- --include-ignored` adds the reference tunnel and
//! the other daemons, which takes several minutes.
//!
//! The counts it is held against: bytes that the tunnel's devices counted, and what the other end's
//! program counted. How fast anything went is not judged.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vpnbench::analysis::benchmark::{self, Benchmark};
use vpnbench::lab::benchmark::spec::{Http, LoadLatency, Ping, Quic, Stream, Tcp};
use vpnbench::lab::benchmark::{Span, Spec, is_installed};
use vpnbench::lab::vpn::listing::{self, Listed};
use vpnbench::lab::{self, Bench, LabOptions, Run, Topology, Vpn, WireSpec};
use vpnbench::trace::model::CommandOutput;
use vpnbench_tests::trials::Trials;

type Outcome = Result<(), Failed>;

const TUN: &str = "/dev/net/tun";

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Two cores; each case starts daemons at both ends.
    arguments.test_threads = Some(1);
    if std::env::var_os("VPNBENCH").is_none() {
        return rerun_with_program();
    }
    let mut trials = Trials::new(&arguments);
    let vpns = listing::list().vpns;
    let add = |trials: &mut Trials, name: String, vpn: Vpn, case: &'static Case, often: bool| {
        let missing = missing(vpn, case, &vpns);
        let trial = Trial::test(name, move || (case.run)(vpn));
        match often {
            true => trials.add(trial, missing.as_deref()),
            false => trials.add_on_demand(trial, "takes long", missing.as_deref()),
        }
    };
    for (vpns, often) in [(OFTEN, true), (ON_DEMAND, false)] {
        for &vpn in vpns {
            for case in CASES {
                let name = format!("{}_over_{}", case.name, vpn.name());
                add(&mut trials, name, vpn, case, often);
            }
        }
    }
    for case in FAILURES {
        add(&mut trials, case.name.to_owned(), Vpn::None, case, true);
    }
    libtest_mimic::run(&arguments, trials.finish()).exit_code()
}

/// What every run of the suite covers.
const OFTEN: &[Vpn] = &[Vpn::None, Vpn::WireguardGo];
/// What it covers when asked.
const ON_DEMAND: &[Vpn] = &[
    Vpn::Reference,
    Vpn::Tinc,
    Vpn::Nebula,
    Vpn::Openvpn,
    Vpn::Yggdrasil,
    Vpn::Vpncloud,
    Vpn::Easytier,
];

/// The lab's own clients and servers are in the program, not in this test.
fn rerun_with_program() -> ExitCode {
    let this = std::env::current_exe().unwrap_or_default();
    let program = this
        .parent()
        .and_then(Path::parent)
        .map(|folder| folder.join("vpnbench"));
    let status = Command::new(&this)
        .args(std::env::args_os().skip(1))
        .env("VPNBENCH", program.unwrap_or_default())
        .status();
    match status.ok().and_then(|status| status.code()) {
        Some(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        None => ExitCode::FAILURE,
    }
}

struct Case {
    name: &'static str,
    needs: &'static [&'static str],
    run: fn(Vpn) -> Outcome,
}

const CASES: &[Case] = &[
    Case {
        name: "tcp",
        needs: &["iperf3"],
        run: tcp,
    },
    Case {
        name: "tcp_both_ways",
        needs: &["iperf3"],
        run: tcp_both_ways,
    },
    Case {
        name: "udp",
        needs: &["iperf3"],
        run: udp,
    },
    Case {
        name: "parallel",
        needs: &["iperf3"],
        run: parallel,
    },
    Case {
        name: "ping",
        needs: &["ping"],
        run: ping,
    },
    Case {
        name: "load_latency",
        needs: &[],
        run: load_latency,
    },
    Case {
        name: "quic",
        needs: &[],
        run: quic,
    },
    Case {
        name: "stream",
        needs: &[],
        run: stream,
    },
    Case {
        name: "stream_librist",
        needs: &["ristsender", "ristreceiver"],
        run: stream_librist,
    },
    Case {
        name: "http",
        needs: &[],
        run: http,
    },
    Case {
        name: "connect",
        needs: &[],
        run: connect,
    },
    Case {
        name: "reconnect",
        needs: &[],
        run: reconnect,
    },
];

const FAILURES: &[Case] = &[
    Case {
        name: "a_server_that_dies_is_said",
        needs: &["iperf3"],
        run: server_dies,
    },
    Case {
        name: "a_port_in_use_is_said",
        needs: &[],
        run: port_in_use,
    },
    Case {
        name: "an_unknown_congestion_control_is_said",
        needs: &["iperf3"],
        run: no_such_congestion,
    },
];

/// What this machine lacks for a case.
fn missing(vpn: Vpn, case: &Case, vpns: &[Listed]) -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root".to_owned());
    }
    if vpn != Vpn::None && !Path::new(TUN).exists() {
        return Some(format!("{TUN} not found"));
    }
    let listed = vpns.iter().find(|listed| listed.name == vpn.name());
    let tool = case.needs.iter().find(|need| !is_installed(need));
    let missing = tool
        .copied()
        .or_else(|| Some(listed?.missing.first()?.as_str()));
    missing.map(|missing| format!("{missing} not found"))
}

fn check(holds: bool, why: impl Into<String>) -> Outcome {
    if holds {
        Ok(())
    } else {
        Err(why.into().into())
    }
}

fn start(vpn: Vpn, spec: Spec, logs: &Path) -> Result<Run, Failed> {
    Ok(lab::start(&LabOptions {
        vpn: vpn.into(),
        benchmark: spec,
        topology: Topology::default(),
        wire: WireSpec::default(),
        seed: 1,
        sysctls: lab::Sysctls::default(),
        cpus: lab::Cpus::default(),
        logs: Some(logs.to_owned()),
    })?)
}

/// A finished benchmark and what the devices counted meanwhile.
struct Measured {
    result: Benchmark,
    /// Bytes that b's tunnel device received, and sent.
    b_received: u64,
    b_sent: u64,
    logs: tempfile::TempDir,
}

fn measure(vpn: Vpn, spec: Spec) -> Result<Measured, Failed> {
    let logs = tempfile::tempdir()?;
    let mut run = start(vpn, spec, logs.path())?;
    let device = run.tunnel.b.device.clone();
    let netns = run.hosts.b.netns.clone();
    let before = counters(&netns, &device)?;
    let mut client = run.client()?;
    let output = std::thread::scope(|scope| {
        let client = scope.spawn(move || client.output());
        let attended = run.attend(&|| client.is_finished());
        (client.join(), attended)
    });
    output.1?;
    let output = output.0.map_err(|_| "the client's thread panicked")??;
    let after = counters(&netns, &device).unwrap_or(before);
    let mut text = CommandOutput::new(false);
    text.push(0, &output.stdout);
    let read = benchmark::read(&run.client_command, &text, None);
    let (result, problems) = read.ok_or("the output was not understood")?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    check(
        output.status.success() && result.complete,
        format!(
            "{problems:?} {errors} {}",
            String::from_utf8_lossy(&output.stdout)
        ),
    )?;
    run.finish()?;
    Ok(Measured {
        result,
        b_received: after.0.saturating_sub(before.0),
        b_sent: after.1.saturating_sub(before.1),
        logs,
    })
}

/// Received and sent bytes of a device.
fn counters(netns: &Path, device: &str) -> Result<(u64, u64), Failed> {
    let read = || -> std::io::Result<String> {
        lab::enter_netns(netns)?;
        fs::read_to_string("/proc/thread-self/net/dev")
    };
    let text = std::thread::scope(|scope| scope.spawn(read).join());
    let text = text.map_err(|_| "the thread panicked")??;
    let prefix = format!("{device}:");
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix(&prefix));
    let fields: Vec<u64> = line
        .ok_or_else(|| format!("no device {device}"))?
        .split_whitespace()
        .filter_map(|field| field.parse().ok())
        .collect();
    Ok((fields[0], fields[8]))
}

/// `payload` bytes passed a device that counted `counted`: headers, acknowledgements, greetings and
/// what was sent again come on top, which is less than half of it and 300 kB.
fn carried(what: &str, payload: Option<u64>, counted: u64) -> Outcome {
    let payload = payload.ok_or_else(|| format!("{what}: no bytes in the result"))?;
    let most = payload + payload / 2 + 300_000;
    check(payload > 0, format!("{what}: nothing was transferred"))?;
    check(
        (payload..=most).contains(&counted),
        format!("{what}: {payload} bytes by the benchmark, {counted} by the device"),
    )
}

fn lasting(bench: Bench) -> Spec {
    let mut spec = Spec::from(bench);
    spec.set_duration(Duration::from_secs(2));
    spec
}

/// The sums of the server's own JSON.
fn server_json(logs: &Path) -> Result<serde_json::Value, Failed> {
    let text = fs::read_to_string(logs.join("iperf3-server-5201.json"))?;
    Ok(serde_json::from_str(&text)?)
}

fn tcp(vpn: Vpn) -> Outcome {
    let measured = measure(vpn, lasting(Bench::Tcp))?;
    carried("tcp", measured.result.bytes_received, measured.b_received)?;
    let server = server_json(measured.logs.path())?;
    let received = server["end"]["sum_received"]["bytes"].as_u64();
    check(
        received.is_some() && received == measured.result.bytes_received,
        format!(
            "{:?} by the client, {received:?} by the server",
            measured.result.bytes_received
        ),
    )?;
    check(measured.result.intervals.len() >= 2, "no intervals")
}

fn tcp_both_ways(vpn: Vpn) -> Outcome {
    let spec = Spec::Tcp(Tcp {
        duration: Span::seconds(2),
        bidir: true,
        ..Tcp::default()
    });
    let measured = measure(vpn, spec)?;
    let reverse = measured
        .result
        .reverse
        .as_ref()
        .ok_or("no other direction")?;
    carried(
        "forward",
        measured.result.bytes_received,
        measured.b_received,
    )?;
    carried("reverse", reverse.bytes_received, measured.b_sent)
}

fn udp(vpn: Vpn) -> Outcome {
    let measured = measure(vpn, lasting(Bench::Udp))?;
    let packets = measured.result.packets.ok_or("no packets counted")?;
    check(packets.received > Some(0), format!("{packets:?}"))?;
    // What the socket's buffer had no room for passed the device, so only the lower bound holds.
    let bytes = measured.result.bytes_received.unwrap_or(u64::MAX);
    check(
        bytes <= measured.b_received,
        format!(
            "{bytes} bytes by the benchmark, {} by the device",
            measured.b_received
        ),
    )
}

fn parallel(vpn: Vpn) -> Outcome {
    let measured = measure(vpn, lasting(Bench::Parallel))?;
    let parts = &measured.result.parts;
    let links: Vec<&str> = parts
        .iter()
        .filter_map(|part| part.link.as_deref())
        .collect();
    check(links == ["a to b", "b to a"], format!("{links:?}"))?;
    carried("a to b", parts[0].bytes_received, measured.b_received)?;
    carried("b to a", parts[1].bytes_received, measured.b_sent)
}

fn ping(vpn: Vpn) -> Outcome {
    let spec = Spec::Ping(Ping {
        count: 10,
        interval: Span::millis(50),
        runs: 2,
        ..Ping::default()
    });
    let measured = measure(vpn, spec)?;
    let packets = measured.result.packets.ok_or("no packets counted")?;
    check(
        packets.sent == Some(20) && packets.lost == Some(0),
        format!("{packets:?}"),
    )?;
    // 84 bytes of IP in each direction.
    check(
        measured.b_received >= 20 * 84,
        format!("{} bytes", measured.b_received),
    )?;
    check(measured.result.rtt_us.is_some(), "no RTT")
}

fn load_latency(vpn: Vpn) -> Outcome {
    let spec = Spec::LoadLatency(LoadLatency {
        idle: Span::seconds(1),
        duration: Span::seconds(2),
        ..LoadLatency::default()
    });
    let measured = measure(vpn, spec)?;
    let result = &measured.result;
    let packets = result.packets.ok_or("no probes counted")?;
    check(packets.sent == Some(200), format!("{packets:?}"))?;
    check(
        result.idle_rtt_us.is_some() && result.rtt_us.is_some(),
        "no RTT",
    )?;
    // Up to a socket's buffer may not have left when the load ends.
    let sent = result.bytes_sent.unwrap_or(0);
    check(
        sent > 0 && measured.b_received + (6 << 20) >= sent,
        format!(
            "{sent} bytes by the benchmark, {} by the device",
            measured.b_received
        ),
    )
}

fn quic(vpn: Vpn) -> Outcome {
    let spec = Spec::Quic(Quic {
        duration: Span::seconds(2),
        connections: 2,
        ..Quic::default()
    });
    let measured = measure(vpn, spec)?;
    let result = &measured.result;
    carried("quic", result.bytes_received, measured.b_sent)?;
    check(
        result.bytes_sent == result.bytes_received,
        format!(
            "{:?} sent, {:?} received",
            result.bytes_sent, result.bytes_received
        ),
    )?;
    check(result.connections.len() == 2, "not two connections")?;
    check(
        result.connect_us.is_some() && result.first_byte_us.is_some(),
        "times are missing",
    )
}

fn stream(vpn: Vpn) -> Outcome {
    let spec = Spec::Stream(Stream {
        duration: Span::seconds(2),
        ..Stream::default()
    });
    let measured = measure(vpn, spec)?;
    let realtime = measured.result.realtime.as_ref().ok_or("no account")?;
    // 2 s x 3.3 Mbit/s / (8 x 1316 bytes)
    check(realtime.sent == 627, format!("{realtime:?}"))?;
    let sum = realtime.in_time + realtime.late + realtime.lost;
    check(
        sum == realtime.sent,
        format!("in time, late and lost are not all: {realtime:?}"),
    )?;
    carried(
        "stream",
        measured.result.bytes_received,
        measured.b_received,
    )
}

fn stream_librist(vpn: Vpn) -> Outcome {
    let spec = Spec::Stream(Stream {
        duration: Span::seconds(2),
        backend: vpnbench::lab::benchmark::spec::StreamBackend::Librist,
        ..Stream::default()
    });
    let measured = measure(vpn, spec)?;
    check(
        measured.result.tool == "librist",
        "another backend was used",
    )?;
    carried(
        "librist",
        measured.result.bytes_received,
        measured.b_received,
    )
}

fn http(vpn: Vpn) -> Outcome {
    let spec = Spec::Http(Http {
        objects: 60,
        parallel: 4,
        repetitions: 2,
        largest_bytes: 1 << 20,
        ..Http::default()
    });
    let measured = measure(vpn, spec)?;
    let transfers = measured.result.transfers.as_ref().ok_or("no transfers")?;
    check(
        transfers.objects == 120 && transfers.failed == 0,
        format!("{transfers:?}"),
    )?;
    carried("http", measured.result.bytes_received, measured.b_sent)
}

fn connect(vpn: Vpn) -> Outcome {
    let measured = measure(vpn, Spec::from(Bench::Connect))?;
    let outage = measured.result.outage.as_ref().ok_or("no outage")?;
    let restarted = if vpn == Vpn::None { "none" } else { "both" };
    check(
        outage.restarted == restarted && outage.connect_s > Some(0.0),
        format!("{outage:?}"),
    )
}

fn reconnect(vpn: Vpn) -> Outcome {
    let measured = measure(vpn, Spec::from(Bench::Reconnect))?;
    let outage = measured.result.outage.as_ref().ok_or("no outage")?;
    let restarted = if vpn == Vpn::None { "none" } else { "both" };
    check(outage.restarted == restarted, format!("{outage:?}"))?;
    check(
        outage.connect_s.is_some() && outage.gap_s.is_some(),
        format!("{outage:?}"),
    )?;
    // Without daemons there is nothing to wait for; with them probes in between must have failed.
    check(vpn == Vpn::None || outage.failed > 0, format!("{outage:?}"))
}

fn server_dies(vpn: Vpn) -> Outcome {
    let logs = tempfile::tempdir()?;
    let mut spec = Spec::from(Bench::Tcp);
    spec.set_duration(Duration::from_secs(20));
    let run = start(vpn, spec, logs.path())?;
    let server = run.server.clone().ok_or("no server")?;
    let (device, netns) = (run.tunnel.b.device.clone(), run.hosts.b.netns.clone());
    let mut client = run.client()?;
    let output = std::thread::scope(|scope| -> Result<_, Failed> {
        let client = scope.spawn(move || client.output());
        // In the middle of the test: data is flowing.
        while counters(&netns, &device)?.0 < 1_000_000 && !client.is_finished() {
            std::thread::sleep(Duration::from_millis(5));
        }
        kill(Pid::from_raw(i32::try_from(server.pid())?), Signal::SIGKILL)?;
        client
            .join()
            .map_err(|_| Failed::from("the client's thread panicked"))
    })??;
    let mut text = CommandOutput::new(false);
    text.push(0, &output.stdout);
    let read = benchmark::read(&run.client_command, &text, None);
    let (result, _) = read.ok_or("the output was not understood")?;
    // With --json iperf3 3.12 exits with 0 even so; its output says what happened.
    check(
        !result.complete && result.error.is_some(),
        format!("{result:?}"),
    )?;
    Ok(run.finish()?)
}

fn port_in_use(vpn: Vpn) -> Outcome {
    let logs = tempfile::tempdir()?;
    let run = start(vpn, Spec::from(Bench::Http), logs.path())?;
    let settings = format!(
        r#"{{"listen":"{}:8080","name":"b"}}"#,
        run.tunnel.b.address()
    );
    let program = lab::part::program()?;
    let mut second = Command::new("ip");
    second
        .args(["netns", "exec", &run.hosts.b.name])
        .arg(program);
    let output = second
        .args(["lab", "part", "http-server", &settings])
        .output()?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    check(!output.status.success(), "two servers on one port")?;
    check(
        errors.contains("listening on") && errors.contains("in use"),
        format!("it said: {errors}"),
    )?;
    Ok(run.finish()?)
}

fn no_such_congestion(vpn: Vpn) -> Outcome {
    let logs = tempfile::tempdir()?;
    let spec = Spec::Tcp(Tcp {
        congestion: "no-such".to_owned(),
        ..Tcp::default()
    });
    match start(vpn, spec, logs.path()) {
        Ok(_) => Err("it started".into()),
        Err(failed) => {
            let text = failed.message().unwrap_or_default().to_owned();
            check(
                text.contains("no-such") && text.contains("does not have it"),
                text,
            )
        }
    }
}
