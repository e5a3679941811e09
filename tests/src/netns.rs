//! Network namespaces and processes in them, gone when their guard is dropped.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A short name that no other test on the machine uses, e.g. `vbd4121x7`.
pub fn unique(prefix: &str) -> String {
    // Device names have at most 15 characters, process ids up to 7 digits.
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}{}x{number}", std::process::id())
}

/// Runs a program to its end; its output is the error.
pub fn run(line: &str) -> Result<String> {
    let mut words = line.split_whitespace();
    let program = words.next().context("empty command")?;
    let output = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .output();
    let output = output.with_context(|| format!("cannot start: {line}"))?;
    if !output.status.success() {
        bail!("{line}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A named namespace without uplink.
#[derive(Debug)]
pub struct Namespace {
    /// Its name under `/run/netns`.
    pub name: String,
}

impl Namespace {
    /// Creates one with the loopback device up.
    pub fn new() -> Result<Self> {
        let name = unique("vbd");
        run(&format!("ip netns add {name}"))?;
        let namespace = Self { name };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Runs `ip` on the namespace.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        run(&format!("ip -n {} {arguments}", self.name))
    }

    /// Runs a program in the namespace to its end.
    pub fn exec(&self, line: &str) -> Result<String> {
        run(&format!("ip netns exec {} {line}", self.name))
    }

    /// Starts a program in the namespace.
    pub fn spawn(&self, line: &str) -> Result<Process> {
        Process::spawn(&format!("ip netns exec {} {line}", self.name))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = run(&format!("ip netns del {}", self.name)) {
            report(&format!("clean-up: {error}"));
        }
    }
}

/// A veth pair between two namespaces, `vd0` with 10.99.0.1/24 and 10.99.0.2/24.
pub fn connect(a: &Namespace, b: &Namespace) -> Result<()> {
    a.ip(&format!(
        "link add vd0 type veth peer name vd0 netns {}",
        b.name
    ))?;
    for (namespace, address) in [(a, "10.99.0.1"), (b, "10.99.0.2")] {
        namespace.ip(&format!("addr add {address}/24 dev vd0"))?;
        namespace.ip("link set vd0 up")?;
    }
    Ok(())
}

/// A running program, ended when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts a program with its output thrown away.
    pub fn spawn(line: &str) -> Result<Self> {
        Self::spawn_with(line, Stdio::null())
    }

    /// Starts a program with the given standard input.
    pub fn spawn_with(line: &str, input: impl Into<Stdio>) -> Result<Self> {
        let mut words = line.split_whitespace();
        let mut command = Command::new(words.next().context("empty command")?);
        command
            .args(words)
            .stdin(input)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command
            .spawn()
            .with_context(|| format!("cannot start: {line}"))?;
        Ok(Self { child })
    }

    /// Process id. `ip netns exec` becomes the program, so it is the program's own.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it with SIGTERM, or SIGKILL after two seconds, and waits until it is gone.
    pub fn stop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        // The child is not reaped yet, so its id still means it.
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
        let ended = wait_for(Duration::from_secs(2), || {
            matches!(self.child.try_wait(), Ok(Some(_)))
        });
        if !ended {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Waits until something holds; false after `patience`.
pub fn wait_for(patience: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + patience;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        sleep(Duration::from_millis(5));
    }
}

#[allow(clippy::print_stderr)] // a guard that fails has nobody else to tell
fn report(text: &str) {
    eprintln!("{text}");
}
