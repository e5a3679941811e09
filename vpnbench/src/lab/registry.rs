//! What each run has created, in a directory that outlives a `kill -9`, so that a later run or
//! `vpnbench lab down` can remove it.
//!
//! `/run/vpnbench/ID.PID.START/` names the run and its owner by process number and start time;
//! it appears atomically. `objects` inside lists what was created, one line each, in order.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::cgroup;
use super::error::{LabError, Result};
use super::netns;
use super::process::{self, Process};

const FOLDER: &str = "/run/vpnbench";
const OBJECTS: &str = "objects";
/// Begins the name of everything a run makes.
pub(super) const PREFIX: &str = "vb-";

/// The registry entry of one live run.
#[derive(Debug)]
pub(crate) struct Registry {
    directory: PathBuf,
    objects: File,
}

/// One line of `objects`.
#[derive(Debug, PartialEq, Eq)]
enum Object {
    Namespace(String),
    File(PathBuf),
    Group(PathBuf),
    Process { pid: u32, start: u64 },
}

impl Registry {
    /// Enters a run of this process.
    pub(crate) fn create(id: &str) -> Result<Registry> {
        let pid = std::process::id();
        let start = process::start_time(pid)
            .ok_or_else(|| LabError::failed("reading", "/proc/self/stat")("is /proc mounted?"))?;
        let directory = Path::new(FOLDER).join(format!("{id}.{pid}.{start}"));
        fs::create_dir_all(FOLDER).map_err(LabError::file("creating", Path::new(FOLDER)))?;
        // Private keys of tunnels are kept here.
        DirBuilder::new()
            .mode(0o700)
            .create(&directory)
            .map_err(LabError::file("creating", &directory))?;
        let path = directory.join(OBJECTS);
        let objects = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)
            .map_err(LabError::file("creating", &path))?;
        Ok(Registry { directory, objects })
    }

    /// The run's directory for keys, configuration and logs.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The list itself, where started programs enter themselves.
    pub(crate) fn objects(&self) -> &File {
        &self.objects
    }

    /// Enters a namespace that is about to be created.
    pub(crate) fn add_namespace(&mut self, name: &str) -> Result<()> {
        self.add(&format!("netns {name}\n"))
    }

    /// Enters a file that something is about to create outside the run's directory.
    pub(crate) fn add_file(&mut self, path: &Path) -> Result<()> {
        self.add(&format!("file {}\n", path.display()))
    }

    /// Enters a control group that is about to be created.
    pub(crate) fn add_group(&mut self, path: &Path) -> Result<()> {
        self.add(&format!("cgroup {}\n", path.display()))
    }

    fn add(&mut self, line: &str) -> Result<()> {
        let written = self.objects.write_all(line.as_bytes());
        written.map_err(LabError::file("writing", &self.directory.join(OBJECTS)))
    }

    /// The processes that entered themselves and are still there, the last first.
    pub(crate) fn processes(&self) -> Vec<Process> {
        let list = fs::read_to_string(self.directory.join(OBJECTS)).unwrap_or_default();
        let processes = list
            .lines()
            .rev()
            .filter_map(|line| match parse_object(line)? {
                Object::Process { pid, start } => Process::find(pid, start),
                Object::Namespace(_) | Object::File(_) | Object::Group(_) => None,
            });
        processes.collect()
    }

    /// Forgets the run, whose objects are gone.
    pub(crate) fn remove(&self) -> Result<()> {
        fs::remove_dir_all(&self.directory).map_err(LabError::file("removing", &self.directory))
    }
}

/// Removes what runs have left whose owner is gone, and returns their ids. Live runs are not
/// touched. Tries all of them before it reports the first failure.
pub fn down() -> Result<Vec<String>> {
    let folder = Path::new(FOLDER);
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(LabError::file("reading", folder))?,
    };
    let mut removed = Vec::new();
    let mut outcome = Ok(());
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some((id, pid, start)) = name.to_str().and_then(parse_name) else {
            continue;
        };
        if Process::find(pid, start).is_none_or(|owner| owner.has_ended()) {
            match remove_stale(&entry.path()) {
                Ok(()) => removed.push(id.to_owned()),
                failure => outcome = outcome.and(failure),
            }
        }
    }
    outcome.map(|()| removed)
}

fn parse_name(name: &str) -> Option<(&str, u32, u64)> {
    let mut parts = name.split('.');
    let parsed = (
        parts.next()?,
        parts.next()?.parse().ok()?,
        parts.next()?.parse().ok()?,
    );
    parts.next().is_none().then_some(parsed)
}

fn remove_stale(directory: &Path) -> Result<()> {
    let list = fs::read_to_string(directory.join(OBJECTS)).unwrap_or_default();
    for object in list.lines().rev().filter_map(parse_object) {
        match object {
            Object::Process { pid, start } => match Process::find(pid, start) {
                Some(process) => process.terminate()?,
                None => continue,
            },
            Object::Namespace(name) => netns::delete(&name)?,
            Object::File(path) => remove_file(&path)?,
            Object::Group(path) => cgroup::remove(&path)?,
        }
    }
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(LabError::file("removing", directory)(error))
        }
        _ => Ok(()),
    }
}

/// Removes a file that may be gone already.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(LabError::file("removing", path)(error))
        }
        _ => Ok(()),
    }
}

fn parse_object(line: &str) -> Option<Object> {
    let (kind, rest) = line.split_once(' ')?;
    match kind {
        // A name of ours only: a damaged list must not delete other people's namespaces.
        "netns" if rest.starts_with(PREFIX) && !rest.contains('/') => {
            Some(Object::Namespace(rest.to_owned()))
        }
        "cgroup" if Path::new(rest).file_name()?.to_str()?.starts_with(PREFIX) => {
            Some(Object::Group(PathBuf::from(rest)))
        }
        "file" => Some(Object::File(PathBuf::from(rest))),
        "process" => process::parse_stat(rest).map(|(pid, start)| Object::Process { pid, start }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_its_own_lines_and_no_others() {
        assert_eq!(
            parse_object("netns vb-1-a"),
            Some(Object::Namespace("vb-1-a".to_owned()))
        );
        assert_eq!(parse_object("netns someone-elses"), None);
        assert_eq!(parse_object("netns vb-/../../x"), None);
        assert_eq!(
            parse_object("cgroup /x/cpu/vb-1-0"),
            Some(Object::Group(PathBuf::from("/x/cpu/vb-1-0")))
        );
        assert_eq!(parse_object("cgroup /x/cpu/other"), None);
        assert_eq!(parse_object("process 1"), None);
        assert_eq!(
            parse_object("file /run/x"),
            Some(Object::File(PathBuf::from("/run/x")))
        );
        assert_eq!(parse_object("proc"), None);
    }

    #[test]
    fn a_directory_names_run_and_owner() {
        assert_eq!(parse_name("1a2b3c.17.2200"), Some(("1a2b3c", 17, 2200)));
        assert_eq!(parse_name("1a2b3c.17"), None);
        assert_eq!(parse_name("1a2b3c.17.2.3"), None);
    }
}
