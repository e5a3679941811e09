//! Control groups that limit the CPU time of what is started in them, with the cpu controller of either
//! version (kernel: Documentation/scheduler/sched-bwc.rst, Documentation/admin-guide/cgroup-v2.rst).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use procfs::process::Process;

use super::error::{LabError, Result};

/// The kernel's own default: what a group has used up comes back after this.
const PERIOD_US: u64 = 100_000;

/// Where groups with a limit can be made.
#[derive(Debug, PartialEq, Eq)]
enum Hierarchy {
    /// Files cpu.cfs_quota_us and cpu.cfs_period_us.
    First(PathBuf),
    /// File cpu.max.
    Second(PathBuf),
}

/// The path that a group of this name will have.
///
/// # Errors
/// [`LabError::Skipped`] where no hierarchy has the cpu controller.
pub(super) fn place(name: &str) -> Result<PathBuf> {
    let (Hierarchy::First(folder) | Hierarchy::Second(folder)) = hierarchy()?;
    Ok(folder.join(name))
}

/// Makes the group at `path` of [`place`]; its members together get `share` of one core's time.
pub(super) fn create(path: &Path, share: f64) -> Result<()> {
    let failed = || LabError::file("creating", path);
    fs::create_dir(path).map_err(failed())?;
    let quota = (share * PERIOD_US as f64).round().max(1000.0) as u64;
    let written = match hierarchy()? {
        Hierarchy::First(_) => fs::write(path.join("cpu.cfs_period_us"), PERIOD_US.to_string())
            .and_then(|()| fs::write(path.join("cpu.cfs_quota_us"), quota.to_string())),
        Hierarchy::Second(_) => fs::write(path.join("cpu.max"), format!("{quota} {PERIOD_US}")),
    };
    written.map_err(failed())
}

/// Removes a group that may be gone already, and whose members have ended.
pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(LabError::file("removing", path)(error))
        }
        _ => Ok(()),
    }
}

/// The file that a process becomes a member through, by writing 0 to it.
pub(super) fn members(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .open(path.join("cgroup.procs"))
}

/// The hierarchy that has the cpu controller. A machine may have both versions, each with other controllers.
fn hierarchy() -> Result<Hierarchy> {
    let mounts = Process::myself()
        .and_then(|own| own.mountinfo())
        .map_err(LabError::failed("reading", "/proc/self/mountinfo"))?;
    let found = mounts.into_iter().find_map(|mount| {
        let folder = mount.mount_point;
        match mount.fs_type.as_str() {
            "cgroup" if mount.super_options.contains_key("cpu") => Some(Hierarchy::First(folder)),
            "cgroup2" => {
                let passed_on = fs::read_to_string(folder.join("cgroup.subtree_control")).ok()?;
                let has = passed_on.split_whitespace().any(|name| name == "cpu");
                has.then_some(Hierarchy::Second(folder))
            }
            _ => None,
        }
    });
    found.ok_or_else(|| {
        LabError::Skipped(
            "cpus.daemon_share: no control group hierarchy here passes the cpu controller on \
             (with version 2: echo +cpu > /sys/fs/cgroup/cgroup.subtree_control)"
                .to_owned(),
        )
    })
}
