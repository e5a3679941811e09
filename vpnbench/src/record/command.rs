//! The benchmark command: started, watched from its first instruction, ended with the recording.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::time::TimeVal;
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use super::clock::monotonic_ns;
use super::tee::{Onward, Tee};
use crate::trace::model::{CommandOutput, CommandStatus};

/// How long a command may take to end after SIGINT before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// A running benchmark.
pub(super) struct Benchmark {
    child: Child,
    started_ns: u64,
    pid: i32,
    output: Option<Tee>,
    /// CPU seconds of earlier children, which getrusage adds up.
    cpu_before_s: f64,
}

impl Benchmark {
    /// Starts `command`. Its standard output is recorded on its way `onward`.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub(super) fn start(command: std::process::Command, onward: Onward) -> io::Result<Self> {
        let mut builder = Command::from(command);
        builder.kill_on_drop(true);
        let (stdout, output) = Tee::start(onward)?;
        builder.stdout(stdout);
        end_with_parent(&mut builder);
        let started_ns = monotonic_ns();
        let child = builder.spawn()?;
        let pid = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .unwrap_or(0);
        Ok(Self {
            child,
            started_ns,
            pid,
            output: Some(output),
            cpu_before_s: children_cpu_s(),
        })
    }

    /// Waits for its end. Safe to drop half-way and call again.
    ///
    /// # Errors
    /// If the kernel does not know the child any more.
    pub(super) async fn wait(&mut self) -> io::Result<CommandStatus> {
        use std::os::unix::process::ExitStatusExt;
        let status = self.child.wait().await?;
        Ok(CommandStatus {
            code: status.code(),
            signal: status.signal(),
            started_ns: self.started_ns,
            ended_ns: monotonic_ns(),
            cpu_s: children_cpu_s() - self.cpu_before_s,
        })
    }

    /// What it wrote to its standard output; once it has ended.
    pub(super) fn take_output(&mut self) -> Option<CommandOutput> {
        self.output.take().map(Tee::finish)
    }

    /// Asks it to end (SIGINT, which benchmarks answer with their summary), kills it if it does
    /// not, and waits.
    ///
    /// # Errors
    /// If the kernel does not know the child any more.
    pub(super) async fn stop(&mut self) -> io::Result<CommandStatus> {
        if self.pid > 0 {
            // It may have ended by itself, which is as good.
            let _ = kill(Pid::from_raw(self.pid), Signal::SIGINT);
        }
        if let Ok(status) = tokio::time::timeout(GRACE, self.wait()).await {
            return status;
        }
        self.child.start_kill()?;
        self.wait().await
    }
}

/// Has the kernel send SIGTERM to the command when the thread that starts it ends, which is when
/// the recorder was killed: nobody else would end the command then.
fn end_with_parent(builder: &mut Command) {
    let parent = Pid::this();
    let body = move || {
        nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?;
        // The parent may have gone before the kernel knew what to do about it.
        if Pid::parent() == parent {
            Ok(())
        } else {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    };
    // SAFETY: between fork and exec the body makes two system calls and allocates nothing.
    unsafe { builder.pre_exec(body) };
}

/// The program that a command would run, as execvp looks for it.
pub(super) fn find_program(program: &OsStr, directory: Option<&Path>) -> io::Result<PathBuf> {
    let directory = directory.unwrap_or(Path::new("."));
    if program.as_bytes().contains(&b'/') {
        let path = directory.join(program);
        return path.metadata().map(|_| path);
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    std::env::split_paths(&path)
        .map(|entry| directory.join(entry).join(program))
        .find(|path| path.is_file())
        .ok_or_else(|| nix::Error::ENOENT.into())
}

/// CPU seconds of all children that have ended and been waited for.
fn children_cpu_s() -> f64 {
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    getrusage(UsageWho::RUSAGE_CHILDREN).map_or(0.0, |usage| {
        seconds(usage.user_time()) + seconds(usage.system_time())
    })
}
