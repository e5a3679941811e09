//! Network namespaces: naming, listing and a handle that works inside one.
//!
//! A [`Netns`] owns a thread that entered the namespace when it was opened. Closures sent to it
//! see that namespace's netlink, sockets, `/proc/thread-self/net` and `/proc/sys/net`, also after
//! the process has given up the right to enter namespaces. The thread stays in the mount
//! namespace it came from, so `/sys/class/net` there still shows the old network namespace: use
//! netlink and ioctls instead.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, mpsc};
use std::thread;

use caps::CapSet;
pub use caps::Capability;
use nix::sched::{CloneFlags, setns};

/// Where `ip netns` keeps its names.
const NAMES: &str = "/run/netns";

/// What discovery needs after set-up, in the thread that calls it:
///
/// * `CAP_SYS_PTRACE`: file descriptors and namespaces of processes of other users or with more
///   rights (`/proc/PID/fd`, `/proc/PID/ns`, `pidfd_getfd`);
/// * `CAP_DAC_READ_SEARCH`: `/proc/PID/fd` of processes of other users is closed to everyone else;
/// * `CAP_NET_ADMIN`: the namespace of a TUN device (`TUNGETDEVNETNS`) and the peers of kernel
///   WireGuard.
///
/// Entering a namespace that is not open yet needs `CAP_SYS_ADMIN`, which is not among them.
pub const KEPT_BY_DISCOVERY: &[Capability] = &[
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_NET_ADMIN,
];

/// What the thread of a namespace keeps: the kernel shows WireGuard peers only to
/// `CAP_NET_ADMIN`. Everything else it reads is open to all.
pub const KEPT_IN_NAMESPACE: &[Capability] = &[Capability::CAP_NET_ADMIN];

/// What the thread keeps that takes the time of the programs in the kernel: `BPF_ENABLE_STATS` asks for
/// `CAP_SYS_ADMIN` each time. It reads the programs' counters and nothing else.
pub const KEPT_BY_STATISTICS: &[Capability] = &[Capability::CAP_SYS_ADMIN];

/// Why a namespace cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// The text names no namespace.
    #[error(
        "'{0}' names no network namespace; use a name from `ip netns`, an absolute path or pid:PID"
    )]
    Spec(String),
    /// The named namespace does not exist.
    #[error("no network namespace {spec}; {}", known_names(.known))]
    NotFound {
        /// What was asked for.
        spec: String,
        /// Names that do exist.
        known: Vec<String>,
    },
    /// No such process.
    #[error("no process {0}, so no network namespace of it; check the pid with `ps -p {0}`")]
    NoProcess(u32),
    /// The namespace exists and may not be opened or entered.
    #[error(
        "cannot enter network namespace {spec}: {source}; this needs CAP_SYS_ADMIN (run as root)"
    )]
    Enter {
        /// What was asked for.
        spec: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The thread could not be started.
    #[error("cannot start a thread for network namespace {spec}: {source}")]
    Thread {
        /// What was asked for.
        spec: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Capabilities could not be changed.
    #[error("cannot drop capabilities: {0}; the process keeps what it had")]
    Capabilities(String),
}

fn known_names(known: &[String]) -> String {
    if known.is_empty() {
        "there are no named ones: use pid:PID or a path".to_owned()
    } else {
        format!("there are: {}", known.join(", "))
    }
}

/// How a user names a namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum NetnsSpec {
    /// The one vpnbench was started in.
    #[default]
    Current,
    /// A name under `/run/netns`.
    Name(String),
    /// A file that refers to a namespace.
    Path(PathBuf),
    /// The one of a process.
    Pid(u32),
}

impl FromStr for NetnsSpec {
    type Err = NetnsError;

    fn from_str(text: &str) -> Result<Self, NetnsError> {
        let bad = || NetnsError::Spec(text.to_owned());
        if text == "current" {
            Ok(Self::Current)
        } else if let Some(pid) = text.strip_prefix("pid:") {
            pid.parse()
                .ok()
                .filter(|&pid| pid > 0)
                .map(Self::Pid)
                .ok_or_else(bad)
        } else if text.starts_with('/') {
            Ok(Self::Path(text.into()))
        } else if text.is_empty() || text.contains(['/', '\0', ':']) || text == "." || text == ".."
        {
            Err(bad())
        } else {
            Ok(Self::Name(text.to_owned()))
        }
    }
}

impl fmt::Display for NetnsSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Current => f.write_str("current"),
            Self::Name(name) => f.write_str(name),
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Pid(pid) => write!(f, "pid:{pid}"),
        }
    }
}

impl NetnsSpec {
    fn path(&self) -> PathBuf {
        match self {
            Self::Current => "/proc/thread-self/ns/net".into(),
            Self::Name(name) => Path::new(NAMES).join(name),
            Self::Path(path) => path.clone(),
            Self::Pid(pid) => format!("/proc/{pid}/ns/net").into(),
        }
    }

    /// Inode number of the namespace, without entering it.
    pub fn inum(&self) -> Result<u32, NetnsError> {
        inum_of(&self.path()).map_err(|source| self.error(source))
    }

    fn error(&self, source: io::Error) -> NetnsError {
        let missing = source.kind() == io::ErrorKind::NotFound;
        match self {
            Self::Pid(pid) if missing => NetnsError::NoProcess(*pid),
            _ if missing => {
                let known = names().into_values().collect();
                NetnsError::NotFound {
                    spec: self.to_string(),
                    known,
                }
            }
            _ => NetnsError::Enter {
                spec: self.to_string(),
                source,
            },
        }
    }
}

/// A namespace found on the machine, not opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Inode number.
    pub inum: u32,
    /// Name under `/run/netns`, if any.
    pub name: Option<String>,
    /// A file that refers to it.
    pub path: PathBuf,
    /// Processes in it.
    pub pids: Vec<u32>,
}

/// All network namespaces that have a name or a process, by inode number.
pub fn all() -> BTreeMap<u32, Found> {
    let mut found: BTreeMap<u32, Found> = BTreeMap::new();
    for (inum, name) in names() {
        let path = Path::new(NAMES).join(&name);
        found.insert(
            inum,
            Found {
                inum,
                name: Some(name),
                path,
                pids: Vec::new(),
            },
        );
    }
    for pid in super::discover::process::pids() {
        let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
        let Ok(inum) = inum_of(&path) else { continue };
        let entry = found.entry(inum).or_insert_with(|| Found {
            inum,
            name: None,
            path,
            pids: Vec::new(),
        });
        entry.pids.push(pid);
    }
    found
}

/// Namespaces under `/run/netns`, inode number to name.
pub fn names() -> BTreeMap<u32, String> {
    let Ok(entries) = std::fs::read_dir(NAMES) else {
        return BTreeMap::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            // A leftover name is an empty file on another file system: only nsfs inodes count.
            File::open(entry.path())
                .ok()
                .and_then(|file| nsfs_inum(&file))
                .map(|inum| (inum, entry.file_name().to_string_lossy().into_owned()))
        })
        .collect()
}

/// Inode number of the namespace that a file refers to.
pub(crate) fn inum_of(path: &Path) -> io::Result<u32> {
    // stat follows the magic link and does not need to open the namespace.
    std::fs::metadata(path).map(|data| data.ino() as u32)
}

fn nsfs_inum(file: &File) -> Option<u32> {
    let kind = nix::sys::statfs::fstatfs(file).ok()?.filesystem_type();
    (kind == nix::sys::statfs::NSFS_MAGIC)
        .then(|| file.metadata().ok().map(|data| data.ino() as u32))?
}

type Job = Box<dyn FnOnce() + Send>;

struct Inner {
    inum: u32,
    name: Option<String>,
    file: File,
    thread: thread::ThreadId,
    jobs: mpsc::Sender<Job>,
}

/// An open network namespace. Clones share one thread, which ends with the last of them.
#[derive(Clone)]
pub struct Netns(Arc<Inner>);

impl fmt::Debug for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Netns({})", self.label())
    }
}

impl Netns {
    /// Opens a namespace and starts the thread in it.
    pub fn open(spec: &NetnsSpec) -> Result<Self, NetnsError> {
        Self::open_path(&spec.path(), spec)
    }

    /// Opens a namespace that [`all`] found.
    pub fn open_found(found: &Found) -> Result<Self, NetnsError> {
        Self::open_path(&found.path, &NetnsSpec::Path(found.path.clone()))
    }

    fn open_path(path: &Path, spec: &NetnsSpec) -> Result<Self, NetnsError> {
        let file = File::open(path).map_err(|source| spec.error(source))?;
        let inum = nsfs_inum(&file).ok_or_else(|| NetnsError::Spec(spec.to_string()))?;
        let enter = file.try_clone().map_err(|source| spec.error(source))?;
        let here = inum_of(Path::new("/proc/thread-self/ns/net")).is_ok_and(|own| own == inum);
        let (jobs, queue) = mpsc::channel::<Job>();
        let (entered, result) = mpsc::channel();
        let body = move || {
            ignore_signals();
            let outcome = if here {
                Ok(())
            } else {
                setns(enter, CloneFlags::CLONE_NEWNET)
            };
            let failed = outcome.is_err();
            // The opener waits for this answer, so the send cannot fail.
            let _ = entered.send(outcome);
            if !failed {
                queue.into_iter().for_each(|job| job());
            }
        };
        let handle = thread::Builder::new()
            .name("vpnbench-netns".into())
            .spawn(body);
        let handle = handle.map_err(|source| NetnsError::Thread {
            spec: spec.to_string(),
            source,
        })?;
        let outcome = result.recv().unwrap_or(Err(nix::Error::EIO));
        outcome.map_err(|errno| NetnsError::Enter {
            spec: spec.to_string(),
            source: errno.into(),
        })?;
        let name = names().remove(&inum);
        Ok(Self(Arc::new(Inner {
            inum,
            name,
            file,
            thread: handle.thread().id(),
            jobs,
        })))
    }

    /// Inode number.
    pub fn inum(&self) -> u32 {
        self.0.inum
    }

    /// Name under `/run/netns`, if it has one.
    pub fn name(&self) -> Option<&str> {
        self.0.name.as_deref()
    }

    /// Name for messages: its name, or its inode number as the kernel prints it.
    pub fn label(&self) -> String {
        self.name()
            .map_or_else(|| format!("net:[{}]", self.inum()), str::to_owned)
    }

    /// The file that refers to the namespace, e.g. to start a process in it.
    pub fn file(&self) -> &File {
        &self.0.file
    }

    /// Runs `job` in the namespace and waits for its result. A panic in it is passed on.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        if thread::current().id() == self.0.thread {
            return job();
        }
        let (done, result) = mpsc::sync_channel::<Result<T, Box<dyn Any + Send>>>(1);
        let job = Box::new(move || {
            // A caller that is gone needs no result.
            let _ = done.send(catch_unwind(AssertUnwindSafe(job)));
        });
        // The thread ends only after the last handle, and this is one.
        self.0
            .jobs
            .send(job)
            .expect("the thread of an open namespace runs");
        match result.recv().expect("every job answers") {
            Ok(value) => value,
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Takes all capabilities from the namespace's thread but [`KEPT_IN_NAMESPACE`].
    pub fn drop_privileges(&self) -> Result<(), NetnsError> {
        self.run(|| keep_only(KEPT_IN_NAMESPACE))
    }
}

/// Leaves all signals to other threads: these would otherwise take one that the recorder waits for.
pub(crate) fn ignore_signals() {
    // Fails only for an invalid set.
    let _ = nix::sys::signal::SigSet::all().thread_block();
}

/// Takes all capabilities from the calling thread but those in `keep` that it has. Capabilities
/// belong to threads: call it in each, before threads are started from it.
pub fn keep_only(keep: &[Capability]) -> Result<(), NetnsError> {
    let failed = |error: caps::errors::CapsError| NetnsError::Capabilities(error.to_string());
    let held = caps::read(None, CapSet::Permitted).map_err(failed)?;
    let kept = held.into_iter().filter(|cap| keep.contains(cap)).collect();
    caps::clear(None, CapSet::Ambient).map_err(failed)?;
    caps::clear(None, CapSet::Inheritable).map_err(failed)?;
    // The effective set must stay within the permitted one, so it shrinks first.
    caps::set(None, CapSet::Effective, &kept).map_err(failed)?;
    caps::set(None, CapSet::Permitted, &kept).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs() {
        let parse = |text: &str| text.parse::<NetnsSpec>().ok();
        assert_eq!(parse("a"), Some(NetnsSpec::Name("a".into())));
        assert_eq!(parse("vd-x-a"), Some(NetnsSpec::Name("vd-x-a".into())));
        assert_eq!(
            parse("/proc/1/ns/net"),
            Some(NetnsSpec::Path("/proc/1/ns/net".into()))
        );
        assert_eq!(parse("pid:12"), Some(NetnsSpec::Pid(12)));
        assert_eq!(parse("current"), Some(NetnsSpec::Current));
        for bad in [
            "", ".", "..", "a/b", "pid:", "pid:x", "pid:0", "pid:-1", "other:1",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn errors_name_the_object() {
        let error = Netns::open(&NetnsSpec::Name("vpnbench-none".into())).unwrap_err();
        assert!(error.to_string().contains("vpnbench-none"), "{error}");
        let error = Netns::open(&NetnsSpec::Pid(u32::MAX)).unwrap_err();
        assert!(matches!(error, NetnsError::NoProcess(u32::MAX)), "{error}");
        let error = Netns::open(&NetnsSpec::Path("/proc/self/stat".into())).unwrap_err();
        assert!(matches!(error, NetnsError::Spec(_)), "{error}");
    }

    #[test]
    fn current_needs_no_rights_and_survives_panics() {
        let netns = Netns::open(&NetnsSpec::Current).unwrap();
        assert_eq!(netns.inum(), NetnsSpec::Current.inum().unwrap());
        assert_eq!(netns.run(|| 7), 7);
        let inner = netns.clone();
        assert_eq!(netns.run(move || inner.run(|| 8)), 8);
        let hit = catch_unwind(AssertUnwindSafe(|| netns.run(|| panic!("inside"))));
        assert!(hit.is_err());
        assert_eq!(netns.run(|| 9), 9);
        netns.drop_privileges().unwrap();
        let held = netns.run(|| caps::read(None, CapSet::Permitted).unwrap());
        assert!(held.iter().all(|cap| KEPT_IN_NAMESPACE.contains(cap)));
    }

    #[test]
    fn own_namespace_is_listed() {
        let own = NetnsSpec::Current.inum().unwrap();
        assert!(all()[&own].pids.contains(&std::process::id()));
    }
}
