//! The caller's network namespace and machine-wide places where a run could leave something, to be
//! compared before and after.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use vpnbench::probe::netns::{Netns, NetnsSpec};
use vpnbench::record::environment;

/// The caller's links with their addresses, settings and queueing disciplines, its routes, and
/// every sysctl below `net`.
///
/// # Errors
/// When the namespace cannot be read.
pub fn snapshot() -> anyhow::Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let own = Netns::open(&NetnsSpec::Path("/proc/self/ns/net".into()))?;
    for namespace in environment::snapshot(&[own], &[]).namespaces {
        for link in namespace.links {
            let qdiscs = link.qdiscs.iter();
            let qdiscs: Vec<String> = qdiscs
                .map(|qdisc| format!("{} at {}", qdisc.kind, qdisc.parent))
                .collect();
            let state = format!(
                "mtu {} queue {} {:?} {:?} {:?} {:?}",
                link.mtu, link.tx_queue_len, link.addresses, link.flags, qdiscs, link.offloads
            );
            found.insert(format!("link {}", link.name), state);
        }
        found.insert("routes".to_owned(), namespace.routes.join("\n"));
    }
    add_settings(Path::new("/proc/sys/net"), &mut found);
    Ok(found)
}

fn add_settings(folder: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            add_settings(&path, found);
        } else if !path.ends_with("nf_conntrack_count") {
            let value = fs::read_to_string(&path).unwrap_or_default();
            found.insert(path.display().to_string(), value);
        }
    }
}

/// What differs between two snapshots.
#[must_use]
pub fn changes(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<String> {
    let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
    names.sort();
    names.dedup();
    names
        .into_iter()
        .filter(|name| before.get(*name) != after.get(*name))
        .map(|name| {
            format!(
                "{name}: {:?} is now {:?}",
                before.get(name),
                after.get(name)
            )
        })
        .collect()
}

/// Directories of runs whose owner is process `pid`: the lab names them `ID.PID.START`.
#[must_use]
pub fn runs_of(pid: u32) -> Vec<String> {
    let entries = fs::read_dir("/run/vpnbench")
        .into_iter()
        .flatten()
        .flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names
        .filter(|name| name.split('.').nth(1) == Some(&pid.to_string()))
        .collect()
}

/// Processes that are in one of these namespaces (inode numbers), zombies left out: an orphan stays
/// one until the machine's init gets round to it.
#[must_use]
pub fn processes_in(namespaces: &[u64]) -> Vec<String> {
    use std::os::unix::fs::MetadataExt as _;
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let inode = fs::metadata(entry.path().join("ns/net")).ok()?.ino();
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            (namespaces.contains(&inode) && !stat.contains(") Z ")).then_some(stat)
        })
        .collect()
}
