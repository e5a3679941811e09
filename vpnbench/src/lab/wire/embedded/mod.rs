//! The embedded wire: a process of the lab's own between TAP devices. It carries super-packets
//! whole, with their virtio-net header, and treats what each host sends as netem would.

mod carry;
mod frame;
mod held;
mod port;
mod priority;

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::error::{LabError, Result};
use super::super::process::Process;
use super::super::undo::Undo;
use super::super::{part, wait};
use super::account::EgressAccount;
use super::impairment::Impairment;
use super::spec::{Model, Unit};

/// Name of the part and of its process.
pub(in super::super) const NAME: &str = "wire";
/// How long the process has to create its devices.
const START_LIMIT: Duration = Duration::from_secs(10);
/// How long it has to answer for its account.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// What the process is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Settings {
    /// Two or more hosts.
    pub(super) ports: Vec<PortSettings>,
    /// What the impairment acts on.
    pub(super) unit: Unit,
    /// How correlation is made.
    pub(super) model: Model,
    /// Whether the devices carry super-packets and unfinished checksums.
    pub(super) offload: bool,
    /// Where it answers for its account.
    pub(super) socket: PathBuf,
    /// Where it leaves its account when it ends.
    pub(super) account: PathBuf,
    /// Where to log what became of each unit.
    pub(super) truth: Option<PathBuf>,
}

/// One host's end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct PortSettings {
    /// The host's short name.
    pub(super) label: String,
    /// Its number, 1 for the first.
    pub(super) number: u8,
    /// Namespace of the TAP device.
    pub(super) netns: PathBuf,
    /// Name of the TAP device.
    pub(super) device: String,
    /// What happens to what it sends.
    pub(super) impairment: Impairment,
    /// Whether that happens in the host, in the queue of [`super::hold`], and not on the device.
    pub(super) in_the_host: bool,
    /// Where its random draws start.
    pub(super) seed: u64,
}

/// What the process answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Report {
    /// Per host by its short name.
    pub(super) egress: Vec<(String, EgressAccount)>,
    /// CPU time so far.
    pub(super) cpu_ns: u64,
}

/// The part: carries packets until a signal arrives.
pub(in super::super) fn run(settings: &str) -> Result<()> {
    let settings: Settings = part::settings(NAME, settings)?;
    priority::raise();
    // Sleeps end when they should instead of up to 50 us later.
    nix::sys::prctl::set_timerslack(1).map_err(LabError::failed("setting", "the timer slack"))?;
    let mut wire = carry::Wire::open(&settings)?;
    let outcome = wire.carry();
    outcome.and(wire.leave_account(&settings))
}

/// The running process, as the lab sees it.
#[derive(Debug)]
pub(super) struct Embedded {
    process: Process,
    socket: PathBuf,
}

impl Embedded {
    /// Starts the process and waits until its devices are there.
    pub(super) fn start(
        undo: &mut Undo,
        settings: &Settings,
        netns: &Path,
        log: PathBuf,
    ) -> Result<Embedded> {
        let process = part::start(undo, NAME, settings, netns, log)?;
        let socket = settings.socket.clone();
        wait::until(
            "the embedded wire's devices",
            START_LIMIT,
            &[&process],
            || Ok(UnixStream::connect(&socket).ok().map(drop)),
        )?;
        Ok(Embedded { process, socket })
    }

    /// The process.
    pub(super) fn process(&self) -> &Process {
        &self.process
    }

    /// Asks for the account as of now.
    pub(super) fn report(&self) -> Result<Report> {
        if self.process.has_ended() {
            return Err(self.ended());
        }
        let failed = || LabError::file("asking the wire at", &self.socket);
        let mut stream = UnixStream::connect(&self.socket).map_err(failed())?;
        stream
            .set_read_timeout(Some(ANSWER_LIMIT))
            .map_err(failed())?;
        let mut json = Vec::new();
        stream.read_to_end(&mut json).map_err(failed())?;
        if json.is_empty() && self.process.has_ended() {
            return Err(self.ended());
        }
        serde_json::from_slice(&json).map_err(LabError::failed("reading", "the wire's account"))
    }

    /// The error that says that the process is gone.
    pub(super) fn ended(&self) -> LabError {
        LabError::Ended {
            program: "the embedded wire".to_owned(),
            what: "the end of the run; without it no packet passes".to_owned(),
            log: self.process.log_tail(),
        }
    }
}
