//! Latency under load: UDP probes before and during a TCP load from a to b.
//!
//! The probes are answered by a process, so they see what an application sees: the queues of the
//! path, and the tunnel's. They are sent at fixed times whether or not earlier ones came back.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use serde::{Deserialize, Serialize};

use super::endpoint::{self, Failure, local_port, monotonic_ns};
use super::spec::LoadLatency;
use super::{Ready, Setup, Transport, listens};
use crate::analysis::benchmark::Benchmark;
use crate::analysis::benchmark::model::{Connection, Interval, Packets, Quantiles, Way};
use crate::lab::error::{LabError, Result};
use crate::lab::part;

const PORT: u16 = 5202;
/// How often a blocking call looks whether it should end.
const LOOK: Duration = Duration::from_millis(20);
/// How long the last probe may take.
const LAST: Duration = Duration::from_secs(1);
const CHUNK_BYTES: usize = 128 << 10;
const INTERVAL_S: f64 = 1.0;
/// A probe: number and time, 16 bytes, as much as a small request.
const PROBE_BYTES: usize = 64;

/// Settings of both parts.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Settings {
    server: SocketAddr,
    spec: LoadLatency,
}

/// Starts the server and waits until it has its ports.
pub(super) fn prepare(spec: &LoadLatency, setup: Setup<'_>) -> Result<Ready> {
    let settings = Settings {
        server: SocketAddr::new(setup.server_address(), PORT),
        spec: spec.clone(),
    };
    let log = setup.logs.join("latency-server.log");
    let netns = &setup.hosts.b.netns;
    let process = part::start(setup.undo, "latency-server", &settings, netns, log)?;
    listens(&process, Transport::Udp, PORT)?;
    listens(&process, Transport::Tcp, PORT)?;
    let command = endpoint::command("latency-client", &settings)?;
    Ok(Ready::of(vec![process], command))
}

type Outcome<T> = std::result::Result<T, Failure>;

/// The part `latency-server`: echoes datagrams and swallows TCP streams.
pub(in crate::lab) fn serve(settings: &str) -> Result<()> {
    let settings: Settings = part::settings("latency-server", settings)?;
    let run = || -> Outcome<()> {
        let at = settings.server;
        let echo = UdpSocket::bind(at).map_err(Failure::of(format!("binding UDP {at}")))?;
        let sink = TcpListener::bind(at).map_err(Failure::of(format!("listening on {at}")))?;
        sink.set_nonblocking(true)
            .map_err(Failure::of("listening"))?;
        std::thread::scope(|scope| {
            scope.spawn(|| answer(&echo));
            while !endpoint::is_terminated() {
                match sink.accept() {
                    Ok((stream, _)) => drop(scope.spawn(move || swallow(stream))),
                    Err(_) => std::thread::sleep(LOOK),
                }
            }
        });
        Ok(())
    };
    run().map_err(LabError::failed("running", "latency-server"))
}

/// Sends each datagram back.
pub(super) fn answer(socket: &UdpSocket) {
    let mut bytes = [0; 2048];
    let _set = socket.set_read_timeout(Some(LOOK));
    while !endpoint::is_terminated() {
        if let Ok((length, from)) = socket.recv_from(&mut bytes) {
            // An answer that does not go out is a lost probe.
            let _sent = socket.send_to(&bytes[..length], from);
        }
    }
}

fn swallow(mut stream: TcpStream) {
    let _set = stream.set_nonblocking(false);
    let _set = stream.set_read_timeout(Some(LOOK));
    let mut bytes = vec![0; CHUNK_BYTES];
    while !endpoint::is_terminated() {
        match stream.read(&mut bytes) {
            Ok(0) => return,
            Err(error) if !is_timeout(&error) => return,
            _ => {}
        }
    }
}

pub(super) fn is_timeout(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted)
}

/// A UDP socket on any port of the peer's family.
pub(super) fn any_port(peer: IpAddr) -> Outcome<UdpSocket> {
    let any = match peer {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    UdpSocket::bind((any, 0)).map_err(Failure::of("binding a UDP port"))
}

/// The part `latency-client`.
pub(in crate::lab) fn measure(settings: &str) -> Result<()> {
    let settings: Settings = part::settings("latency-client", settings)?;
    let result = run(&settings).map_err(LabError::failed("running", "latency-client"))?;
    endpoint::emit(&result).map_err(LabError::failed("running", "latency-client"))
}

/// A phase's probes.
#[derive(Debug, Default)]
struct Probes {
    sent: u64,
    duplicates: u64,
    /// Moment of sending (ns after the start) and RTT in us.
    answered: Vec<(u64, f64)>,
}

fn run(settings: &Settings) -> Outcome<Benchmark> {
    let spec = &settings.spec;
    let socket = any_port(settings.server.ip())?;
    socket
        .connect((settings.server.ip(), PORT))
        .map_err(Failure::of("connecting the probes"))?;
    let idle = probe(&socket, spec.interval.0, spec.idle.0)?;
    let started_ns = monotonic_ns();
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut ports = Vec::new();
    let loads = (0..spec.streams).map(|_| {
        let stream = connect(settings)?;
        ports.extend(local_port(stream.local_addr()));
        Ok(stream)
    });
    let loads: Vec<TcpStream> = loads.collect::<Outcome<_>>()?;
    let (loaded, error) = std::thread::scope(|scope| {
        let (stop, sent) = (&stop, &sent);
        let writers: Vec<_> = loads
            .into_iter()
            .map(|stream| scope.spawn(move || load(stream, stop, sent)))
            .collect();
        let loaded = probe(&socket, spec.interval.0, spec.duration.0);
        stop.store(true, Ordering::Release);
        let ended = writers.into_iter().map(|writer| match writer.join() {
            Ok(outcome) => outcome.err().map(|failure| failure.to_string()),
            Err(_) => Some("a load's thread panicked".to_owned()),
        });
        (loaded, ended.flatten().next())
    });
    let loaded = loaded?;
    let mut result = result(settings, &idle, &loaded, sent.into_inner());
    result.started_ns = Some(started_ns);
    result.complete = error.is_none() && !loaded.answered.is_empty();
    result.error = error;
    result.connections = ports
        .into_iter()
        .map(|local_port| Connection {
            local_port,
            remote_port: PORT,
            protocol: "tcp".to_owned(),
        })
        .collect();
    Ok(result)
}

fn connect(settings: &Settings) -> Outcome<TcpStream> {
    let stream = TcpStream::connect_timeout(&settings.server, Duration::from_secs(10))
        .map_err(Failure::of(format!("connecting to {}", settings.server)))?;
    let congestion = &settings.spec.congestion;
    if !congestion.is_empty() {
        setsockopt(&stream, sockopt::TcpCongestion, &congestion.into())
            .map_err(Failure::of(format!("congestion control {congestion}")))?;
    }
    stream
        .set_write_timeout(Some(LOOK))
        .map_err(Failure::of("setting a timeout"))?;
    Ok(stream)
}

fn load(mut stream: TcpStream, stop: &AtomicBool, sent: &AtomicU64) -> Outcome<()> {
    let chunk = vec![0x5a; CHUNK_BYTES];
    while !stop.load(Ordering::Acquire) && !endpoint::is_terminated() {
        match stream.write(&chunk) {
            Ok(bytes) => drop(sent.fetch_add(bytes as u64, Ordering::Relaxed)),
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(Failure::of("the load's connection")(error)),
        }
    }
    Ok(())
}

/// Sends a probe each interval for some time and collects the answers.
fn probe(socket: &UdpSocket, interval: Duration, time: Duration) -> Outcome<Probes> {
    let begun_ns = monotonic_ns();
    let interval_ns = interval.as_nanos() as u64;
    let count = (time.as_nanos() as u64 / interval_ns.max(1)).max(1);
    let mut probes = Probes::default();
    let mut open = vec![true; count as usize];
    while probes.sent < count && !endpoint::is_terminated() {
        let due_ns = begun_ns + probes.sent * interval_ns;
        collect(socket, begun_ns, due_ns, &mut open, &mut probes)?;
        let mut bytes = [0; PROBE_BYTES];
        bytes[..8].copy_from_slice(&probes.sent.to_le_bytes());
        bytes[8..16].copy_from_slice(&monotonic_ns().to_le_bytes());
        // A probe that the queue has no room for is lost.
        let _sent = socket.send(&bytes);
        probes.sent += 1;
    }
    let until_ns = monotonic_ns() + LAST.as_nanos() as u64;
    collect(socket, begun_ns, until_ns, &mut open, &mut probes)?;
    Ok(probes)
}

/// Takes answers until a moment, or until all have come.
fn collect(
    socket: &UdpSocket,
    begun_ns: u64,
    until_ns: u64,
    open: &mut [bool],
    probes: &mut Probes,
) -> Outcome<()> {
    let mut bytes = [0; 2048];
    loop {
        let left_ns = until_ns.saturating_sub(monotonic_ns());
        let all_came = probes.answered.len() == open.len();
        if left_ns == 0 || all_came || endpoint::is_terminated() {
            return Ok(());
        }
        let limit = Duration::from_nanos(left_ns.max(50_000));
        socket
            .set_read_timeout(Some(limit))
            .map_err(Failure::of("setting a timeout"))?;
        match socket.recv(&mut bytes) {
            Ok(length) if length >= 16 => {
                let now_ns = monotonic_ns();
                let number = |at: usize| bytes[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
                let (index, sent_ns) = (number(0) as usize, number(8));
                // Of the phase before: it was counted as lost there.
                if sent_ns < begun_ns || index >= open.len() {
                    continue;
                }
                if !std::mem::take(&mut open[index]) {
                    probes.duplicates += 1;
                    continue;
                }
                let rtt_us = now_ns.saturating_sub(sent_ns) as f64 / 1e3;
                probes.answered.push((sent_ns - begun_ns, rtt_us));
            }
            Ok(_) => {}
            Err(error) if is_timeout(&error) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(Failure::of("receiving answers")(error)),
        }
    }
}

fn result(settings: &Settings, idle: &Probes, loaded: &Probes, bytes: u64) -> Benchmark {
    let seconds = settings.spec.duration.as_s();
    let rtts = |probes: &Probes| probes.answered.iter().map(|(_, rtt)| *rtt).collect();
    let lost = loaded.sent.saturating_sub(loaded.answered.len() as u64);
    let samples: Vec<f64> = rtts(loaded);
    let mean = samples.iter().sum::<f64>() / samples.len().max(1) as f64;
    Benchmark {
        kind: "load-latency".to_owned(),
        duration_s: Some(seconds),
        throughput_bps_sent: Some(8.0 * bytes as f64 / seconds),
        bytes_sent: Some(bytes),
        streams: Some(settings.spec.streams),
        loss_ratio: (loaded.sent > 0).then(|| lost as f64 / loaded.sent as f64),
        packets: Some(Packets {
            sent: Some(loaded.sent),
            received: Some(loaded.answered.len() as u64),
            lost: Some(lost),
            duplicates: Some(loaded.duplicates),
            ..Packets::default()
        }),
        rtt_mean_us: (!samples.is_empty()).then_some(mean),
        rtt_us: Quantiles::of(samples),
        idle_rtt_us: Quantiles::of(rtts(idle)),
        intervals: intervals(loaded),
        ..endpoint::own()
    }
}

/// Mean RTT by second; of the load's rate the sender knows only the whole.
fn intervals(probes: &Probes) -> Vec<Interval> {
    let mut bins: Vec<Vec<f64>> = Vec::new();
    for (after_ns, rtt) in &probes.answered {
        let bin = (*after_ns as f64 / 1e9 / INTERVAL_S) as usize;
        bins.resize_with(bins.len().max(bin + 1), Vec::new);
        bins[bin].push(*rtt);
    }
    let filled = bins.iter().enumerate().filter(|(_, bin)| !bin.is_empty());
    filled
        .map(|(index, bin)| Interval {
            start_s: index as f64 * INTERVAL_S,
            end_s: (index + 1) as f64 * INTERVAL_S,
            way: Way::Sent,
            rtt_us: Some(bin.iter().sum::<f64>() / bin.len() as f64),
            ..Interval::default()
        })
        .collect()
}
