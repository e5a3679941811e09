//! The undo stack: each thing is entered when it is created and removed in reverse order, on
//! success, on failure, in a panic and after a signal (see `signals`). What even that cannot
//! reach, `kill -9`, is left to the registry.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use nix::sched::CpuSet;

use super::error::Result;
use super::process::{self, Process, Program};
use super::registry::{self, Registry};
use super::scenario::set_sysctl;
use super::{hosts, netns, signals};

/// What a run has created so far. Dropping it removes everything.
#[derive(Debug)]
pub(crate) struct Undo {
    registry: Registry,
    steps: Vec<Step>,
    cores: Option<CpuSet>,
    unwound: bool,
}

#[derive(Debug)]
enum Step {
    Namespace(String),
    File(PathBuf),
    Process(Process, Child),
}

impl Undo {
    /// An empty stack for the run `id`, entered in the registry.
    pub(crate) fn new(id: &str) -> Result<Undo> {
        Ok(Undo {
            registry: Registry::create(id)?,
            steps: Vec::new(),
            cores: None,
            unwound: false,
        })
    }

    /// The run's directory for keys, configuration and logs.
    pub(crate) fn directory(&self) -> &Path {
        self.registry.directory()
    }

    /// Keeps programs that are started from now on to these cores.
    pub(crate) fn keep_to(&mut self, cores: Option<CpuSet>) {
        self.cores = cores;
    }

    /// Creates a namespace.
    pub(crate) fn create_namespace(&mut self, name: &str) -> Result<()> {
        signals::check()?;
        self.registry.add_namespace(name)?;
        self.steps.push(Step::Namespace(name.to_owned()));
        netns::create(name)?;
        // There are no routers: solicitations every few seconds would only be traffic of nobody's.
        default_for_devices(&netns::path(name), "accept_ra", "0")
    }

    /// Creates a namespace for devices only, in which the kernel speaks no IPv6 of its own.
    pub(crate) fn create_bare_namespace(&mut self, name: &str) -> Result<PathBuf> {
        self.create_namespace(name)?;
        let path = netns::path(name);
        default_for_devices(&path, "disable_ipv6", "1")?;
        Ok(path)
    }

    /// Announces a file that a program will create outside the run's directory.
    pub(crate) fn expect_file(&mut self, path: &Path) -> Result<()> {
        self.registry.add_file(path)?;
        self.steps.push(Step::File(path.to_owned()));
        Ok(())
    }

    /// Starts a program.
    pub(crate) fn start(&mut self, program: &Program<'_>) -> Result<Process> {
        self.start_with(program, &[])
    }

    /// Starts a program with additions to its environment.
    pub(crate) fn start_with(
        &mut self,
        program: &Program<'_>,
        environment: &[(&str, &str)],
    ) -> Result<Process> {
        signals::check()?;
        let objects = self.registry.objects();
        let (process, child) = process::start(program, environment, objects, self.cores)?;
        self.steps.push(Step::Process(process.clone(), child));
        Ok(process)
    }

    /// A command whose process belongs to the run: the caller starts it and waits for it, and when
    /// the run ends earlier, so does the process.
    pub(crate) fn command(&self, netns: &Path, program: &str) -> io::Result<Command> {
        let mut command = netns::command(netns, program)?;
        process::register(&mut command, self.registry.objects())?;
        process::keep_to(&mut command, self.cores);
        Ok(command)
    }

    /// Removes everything, last created first, and reports the first failure after having tried all.
    pub(crate) fn unwind(&mut self) -> Result<()> {
        self.unwound = true;
        let mut outcome = Ok(());
        for process in self.registry.processes() {
            outcome = outcome.and(process.terminate());
        }
        while let Some(step) = self.steps.pop() {
            outcome = outcome.and(step.undo());
        }
        // With something left behind the entry stays, for `lab down`.
        outcome.and_then(|()| self.registry.remove())
    }
}

impl Step {
    fn undo(self) -> Result<()> {
        match self {
            Step::Namespace(name) => netns::delete(&name),
            Step::File(path) => registry::remove_file(&path),
            Step::Process(process, mut child) => {
                process.terminate()?;
                let reaped = child.wait();
                reaped
                    .map(drop)
                    .map_err(super::LabError::failed("reaping", process.name()))
            }
        }
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        if self.unwound {
            return;
        }
        if let Err(error) = self.unwind() {
            log::warn!("{error}; `vpnbench lab down` tries again");
        }
    }
}

/// Sets what IPv6 devices that come into a namespace begin with; nothing where there is no IPv6.
fn default_for_devices(netns: &Path, name: &str, value: &str) -> Result<()> {
    netns::run_in(netns, || match hosts::has_ipv6() {
        true => set_sysctl(&format!("net.ipv6.conf.default.{name}"), value),
        false => Ok(()),
    })
}
