//! What is shown while a recording is made: tables, lines of JSON, and the screen on a real pseudo terminal.
//! Needs root.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Child, ExitCode, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Arguments;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use vpnbench::lab::tunnel::Settings;
use vpnbench_tests::binary::vpnbench;
use vpnbench_tests::netns::{Process, wait_for};
use vpnbench_tests::trials::Trials;
use vpnbench_tests::tunnel::Rig;

/// Longest wait for the screen or the end of the program.
const PATIENCE: Duration = Duration::from_secs(60);
const COLUMNS: usize = 80;
const ROWS: usize = 24;
const CTRL_C: &str = "\x03";
const ESCAPE: &str = "\x1b";

type Test = (&'static str, fn() -> Result<()>);

const TESTS: &[Test] = &[
    ("keys_change_the_screen_and_q_gives_it_back", keys),
    ("ctrl_c_and_sigterm_give_it_back", interrupted),
    ("a_trace_is_shown_as_a_whole", of_a_trace),
    ("it_ends_with_its_terminal", hung_up),
    ("killed_it_leaves_nothing", killed),
    ("without_a_terminal_it_says_so", no_terminal),
    ("a_table_and_a_line_of_json_each_second", tables_and_lines),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Each case wants the cores for itself.
    arguments.test_threads = Some(1);
    let mut trials = Trials::new(&arguments);
    for &(name, body) in TESTS {
        trials.add_as_root(name, &["/dev/net/tun", "ping"], body);
    }
    libtest_mimic::run(&arguments, trials.finish()).exit_code()
}

/// A tunnel with pings through it, and the process of its sending end.
fn tunnel() -> Result<(Rig, Process, String)> {
    let rig = Rig::new(&Settings::default())?;
    let to = rig.b.inner(false);
    let traffic = rig
        .a
        .namespace
        .spawn(&format!("ping -q -i 0.005 -s 1000 {to}"))?;
    let pid = rig.a.pid()?.to_string();
    Ok((rig, traffic, pid))
}

/// vpnbench on a terminal of its own.
struct Terminal {
    keys: File,
    terminal: OwnedFd,
    before: Vec<u8>,
    child: Child,
    written: Arc<Mutex<Vec<u8>>>,
    /// Where it may keep temporary files.
    folder: TempDir,
    reader: Option<std::thread::JoinHandle<()>>,
}

/// Both ends of a new pseudo terminal; a program that is started does not hold the first.
fn pseudo_terminal() -> Result<(File, OwnedFd)> {
    let size = libc::winsize {
        ws_row: ROWS as u16,
        ws_col: COLUMNS as u16,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let (mut master, mut slave) = (-1, -1);
    let (name, attributes_of) = (std::ptr::null_mut(), std::ptr::null());
    // SAFETY: both descriptors and the size outlive the call; no name and no attributes are given.
    let opened = unsafe { libc::openpty(&mut master, &mut slave, name, attributes_of, &size) };
    ensure!(opened == 0, "openpty: {}", std::io::Error::last_os_error());
    // SAFETY: openpty has just opened them, and nobody else owns them.
    let (master, slave) = unsafe { (File::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
    // SAFETY: the descriptor is open.
    let kept = unsafe { libc::fcntl(master.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) };
    ensure!(kept == 0, "fcntl: {}", std::io::Error::last_os_error());
    Ok((master, slave))
}

/// vpnbench with this terminal, and its temporary files in a folder.
fn started(arguments: &[&str], slave: &OwnedFd, folder: &TempDir) -> Result<Child> {
    let end = || -> Result<Stdio> { Ok(slave.try_clone()?.into()) };
    let mut command = vpnbench();
    command
        .args(arguments)
        .env("TERM", "xterm-256color")
        .env("TMPDIR", folder.path())
        .env_remove("NO_COLOR");
    command.stdin(end()?).stdout(end()?).stderr(end()?);
    Ok(command.spawn()?)
}

impl Terminal {
    fn start(arguments: &[&str]) -> Result<Terminal> {
        let (master, slave) = pseudo_terminal()?;
        let before = attributes(&slave)?;
        let folder = tempfile::tempdir()?;
        let child = started(arguments, &slave, &folder)?;
        let written = Arc::new(Mutex::new(Vec::new()));
        let (mut from, to) = (master.try_clone()?, written.clone());
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // A terminal whose other end is closed fails to read.
            while let Ok(count @ 1..) = from.read(&mut bytes) {
                let mut to = to.lock().unwrap_or_else(PoisonError::into_inner);
                to.extend_from_slice(&bytes[..count]);
            }
        });
        Ok(Terminal {
            keys: master,
            terminal: slave,
            before,
            child,
            written,
            folder,
            reader: Some(reader),
        })
    }

    fn press(&mut self, keys: &str) -> Result<()> {
        Ok(self.keys.write_all(keys.as_bytes())?)
    }

    fn written(&self) -> String {
        let bytes = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until the screen has this text, or has it no more.
    fn waits_for(&mut self, text: &str, there: bool) -> Result<()> {
        let holds = || screen(&self.written()).contains(text) == there;
        let found = wait_for(PATIENCE, holds);
        ensure!(
            found,
            "\"{text}\" there: {}\n{}",
            !there,
            screen(&self.written())
        );
        Ok(())
    }

    /// Waits for the end of the program; the terminal has to be as it was.
    fn ends(mut self) -> Result<(ExitStatus, String)> {
        let mut status = None;
        let ended = wait_for(PATIENCE, || {
            status = self.child.try_wait().ok().flatten();
            status.is_some()
        });
        ensure!(ended, "it does not end:\n{}", screen(&self.written()));
        ensure!(
            attributes(&self.terminal)? == self.before,
            "the terminal's attributes are others"
        );
        drop(self.terminal);
        if let Some(reader) = self.reader.take() {
            ensure!(reader.join().is_ok(), "the reader panicked");
        }
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let written = String::from_utf8_lossy(&written).into_owned();
        let (_, rest) = written
            .rsplit_once("\x1b[?1049l")
            .context("the screen was never left")?;
        ensure!(
            written.rfind("\x1b[?25h") > written.rfind("\x1b[?25l"),
            "the cursor is hidden"
        );
        Ok((status.context("it has ended")?, rest.to_owned()))
    }
}

/// Attributes of a terminal, as bytes to compare.
fn attributes(terminal: &OwnedFd) -> Result<Vec<u8>> {
    // SAFETY: termios is plain numbers, for which zeroes are a value.
    let mut found: libc::termios = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open and `found` outlives the call.
    let got = unsafe { libc::tcgetattr(terminal.as_raw_fd(), &mut found) };
    ensure!(got == 0, "tcgetattr: {}", std::io::Error::last_os_error());
    let flags = [found.c_iflag, found.c_oflag, found.c_cflag, found.c_lflag];
    let mut bytes: Vec<u8> = flags.iter().flat_map(|flag| flag.to_le_bytes()).collect();
    bytes.extend(found.c_cc);
    Ok(bytes)
}

/// What a terminal shows after these bytes: cursor moves, clearing and text; colours are ignored.
fn screen(written: &str) -> String {
    let mut cells = vec![vec![' '; COLUMNS]; ROWS];
    let (mut row, mut column) = (0, 0);
    let mut rest = written.chars();
    while let Some(letter) = rest.next() {
        match letter {
            '\x1b' => {
                if rest.next() != Some('[') {
                    continue;
                }
                let mut numbers = String::new();
                let end = rest.find(|one| {
                    let ends = one.is_ascii_alphabetic();
                    numbers.extend((!ends).then_some(*one));
                    ends
                });
                let mut places = numbers.split(';').map(|one| one.parse().unwrap_or(1));
                match end {
                    Some('H') => {
                        row = places.next().unwrap_or(1usize).max(1) - 1;
                        column = places.next().unwrap_or(1usize).max(1) - 1;
                    }
                    Some('J') => cells = vec![vec![' '; COLUMNS]; ROWS],
                    _ => {}
                }
            }
            '\r' => column = 0,
            '\n' => row += 1,
            letter => {
                if let Some(cell) = cells.get_mut(row).and_then(|line| line.get_mut(column)) {
                    *cell = letter;
                }
                column += 1;
            }
        }
    }
    let lines = cells.into_iter().map(|line| line.into_iter().collect());
    lines.collect::<Vec<String>>().join("\n")
}

fn keys() -> Result<()> {
    let (_rig, _traffic, pid) = tunnel()?;
    let mut terminal = Terminal::start(&["attach", "--tui", "--pid", &pid])?;
    terminal.waits_for("live", true)?;
    terminal.waits_for("tun.tx", true)?;
    terminal.press("2")?;
    terminal.waits_for("daemon-send", true)?;
    terminal.press("\t\t")?;
    terminal.waits_for("transmit", true)?;
    terminal.press("\r")?;
    terminal.waits_for("So far", true)?;
    terminal.press("\r?")?;
    terminal.waits_for("recording does not stop", true)?;
    terminal.press(ESCAPE)?;
    terminal.waits_for("recording does not stop", false)?;
    terminal.press("/nothing like it\r")?;
    terminal.waits_for("no row contains", true)?;
    terminal.press(ESCAPE)?;
    terminal.waits_for("transmit", true)?;
    terminal.press(" ")?;
    terminal.waits_for("FROZEN", true)?;
    terminal.press(" ")?;
    terminal.waits_for("live", true)?;
    terminal.press("q")?;
    let (status, report) = terminal.ends()?;
    ensure!(status.success(), "{status}\n{report}");
    ensure!(report.contains("WHO DOES THE WORK"), "{report}");
    ensure!(report.contains("programs in the kernel"), "{report}");
    Ok(())
}

fn interrupted() -> Result<()> {
    let (_rig, _traffic, pid) = tunnel()?;
    for by_key in [true, false] {
        let mut terminal = Terminal::start(&["threads", "--tui", "--pid", &pid])?;
        terminal.waits_for("live", true)?;
        if by_key {
            terminal.press(CTRL_C)?;
        } else {
            let child = Pid::from_raw(i32::try_from(terminal.child.id())?);
            kill(child, Signal::SIGTERM)?;
        }
        let (status, report) = terminal.ends()?;
        ensure!(status.success(), "{status}\n{report}");
        ensure!(report.contains("WHO DOES THE WORK"), "{report}");
    }
    Ok(())
}

/// Records a second of a tunnel.
fn recorded(folder: &TempDir) -> Result<String> {
    let (_rig, _traffic, pid) = tunnel()?;
    let trace = folder.path().join("run.vbt");
    let trace = trace.to_str().context("a path of letters")?;
    let mut command = vpnbench();
    command.args(["record", "--pid", &pid, "--duration", "1s", "-o", trace]);
    let recorded = command.output()?;
    ensure!(
        recorded.status.success(),
        "{}",
        String::from_utf8_lossy(&recorded.stderr)
    );
    Ok(trace.to_owned())
}

/// A terminal that is closed, without a signal: the program has no session of its own.
fn hung_up() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let trace = recorded(&folder)?;
    let (mut master, slave) = pseudo_terminal()?;
    let mut child = started(&["threads", "--tui", &trace], &slave, &folder)?;
    drop(slave);
    let mut written = Vec::new();
    while !String::from_utf8_lossy(&written).contains("\x1b[?1049h") {
        let mut bytes = [0; 4096];
        let count = master.read(&mut bytes)?;
        written.extend_from_slice(&bytes[..count]);
    }
    drop(master);
    let ended = wait_for(PATIENCE, || child.try_wait().is_ok_and(|one| one.is_some()));
    if !ended {
        child.kill()?;
    }
    let _status = child.wait()?;
    ensure!(ended, "it goes on without its terminal");
    Ok(())
}

/// `kill -9` while it records a tunnel: no file, no program in the kernel, no namespace, and the next one
/// starts at once. Only the terminal stays as it was on the screen.
fn killed() -> Result<()> {
    let (_rig, _traffic, pid) = tunnel()?;
    let namespaces = || -> Result<BTreeSet<OsString>> {
        let names = std::fs::read_dir("/run/netns")?;
        Ok(names.flatten().map(|name| name.file_name()).collect())
    };
    for command in [&["threads", "--tui"], &["attach", "--tui"]] {
        let before = namespaces()?;
        let mut terminal = Terminal::start(&[command, &["--pid", &pid][..]].concat())?;
        terminal.waits_for("live", true)?;
        let programs = programs(terminal.child.id())?;
        ensure!(programs.len() > 10, "it has {} programs", programs.len());
        terminal.child.kill()?;
        terminal.child.wait()?;
        let left = || loaded().intersection(&programs).count();
        // The kernel frees programs a moment after the last descriptor is closed.
        ensure!(wait_for(PATIENCE, || left() == 0), "{} programs", left());
        let files = std::fs::read_dir(terminal.folder.path())?.count();
        ensure!(files == 0, "{files} temporary files");
        // Other tests come and go: none of those that are there now may be its own.
        let fresh: Vec<OsString> = namespaces()?.difference(&before).cloned().collect();
        let own = format!("{}", terminal.child.id());
        let left = fresh
            .iter()
            .find(|name| name.to_string_lossy().contains(&own));
        ensure!(left.is_none(), "namespace {left:?}");
    }
    let mut next = vpnbench();
    next.args(["threads", "--pid", &pid, "--duration", "1s"]);
    let next = next.output()?;
    let complaints = String::from_utf8_lossy(&next.stderr);
    ensure!(next.status.success(), "{}: {complaints}", next.status);
    Ok(())
}

/// Numbers of the BPF programs that a process holds.
fn programs(pid: u32) -> Result<BTreeSet<u32>> {
    let files = std::fs::read_dir(format!("/proc/{pid}/fdinfo"))?.flatten();
    let texts = files.filter_map(|file| std::fs::read_to_string(file.path()).ok());
    let id = |text: String| -> Option<u32> {
        let line = text.lines().find_map(|line| line.strip_prefix("prog_id:"));
        line?.trim().parse().ok()
    };
    Ok(texts.filter_map(id).collect())
}

/// Numbers of all BPF programs in the kernel.
fn loaded() -> BTreeSet<u32> {
    let all = aya::programs::loaded_programs();
    all.flatten().map(|program| program.id()).collect()
}

fn of_a_trace() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let trace = &*recorded(&folder)?;
    let mut terminal = Terminal::start(&["threads", "--tui", trace])?;
    terminal.waits_for("whole run", true)?;
    terminal.press("4")?;
    terminal.waits_for("transmit", true)?;
    terminal.press("q")?;
    let (status, _) = terminal.ends()?;
    ensure!(status.success(), "{status}");
    let mut terminal = Terminal::start(&["threads", "--tui", trace])?;
    terminal.waits_for("whole run", true)?;
    let child = Pid::from_raw(i32::try_from(terminal.child.id())?);
    kill(child, Signal::SIGTERM)?;
    let (status, _) = terminal.ends()?;
    ensure!(status.success(), "{status}");
    Ok(())
}

fn no_terminal() -> Result<()> {
    let (_rig, _traffic, pid) = tunnel()?;
    for command in ["attach", "threads"] {
        let output = vpnbench()
            .args([command, "--tui", "--pid", &pid, "--duration", "1s"])
            .stdin(Stdio::null())
            .output()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(2), "{}: {text}", output.status);
        ensure!(text.contains("needs a terminal"), "{text}");
    }
    Ok(())
}

fn tables_and_lines() -> Result<()> {
    let (_rig, _traffic, pid) = tunnel()?;
    let run = |format: &str| -> Result<String> {
        let mut command = vpnbench();
        command.args(["threads", "--pid", &pid, "--duration", "5s"]);
        let output = command.args(["--format", format]).output()?;
        let complaints = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {complaints}", output.status);
        Ok(String::from_utf8(output.stdout)?)
    };
    let text = run("text")?;
    let tables = text.matches("on core").count();
    ensure!(tables >= 3, "{tables} tables in 5 s: {text}");
    ensure!(text.contains("WHO DOES THE WORK"), "{text}");
    let lines = run("jsonl")?;
    let lines: Vec<serde_json::Value> = lines
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    ensure!(lines.len() >= 3, "{} lines in 5 s", lines.len());
    for line in &lines {
        ensure!(line["schema"] == "vpnbench.live.v1", "{line}");
        // 200 requests and 200 replies a second; a busy machine has some of them late.
        let rate = line["daemons"][0]["packets_per_s"].as_f64();
        ensure!(rate.is_some_and(|rate| rate > 50.0), "{line}");
    }
    Ok(())
}
