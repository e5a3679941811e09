//! System calls that move packets, per process: how many, how large the batches, how long.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use vpnbench_common::event;

use super::threads::{role_name, text};
use super::{Context, Problem, seconds};
use crate::trace::Event;

/// (process, system call) pairs kept.
const KEYS_MAX: usize = 4096;
/// Largest batch counted by itself; the kernel takes at most `UIO_MAXIOV` messages a call.
const BATCH_MAX: u64 = 1024;
/// `-EAGAIN`, the same on all architectures vpnbench runs on.
const AGAIN: i64 = -11;

/// What the return value of a call counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Returns {
    /// Bytes of one packet or stream.
    Bytes,
    /// Messages.
    Messages,
    /// Neither.
    Other,
}

/// What a thread waits for inside a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// A lock or another thread.
    Futex,
    /// Data of one descriptor.
    Read,
    /// Events of several descriptors.
    Poll,
    /// Anything else.
    Other,
}

/// One system call: name, number on x86_64 and aarch64 (-1 absent), what it returns, what it waits for.
type Row = (&'static str, i32, i32, Returns, Wait);

const TABLE: &[Row] = &[
    ("read", 0, 63, Returns::Bytes, Wait::Read),
    ("write", 1, 64, Returns::Bytes, Wait::Other),
    ("close", 3, 57, Returns::Other, Wait::Other),
    ("poll", 7, -1, Returns::Other, Wait::Poll),
    ("ioctl", 16, 29, Returns::Other, Wait::Other),
    ("pread64", 17, 67, Returns::Bytes, Wait::Read),
    ("pwrite64", 18, 68, Returns::Bytes, Wait::Other),
    ("readv", 19, 65, Returns::Bytes, Wait::Read),
    ("writev", 20, 66, Returns::Bytes, Wait::Other),
    ("select", 23, -1, Returns::Other, Wait::Poll),
    ("nanosleep", 35, 101, Returns::Other, Wait::Other),
    ("sendfile", 40, 71, Returns::Bytes, Wait::Other),
    ("socket", 41, 198, Returns::Other, Wait::Other),
    ("sendto", 44, 206, Returns::Bytes, Wait::Other),
    ("recvfrom", 45, 207, Returns::Bytes, Wait::Read),
    ("sendmsg", 46, 211, Returns::Bytes, Wait::Other),
    ("recvmsg", 47, 212, Returns::Bytes, Wait::Read),
    ("futex", 202, 98, Returns::Other, Wait::Futex),
    ("clock_nanosleep", 230, 115, Returns::Other, Wait::Other),
    ("epoll_wait", 232, -1, Returns::Other, Wait::Poll),
    ("pselect6", 270, 72, Returns::Other, Wait::Poll),
    ("ppoll", 271, 73, Returns::Other, Wait::Poll),
    ("splice", 275, 76, Returns::Bytes, Wait::Read),
    ("epoll_pwait", 281, 22, Returns::Other, Wait::Poll),
    ("preadv", 295, 69, Returns::Bytes, Wait::Read),
    ("pwritev", 296, 70, Returns::Bytes, Wait::Other),
    ("recvmmsg", 299, 243, Returns::Messages, Wait::Read),
    ("sendmmsg", 307, 269, Returns::Messages, Wait::Other),
    ("preadv2", 327, 286, Returns::Bytes, Wait::Read),
    ("pwritev2", 328, 287, Returns::Bytes, Wait::Other),
    ("io_uring_enter", 426, 426, Returns::Other, Wait::Other),
    ("epoll_pwait2", 441, 441, Returns::Other, Wait::Poll),
];

fn known(machine: &str, nr: u32) -> Option<&'static Row> {
    let nr = i32::try_from(nr).ok()?;
    match machine {
        "x86_64" => TABLE.iter().find(|row| row.1 == nr),
        "aarch64" => TABLE.iter().find(|row| row.2 == nr),
        _ => None,
    }
}

/// What a thread waits for inside a call of the machine (`uname -m`) the trace is from.
#[must_use]
pub fn wait(machine: &str, nr: u32) -> Wait {
    known(machine, nr).map_or(Wait::Other, |row| row.4)
}

/// Which way a call moves data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the kernel: reads and receives.
    In,
    /// To the kernel: writes and sends.
    Out,
    /// Either (io_uring).
    Both,
    /// None.
    Neither,
}

/// Which way a call moves data, on the machine (`uname -m`) the trace is from.
#[must_use]
pub fn way(machine: &str, nr: u32) -> Way {
    match name(machine, nr) {
        Some("io_uring_enter" | "splice" | "sendfile") => Way::Both,
        Some(name) if name.starts_with("send") || name.contains("write") => Way::Out,
        Some(name) if name.starts_with("recv") || name.contains("read") => Way::In,
        _ => Way::Neither,
    }
}

/// Name of a call on the machine (`uname -m`) the trace is from, if this version knows it.
#[must_use]
pub fn name(machine: &str, nr: u32) -> Option<&'static str> {
    known(machine, nr).map(|row| row.0)
}

/// Calls of one kind by one process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SyscallCount {
    /// Process.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// "daemon", "benchmark", "kernel" or "other".
    pub role: String,
    /// Name of the call, or its number.
    pub syscall: String,
    /// Calls that returned.
    pub calls: u64,
    /// Of these, successful.
    pub succeeded: u64,
    /// Of these, would have blocked (`EAGAIN`).
    pub would_block: u64,
    /// Of these, failed otherwise.
    pub errors: u64,
    /// Messages moved; null for calls that do not count messages.
    pub messages: Option<u64>,
    /// Bytes moved; null for calls that do not count bytes.
    pub bytes: Option<u64>,
    /// Mean messages per successful call.
    pub batch_mean: Option<f64>,
    /// Median messages per successful call.
    pub batch_p50: Option<u64>,
    /// 99th percentile of messages per successful call.
    pub batch_p99: Option<u64>,
    /// Mean bytes per successful call.
    pub bytes_per_call: Option<f64>,
    /// Seconds between entry and exit, waiting included, over the calls whose entry was seen.
    pub time_s: f64,
    /// Calls whose entry was not seen.
    pub untimed: u64,
}

#[derive(Debug, Clone, Default)]
struct Count {
    calls: u64,
    succeeded: u64,
    would_block: u64,
    errors: u64,
    returned: u64,
    /// Calls by return value, up to [`BATCH_MAX`].
    values: BTreeMap<u64, u64>,
    time_ns: u64,
    untimed: u64,
}

/// Counts system calls.
#[derive(Debug, Clone, Default)]
pub struct Syscalls {
    counts: BTreeMap<(u32, u32), Count>,
    processes: BTreeMap<u32, (String, u32)>,
    uncounted: u64,
}

impl Syscalls {
    /// Takes one event.
    pub fn observe(&mut self, event: &Event<'_>) {
        match event {
            Event::Syscall(call) => self.call(call),
            Event::Task(task) => {
                let tgid = if task.child_tgid != 0 {
                    task.child_tgid
                } else {
                    task.tgid
                };
                let leader = task.target_tid == tgid || !self.processes.contains_key(&tgid);
                if leader && task.comm[0] != 0 && self.processes.len() < KEYS_MAX {
                    self.processes.insert(tgid, (text(&task.comm), task.role));
                }
            }
            _ => {}
        }
    }

    fn call(&mut self, call: &event::Syscall) {
        let key = (call.tgid, call.nr);
        if self.counts.len() >= KEYS_MAX && !self.counts.contains_key(&key) {
            self.uncounted += 1;
            return;
        }
        let count = self.counts.entry(key).or_default();
        count.calls += 1;
        match u64::try_from(call.ret) {
            Ok(value) => {
                count.succeeded += 1;
                count.returned += value;
                if value <= BATCH_MAX {
                    *count.values.entry(value).or_default() += 1;
                }
            }
            Err(_) if call.ret == AGAIN => count.would_block += 1,
            Err(_) => count.errors += 1,
        }
        if call.duration_ns == u64::MAX {
            count.untimed += 1;
        } else {
            count.time_ns += call.duration_ns;
        }
    }

    /// The calls, by process and number.
    #[must_use]
    pub fn finish(self, context: &Context<'_>) -> (Vec<SyscallCount>, Vec<Problem>) {
        let machine = &context.start.host.machine;
        let ends = context.end.map(|end| &end.environment.threads);
        let snapshots: Vec<_> = context
            .start
            .environment
            .threads
            .iter()
            .chain(ends.into_iter().flatten())
            .collect();
        let process = |tgid: u32| -> (String, String) {
            // The snapshot names the process by its first thread.
            let snapshot = snapshots
                .iter()
                .find(|thread| thread.tid == tgid)
                .or_else(|| snapshots.iter().find(|thread| thread.tgid == tgid));
            match (self.processes.get(&tgid), snapshot) {
                (Some((comm, role)), _) if *role != 0 => {
                    (comm.clone(), role_name(*role).to_owned())
                }
                (_, Some(thread)) => (thread.comm.clone(), thread.role.clone()),
                (Some((comm, _)), None) => (comm.clone(), "other".to_owned()),
                (None, None) => ("?".to_owned(), "other".to_owned()),
            }
        };
        let rows = self.counts.iter().map(|(&(tgid, nr), count)| {
            let (comm, role) = process(tgid);
            row(tgid, comm, role, (known(machine, nr), nr), count)
        });
        let rows = rows.collect();
        let mut problems = Vec::new();
        if self.uncounted > 0 {
            let message = format!(
                "{} system calls of too many processes were not counted",
                self.uncounted
            );
            problems.push(Problem::data_loss("syscalls", message));
        }
        (rows, problems)
    }
}

fn row(
    pid: u32,
    comm: String,
    role: String,
    (known, nr): (Option<&'static Row>, u32),
    count: &Count,
) -> SyscallCount {
    let returns = known.map_or(Returns::Other, |row| row.3);
    let of = |kind: Returns| (returns == kind).then_some(count.returned);
    let mean = |sum: Option<u64>| {
        sum.filter(|_| count.succeeded > 0)
            .map(|sum| sum as f64 / count.succeeded as f64)
    };
    let batches = returns == Returns::Messages && count.succeeded > 0;
    SyscallCount {
        pid,
        comm,
        role,
        syscall: known.map_or_else(|| format!("syscall {nr}"), |row| row.0.to_owned()),
        calls: count.calls,
        succeeded: count.succeeded,
        would_block: count.would_block,
        errors: count.errors,
        messages: of(Returns::Messages),
        bytes: of(Returns::Bytes),
        batch_mean: mean(of(Returns::Messages)),
        batch_p50: batches.then(|| percentile(&count.values, 0.50)).flatten(),
        batch_p99: batches.then(|| percentile(&count.values, 0.99)).flatten(),
        bytes_per_call: mean(of(Returns::Bytes)),
        time_s: seconds(count.time_ns),
        untimed: count.untimed,
    }
}

/// Smallest value that at least `share` of the counted values do not exceed (nearest rank).
fn percentile(values: &BTreeMap<u64, u64>, share: f64) -> Option<u64> {
    let total: u64 = values.values().sum();
    let rank = (share * total as f64).ceil().max(1.0) as u64;
    let mut seen = 0;
    values.iter().find_map(|(value, count)| {
        seen += count;
        (seen >= rank).then_some(*value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    fn numbers_are_those_of_libc() {
        for (name, number) in [
            ("read", libc::SYS_read),
            ("write", libc::SYS_write),
            ("close", libc::SYS_close),
            ("ioctl", libc::SYS_ioctl),
            ("pread64", libc::SYS_pread64),
            ("pwrite64", libc::SYS_pwrite64),
            ("readv", libc::SYS_readv),
            ("writev", libc::SYS_writev),
            ("nanosleep", libc::SYS_nanosleep),
            ("sendfile", libc::SYS_sendfile),
            ("socket", libc::SYS_socket),
            ("sendto", libc::SYS_sendto),
            ("recvfrom", libc::SYS_recvfrom),
            ("sendmsg", libc::SYS_sendmsg),
            ("recvmsg", libc::SYS_recvmsg),
            ("futex", libc::SYS_futex),
            ("clock_nanosleep", libc::SYS_clock_nanosleep),
            ("pselect6", libc::SYS_pselect6),
            ("ppoll", libc::SYS_ppoll),
            ("splice", libc::SYS_splice),
            ("epoll_pwait", libc::SYS_epoll_pwait),
            ("preadv", libc::SYS_preadv),
            ("pwritev", libc::SYS_pwritev),
            ("recvmmsg", libc::SYS_recvmmsg),
            ("sendmmsg", libc::SYS_sendmmsg),
            ("preadv2", libc::SYS_preadv2),
            ("pwritev2", libc::SYS_pwritev2),
            ("io_uring_enter", libc::SYS_io_uring_enter),
            ("epoll_pwait2", libc::SYS_epoll_pwait2),
        ] {
            let nr = u32::try_from(number).expect("system call numbers are small");
            assert_eq!(
                known(std::env::consts::ARCH, nr).map(|row| row.0),
                Some(name)
            );
        }
    }

    #[test]
    fn percentiles_are_nearest_rank() {
        let values = BTreeMap::from([(1, 98), (7, 1), (64, 1)]);
        assert_eq!(percentile(&values, 0.5), Some(1));
        assert_eq!(percentile(&values, 0.99), Some(7));
        assert_eq!(percentile(&values, 1.0), Some(64));
        assert_eq!(percentile(&BTreeMap::new(), 0.5), None);
    }
}
