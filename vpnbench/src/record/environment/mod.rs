//! State of the machine at one moment: settings, devices, queues, counters, threads.
//!
//! A snapshot reads only; it works after rights have been dropped, through namespaces that are
//! open. What cannot be read is listed with the reason and never fails the rest.

use std::collections::BTreeMap;

use crate::probe::netns::Netns;
use crate::trace::model::{Environment, LinkCounters, Namespace};

mod cores;
mod counters;
mod host;
mod links;
mod offloads;
mod routes;
mod sysctls;
mod threads;
mod tools;

pub use host::{clock, host, utc};
pub use threads::KERNEL as KERNEL_THREAD;
pub use tools::versions;

/// What could not be read, as sentences.
type Missing = Vec<String>;

/// Reads the state of namespaces and of the threads of processes. Each process comes with its
/// role: "daemon", "benchmark", [`KERNEL_THREAD`] or "other".
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

/// Interface counters by namespace and index: a reading that takes no time, beside a snapshot.
pub type Readings = BTreeMap<(u32, u32), LinkCounters>;

/// Reads the interface counters of namespaces.
pub fn link_counters(netns: &[Netns]) -> Readings {
    let mut readings = Readings::new();
    for netns in netns {
        let inum = netns.inum();
        let counters = netns.run(links::counters_by_index);
        readings.extend(
            counters
                .into_iter()
                .map(|(index, one)| ((inum, index), one)),
        );
    }
    readings
}

/// Notes which interfaces' counters differ between a snapshot and a reading on the other side of the
/// moment at which watching began or ended.
pub fn note_unsettled(environment: &mut Environment, readings: &Readings) {
    for namespace in &mut environment.namespaces {
        for link in &mut namespace.links {
            let other = readings.get(&(namespace.netns, link.ifindex));
            let grown = other.and_then(|other| {
                let later = link.counters.since(other);
                later.or_else(|| other.since(&link.counters))
            });
            link.unsettled = grown.filter(|grown| *grown != LinkCounters::default());
        }
    }
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
    use crate::trace::model::Link;

    #[test]
    fn only_what_moved_is_unsettled() {
        let link = |ifindex, tx_packets| Link {
            ifindex,
            counters: LinkCounters {
                tx_packets,
                ..LinkCounters::default()
            },
            ..Link::default()
        };
        let mut environment = Environment {
            namespaces: vec![Namespace {
                netns: 7,
                links: vec![link(1, 40), link(2, 40), link(3, 40)],
                ..Namespace::default()
            }],
            ..Environment::default()
        };
        let readings = [((7, 1), 40), ((7, 2), 41), ((7, 3), 38)];
        let readings = readings.map(|(key, count)| (key, link(1, count).counters));
        note_unsettled(&mut environment, &readings.into());
        let links = &environment.namespaces[0].links;
        let moved = links.iter().map(|link| Some(link.unsettled?.tx_packets));
        assert_eq!(moved.collect::<Vec<_>>(), [None, Some(1), Some(2)]);
    }

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
