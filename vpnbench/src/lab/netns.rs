//! Network namespaces: creating, entering, deleting. Named ones appear in `ip netns list`.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use super::error::{LabError, Result};

/// Where iproute2 keeps its namespaces, so that `ip netns exec` works on ours.
const FOLDER: &str = "/run/netns";

/// The file that holds a named namespace.
#[must_use]
pub fn path(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

/// Moves the calling thread into a namespace. Right in a thread of its own or between fork and
/// exec; anywhere else it changes what the rest of the thread sees.
pub fn enter_netns(path: &Path) -> io::Result<()> {
    let namespace = File::open(path)?;
    setns(namespace, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)
}

/// A command that will run in a namespace.
pub fn command(netns: &Path, program: &str) -> io::Result<Command> {
    let namespace = File::open(netns)?;
    let mut command = Command::new(program);
    let enter = move || setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
    // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
    unsafe { command.pre_exec(enter) };
    Ok(command)
}

/// Runs `work` in a namespace, on a thread of its own.
pub(crate) fn run_in<T: Send>(netns: &Path, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    on_a_thread(|| {
        enter_netns(netns).map_err(LabError::file("entering namespace", netns))?;
        work()
    })
}

/// Runs `work` in a namespace without name, which vanishes afterwards. It has no device but `lo`.
pub(crate) fn in_a_fresh_one<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    on_a_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET)
            .map_err(LabError::failed("creating", "a network namespace"))?;
        work()
    })
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Creates a named namespace.
pub(crate) fn create(name: &str) -> Result<()> {
    let target = path(name);
    fs::create_dir_all(FOLDER).map_err(LabError::file("creating", Path::new(FOLDER)))?;
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o444)
        .open(&target)
        .map_err(LabError::file("creating", &target))?;
    on_a_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET).map_err(LabError::failed("creating namespace", name))?;
        let source = Path::new("/proc/thread-self/ns/net");
        mount(
            Some(source),
            &target,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .map_err(LabError::failed("mounting namespace", target.display()))
    })
}

/// Deletes a named namespace. One that is gone already, or half made, is no error.
pub(crate) fn delete(name: &str) -> Result<()> {
    let target = path(name);
    match umount2(&target, MntFlags::MNT_DETACH) {
        // EINVAL: the file is there, but nothing was mounted on it yet.
        Ok(()) | Err(nix::Error::ENOENT | nix::Error::EINVAL) => {}
        Err(error) => {
            return Err(LabError::failed("unmounting namespace", target.display())(
                error,
            ));
        }
    }
    match fs::remove_file(&target) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(LabError::file("removing", &target)(error))
        }
        _ => Ok(()),
    }
}
