//! Benchmarks between the two hosts, one file per tool.

mod iperf3;
mod ping;

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::Result;
use super::hosts::Hosts;
use super::process::Process;
use super::undo::Undo;
use super::vpn::Tunnel;

/// The benchmarks the lab can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bench {
    /// iperf3, one TCP stream from a to b.
    Tcp,
    /// iperf3, UDP from a to b as fast as it goes.
    Udp,
    /// ICMP echo, five a second.
    Ping,
}

impl Bench {
    /// All of them.
    pub const ALL: [Bench; 3] = [Bench::Tcp, Bench::Udp, Bench::Ping];

    /// Name on the command line and in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Bench::Tcp => "tcp",
            Bench::Udp => "udp",
            Bench::Ping => "ping",
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
    pub(crate) logs: PathBuf,
    pub(crate) duration: Duration,
    pub(crate) extra: &'a [String],
}

/// A benchmark that is ready: the server listens, the client has not been started.
pub(crate) struct Ready {
    pub(crate) server: Option<Process>,
    pub(crate) client_command: Vec<String>,
}

/// Starts the server side, if there is one.
pub(crate) fn prepare(bench: Bench, setup: Setup<'_>) -> Result<Ready> {
    match bench {
        Bench::Tcp | Bench::Udp => iperf3::prepare(bench, setup),
        Bench::Ping => ping::prepare(&setup),
    }
}

/// Whether PATH has this program.
#[must_use]
pub fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}
