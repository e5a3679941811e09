//! Reproduces tunnels on one machine: hosts, wires, daemons, benchmarks.
//!
//! [`start`] brings everything up to the point where the benchmark's client could be started, so
//! that a recorder can be attached first. Everything lives in namespaces of its own; the caller's
//! namespace, its routes and its sysctls stay as they are. Dropping the [`Run`] removes it all.

pub mod ablate;
pub mod benchmark;
pub mod campaign;
pub mod error;
pub mod execute;
pub mod hosts;
pub mod matrix;
mod netlink;
pub mod netns;
pub mod outcome;
pub mod part;
pub mod process;
mod registry;
pub mod scenario;
pub mod signals;
pub mod statistics;
pub mod table;
mod undo;
pub mod vpn;
mod wait;
pub mod wire;

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

pub use benchmark::Bench;
pub use error::{LabError, Result};
pub use hosts::{Host, Hosts, Topology, TopologyKind};
pub use netns::enter_netns;
pub use process::Process;
pub use registry::down;
pub use scenario::{Scenario, Sysctls};
use undo::Undo;
pub use vpn::{Tunnel, Vpn};
pub use wire::{Wire, WireSpec};

/// What to set up.
#[derive(Debug, Clone)]
pub struct LabOptions {
    /// The tunnel.
    pub vpn: vpn::Spec,
    /// The benchmark.
    pub bench: Bench,
    /// How long the benchmark runs.
    pub duration: Duration,
    /// The hosts.
    pub topology: Topology,
    /// What joins them.
    pub wire: WireSpec,
    /// Where the run's own random draws start.
    pub seed: u64,
    /// Sysctls of the hosts' namespaces.
    pub sysctls: Sysctls,
    /// Further arguments for the benchmark's client.
    pub client_arguments: Vec<String>,
    /// Where logs of daemons and servers are kept. Without it they vanish with the run; an error
    /// quotes their last lines either way.
    pub logs: Option<PathBuf>,
}

/// A tunnel that carries packets and a benchmark that waits for its client. Dropping it ends
/// every program and removes every namespace; so do a panic and, through [`signals`], Ctrl-C.
#[derive(Debug)]
pub struct Run {
    /// Unique id, part of every name.
    pub id: String,
    /// The hosts.
    pub hosts: Hosts,
    /// What joins them.
    pub wire: Wire,
    /// The tunnel between them.
    pub tunnel: Tunnel,
    /// The benchmark's server in host b.
    pub server: Option<Process>,
    /// The command to run in host a.
    pub client_command: Vec<String>,
    /// Host a's namespace.
    pub client_netns: PathBuf,
    undo: Undo,
}

impl Run {
    /// The client's command, ready to be started in host a. Should the run end first, however it
    /// ends, the client is ended too.
    pub fn client(&self) -> io::Result<Command> {
        let (program, arguments) = self
            .client_command
            .split_first()
            .ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = self.undo.command(&self.client_netns, program)?;
        command.args(arguments);
        Ok(command)
    }

    /// The run's own directory, which vanishes with it.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.undo.directory()
    }

    /// Removes everything, and says what could not be removed. Dropping only logs it.
    pub fn finish(mut self) -> Result<()> {
        self.undo.unwind()
    }
}

/// Sets everything up, after removing what dead runs have left.
pub fn start(options: &LabOptions) -> Result<Run> {
    if !nix::unistd::geteuid().is_root() {
        return Err(LabError::NotPermitted);
    }
    signals::install()?;
    match down() {
        Ok(ids) => ids
            .iter()
            .for_each(|id| log::info!("removed what run {id} had left")),
        // Names are unique, so what cannot be removed does not stand in the way.
        Err(error) => log::warn!("removing what an earlier run has left: {error}"),
    }
    let id = new_id();
    let mut undo = Undo::new(&id)?;
    let hosts = hosts::create(&mut undo, &id, &options.topology)?;
    for host in hosts.iter() {
        options.sysctls.write(&host.label, &host.netns)?;
    }
    let wire = wire::start(&options.wire, &hosts, &mut undo, &id, options.seed)?;
    let logs = options
        .logs
        .clone()
        .unwrap_or_else(|| undo.directory().to_owned());
    std::fs::create_dir_all(&logs).map_err(LabError::file("creating", &logs))?;
    let setup = vpn::Setup {
        id: &id,
        hosts: &hosts,
        undo: &mut undo,
        logs: logs.clone(),
    };
    let tunnel = vpn::start(&options.vpn, setup)?;
    let setup = benchmark::Setup {
        hosts: &hosts,
        tunnel: &tunnel,
        undo: &mut undo,
        logs,
        duration: options.duration,
        extra: &options.client_arguments,
    };
    let ready = benchmark::prepare(options.bench, setup)?;
    let client_netns = hosts.a.netns.clone();
    let benchmark::Ready {
        server,
        client_command,
    } = ready;
    Ok(Run {
        id,
        hosts,
        wire,
        tunnel,
        server,
        client_command,
        client_netns,
        undo,
    })
}

/// Six hexadecimal digits: short enough for a device name (15 bytes at most) with a prefix.
fn new_id() -> String {
    let mut id = uuid::Uuid::new_v4().simple().to_string();
    id.truncate(6);
    id
}
