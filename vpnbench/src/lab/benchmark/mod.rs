//! Benchmarks between the hosts, one file per tool. docs/lab-benchmarks.md has the table.
//!
//! [`prepare`] starts the server side and returns the client's command, which the caller runs in
//! host a, recorded or not. What the client writes to its standard output is read by
//! `analysis::benchmark`; [`save`] keeps it beside the result in one form.

mod connect;
mod endpoint;
mod http;
mod iperf3;
mod latency;
mod parallel;
mod parts;
mod ping;
mod quic;
pub mod span;
pub mod spec;
mod stream;

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use connect::Restarted;
pub(in crate::lab) use parts::PARTS;
pub use span::Span;
pub use spec::Spec;

use super::error::{LabError, Result};
use super::hosts::Hosts;
use super::ports::{self, Transport};
use super::process::Process;
use super::undo::Undo;
use super::vpn::{End, Tunnel};
use crate::analysis::benchmark::own::Document;
use crate::analysis::benchmark::{Benchmark, Tool};
use crate::trace::model::CommandOutput;

/// The benchmarks the lab can run; [`Spec`] has their parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bench {
    /// iperf3 over TCP.
    Tcp,
    /// iperf3 over UDP.
    Udp,
    /// Several iperf3 tests at once.
    Parallel,
    /// ICMP echo.
    Ping,
    /// UDP probes before and during a TCP load.
    LoadLatency,
    /// QUIC bulk download.
    Quic,
    /// A real-time stream with retransmission.
    Stream,
    /// Download of many objects over HTTP.
    Http,
    /// Start of the daemons to the first HTTP answer.
    Connect,
    /// Outage when the daemons are restarted.
    Reconnect,
}

impl Bench {
    /// All of them.
    pub const ALL: [Bench; 10] = [
        Bench::Tcp,
        Bench::Udp,
        Bench::Parallel,
        Bench::Ping,
        Bench::LoadLatency,
        Bench::Quic,
        Bench::Stream,
        Bench::Http,
        Bench::Connect,
        Bench::Reconnect,
    ];

    /// Name on the command line and in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Bench::Tcp => "tcp",
            Bench::Udp => "udp",
            Bench::Parallel => "parallel",
            Bench::Ping => "ping",
            Bench::LoadLatency => "load-latency",
            Bench::Quic => "quic",
            Bench::Stream => "stream",
            Bench::Http => "http",
            Bench::Connect => "connect",
            Bench::Reconnect => "reconnect",
        }
    }
}

impl FromStr for Bench {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Bench, String> {
        let found = Bench::ALL.into_iter().find(|bench| bench.name() == text);
        let names = Bench::ALL.map(Bench::name).join(", ");
        found.ok_or_else(|| format!("no benchmark {text:?}; there are: {names}"))
    }
}

/// What a tool's adapter gets.
pub(crate) struct Setup<'a> {
    pub(crate) hosts: &'a Hosts,
    pub(crate) tunnel: &'a Tunnel,
    pub(crate) undo: &'a mut Undo,
    /// Where servers write their logs and clients their tools' own output.
    pub(crate) logs: &'a Path,
}

impl Setup<'_> {
    /// The server's address inside the tunnel.
    fn server_address(&self) -> IpAddr {
        address(&self.tunnel.b)
    }

    /// Each host's label and address inside the tunnel.
    fn addresses(&self) -> Vec<(String, IpAddr)> {
        let ends = self.tunnel.ends();
        let hosts = self.hosts.iter().map(|host| host.label.clone());
        hosts.zip(ends.map(address)).collect()
    }
}

/// Waits until a server has its port open.
fn listens(server: &Process, transport: Transport, port: u16) -> Result<()> {
    ports::wait(server, transport, port, Duration::from_secs(10))
}

/// An end's address inside the tunnel.
fn address(end: &End) -> IpAddr {
    end.address()
}

/// A benchmark that is ready: its servers listen, its client has not been started.
pub(crate) struct Ready {
    pub(crate) servers: Vec<Process>,
    pub(crate) client_command: Vec<String>,
    /// What the lab has to do while the client runs.
    pub(crate) attendance: Option<Attendance>,
}

impl Ready {
    fn of(servers: Vec<Process>, client_command: Vec<String>) -> Ready {
        Ready {
            servers,
            client_command,
            attendance: None,
        }
    }
}

/// A client that wants the VPN restarted: it creates one file to ask, and waits for the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attendance {
    /// Created by the client when the lab should begin.
    pub asked: PathBuf,
    /// Created by the lab when it is done: [`Restarted`] as JSON.
    pub done: PathBuf,
}

impl Attendance {
    fn in_directory(directory: &Path) -> Attendance {
        let (asked, done) = connect::files(directory);
        Attendance { asked, done }
    }

    /// Tells the client what was done. It never sees half a file.
    pub(crate) fn tell(&self, restarted: &Restarted) -> Result<()> {
        let half = self.done.with_extension("part");
        let json = serde_json::to_vec(restarted)
            .map_err(LabError::failed("writing", self.done.display()))?;
        fs::write(&half, json)
            .and_then(|()| fs::rename(&half, &self.done))
            .map_err(LabError::file("writing", &self.done))
    }
}

/// Starts the server side, if there is one.
pub(crate) fn prepare(spec: &Spec, setup: Setup<'_>) -> Result<Ready> {
    match spec {
        Spec::Tcp(spec) => iperf3::tcp(spec, setup),
        Spec::Udp(spec) => iperf3::udp(spec, setup),
        Spec::Parallel(spec) => parallel::prepare(spec, setup),
        Spec::Ping(spec) => ping::prepare(spec, &setup),
        Spec::LoadLatency(spec) => latency::prepare(spec, setup),
        Spec::Quic(spec) => quic::prepare(spec, setup),
        Spec::Stream(spec) => stream::prepare(spec, setup),
        Spec::Http(spec) => http::prepare(spec, setup),
        Spec::Connect(spec) => connect::connect(spec, setup),
        Spec::Reconnect(spec) => connect::reconnect(spec, setup),
    }
}

/// Writes a run's `benchmark.json` (the result in one form) and, under its tool's name, what the
/// client itself wrote: `iperf3.json`, `ping.txt`, `client.json`.
///
/// # Errors
/// If a file cannot be written.
pub fn save(
    directory: &Path,
    command: &[String],
    output: &CommandOutput,
    result: Option<&Benchmark>,
) -> io::Result<()> {
    let text = output.text();
    let tool = Tool::of_command(command).or_else(|| Tool::of_output(&text));
    let name = match tool {
        Some(Tool::Iperf3) => "iperf3.json",
        Some(Tool::Ping) => "ping.txt",
        Some(Tool::Curl) => "curl.txt",
        Some(Tool::Own) => "client.json",
        None => "client.txt",
    };
    fs::write(directory.join(name), text)?;
    let document = result.map(|result| Document::new(result.clone()));
    let json = serde_json::to_vec_pretty(&document)?;
    fs::write(directory.join("benchmark.json"), json)
}

/// Whether PATH has this program.
#[must_use]
pub fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}
