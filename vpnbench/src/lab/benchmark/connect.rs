//! How long a VPN takes to carry traffic after its daemons were started (`connect`), and how long
//! nothing gets through when they are restarted (`reconnect`).
//!
//! The client runs in a and probes all the time. Once its first probe was answered it creates the
//! file `asked`; the lab then ends the daemons, starts them again and writes `done` with the
//! moments. The client goes on until the first answer to a probe sent after that start.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::endpoint::{self, Failure, local_port, monotonic_ns};
use super::spec::{Connect, Reconnect};
use super::{Attendance, Ready, Setup, Transport, http, latency, listens};
use crate::analysis::benchmark::Benchmark;
use crate::analysis::benchmark::model::{Connection, Outage, Packets, Quantiles};
use crate::lab::error::{LabError, Result};
use crate::lab::part;

const HTTP_PORT: u16 = 8080;
const ECHO_PORT: u16 = 5203;
/// How long the first answer may take while everything is up.
const BEFORE: Duration = Duration::from_secs(15);
/// How long the daemons' restart may take.
const RESTART: Duration = Duration::from_secs(60);

/// Settings of the part `connect-client`, and of the echo server of `reconnect`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Settings {
    server: SocketAddr,
    /// HTTP requests, else UDP probes.
    http: bool,
    interval_ns: u64,
    /// How long one attempt may take, ns.
    timeout_ns: u64,
    /// Attempts after the start of the daemons.
    attempts: u64,
    attendance: Attendance,
}

/// What the lab did in between, `CLOCK_MONOTONIC` ns.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restarted {
    /// What was restarted: `both` daemons, or `none` if the tunnel has none.
    pub what: String,
    /// When the daemons were told to end.
    pub stopped_ns: u64,
    /// When they were started again.
    pub started_ns: u64,
    /// Why they could not be started.
    pub error: Option<String>,
}

/// Prepares `connect`: an HTTP server in b.
pub(super) fn connect(spec: &Connect, setup: Setup<'_>) -> Result<Ready> {
    let server = SocketAddr::new(setup.server_address(), HTTP_PORT);
    // On all addresses: the tunnel's goes away with its device.
    let settings = http::Server {
        listen: SocketAddr::new(any(server.ip()), HTTP_PORT),
        name: setup.hosts.b.label.clone(),
    };
    let log = setup.logs.join("http-server.log");
    let netns = &setup.hosts.b.netns;
    let process = part::start(setup.undo, "http-server", &settings, netns, log)?;
    listens(&process, Transport::Tcp, HTTP_PORT)?;
    let client = Settings {
        server,
        http: true,
        interval_ns: ns(spec.interval.0),
        timeout_ns: ns(spec.timeout.0),
        attempts: spec.attempts.into(),
        attendance: Attendance::in_directory(setup.undo.directory()),
    };
    ready(process, client)
}

/// Prepares `reconnect`: a UDP echo server in b.
pub(super) fn reconnect(spec: &Reconnect, setup: Setup<'_>) -> Result<Ready> {
    let client = Settings {
        server: SocketAddr::new(setup.server_address(), ECHO_PORT),
        http: false,
        interval_ns: ns(spec.interval.0),
        timeout_ns: ns(spec.interval.0),
        attempts: (spec.limit.as_s() / spec.interval.as_s()).ceil() as u64,
        attendance: Attendance::in_directory(setup.undo.directory()),
    };
    let log = setup.logs.join("echo-server.log");
    let netns = &setup.hosts.b.netns;
    let process = part::start(setup.undo, "echo-server", &client, netns, log)?;
    listens(&process, Transport::Udp, ECHO_PORT)?;
    ready(process, client)
}

fn ready(server: crate::lab::Process, client: Settings) -> Result<Ready> {
    let command = endpoint::command("connect-client", &client)?;
    Ok(Ready {
        attendance: Some(client.attendance),
        ..Ready::of(vec![server], command)
    })
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn any(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// The part `echo-server`.
pub(in crate::lab) fn echo(settings: &str) -> Result<()> {
    let settings: Settings = part::settings("echo-server", settings)?;
    let address = SocketAddr::new(any(settings.server.ip()), settings.server.port());
    let socket = UdpSocket::bind(address).map_err(LabError::failed("binding UDP", address))?;
    latency::answer(&socket);
    Ok(())
}

/// The part `connect-client`.
pub(in crate::lab) fn measure(settings: &str) -> Result<()> {
    let settings: Settings = part::settings("connect-client", settings)?;
    let failed = || LabError::failed::<Failure>("running", "connect-client");
    let mut prober = Prober::new(&settings);
    let restarted = prober.until_restarted().map_err(failed())?;
    if restarted.error.is_none() {
        prober.until_answered(restarted.started_ns);
    }
    let result = prober.result(&restarted);
    endpoint::emit(&result).map_err(failed())?;
    match result.error {
        Some(error) => Err(failed()(Failure::of("the tunnel")(error))),
        None => Ok(()),
    }
}

/// An attempt that was answered, `CLOCK_MONOTONIC` ns.
#[derive(Debug, Clone, Copy)]
struct Answered {
    asked_ns: u64,
    at_ns: u64,
}

struct Prober<'a> {
    settings: &'a Settings,
    socket: Option<UdpSocket>,
    begun_ns: u64,
    attempts: u64,
    answered: Vec<Answered>,
    ports: Vec<u16>,
}

impl<'a> Prober<'a> {
    fn new(settings: &'a Settings) -> Prober<'a> {
        Prober {
            settings,
            socket: None,
            begun_ns: monotonic_ns(),
            attempts: 0,
            answered: Vec::new(),
            ports: Vec::new(),
        }
    }

    /// Probes until the first answer, asks for the restart, probes until that is done.
    fn until_restarted(&mut self) -> std::result::Result<Restarted, Failure> {
        let deadline_ns = self.begun_ns + ns(BEFORE);
        while self.answered.is_empty() {
            if monotonic_ns() > deadline_ns || endpoint::is_terminated() {
                let why = format!("none of {} attempts was answered", self.attempts);
                return Err(Failure::of("before anything was restarted")(why));
            }
            self.attempt();
        }
        let attendance = &self.settings.attendance;
        fs::write(&attendance.asked, b"").map_err(Failure::of("asking for the restart"))?;
        let deadline_ns = monotonic_ns() + ns(RESTART);
        loop {
            if let Some(restarted) = attendance.restarted() {
                return Ok(restarted);
            }
            if monotonic_ns() > deadline_ns || endpoint::is_terminated() {
                return Err(Failure::of("restarting the tunnel")(
                    "the lab did not do it",
                ));
            }
            self.attempt();
        }
    }

    /// Probes until one sent after the start was answered, or the attempts are used up.
    fn until_answered(&mut self, started_ns: u64) {
        let limit = self.attempts + self.settings.attempts;
        while self.first_after(started_ns).is_none()
            && self.attempts < limit
            && !endpoint::is_terminated()
        {
            self.attempt();
        }
    }

    fn first_after(&self, started_ns: u64) -> Option<Answered> {
        let mut answered = self.answered.iter();
        answered.find(|one| one.asked_ns >= started_ns).copied()
    }

    /// One attempt, and the rest of its interval.
    fn attempt(&mut self) {
        self.attempts += 1;
        let next_ns = monotonic_ns() + self.settings.interval_ns;
        // While the daemon is away the kernel may refuse at once; that is an attempt that failed.
        let _failed = match self.settings.http {
            true => self.request(),
            false => self.probe(next_ns),
        };
        let left_ns = next_ns.saturating_sub(monotonic_ns());
        std::thread::sleep(Duration::from_nanos(left_ns));
    }

    fn note(&mut self, asked_ns: u64) {
        self.answered.push(Answered {
            asked_ns,
            at_ns: monotonic_ns(),
        });
    }

    /// `GET /name` over a new connection.
    fn request(&mut self) -> io::Result<()> {
        let asked_ns = monotonic_ns();
        let timeout = Duration::from_nanos(self.settings.timeout_ns);
        let mut stream = TcpStream::connect_timeout(&self.settings.server, timeout)?;
        self.ports.extend(local_port(stream.local_addr()));
        stream.set_read_timeout(Some(timeout))?;
        let request = b"GET /name HTTP/1.1\r\nhost: vpnbench\r\nconnection: close\r\n\r\n";
        stream.write_all(request)?;
        let mut bytes = [0; 512];
        let length = stream.read(&mut bytes)?;
        if bytes[..length].starts_with(b"HTTP/1.1 200") {
            self.note(asked_ns);
        }
        Ok(())
    }

    /// One datagram with its moment, and what comes back until the next is due, which may be
    /// answers to earlier ones.
    fn probe(&mut self, next_ns: u64) -> io::Result<()> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => self.open()?,
        };
        let mut outcome = socket
            .send_to(&monotonic_ns().to_le_bytes(), self.settings.server)
            .map(drop);
        let mut bytes = [0; 64];
        while outcome.is_ok() {
            let left_ns = next_ns.saturating_sub(monotonic_ns());
            if left_ns == 0 {
                break;
            }
            socket.set_read_timeout(Some(Duration::from_nanos(left_ns)))?;
            match socket.recv(&mut bytes) {
                Ok(length) => {
                    let number = bytes[..length].first_chunk();
                    if let Some(number) = number {
                        self.note(u64::from_le_bytes(*number));
                    }
                }
                Err(error) if latency::is_timeout(&error) => break,
                Err(error) => outcome = Err(error),
            }
        }
        self.socket = Some(socket);
        outcome
    }

    fn open(&mut self) -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind((any(self.settings.server.ip()), 0))?;
        self.ports.extend(local_port(socket.local_addr()));
        Ok(socket)
    }

    fn result(&self, restarted: &Restarted) -> Benchmark {
        let first = self.first_after(restarted.started_ns);
        let mut before = self.answered.iter();
        let last = before.rfind(|one| one.asked_ns < restarted.stopped_ns);
        let seconds = |from: u64, to: u64| to.saturating_sub(from) as f64 / 1e9;
        let answered = self.answered.len() as u64;
        let rtts = self.answered.iter();
        let rtts = rtts.map(|one| (one.at_ns - one.asked_ns) as f64 / 1e3);
        let missing = || "no answer after the daemons were started".to_owned();
        let error = restarted.error.clone();
        let protocol = if self.settings.http { "tcp" } else { "udp" };
        Benchmark {
            kind: if self.settings.http {
                "connect"
            } else {
                "reconnect"
            }
            .to_owned(),
            started_ns: Some(self.begun_ns),
            duration_s: Some(seconds(self.begun_ns, monotonic_ns())),
            complete: error.is_none() && first.is_some(),
            error: error.or_else(|| first.is_none().then(missing)),
            rtt_us: Quantiles::of(rtts.collect()),
            packets: Some(Packets {
                sent: Some(self.attempts),
                received: Some(answered),
                ..Packets::default()
            }),
            connections: self
                .ports
                .iter()
                .map(|port| Connection {
                    local_port: *port,
                    remote_port: self.settings.server.port(),
                    protocol: protocol.to_owned(),
                })
                .collect(),
            outage: Some(Outage {
                restarted: restarted.what.clone(),
                connect_s: first.map(|first| seconds(restarted.started_ns, first.at_ns)),
                gap_s: last
                    .zip(first)
                    .map(|(last, first)| seconds(last.at_ns, first.at_ns)),
                resolution_s: self.settings.interval_ns as f64 / 1e9,
                attempts: self.attempts,
                failed: self.attempts.saturating_sub(answered),
            }),
            ..endpoint::own()
        }
    }
}

impl Attendance {
    /// What the lab did, once it has done it.
    fn restarted(&self) -> Option<Restarted> {
        serde_json::from_str(&fs::read_to_string(&self.done).ok()?).ok()
    }
}

/// Where client and lab leave word for each other.
pub(super) fn files(directory: &std::path::Path) -> (PathBuf, PathBuf) {
    (
        directory.join("restart-asked"),
        directory.join("restart-done"),
    )
}
