//! `[cpus]`: which cores the programs of a run use.

use libtest_mimic::Failed;
use vpnbench::lab::{self, Bench, Vpn};

use super::{Outcome, check, options};

/// The cores a process may run on, as the kernel prints them: of all its threads.
fn cores_of(pid: u32) -> Result<Vec<String>, Failed> {
    let mut lists = Vec::new();
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = std::fs::read_to_string(thread?.path().join("status"))?;
        let list = status
            .lines()
            .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        lists.push(list.unwrap_or_default().trim().to_owned());
    }
    Ok(lists)
}

/// The daemons keep to their core, the benchmark does not; a core that is not there is refused.
pub(super) fn kept() -> Outcome {
    let mut asked = options(Vpn::Reference, Bench::Tcp);
    asked.cpus.daemon = vec![0];
    let first = lab::start(&asked)?;
    let own = cores_of(std::process::id())?.swap_remove(0);
    let daemons = [&first.tunnel.a, &first.tunnel.b].map(|end| end.daemon.as_ref());
    for daemon in daemons.into_iter().flatten() {
        let lists = cores_of(daemon.pid())?;
        check(
            lists.len() > 1 && lists.iter().all(|list| list == "0"),
            format!("the daemon runs on {lists:?}"),
        )?;
    }
    let server = first.server.as_ref().ok_or("no server")?;
    let lists = cores_of(server.pid())?;
    check(lists.iter().all(|list| *list == own), format!("{lists:?}"))?;
    drop(first);
    asked.cpus.benchmark = vec![100_000];
    let refused = lab::start(&asked).map(drop);
    let text = refused
        .err()
        .map(|error| error.to_string())
        .unwrap_or_default();
    check(text.contains("core 100000"), text)
}
