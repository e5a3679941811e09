//! The undo stack: each thing is entered when it is created and removed in reverse order, on
//! success, on failure, in a panic and after a signal (see `signals`). What even that cannot
//! reach, `kill -9`, is left to the registry.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use super::error::Result;
use super::process::{self, Bounds, Process, Program};
use super::registry::{self, Registry};
use super::scenario::set_sysctl;
use super::{Allowance, cgroup, hosts, netns, signals};

/// What a run has created so far. Dropping it removes everything.
#[derive(Debug)]
pub(crate) struct Undo {
    id: String,
    registry: Registry,
    steps: Vec<Step>,
    allowance: Allowance,
    /// Control groups made.
    groups: usize,
    unwound: bool,
}

#[derive(Debug)]
enum Step {
    Namespace(String),
    File(PathBuf),
    Group(PathBuf),
    Process(Process, Child),
}

impl Undo {
    /// An empty stack for the run `id`, entered in the registry.
    pub(crate) fn new(id: &str) -> Result<Undo> {
        Ok(Undo {
            id: id.to_owned(),
            registry: Registry::create(id)?,
            steps: Vec::new(),
            allowance: Allowance::default(),
            groups: 0,
            unwound: false,
        })
    }

    /// The run's directory for keys, configuration and logs.
    pub(crate) fn directory(&self) -> &Path {
        self.registry.directory()
    }

    /// What each program that is started from now on may use.
    pub(crate) fn keep_to(&mut self, allowance: Allowance) {
        self.allowance = allowance;
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
        let group = match self.allowance.share {
            Some(share) => Some(self.create_group(share)?),
            None => None,
        };
        let bounds = Bounds {
            cores: self.allowance.cores,
            group: group.as_deref(),
        };
        let objects = self.registry.objects();
        let (process, child) = process::start(program, environment, objects, &bounds)?;
        self.steps.push(Step::Process(process.clone(), child));
        Ok(process)
    }

    /// A command whose process belongs to the run: the caller starts it and waits for it, and when
    /// the run ends earlier, so does the process.
    pub(crate) fn command(&self, netns: &Path, program: &str) -> io::Result<Command> {
        let mut command = netns::command(netns, program)?;
        process::register(&mut command, self.registry.objects())?;
        let bounds = Bounds {
            cores: self.allowance.cores,
            group: None,
        };
        bounds.apply(&mut command)?;
        Ok(command)
    }

    /// A control group of its own for one program.
    fn create_group(&mut self, share: f64) -> Result<PathBuf> {
        let path = cgroup::place(&format!("{}{}-{}", registry::PREFIX, self.id, self.groups))?;
        self.groups += 1;
        self.registry.add_group(&path)?;
        self.steps.push(Step::Group(path.clone()));
        cgroup::create(&path, share)?;
        Ok(path)
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
            Step::Group(path) => cgroup::remove(&path),
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
