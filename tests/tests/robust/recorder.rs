//! A running recorder, and what must not be left of it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use vpnbench_tests::binary;
use vpnbench_tests::netns::wait_for;

/// Longest wait for anything that should happen at once.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// Directory of one recorder: its trace, its output, its temporary files.
pub(crate) struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("vpnbench-robust-")
            .tempdir()?;
        std::fs::create_dir(directory.path().join("tmp"))?;
        Ok(Self { directory })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn trace(&self) -> PathBuf {
        self.path("run.vbt")
    }

    /// `vpnbench ARGUMENTS`, split at spaces; `TRACE` is the trace's path.
    pub(crate) fn vpnbench(&self, arguments: &str) -> Command {
        self.under(&[], binary::path(), arguments)
    }

    /// The same under another program such as `setpriv`.
    pub(crate) fn under(&self, wrapper: &[&str], program: &Path, arguments: &str) -> Command {
        let mut words: Vec<PathBuf> = wrapper.iter().map(PathBuf::from).collect();
        words.push(program.to_owned());
        words.extend(arguments.split_whitespace().map(|word| match word {
            "TRACE" => self.trace(),
            other => other.into(),
        }));
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .env("TMPDIR", self.path("tmp"))
            .env_remove("NO_COLOR")
            .stdin(Stdio::null());
        command
    }

    /// Runs a command of vpnbench to its end.
    pub(crate) fn run(&self, arguments: &str) -> Result<Ended> {
        self.finish(self.vpnbench(arguments))
    }

    pub(crate) fn finish(&self, mut command: Command) -> Result<Ended> {
        let output = command.output()?;
        self.check_temporary()?;
        Ok(Ended {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// The report of the trace as JSON.
    pub(crate) fn report(&self) -> Result<Value> {
        report(&self.trace())
    }

    /// Nothing is left in the directory for temporary files.
    pub(crate) fn check_temporary(&self) -> Result<()> {
        let left: Vec<_> = std::fs::read_dir(self.path("tmp"))?
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        ensure!(left.is_empty(), "temporary files left behind: {left:?}");
        Ok(())
    }
}

/// The report of a trace as JSON; the trace has to be readable.
pub(crate) fn report(trace: &Path) -> Result<Value> {
    let output = binary::vpnbench()
        .args(["report", "--format", "json"])
        .arg(trace)
        .output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the trace does not read: {stderr}");
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// All problems of a report on lines of their own.
pub(crate) fn problems(report: &Value) -> String {
    let all = report["problems"].as_array().into_iter().flatten();
    let messages: Vec<&str> = all.filter_map(|one| one["message"].as_str()).collect();
    messages.join("\n")
}

/// All changes of a report on lines of their own.
pub(crate) fn changes(report: &Value) -> String {
    let all = report["run"]["changes"].as_array().into_iter().flatten();
    let sentences: Vec<&str> = all.filter_map(|one| one["what"].as_str()).collect();
    sentences.join("\n")
}

/// A program that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// Checks the exit status and that standard error holds every one of the texts.
    pub(crate) fn expect(&self, code: i32, texts: &[&str]) -> Result<()> {
        ensure!(
            self.status.code() == Some(code),
            "{} instead of {code}: {}",
            self.status,
            self.stderr
        );
        for text in texts {
            ensure!(
                self.stderr.contains(text),
                "no '{text}' in: {}",
                self.stderr
            );
        }
        Ok(())
    }

    pub(crate) fn signal(&self) -> Option<i32> {
        self.status.signal()
    }
}

/// A recorder that is recording.
pub(crate) struct Recorder {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    reading: Option<JoinHandle<()>>,
    stdout: PathBuf,
    programs: Vec<u32>,
    maps: Vec<u32>,
    children: Vec<u32>,
}

impl Recorder {
    /// Starts `vpnbench ARGUMENTS` and waits until everything is watched.
    pub(crate) fn start(place: &Place, arguments: &str) -> Result<Self> {
        let stdout = place.path("stdout");
        let output = File::create(&stdout)?;
        Self::start_command(place.vpnbench(arguments), output.into(), stdout)
    }

    /// The same with another standard output.
    pub(crate) fn start_to(place: &Place, arguments: &str, output: Stdio) -> Result<Self> {
        let stdout = place.path("none");
        Self::start_command(place.vpnbench(arguments), output, stdout)
    }

    /// The same with a command that was made ready.
    pub(crate) fn start_command(
        mut command: Command,
        output: Stdio,
        stdout: PathBuf,
    ) -> Result<Self> {
        command.stdout(output).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        drop(command);
        let stderr = child.stderr.take().context("stderr is a pipe")?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        let heard = lines.clone();
        let reading = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Ok(mut lines) = heard.lock() {
                    lines.push(line);
                }
            }
        });
        let mut recorder = Self {
            child,
            lines,
            reading: Some(reading),
            stdout,
            programs: Vec::new(),
            maps: Vec::new(),
            children: Vec::new(),
        };
        recorder.wait_line("recording to ")?;
        let numbers = |key: &str| fdinfo(recorder.pid(), key);
        (recorder.programs, recorder.maps) = (numbers("prog_id:"), numbers("map_id:"));
        let counts = (recorder.programs.len(), recorder.maps.len());
        ensure!(
            counts.0 > 5 && counts.1 > 5,
            "programs and maps: {counts:?}"
        );
        recorder.children = children(recorder.pid());
        Ok(recorder)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The commands it runs.
    pub(crate) fn children(&self) -> &[u32] {
        &self.children
    }

    pub(crate) fn stderr(&self) -> String {
        self.lines
            .lock()
            .map(|lines| lines.join("\n"))
            .unwrap_or_default()
    }

    /// Waits until its standard error holds a text.
    pub(crate) fn wait_line(&mut self, text: &str) -> Result<()> {
        let said = wait_for(SOON, || {
            self.stderr().contains(text) || matches!(self.child.try_wait(), Ok(Some(_)))
        });
        // What an ended process wrote may still be on its way.
        let said = said && wait_for(Duration::from_secs(1), || self.stderr().contains(text));
        ensure!(said, "no '{text}' in: {}", self.stderr());
        Ok(())
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        // It is not reaped before `ended`, so the number still means it.
        Ok(kill(Pid::from_raw(self.child.id() as i32), signal)?)
    }

    /// Waits for its end, and checks that nothing is left of it.
    pub(crate) fn ended(mut self, place: &Place, patience: Duration) -> Result<Ended> {
        let ended = wait_for(patience, || matches!(self.child.try_wait(), Ok(Some(_))));
        ensure!(ended, "it does not end: {}", self.stderr());
        let status = self.child.wait()?;
        self.check_gone()?;
        if let Some(reading) = self.reading.take() {
            // Its standard error closes with the last child.
            let _ = reading.join();
        }
        place.check_temporary()?;
        Ok(Ended {
            status,
            stdout: std::fs::read_to_string(&self.stdout).unwrap_or_default(),
            stderr: self.stderr(),
        })
    }

    fn check_gone(&self) -> Result<()> {
        // The kernel frees programs after a grace period, and tells children by signal.
        let mut left = String::new();
        let gone = wait_for(SOON, || {
            let (programs, maps) = loaded();
            let programs: Vec<_> = self
                .programs
                .iter()
                .filter(|id| programs.contains(id))
                .collect();
            let maps: Vec<_> = self.maps.iter().filter(|id| maps.contains(id)).collect();
            let children: Vec<_> = self
                .children
                .iter()
                .filter(|pid| is_running(**pid))
                .collect();
            left = format!("programs {programs:?}, maps {maps:?}, processes {children:?}");
            programs.is_empty() && maps.is_empty() && children.is_empty()
        });
        ensure!(gone, "left behind: {left}");
        let pinned = std::fs::read_dir("/sys/fs/bpf")
            .into_iter()
            .flatten()
            .flatten();
        for entry in pinned {
            let name = entry.file_name().to_string_lossy().into_owned();
            ensure!(!name.contains("vpnbench"), "pinned: {name}");
        }
        Ok(())
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Numbers of all programs and maps in the kernel.
fn loaded() -> (Vec<u32>, Vec<u32>) {
    let programs = aya::programs::loaded_programs()
        .flatten()
        .map(|one| one.id());
    let maps = aya::maps::loaded_maps().flatten().map(|one| one.id());
    (programs.collect(), maps.collect())
}

/// Values of a key in the descriptions of a process's open files.
fn fdinfo(pid: u32, key: &str) -> Vec<u32> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fdinfo"));
    let texts = entries.into_iter().flatten().flatten();
    let texts = texts.filter_map(|entry| std::fs::read_to_string(entry.path()).ok());
    let mut numbers: Vec<u32> = texts
        .filter_map(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix(key))?;
            line.trim().parse().ok()
        })
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    let texts = tasks
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    texts
        .flat_map(|text| {
            let numbers = text.split_whitespace().filter_map(|word| word.parse().ok());
            numbers.collect::<Vec<u32>>()
        })
        .collect()
}

/// A zombie has ended: an orphan stays one until the machine's init gets round to it.
pub(crate) fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

/// Waits for a condition, with its name in the error.
pub(crate) fn wait(what: &str, holds: impl FnMut() -> bool) -> Result<()> {
    if !wait_for(SOON, holds) {
        bail!("waited {} s for {what}", SOON.as_secs());
    }
    Ok(())
}
