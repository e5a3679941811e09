//! The exact account of what the tunnel did: counters shared by its threads, and their JSON form.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use super::clock;
use super::packet::lock;
use super::settings::Settings;
use crate::lab::error::{LabError, Result};

/// Name of the account's layout.
pub const SCHEMA: &str = "vpnbench.tunnel-account.v1";

/// Why a packet did not get through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Fault: it came during `start_delay`.
    StartDelay,
    /// Fault: larger than `size_limit`.
    SizeLimit,
    /// Fault: `drop_entry`.
    DropEntry,
    /// Fault: `drop_exit`.
    DropExit,
    /// A full queue between two threads.
    QueueFull,
    /// The outer packet was too large for the path (EMSGSIZE).
    TooBig,
    /// The outer socket refused it otherwise.
    SendError,
    /// The tunnel device refused it.
    WriteError,
    /// Not encrypted with this key, or damaged on the way.
    Authentication,
    /// A datagram that is nothing of the tunnel's.
    Malformed,
    /// Pieces of it never came.
    Incomplete,
}

impl Cause {
    /// All of them.
    pub const ALL: [Cause; 11] = [
        Cause::StartDelay,
        Cause::SizeLimit,
        Cause::DropEntry,
        Cause::DropExit,
        Cause::QueueFull,
        Cause::TooBig,
        Cause::SendError,
        Cause::WriteError,
        Cause::Authentication,
        Cause::Malformed,
        Cause::Incomplete,
    ];
}

/// Why a packet left once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Copied {
    /// Fault: `duplicate`.
    Duplicate,
    /// Fault: `retransmit`.
    Retransmit,
}

/// Packets and inner bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Inner packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What passed the border of the tunnel in one direction and form.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Units {
    /// Reads or writes of the device (super-packets count once), or messages at the socket
    /// (a UDP_SEGMENT or UDP_GRO message counts once).
    pub units: u64,
    /// Bytes in them, as the kernel's interface counters or the socket's UDP payload count them.
    pub bytes: u64,
    /// At the socket: datagrams in them. At the device: packets in them.
    pub parts: u64,
}

/// One direction's account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Direction {
    /// Where packets come in: `transmit` the device, `receive` the socket.
    pub input: Units,
    /// Where they leave: `transmit` the socket, `receive` the device.
    pub output: Units,
    /// Inner packets that came in, whole.
    pub read: Count,
    /// Of these, those that passed the entry faults.
    pub entered: Count,
    /// Of these, those that were encrypted or decrypted.
    pub crypto: Count,
    /// Inner packets that left, without additional copies.
    pub left: Count,
    /// Lost packets by cause.
    pub lost: BTreeMap<Cause, Count>,
    /// Additional copies that left, by fault.
    pub duplicates: u64,
    /// See `duplicates`.
    pub retransmits: u64,
    /// Packets held back by the reorder fault.
    pub reordered: u64,
    /// Of these, those released by the time limit.
    pub reorder_timeouts: u64,
    /// Packets that waited for the delay fault.
    pub delayed: u64,
    /// Packets that waited for the ack_delay fault.
    pub acks_delayed: u64,
    /// Pauses of the stall fault, and their total length in ns.
    pub stalls: u64,
    /// See `stalls`.
    pub stalled_ns: u64,
    /// CPU time burnt on purpose at entry, crypto and exit, in ns.
    pub burnt_ns: [u64; 3],
    /// Times a thread found the peer's lock taken, and ns it waited.
    pub lock_waits: u64,
    /// See `lock_waits`.
    pub lock_wait_ns: u64,
    /// Times a full queue or socket made a thread wait.
    pub blocked: u64,
    /// Most packets seen in an internal queue.
    pub queue_deepest: u64,
    /// `receive` only: packets whose sequence number was below one that came earlier (RFC 4737
    /// section 3), copies included.
    pub out_of_order: u64,
    /// Packets still inside: `read` - `left` - `lost`.
    pub inside: i64,
}

/// One thread's account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thread {
    /// Its name, as in /proc/PID/task/TID/comm.
    pub name: String,
    /// Its number.
    pub tid: i32,
    /// CPU time so far in ns.
    pub cpu_ns: Option<u64>,
    /// How many packets (at the socket: datagrams) went through one call, by operation: size ->
    /// how often. Sizes from 256 on count as 256.
    pub batches: BTreeMap<String, BTreeMap<usize, u64>>,
}

/// The whole account.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Account {
    /// [`SCHEMA`].
    pub schema: String,
    /// Process number.
    pub pid: u32,
    /// What made it write this: `signal`, `exit`, `error`.
    pub reason: String,
    /// CLOCK_MONOTONIC in ns when it began to carry packets.
    pub started_ns: u64,
    /// And when this was written.
    pub written_ns: u64,
    /// Buffer sizes that the kernel granted to the outer socket (twice what was asked for).
    pub socket_send_buffer: Option<usize>,
    /// See `socket_send_buffer`.
    pub socket_receive_buffer: Option<usize>,
    /// From the device to the socket.
    pub transmit: Direction,
    /// From the socket to the device.
    pub receive: Direction,
    /// Its threads.
    pub threads: Vec<Thread>,
    /// What it was told to do.
    pub settings: Settings,
}

impl Account {
    /// Reads an account that the tunnel has written.
    pub fn read(path: &Path) -> Result<Account> {
        let text = std::fs::read(path).map_err(LabError::file("reading", path))?;
        serde_json::from_slice(&text).map_err(LabError::failed("reading", path.display()))
    }
}

/// A pair of counters.
#[derive(Debug, Default)]
pub(super) struct Counter {
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl Counter {
    pub(super) fn add(&self, bytes: u32) {
        self.add_many(1, u64::from(bytes));
    }

    pub(super) fn add_many(&self, packets: u64, bytes: u64) {
        self.packets.fetch_add(packets, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn read(&self) -> Count {
        Count {
            packets: self.packets.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

/// Counters of [`Units`].
#[derive(Debug, Default)]
pub(super) struct UnitCounter {
    units: AtomicU64,
    bytes: AtomicU64,
    parts: AtomicU64,
}

impl UnitCounter {
    pub(super) fn add(&self, units: u64, bytes: usize, parts: usize) {
        self.units.fetch_add(units, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.parts.fetch_add(parts as u64, Ordering::Relaxed);
    }

    fn read(&self) -> Units {
        Units {
            units: self.units.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            parts: self.parts.load(Ordering::Relaxed),
        }
    }
}

/// One direction's counters.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) input: UnitCounter,
    pub(super) output: UnitCounter,
    pub(super) read: Counter,
    pub(super) entered: Counter,
    pub(super) crypto: Counter,
    pub(super) left: Counter,
    lost: [Counter; Cause::ALL.len()],
    pub(super) duplicates: AtomicU64,
    pub(super) retransmits: AtomicU64,
    pub(super) reordered: AtomicU64,
    pub(super) reorder_timeouts: AtomicU64,
    pub(super) delayed: AtomicU64,
    pub(super) acks_delayed: AtomicU64,
    pub(super) stalls: AtomicU64,
    pub(super) stalled_ns: AtomicU64,
    pub(super) burnt_ns: [AtomicU64; 3],
    pub(super) lock_waits: AtomicU64,
    pub(super) lock_wait_ns: AtomicU64,
    pub(super) blocked: AtomicU64,
    pub(super) queue_deepest: AtomicU64,
    pub(super) out_of_order: AtomicU64,
}

impl Counters {
    pub(super) fn lost(&self, cause: Cause) -> &Counter {
        &self.lost[cause as usize]
    }

    fn read_all(&self) -> Direction {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let lost: BTreeMap<Cause, Count> = Cause::ALL
            .iter()
            .map(|cause| (*cause, self.lost(*cause).read()))
            .filter(|(_, count)| count.packets > 0)
            .collect();
        let (read, left) = (self.read.read(), self.left.read());
        let gone = left.packets + lost.values().map(|count| count.packets).sum::<u64>();
        Direction {
            input: self.input.read(),
            output: self.output.read(),
            read,
            entered: self.entered.read(),
            crypto: self.crypto.read(),
            left,
            lost,
            duplicates: value(&self.duplicates),
            retransmits: value(&self.retransmits),
            reordered: value(&self.reordered),
            reorder_timeouts: value(&self.reorder_timeouts),
            delayed: value(&self.delayed),
            acks_delayed: value(&self.acks_delayed),
            stalls: value(&self.stalls),
            stalled_ns: value(&self.stalled_ns),
            burnt_ns: [0, 1, 2].map(|stage: usize| value(&self.burnt_ns[stage])),
            lock_waits: value(&self.lock_waits),
            lock_wait_ns: value(&self.lock_wait_ns),
            blocked: value(&self.blocked),
            queue_deepest: value(&self.queue_deepest),
            out_of_order: value(&self.out_of_order),
            inside: read.packets.cast_signed() - gone.cast_signed(),
        }
    }
}

/// Adds to a counter.
pub(super) fn add(counter: &AtomicU64, value: u64) {
    counter.fetch_add(value, Ordering::Relaxed);
}

/// How often each size occurred.
#[derive(Debug)]
pub(super) struct Histogram(Box<[AtomicU64; Histogram::LARGEST + 1]>);

impl Histogram {
    const LARGEST: usize = 256;

    fn new() -> Histogram {
        Histogram(Box::new(
            [const { AtomicU64::new(0) }; Histogram::LARGEST + 1],
        ))
    }

    /// One that belongs to no thread yet.
    pub(super) fn detached() -> Arc<Histogram> {
        Arc::new(Histogram::new())
    }

    pub(super) fn add(&self, size: usize) {
        add(&self.0[size.min(Histogram::LARGEST)], 1);
    }

    fn read(&self) -> BTreeMap<usize, u64> {
        let counts = self.0.iter().map(|count| count.load(Ordering::Relaxed));
        counts.enumerate().filter(|(_, count)| *count > 0).collect()
    }
}

/// What one thread reports.
#[derive(Debug)]
pub(super) struct ThreadRecord {
    name: String,
    tid: i32,
    cpu_ns: AtomicU64,
    batches: Mutex<Vec<(&'static str, Arc<Histogram>)>>,
}

impl ThreadRecord {
    /// A histogram of this thread.
    pub(super) fn histogram(&self, operation: &'static str) -> Arc<Histogram> {
        let histogram = Arc::new(Histogram::new());
        lock(&self.batches).push((operation, Arc::clone(&histogram)));
        histogram
    }

    /// To be called by the thread itself at its end: afterwards nobody can ask the kernel.
    pub(super) fn finish(&self) {
        self.cpu_ns.store(clock::thread_cpu(), Ordering::Relaxed);
    }

    fn read(&self) -> Thread {
        let ended = self.cpu_ns.load(Ordering::Relaxed);
        let cpu_ns = (ended > 0).then_some(ended).or_else(|| {
            let path = format!("/proc/self/task/{}/schedstat", self.tid);
            let text = std::fs::read_to_string(path).ok()?;
            text.split_whitespace().next()?.parse().ok()
        });
        let batches = lock(&self.batches);
        let batches = batches
            .iter()
            .map(|(name, sizes)| ((*name).to_owned(), sizes.read()));
        Thread {
            name: self.name.clone(),
            tid: self.tid,
            cpu_ns,
            batches: batches.collect(),
        }
    }
}

/// All counters of a tunnel.
#[derive(Debug)]
pub(super) struct Books {
    pub(super) started: u64,
    pub(super) directions: [Counters; 2],
    threads: Mutex<Vec<Arc<ThreadRecord>>>,
    pub(super) send_buffer: AtomicUsize,
    pub(super) receive_buffer: AtomicUsize,
}

impl Books {
    pub(super) fn new() -> Books {
        Books {
            started: clock::now(),
            directions: Default::default(),
            threads: Mutex::default(),
            send_buffer: AtomicUsize::new(0),
            receive_buffer: AtomicUsize::new(0),
        }
    }

    /// Enters the calling thread.
    pub(super) fn thread(&self) -> Arc<ThreadRecord> {
        let record = Arc::new(ThreadRecord {
            name: std::thread::current().name().unwrap_or("?").to_owned(),
            tid: nix::unistd::gettid().as_raw(),
            cpu_ns: AtomicU64::new(0),
            batches: Mutex::default(),
        });
        lock(&self.threads).push(Arc::clone(&record));
        record
    }

    /// The account as it stands.
    pub(super) fn account(&self, settings: &Settings, reason: &str) -> Account {
        let buffer = |size: &AtomicUsize| match size.load(Ordering::Relaxed) {
            0 => None,
            bytes => Some(bytes),
        };
        Account {
            schema: SCHEMA.to_owned(),
            pid: std::process::id(),
            reason: reason.to_owned(),
            started_ns: self.started,
            written_ns: clock::now(),
            socket_send_buffer: buffer(&self.send_buffer),
            socket_receive_buffer: buffer(&self.receive_buffer),
            transmit: self.directions[0].read_all(),
            receive: self.directions[1].read_all(),
            threads: lock(&self.threads)
                .iter()
                .map(|thread| thread.read())
                .collect(),
            settings: settings.clone(),
        }
    }
}

/// Writes an account so that a reader sees either the old one or the new one, never half of it.
pub(super) fn write(account: &Account, path: &Path) -> Result<()> {
    let json = serde_json::to_vec_pretty(account)
        .map_err(LabError::failed("writing the account to", path.display()))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)
        .map_err(LabError::file("creating a file in", folder))?;
    std::io::Write::write_all(&mut file, &json).map_err(LabError::file("writing", path))?;
    file.persist(path)
        .map_err(|error| LabError::file("replacing", path)(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_in_their_order() {
        for (index, cause) in Cause::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, index);
        }
    }

    #[test]
    fn what_is_neither_left_nor_lost_is_inside() {
        let books = Books::new();
        let counters = &books.directions[0];
        counters.read.add_many(10, 1000);
        counters.left.add_many(6, 600);
        counters.lost(Cause::DropExit).add(100);
        books.thread().histogram("read").add(3);
        let account = books.account(&Settings::default(), "exit");
        assert_eq!(account.transmit.inside, 3);
        assert_eq!(account.transmit.lost.len(), 1);
        assert_eq!(account.threads[0].batches["read"][&3], 1);
        let folder = tempfile::tempdir();
        let Ok(path) = folder
            .as_ref()
            .map(|folder| folder.path().join("account.json"))
        else {
            panic!("no folder")
        };
        assert!(write(&account, &path).is_ok());
        let read = Account::read(&path);
        assert!(read.is_ok_and(|read| read.transmit == account.transmit && read.schema == SCHEMA));
    }
}
