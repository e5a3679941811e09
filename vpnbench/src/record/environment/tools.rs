//! Versions of the programs of a run, as they print them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::probe::discover::{command, process};

/// A program gets this long to say its version.
const PATIENCE: Duration = Duration::from_millis(500);

/// Programs that may be run, with the option that makes them print their version and end.
const KNOWN: &[(&str, &str)] = &[
    ("boringtun-cli", "--version"),
    ("curl", "--version"),
    ("easytier-core", "--version"),
    ("gotatun", "--version"),
    ("iperf", "--version"),
    ("iperf3", "--version"),
    ("nebula", "-version"),
    ("netperf", "-V"),
    ("openvpn", "--version"),
    ("ping", "-V"),
    ("tailscaled", "--version"),
    ("tincd", "--version"),
    ("vpncloud", "--version"),
    ("wget", "--version"),
    ("wireguard-go", "--version"),
    ("yggdrasil", "-version"),
];

/// Versions of the known ones among the processes' programs and the command's, and why others of
/// the known ones are missing. Starts programs: call it before the run, not in it.
pub fn versions(processes: &[u32], command: &[String]) -> (BTreeMap<String, String>, Vec<String>) {
    let (mut versions, mut missing) = (BTreeMap::new(), Vec::new());
    let tool = command::read(command).tool.and_then(|tool| in_path(&tool));
    let programs = processes
        .iter()
        .filter_map(|&pid| process::exe(pid))
        .chain(tool);
    for program in programs {
        let Some(name) = program.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        let Some((name, option)) = KNOWN.iter().find(|(known, _)| *known == name) else {
            continue;
        };
        if versions.contains_key(*name) {
            continue;
        }
        match version(&program, option) {
            Ok(text) => {
                versions.insert((*name).to_owned(), text);
            }
            Err(error) => missing.push(format!("version of {name}: {error}")),
        }
    }
    (versions, missing)
}

fn in_path(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(tool))
        .find(|file| file.is_file())
}

fn version(program: &Path, option: &str) -> io::Result<String> {
    safe(program)?;
    // A file cannot fill up like a pipe, nor be kept open by a grandchild.
    let mut output = tempfile::tempfile()?;
    let mut child = Command::new(program)
        .arg(option)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output.try_clone()?)
        .spawn()?;
    wait(&mut child)?;
    output.rewind()?;
    let mut text = Vec::new();
    output.take(64 * 1024).read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty());
    line.map(str::to_owned)
        .ok_or_else(|| io::Error::other("it printed nothing"))
}

/// A program that others could have replaced is not run with our rights.
fn safe(program: &Path) -> io::Result<()> {
    let data = fs::metadata(program)?;
    let own = nix::unistd::geteuid().as_raw();
    if data.mode() & 0o022 != 0 || (data.uid() != 0 && data.uid() != own) {
        return Err(io::Error::other(
            "others may write the program, so it is not run",
        ));
    }
    Ok(())
}

fn wait(child: &mut Child) -> io::Result<()> {
    let end = Instant::now() + PATIENCE;
    while child.try_wait()?.is_none() {
        if Instant::now() >= end {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::other("no answer in 500 ms"));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_programs_run() {
        let own = [std::process::id()];
        let command = ["sh".to_owned(), "-c".to_owned(), "exit".to_owned()];
        assert_eq!(versions(&own, &command), (BTreeMap::new(), Vec::new()));
        let sorted = KNOWN.is_sorted_by_key(|(name, _)| *name);
        assert!(sorted, "the list is kept in order");
    }

    #[test]
    fn a_program_that_hangs_is_ended() {
        if let Some(sleep) = in_path("sleep") {
            assert!(version(&sleep, "30").is_err());
        }
    }
}
