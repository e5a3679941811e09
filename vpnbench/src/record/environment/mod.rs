//! State of the machine at one moment: settings, devices, queues, counters, threads.
//!
//! A snapshot reads only; it works after rights have been dropped, through namespaces that are
//! open. What cannot be read is listed with the reason and never fails the rest.

use std::collections::BTreeMap;

use crate::probe::netns::Netns;
use crate::trace::model::{Environment, Namespace};

mod cores;
mod counters;
mod host;
mod links;
mod offloads;
mod routes;
mod sysctls;
mod threads;
mod tools;

pub use host::{clock, host};
pub use tools::versions;

/// What could not be read, as sentences.
type Missing = Vec<String>;

/// Reads the state of namespaces and of the threads of processes. Each process comes with its
/// role: "daemon", "benchmark" or "other"; the kernel's packet threads are added.
pub fn snapshot(netns: &[Netns], processes: &[(u32, &str)]) -> Environment {
    let mut environment = Environment {
        time_ns: clock().monotonic_ns,
        ..Environment::default()
    };
    let machine = sysctls::of_machine();
    for netns in netns {
        let (namespace, missing) = netns.run(namespace);
        let label = netns.label();
        let missing = missing
            .into_iter()
            .map(|text| format!("netns {label}: {text}"));
        environment.missing.extend(missing);
        let mut namespace = Namespace {
            netns: netns.inum(),
            name: netns.name().map(str::to_owned),
            ..namespace
        };
        for (name, value) in &machine {
            namespace
                .sysctls
                .entry(name.clone())
                .or_insert_with(|| value.clone());
        }
        environment.namespaces.push(namespace);
    }
    environment.threads = threads::read(processes, &mut environment.missing);
    environment.cores = cores::read(&mut environment.missing);
    environment
}

/// State of the calling thread's namespace.
fn namespace() -> (Namespace, Missing) {
    let mut missing = Missing::new();
    let links = links::read(&mut missing);
    let names: BTreeMap<u32, String> = links
        .iter()
        .map(|link| (link.ifindex, link.name.clone()))
        .collect();
    let namespace = Namespace {
        sysctls: sysctls::of_namespace(),
        routes: routes::read(&names, &mut missing),
        counters: counters::read(&mut missing),
        links,
        ..Namespace::default()
    };
    (namespace, missing)
}

/// Keeps a value, or notes why there is none.
fn kept<T, E: std::fmt::Display>(
    result: Result<T, E>,
    what: &str,
    missing: &mut Missing,
) -> Option<T> {
    result
        .map_err(|error| missing.push(format!("{what}: {error}")))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::netns::NetnsSpec;

    #[test]
    fn own_namespace() {
        let netns = Netns::open(&NetnsSpec::Current).unwrap();
        let own = std::process::id();
        let environment = snapshot(
            std::slice::from_ref(&netns),
            &[(own, "other"), (u32::MAX, "daemon")],
        );
        let namespace = &environment.namespaces[0];
        assert_eq!(namespace.netns, netns.inum());
        assert!(
            namespace
                .sysctls
                .contains_key("net.ipv4.tcp_congestion_control")
        );
        assert!(
            namespace.counters.contains_key("TcpRetransSegs"),
            "{:?}",
            namespace.counters
        );
        assert!(namespace.counters.contains_key("TcpExtTCPTimeouts"));
        let lo = namespace
            .links
            .iter()
            .find(|link| link.name == "lo")
            .unwrap();
        assert!(lo.mtu > 0 && lo.kind.is_none());
        assert!(
            environment
                .threads
                .iter()
                .any(|thread| thread.tgid == own && thread.role == "other")
        );
        assert!(
            environment
                .missing
                .iter()
                .any(|text| text.contains(&u32::MAX.to_string()))
        );
    }
}
