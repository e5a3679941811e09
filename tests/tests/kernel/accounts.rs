//! What the kernel itself counts, read by the test inside the namespaces.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use vpnbench_tests::netns::wait_for;

use crate::hosts::Host;

/// Counters of a device, from /proc/net/dev.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) rx_bytes: u64,
    pub(crate) rx_packets: u64,
    pub(crate) rx_dropped: u64,
    pub(crate) tx_bytes: u64,
    pub(crate) tx_packets: u64,
    pub(crate) tx_dropped: u64,
}

impl Link {
    fn since(&self, before: &Self) -> Self {
        Self {
            rx_bytes: self.rx_bytes - before.rx_bytes,
            rx_packets: self.rx_packets - before.rx_packets,
            rx_dropped: self.rx_dropped - before.rx_dropped,
            tx_bytes: self.tx_bytes - before.tx_bytes,
            tx_packets: self.tx_packets - before.tx_packets,
            tx_dropped: self.tx_dropped - before.tx_dropped,
        }
    }
}

/// Counters of one namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) links: BTreeMap<String, Link>,
    protocols: BTreeMap<String, u64>,
}

impl Account {
    /// Reads them now.
    pub(crate) fn read(host: &Host) -> Result<Self> {
        let texts = host.run(|| {
            ["dev", "snmp", "netstat", "snmp6"]
                .map(|name| std::fs::read_to_string(format!("/proc/thread-self/net/{name}")))
        });
        let [dev, snmp, netstat, snmp6] = texts;
        let mut protocols = BTreeMap::new();
        for text in [snmp?, netstat?] {
            pairs(&text, &mut protocols);
        }
        for line in snmp6?.lines() {
            let mut words = line.split_whitespace();
            if let (Some(name), Some(value)) = (words.next(), words.next()) {
                protocols.insert(name.to_owned(), value.parse()?);
            }
        }
        Ok(Self {
            links: links(&dev?)?,
            protocols,
        })
    }

    /// What was counted in between.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let links = self.links.iter().map(|(name, now)| {
            let then = before.links.get(name).copied().unwrap_or_default();
            (name.clone(), now.since(&then))
        });
        let protocols = self.protocols.iter().map(|(name, now)| {
            let then = before.protocols.get(name).copied().unwrap_or(0);
            // Some are gauges or limits, e.g. TcpMaxConn: nobody asks for those.
            (name.clone(), now.saturating_sub(then))
        });
        Self {
            links: links.collect(),
            protocols: protocols.collect(),
        }
    }

    /// A device.
    pub(crate) fn link(&self, name: &str) -> Result<Link> {
        let link = self.links.get(name).copied();
        link.with_context(|| format!("no device {name} in {:?}", self.links))
    }

    /// A protocol counter, by nstat's name.
    pub(crate) fn counter(&self, name: &str) -> Result<u64> {
        let value = self.protocols.get(name).copied();
        value.with_context(|| format!("no counter {name}"))
    }
}

fn links(text: &str) -> Result<BTreeMap<String, Link>> {
    let mut links = BTreeMap::new();
    for line in text.lines().skip(2) {
        let (name, numbers) = line.split_once(':').context("/proc/net/dev")?;
        let numbers: Vec<u64> = numbers
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        ensure!(numbers.len() >= 12, "/proc/net/dev: {line}");
        let link = Link {
            rx_bytes: numbers[0],
            rx_packets: numbers[1],
            rx_dropped: numbers[3],
            tx_bytes: numbers[8],
            tx_packets: numbers[9],
            tx_dropped: numbers[11],
        };
        links.insert(name.trim().to_owned(), link);
    }
    Ok(links)
}

/// Lines of names followed by lines of values, each with the group in front.
fn pairs(text: &str, to: &mut BTreeMap<String, u64>) {
    let lines: Vec<&str> = text.lines().collect();
    for pair in lines.chunks_exact(2) {
        let (Some((group, names)), Some((_, values))) =
            (pair[0].split_once(':'), pair[1].split_once(':'))
        else {
            continue;
        };
        for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
            if let Ok(value) = value.parse() {
                to.insert(format!("{group}{name}"), value);
            }
        }
    }
}

/// Waits until no device has counted anything for a while; the accounts at the end of it.
pub(crate) fn settled(hosts: &[&Host]) -> Result<Vec<Account>> {
    silent(hosts, Duration::from_millis(100))
}

/// Waits until no device has counted anything for this long; the accounts at the end of it.
pub(crate) fn silent(hosts: &[&Host], silence: Duration) -> Result<Vec<Account>> {
    let mut last = read_all(hosts)?;
    let mut since = Instant::now();
    let quiet = wait_for(silence + Duration::from_secs(5), || {
        std::thread::sleep(Duration::from_millis(20));
        let Ok(now) = read_all(hosts) else {
            return false;
        };
        if !same_links(&now, &last) {
            since = Instant::now();
        }
        last = now;
        since.elapsed() >= silence
    });
    ensure!(quiet, "the devices do not come to rest");
    Ok(last)
}

/// Whether no device counted anything in between.
pub(crate) fn same_links(one: &[Account], other: &[Account]) -> bool {
    one.iter()
        .zip(other)
        .all(|(one, other)| one.links == other.links)
}

/// The accounts of all hosts.
pub(crate) fn read_all(hosts: &[&Host]) -> Result<Vec<Account>> {
    hosts.iter().map(|host| Account::read(host)).collect()
}
