//! Programs the lab starts, and how it ends them: by a pidfd, so that a recycled process number
//! never hits a stranger.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::cgroup;
use super::error::{LabError, Result};
use super::netns;

/// How long a program has to end after SIGTERM. The slowest daemon known needs 1.04 s.
const GRACE: Duration = Duration::from_secs(3);
/// How long the kernel has to end it after SIGKILL.
const KILL: Duration = Duration::from_secs(5);

/// A running (or ended) program.
#[derive(Debug, Clone)]
pub struct Process {
    pid: u32,
    name: String,
    log: Option<PathBuf>,
    netns: Option<PathBuf>,
    pidfd: Arc<OwnedFd>,
}

impl Process {
    /// Refers to the process that has number `pid` and start time `start` (clock ticks after
    /// boot), if it is still there.
    pub(crate) fn find(pid: u32, start: u64) -> Option<Process> {
        let pidfd = pidfd_open(pid).ok()?;
        // In this order: a process number cannot be reused unnoticed once the pidfd is open.
        (start_time(pid)? == start).then(|| Process {
            pid,
            name: format!("process {pid}"),
            log: None,
            netns: None,
            pidfd: Arc::new(pidfd),
        })
    }

    /// Its process number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Name of the program.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its output goes.
    #[must_use]
    pub fn log(&self) -> Option<&Path> {
        self.log.as_deref()
    }

    /// The namespace it was started in, if the lab started it.
    pub(crate) fn netns(&self) -> Option<&Path> {
        self.netns.as_deref()
    }

    /// Whether it has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ends_within(Duration::ZERO)
    }

    /// Waits for its end.
    #[must_use]
    pub fn ends_within(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, timeout) {
                Ok(ready) if ready > 0 => return true,
                Err(nix::Error::EINTR) => {}
                _ => return false,
            }
        }
    }

    /// The last lines it wrote.
    pub(crate) fn log_tail(&self) -> String {
        let text = self
            .log
            .as_ref()
            .and_then(|log| fs::read(log).ok())
            .unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        if lines.is_empty() {
            return format!("{} wrote nothing", self.name);
        }
        let tail = lines[lines.len().saturating_sub(5)..].join(" | ");
        format!("{} wrote: {tail}", self.name)
    }

    /// Sends it a signal, which it does something other than ending on.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        pidfd_send_signal(self.pidfd.as_raw_fd(), signal)
            .map_err(LabError::failed("signalling", &self.name))
    }

    /// Ends it: SIGTERM, and SIGKILL when that is not enough.
    pub(crate) fn terminate(&self) -> Result<()> {
        for (signal, limit) in [(Signal::SIGTERM, GRACE), (Signal::SIGKILL, KILL)] {
            match pidfd_send_signal(self.pidfd.as_raw_fd(), signal) {
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(()),
                other => other.map_err(LabError::failed("ending", &self.name))?,
            }
            if self.ends_within(limit) {
                return Ok(());
            }
        }
        Err(LabError::failed("ending", &self.name)(
            "it is still there after SIGKILL",
        ))
    }
}

/// What to start.
pub(crate) struct Program<'a> {
    /// Executable, looked up in PATH unless it is a path.
    pub(crate) name: &'a str,
    /// Its arguments.
    pub(crate) arguments: &'a [&'a str],
    /// The namespace to start it in.
    pub(crate) netns: &'a Path,
    /// Where its output goes.
    pub(crate) log: PathBuf,
}

/// Starts a program in a process group of its own: Ctrl-C on the terminal reaches vpnbench, which
/// ends the programs in order. `objects` is the run's registry: the child enters itself there
/// before it executes anything, so that no moment exists in which it is running but unknown.
pub(crate) fn start(
    program: &Program<'_>,
    environment: &[(&str, &str)],
    objects: &File,
    bounds: &Bounds<'_>,
) -> Result<(Process, Child)> {
    let failed = || LabError::failed::<io::Error>("starting", program.name);
    let output = File::create(&program.log).map_err(LabError::file("creating", &program.log))?;
    let errors = output.try_clone().map_err(failed())?;
    let mut command = netns::command(program.netns, program.name).map_err(failed())?;
    command.args(program.arguments).process_group(0);
    command.envs(environment.iter().copied());
    command.stdin(Stdio::null()).stdout(output).stderr(errors);
    register(&mut command, objects).map_err(failed())?;
    bounds.apply(&mut command).map_err(failed())?;
    let mut child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            LabError::Skipped(format!("{} not found", base_name(program.name)))
        }
        _ => failed()(error),
    })?;
    let pidfd = pidfd_open(child.id()).map_err(|error| {
        // Nobody else would: it is not in the undo stack yet.
        let _ended = child.kill().and_then(|()| child.wait());
        failed()(error)
    })?;
    let process = Process {
        pid: child.id(),
        name: base_name(program.name).to_owned(),
        log: Some(program.log.clone()),
        netns: Some(program.netns.to_owned()),
        pidfd: Arc::new(pidfd),
    };
    Ok((process, child))
}

/// A program's name without its folder.
fn base_name(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

/// Makes a command's process enter itself in a run's registry before it executes anything.
pub(crate) fn register(command: &mut Command, objects: &File) -> io::Result<()> {
    let objects = objects.try_clone()?;
    // SAFETY: `register_self` only makes system calls on buffers of its own stack.
    unsafe { command.pre_exec(move || register_self(objects.as_raw_fd())) };
    Ok(())
}

/// What a program may use of the machine; all of it by default.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bounds<'a> {
    /// Cores.
    pub(crate) cores: Option<CpuSet>,
    /// The control group it belongs to.
    pub(crate) group: Option<&'a Path>,
}

impl Bounds<'_> {
    /// Keeps a command's process, and all it starts, within the bounds.
    pub(crate) fn apply(&self, command: &mut Command) -> io::Result<()> {
        if let Some(group) = self.group {
            let members = cgroup::members(group)?;
            let enter = move || {
                let entered = nix::unistd::write(&members, b"0");
                entered.map(drop).map_err(io::Error::from)
            };
            // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
            unsafe { command.pre_exec(enter) };
        }
        if let Some(cores) = self.cores {
            let keep = move || sched_setaffinity(Pid::from_raw(0), &cores).map_err(io::Error::from);
            // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
            unsafe { command.pre_exec(keep) };
        }
        Ok(())
    }
}

/// Appends `process` and the caller's /proc/self/stat line, which holds its number and start time.
fn register_self(objects: RawFd) -> io::Result<()> {
    const PREFIX: &[u8] = b"process ";
    let mut line = [0_u8; 1024];
    line[..PREFIX.len()].copy_from_slice(PREFIX);
    // SAFETY: the path is a C string, and each buffer is as long as the length given.
    unsafe {
        let stat = libc::open(
            c"/proc/self/stat".as_ptr(),
            libc::O_RDONLY | libc::O_CLOEXEC,
        );
        if stat < 0 {
            return Err(io::Error::last_os_error());
        }
        let room = &mut line[PREFIX.len()..];
        let read = libc::read(stat, room.as_mut_ptr().cast(), room.len());
        libc::close(stat);
        let Ok(read) = usize::try_from(read) else {
            return Err(io::Error::last_os_error());
        };
        let length = PREFIX.len() + read;
        if libc::write(objects, line.as_ptr().cast(), length) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// A process's start time in clock ticks after boot.
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_stat(&stat).map(|(_, start)| start)
}

/// Process number and start time of a /proc/PID/stat line.
pub(crate) fn parse_stat(stat: &str) -> Option<(u32, u64)> {
    let pid = stat.split(' ').next()?.parse().ok()?;
    // The second field is the name in parentheses and may hold anything, parentheses included.
    let rest = stat.get(stat.rfind(')')? + 1..)?;
    let start = rest.split_whitespace().nth(19)?.parse().ok()?;
    Some((pid, start))
}

fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: takes two integers and returns a new descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = RawFd::try_from(fd).ok().filter(|fd| *fd >= 0);
    let fd = fd.ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel just returned this descriptor and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn pidfd_send_signal(pidfd: RawFd, signal: Signal) -> io::Result<()> {
    let info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo asks for what kill(2) would send; the other arguments are integers.
    let result =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd, signal as i32, info, 0) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_number_and_start_time_past_any_name() {
        let fields: Vec<String> = (4..=30).map(|field| field.to_string()).collect();
        let stat = format!("17 (a) b (c) S {}\n", fields.join(" "));
        assert_eq!(parse_stat(&stat), Some((17, 22)));
        assert_eq!(parse_stat("17 (a"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn finds_a_process_only_by_number_and_start_time() {
        let pid = std::process::id();
        let Some(start) = start_time(pid) else {
            panic!("no /proc")
        };
        assert!(Process::find(pid, start).is_some_and(|process| !process.has_ended()));
        assert!(Process::find(pid, start + 1).is_none());
    }
}
