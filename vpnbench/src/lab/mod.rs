//! Reproduces tunnels on one machine: hosts, wires, daemons, benchmarks.
//!
//! [`start`] brings everything up to the point where the benchmark's client could be started, so
//! that a recorder can be attached first. Everything lives in namespaces of its own; the caller's
//! namespace, its routes and its sysctls stay as they are. Dropping the [`Run`] removes it all.

pub mod ablate;
mod asked;
pub mod benchmark;
pub mod campaign;
mod cgroup;
pub mod error;
pub mod execute;
pub mod hosts;
pub mod matrix;
mod netlink;
pub mod netns;
pub mod outcome;
pub mod part;
mod ports;
pub mod process;
mod registry;
pub mod scenario;
pub mod signals;
pub mod table;
pub mod tunnel;
mod undo;
mod unrecorded;
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
use scenario::cpus;
pub use scenario::{Cpus, Scenario, Sysctls};
use undo::Undo;
pub use vpn::{Tunnel, Vpn};
pub use wire::{Wire, WireSpec};

use nix::sched::CpuSet;

use crate::probe::discover::Selector;
use crate::probe::netns::NetnsSpec;
use crate::record::clock::monotonic_ns;

/// What to set up.
#[derive(Debug, Clone)]
pub struct LabOptions {
    /// The tunnel.
    pub vpn: vpn::Spec,
    /// The benchmark.
    pub benchmark: benchmark::Spec,
    /// The hosts.
    pub topology: Topology,
    /// What joins them.
    pub wire: WireSpec,
    /// Where the run's own random draws start.
    pub seed: u64,
    /// Sysctls of the hosts' namespaces.
    pub sysctls: Sysctls,
    /// Cores that daemons and benchmark are kept to.
    pub cpus: Cpus,
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
    /// All of the benchmark's servers.
    pub servers: Vec<Process>,
    attendance: Option<benchmark::Attendance>,
    vpn: vpn::Spec,
    /// What the VPN's adapter put into the run's directory.
    vpn_files: Vec<PathBuf>,
    vpn_kept: vpn::Kept,
    allowances: Allowances,
    logs: PathBuf,
    undo: Undo,
}

/// What each program may use of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Allowance {
    /// Cores; `None`: all.
    cores: Option<CpuSet>,
    /// Share of one core's time; `None`: no limit.
    share: Option<f64>,
}

/// `[cpus]`, as the kernel takes it.
#[derive(Debug, Clone, Copy)]
struct Allowances {
    daemon: Allowance,
    benchmark: Allowance,
}

impl Allowances {
    fn of(cpus: &Cpus) -> Result<Allowances> {
        Ok(Allowances {
            daemon: Allowance {
                cores: cpus::usable(&cpus.daemon)?,
                share: cpus.daemon_share.map(|given| given.share),
            },
            benchmark: Allowance {
                cores: cpus::usable(&cpus.benchmark)?,
                share: None,
            },
        })
    }
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

    /// What a recorder should watch: both ends of the tunnel; without one, the wire at the client.
    #[must_use]
    pub fn selector(&self) -> Selector {
        let selector = Selector {
            command: self.client_command.clone(),
            ..Selector::default()
        };
        let (a, b) = (&self.tunnel.a.device, &self.tunnel.b.device);
        let netns = [&self.hosts.a, &self.hosts.b].map(|host| NetnsSpec::Path(host.netns.clone()));
        match self.vpn.name {
            Vpn::None => Selector {
                outer: Some(format!("{a},{b}")),
                netns: netns.to_vec(),
                ..selector
            },
            _ => Selector {
                tun: Some(format!("{a},{b}")),
                netns: netns.to_vec(),
                ..selector
            },
        }
    }

    /// The run's own directory, which vanishes with it.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.undo.directory()
    }

    /// Does what the benchmark wants done while its client runs: restarts the VPN when the client
    /// asks for it. Returns when that is done, or when `client_ended` says that nobody waits.
    ///
    /// # Errors
    /// A signal, or what kept the client from being told. That the VPN does not come up again is
    /// no error here: the client reports it.
    pub fn attend(&mut self, client_ended: &dyn Fn() -> bool) -> Result<()> {
        let Some(attendance) = self.attendance.take() else {
            return Ok(());
        };
        while !attendance.asked.exists() {
            signals::check()?;
            if client_ended() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        attendance.tell(&self.restart_vpn())
    }

    /// Ends all daemons and starts the VPN again as it was.
    fn restart_vpn(&mut self) -> benchmark::Restarted {
        let stopped_ns = monotonic_ns();
        let ends = [&self.tunnel.a, &self.tunnel.b];
        let daemons = ends.into_iter().filter_map(|end| end.daemon.as_ref());
        let (mut count, mut outcome) = (0, Ok(()));
        for daemon in daemons {
            count += 1;
            outcome = outcome.and(daemon.terminate());
        }
        if count > 0 {
            // The adapter makes them anew, and would take the old ones for a mistake.
            for path in &self.vpn_files {
                let removed = match path.is_dir() {
                    true => std::fs::remove_dir_all(path),
                    false => std::fs::remove_file(path),
                };
                outcome = outcome.and(removed.map_err(LabError::file("removing", path)));
            }
        }
        let started_ns = monotonic_ns();
        if count > 0 {
            self.undo.keep_to(self.allowances.daemon);
            let setup = vpn::Setup {
                id: &self.id,
                hosts: &self.hosts,
                undo: &mut self.undo,
                logs: self.logs.clone(),
                kept: &mut self.vpn_kept,
            };
            let again = outcome.and_then(|()| vpn::start(&self.vpn, setup));
            self.undo.keep_to(self.allowances.benchmark);
            outcome = again.map(|tunnel| self.tunnel = tunnel);
        }
        benchmark::Restarted {
            what: if count > 0 { "both" } else { "none" }.to_owned(),
            stopped_ns,
            started_ns,
            error: outcome.err().map(|error| error.to_string()),
        }
    }

    /// Removes everything, and says what could not be removed, or that the wire had ended before:
    /// what was measured after that is worthless. Dropping only logs it.
    pub fn finish(mut self) -> Result<()> {
        let stood = self.wire.check();
        self.undo.unwind().and(stood)
    }
}

/// Sets everything up, after removing what dead runs have left.
pub fn start(options: &LabOptions) -> Result<Run> {
    if !nix::unistd::geteuid().is_root() {
        return Err(LabError::NotPermitted);
    }
    signals::install()?;
    let allowances = Allowances::of(&options.cpus)?;
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
    let logs = options
        .logs
        .clone()
        .unwrap_or_else(|| undo.directory().to_owned());
    std::fs::create_dir_all(&logs).map_err(LabError::file("creating", &logs))?;
    let setup = wire::Setup {
        id: &id,
        hosts: &hosts,
        undo: &mut undo,
        seed: options.seed,
        logs: &logs,
    };
    let wire = wire::start(&options.wire, setup)?;
    let before = entries(undo.directory());
    let mut vpn_kept = vpn::Kept::new();
    undo.keep_to(allowances.daemon);
    let setup = vpn::Setup {
        id: &id,
        hosts: &hosts,
        undo: &mut undo,
        logs: logs.clone(),
        kept: &mut vpn_kept,
    };
    let tunnel = vpn::start(&options.vpn, setup)?;
    let mut vpn_files = entries(undo.directory());
    vpn_files.retain(|path| !before.contains(path));
    undo.keep_to(allowances.benchmark);
    let setup = benchmark::Setup {
        hosts: &hosts,
        tunnel: &tunnel,
        undo: &mut undo,
        logs: &logs,
    };
    let ready = benchmark::prepare(&options.benchmark, setup)?;
    let client_netns = hosts.a.netns.clone();
    let benchmark::Ready {
        servers,
        client_command,
        attendance,
    } = ready;
    Ok(Run {
        id,
        hosts,
        wire,
        tunnel,
        server: servers.first().cloned(),
        servers,
        client_command,
        client_netns,
        attendance,
        vpn: options.vpn.clone(),
        vpn_files,
        vpn_kept,
        allowances,
        logs,
        undo,
    })
}

/// What a directory holds.
fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// Six hexadecimal digits: short enough for a device name (15 bytes at most) with a prefix.
fn new_id() -> String {
    let mut id = uuid::Uuid::new_v4().simple().to_string();
    id.truncate(6);
    id
}
