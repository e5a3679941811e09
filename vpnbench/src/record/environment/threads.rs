//! Scheduler counters of the threads on the path.

use std::fs;

use super::Missing;
use crate::probe::discover::process;
use crate::trace::model::Thread;

/// Role of the kernel's own threads: their workers come and go unnoticed.
pub const KERNEL: &str = "kernel";

/// Threads of the given processes with their roles.
pub(super) fn read(processes: &[(u32, &str)], missing: &mut Missing) -> Vec<Thread> {
    let mut threads = Vec::new();
    for &(pid, role) in processes {
        let tids = process::threads(pid);
        if tids.is_empty() && role != KERNEL {
            missing.push(format!(
                "threads of pid {pid} ({role}): the process is gone"
            ));
        }
        threads.extend(tids.into_iter().filter_map(|tid| thread(pid, tid, role)));
    }
    if !threads.is_empty() && threads.iter().all(|thread| thread.runtime_ns == 0) {
        missing.push("scheduler counters: this kernel keeps none (CONFIG_SCHED_INFO)".to_owned());
    }
    threads.sort_by_key(|thread| (thread.tgid, thread.tid));
    threads
}

/// A thread that ends meanwhile is no thread any more.
fn thread(tgid: u32, tid: u32, role: &str) -> Option<Thread> {
    let path = format!("/proc/{tgid}/task/{tid}");
    let comm = fs::read_to_string(format!("{path}/comm"))
        .ok()?
        .trim_end_matches('\n')
        .to_owned();
    let text = fs::read_to_string(format!("{path}/schedstat")).unwrap_or_default();
    let (runtime_ns, run_delay_ns, pcount) = schedstat(&text).unwrap_or_default();
    Some(Thread {
        tgid,
        tid,
        comm,
        role: role.to_owned(),
        runtime_ns,
        run_delay_ns,
        pcount,
    })
}

fn schedstat(text: &str) -> Option<(u64, u64, u64)> {
    let mut words = text.split_whitespace().map(str::parse);
    Some((
        words.next()?.ok()?,
        words.next()?.ok()?,
        words.next()?.ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters() {
        assert_eq!(schedstat("12 34 5\n"), Some((12, 34, 5)));
        assert_eq!(schedstat("12 34\n"), None);
    }
}
