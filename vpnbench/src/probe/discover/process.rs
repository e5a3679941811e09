//! Processes: who holds which TUN device, and what belongs to a daemon.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::probe::netns::inum_of;
use crate::trace::model::Daemon;

/// A process that holds a queue of a TUN or TAP device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Process.
    pub pid: u32,
    /// Device name.
    pub device: String,
    /// Namespace in which the device lives now, where the kernel told it.
    pub netns: Option<u32>,
    /// Namespace of the process.
    pub process_netns: Option<u32>,
    /// Flags of the device (`IFF_TUN`, `IFF_VNET_HDR` ..) with those of the queue (`TUNGETIFF`),
    /// where the kernel told them.
    pub flags: Option<u32>,
    /// Descriptors of this process on the device: one per queue.
    pub queues: u32,
}

/// All process ids, ascending.
pub fn pids() -> Vec<u32> {
    let mut pids: Vec<u32> = numbers("/proc");
    pids.sort_unstable();
    pids
}

fn numbers(directory: &str) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// Whether the process exists.
pub fn exists(pid: u32) -> bool {
    fs::metadata(format!("/proc/{pid}")).is_ok()
}

/// Name of a process, at most 15 bytes.
pub fn comm(pid: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(text.trim_end_matches('\n').to_owned())
}

/// Program of a process.
pub fn exe(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/exe")).ok()
}

/// Inode number of a process's network namespace.
pub fn netns(pid: u32) -> Option<u32> {
    inum_of(&PathBuf::from(format!("/proc/{pid}/ns/net"))).ok()
}

/// Thread ids of a process, ascending.
pub fn threads(pid: u32) -> Vec<u32> {
    let mut threads = numbers(&format!("/proc/{pid}/task"));
    threads.sort_unstable();
    threads
}

/// Processor time that a process has used, in clock ticks; only for comparing.
pub(super) fn cpu_ticks(pid: u32) -> u64 {
    let stat = i32::try_from(pid)
        .ok()
        .and_then(|pid| procfs::process::Process::new(pid).ok()?.stat().ok());
    stat.map_or(0, |stat| stat.utime + stat.stime)
}

/// Whether a process is meant by a name: its comm, or the file name of its program when that is
/// longer than a comm can be.
pub fn is_named(pid: u32, name: &str) -> bool {
    let by_exe = || exe(pid).and_then(|path| path.file_name().map(|file| file == name));
    comm(pid).is_some_and(|comm| comm == name) || by_exe().unwrap_or(false)
}

/// What the trace says about a daemon.
pub fn describe(pid: u32) -> Daemon {
    Daemon {
        pid,
        comm: comm(pid).unwrap_or_default(),
        exe: exe(pid).map(|path| path.to_string_lossy().into_owned()),
        netns: netns(pid).unwrap_or_default(),
        threads: threads(pid).len() as u32,
    }
}

/// All holders of TUN devices on the machine, by process.
pub fn tun_holders() -> Vec<Holder> {
    pids().into_iter().flat_map(tun_held_by).collect()
}

/// The TUN devices that one process holds.
pub fn tun_held_by(pid: u32) -> Vec<Holder> {
    let mut held: BTreeMap<(String, Option<u32>), Holder> = BTreeMap::new();
    for fd in numbers(&format!("/proc/{pid}/fd")) {
        let Some(device) = tun_of_fd(pid, fd) else {
            continue;
        };
        let (place, flags) = tun_details(pid, fd).unwrap_or_default();
        let entry = held
            .entry((device.clone(), place))
            .or_insert_with(|| Holder {
                pid,
                device,
                netns: place,
                process_netns: netns(pid),
                flags,
                queues: 0,
            });
        entry.queues += 1;
    }
    held.into_values().collect()
}

/// Device behind a descriptor, if it is an attached queue of a TUN device.
fn tun_of_fd(pid: u32, fd: u32) -> Option<String> {
    let target = fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok()?;
    // A container may have its own name for the directory, hardly for the node itself.
    let name = target.file_name()?.to_str()?;
    if name.trim_end_matches(" (deleted)") != "tun" {
        return None;
    }
    let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).ok()?;
    let name = info
        .lines()
        .find_map(|line| line.strip_prefix("iff:"))?
        .trim();
    (!name.is_empty()).then(|| name.to_owned())
}

/// Asks a foreign TUN descriptor for its device's namespace and flags. The copy of the descriptor
/// lives for two ioctls; the device's name alone can be the same in several namespaces.
fn tun_details(pid: u32, fd: u32) -> Option<(Option<u32>, Option<u32>)> {
    let copy = copy_fd(pid, fd).ok()?;
    Some((tun_netns(&copy).ok(), tun_flags(&copy).ok()))
}

fn copy_fd(pid: u32, fd: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    Ok(pidfd_getfd(process, fd as i32, PidfdGetfdFlags::empty())?)
}

mod ioctl {
    nix::ioctl_none_bad!(tun_get_dev_netns, nix::request_code_none!(b'T', 227));
    nix::ioctl_read_bad!(
        tun_get_iff,
        nix::request_code_read!(b'T', 210, size_of::<libc::c_uint>()),
        libc::ifreq
    );
}

fn tun_netns(tun: &OwnedFd) -> io::Result<u32> {
    use std::os::fd::{AsRawFd, FromRawFd};
    // SAFETY: the request has no argument and `tun` is open for the call.
    let raw = unsafe { ioctl::tun_get_dev_netns(tun.as_fd().as_raw_fd()) }?;
    // SAFETY: on success the kernel returns a new descriptor that nobody else owns.
    let file = unsafe { fs::File::from_raw_fd(raw) };
    Ok(file.metadata()?.ino() as u32)
}

fn tun_flags(tun: &OwnedFd) -> io::Result<u32> {
    use std::os::fd::AsRawFd;
    // SAFETY: an all-zero ifreq is valid: it holds integers, bytes and pointers nobody follows.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // SAFETY: TUNGETIFF writes one ifreq, to which the pointer gives exclusive access.
    unsafe { ioctl::tun_get_iff(tun.as_fd().as_raw_fd(), &raw mut request) }?;
    // SAFETY: TUNGETIFF filled `ifr_flags`; every bit pattern of it is valid.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    // The field is a signed 16-bit integer, the flags use all its bits.
    Ok(u32::from(flags as u16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_itself() {
        let own = std::process::id();
        assert!(pids().contains(&own) && exists(own));
        assert!(threads(own).contains(&own));
        let daemon = describe(own);
        assert_eq!(daemon.pid, own);
        assert_eq!(Some(daemon.netns), netns(own));
        assert!(is_named(own, &daemon.comm));
        assert!(tun_held_by(own).is_empty());
        assert!(!exists(u32::MAX));
    }
}
