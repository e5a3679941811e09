//! librist's tools: `ristreceiver` in b, `ristsender` in a, fed over loopback with the study's
//! packet size and rate. The receiver's statistics, as in the study, are the result.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::endpoint::{self, Failure, monotonic_ns};
use super::Settings;
use super::{Ready, Setup, Stream, Transport, listens};
use crate::analysis::benchmark::Benchmark;
use crate::analysis::benchmark::rist;
use crate::lab::error::{LabError, Result};
use crate::lab::part;
use crate::lab::process::Program;

/// Where `ristsender` takes its input, inside of host a.
const INPUT: u16 = 5004;
/// Where `ristreceiver` puts its output, inside of host b; nobody listens.
const OUTPUT: u16 = 1234;
/// How long the sender has to connect.
const CONNECT: Duration = Duration::from_secs(10);
/// The last statistics come with the next full second.
const LAST_STATISTICS: Duration = Duration::from_millis(1500);

/// Settings of the part `rist-feed`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Feed {
    stream: Settings,
    sender_log: PathBuf,
    receiver_log: PathBuf,
}

/// Starts the receiver and waits until it has its port.
pub(super) fn prepare(spec: &Stream, setup: Setup<'_>) -> Result<Ready> {
    let address = SocketAddr::new(setup.server_address(), spec.port);
    let buffer_ms = spec.buffer.0.as_millis();
    let input = format!("rist://@{address}?buffer={buffer_ms}");
    let output = format!("udp://127.0.0.1:{OUTPUT}");
    let receiver_log = setup.logs.join("ristreceiver.log");
    let arguments = [
        "-i", &input, "-o", &output, "-S", "1000", "-p", "1", "-v", "6",
    ];
    let process = setup.undo.start(&Program {
        name: "ristreceiver",
        arguments: &arguments,
        netns: &setup.hosts.b.netns,
        log: receiver_log.clone(),
    })?;
    listens(&process, Transport::Udp, spec.port)?;
    let feed = Feed {
        stream: Settings::new(spec, address),
        sender_log: setup.logs.join("ristsender.log"),
        receiver_log,
    };
    Ok(Ready::of(
        vec![process],
        endpoint::command("rist-feed", &feed)?,
    ))
}

/// The part `rist-feed`: runs `ristsender`, feeds it, and reads both logs.
pub(in crate::lab) fn feed(settings: &str) -> Result<()> {
    let feed: Feed = part::settings("rist-feed", settings)?;
    let result = run(&feed).map_err(LabError::failed("running", "rist-feed"))?;
    endpoint::emit(&result).map_err(LabError::failed("running", "rist-feed"))
}

/// A child that does not outlive us.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // Already gone in the good case.
        let _killed = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn run(feed: &Feed) -> std::result::Result<Benchmark, Failure> {
    let stream = &feed.stream;
    let log = File::create(&feed.sender_log).map_err(Failure::of("creating ristsender.log"))?;
    let errors = log
        .try_clone()
        .map_err(Failure::of("creating ristsender.log"))?;
    let output = format!(
        "rist://{}?buffer={}",
        stream.receiver,
        stream.buffer_ns / 1_000_000
    );
    let input = format!("udp://@127.0.0.1:{INPUT}");
    let mut command = Command::new("ristsender");
    command
        .args([
            "-i", &input, "-o", &output, "-S", "1000", "-p", "1", "-v", "6",
        ])
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors);
    let child = command
        .spawn()
        .map_err(Failure::of("starting ristsender"))?;
    let mut child = Ended(child);
    wait_for_connection(feed, &mut child)?;
    let socket =
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(Failure::of("binding a UDP port"))?;
    let payload = vec![0x47; stream.payload as usize];
    let started_ns = monotonic_ns();
    for number in 0..stream.packets {
        pace(started_ns + number * stream.interval_ns);
        if endpoint::is_terminated() {
            break;
        }
        socket
            .send_to(&payload, (Ipv4Addr::LOCALHOST, INPUT))
            .map_err(Failure::of("feeding ristsender"))?;
    }
    let ended_ns = monotonic_ns();
    pace(ended_ns + stream.buffer_ns + LAST_STATISTICS.as_nanos() as u64);
    drop(child);
    result(feed, started_ns, ended_ns)
}

/// Sleeps until a moment, or until a signal.
fn pace(until_ns: u64) {
    loop {
        let left_ns = until_ns.saturating_sub(monotonic_ns());
        if left_ns == 0 || endpoint::is_terminated() {
            return;
        }
        std::thread::sleep(Duration::from_nanos(left_ns.min(50_000_000)));
    }
}

fn wait_for_connection(feed: &Feed, child: &mut Ended) -> std::result::Result<(), Failure> {
    let deadline_ns = monotonic_ns() + CONNECT.as_nanos() as u64;
    loop {
        let log = fs::read_to_string(&feed.sender_log).unwrap_or_default();
        if log.contains("Successfully Authenticated peer") {
            return Ok(());
        }
        let ended = child
            .0
            .try_wait()
            .map_err(Failure::of("watching ristsender"))?;
        let tail = log.lines().next_back().unwrap_or("nothing").to_owned();
        if let Some(status) = ended {
            return Err(Failure::of("ristsender ended")(format!(
                "{status}; it wrote: {tail}"
            )));
        }
        if monotonic_ns() > deadline_ns || endpoint::is_terminated() {
            return Err(Failure::of("ristsender did not connect")(tail));
        }
        pace(monotonic_ns() + 20_000_000);
    }
}

fn result(feed: &Feed, started_ns: u64, ended_ns: u64) -> std::result::Result<Benchmark, Failure> {
    let read = |path: &PathBuf| fs::read_to_string(path).unwrap_or_default();
    let mut result = rist::receiver(&read(&feed.receiver_log))
        .map_err(Failure::of("reading ristreceiver.log"))?;
    let stream = &feed.stream;
    let duration_s = (ended_ns - started_ns) as f64 / 1e9;
    let payload = u64::from(stream.payload);
    result.started_ns = Some(started_ns);
    result.duration_s = Some(duration_s);
    result.bytes_sent = Some(stream.packets * payload);
    result.throughput_bps_sent = Some(8.0 * (stream.packets * payload) as f64 / duration_s);
    result.retransmits = rist::retransmitted(&read(&feed.sender_log));
    // Its intervals lie on the log's clock, not on ours.
    result.intervals.clear();
    let received = result.packets.and_then(|packets| packets.received);
    result.bytes_received = received.map(|count| count * payload);
    result.throughput_bps_received =
        received.map(|count| 8.0 * (count * payload) as f64 / duration_s);
    if let Some(realtime) = &mut result.realtime {
        realtime.offered_bps = 8e9 * payload as f64 / stream.interval_ns as f64;
        realtime.buffer_s = stream.buffer_ns as f64 / 1e9;
        realtime.retransmitted = result.retransmits.unwrap_or(0);
    }
    Ok(result)
}
