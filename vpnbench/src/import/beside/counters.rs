//! Counters of the kernel: `nstat -asz` (text or `--json`) and `ethtool -S`, each from before and from after the run.

use std::collections::BTreeMap;

use super::Reading;
use crate::trace::model::{Environment, LinkCounters};
use crate::trace::{Code, Problem};

/// Protocol counters by the kernel's names.
pub(super) type Protocols = BTreeMap<String, u64>;

/// The counters of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Device {
    /// The file, in whose name the device's is looked for: `ethtool` does not write it.
    file: String,
    /// Those that an interface counts; `None` if the driver does not tell.
    counters: Option<LinkCounters>,
}

/// Reads `nstat`.
pub(super) fn protocols(text: &str, reading: &mut Reading<'_>) -> Protocols {
    if text.trim_start().starts_with('{') {
        return json(text, reading);
    }
    let mut found = Protocols::new();
    for (number, line) in text.lines().enumerate() {
        if line.starts_with('#') || line.trim().is_empty() {
            continue;
        }
        let mut words = line.split_whitespace();
        let name = words.next();
        let value = words.next().and_then(|value| value.parse().ok());
        match name.zip(value) {
            Some((name, value)) => {
                found.insert(name.to_owned(), value);
            }
            None => reading.bad_line(number + 1, "no counter with a number"),
        }
    }
    found
}

fn json(text: &str, reading: &mut Reading<'_>) -> Protocols {
    let read: Result<BTreeMap<String, BTreeMap<String, u64>>, _> = serde_json::from_str(text);
    match read {
        Ok(all) => all.into_values().flatten().collect(),
        Err(error) => {
            reading.bad_line(error.line(), &format!("no JSON of nstat ({error})"));
            Protocols::new()
        }
    }
}

/// Reads `ethtool -S`.
pub(super) fn device(text: &str, reading: &mut Reading<'_>) -> Device {
    let mut all: BTreeMap<&str, u64> = BTreeMap::new();
    for (number, line) in text.lines().enumerate().skip(1) {
        if line.trim().is_empty() {
            continue;
        }
        let pair = line.rsplit_once(':');
        let value = pair.and_then(|(_, value)| value.trim().parse().ok());
        match pair.zip(value) {
            Some(((name, _), value)) => {
                all.insert(name.trim(), value);
            }
            None => reading.bad_line(number + 1, "no counter with a number"),
        }
    }
    let counters = all.contains_key("rx_packets").then(|| {
        let one = |name: &str| all.get(name).copied().unwrap_or(0);
        LinkCounters {
            rx_packets: one("rx_packets"),
            rx_bytes: one("rx_bytes"),
            tx_packets: one("tx_packets"),
            tx_bytes: one("tx_bytes"),
            rx_dropped: one("rx_dropped"),
            tx_dropped: one("tx_dropped"),
            rx_errors: one("rx_errors"),
            tx_errors: one("tx_errors"),
        }
    });
    if counters.is_none() {
        let message = format!(
            "{}: the driver does not tell rx_packets and tx_packets; the file is not used",
            reading.name
        );
        reading.problems.push(Problem::info(Code::LeftOut, message));
    }
    Device {
        file: reading.name.to_owned(),
        counters,
    }
}

/// Readings of one host: the first and the last; a single one says nothing about a run.
fn ends<T>(readings: &[(u32, T)], netns: u32) -> Option<(&T, &T)> {
    let mut own = readings.iter().filter(|(host, _)| *host == netns);
    let first = own.next()?;
    let last = own.next_back()?;
    Some((&first.1, &last.1))
}

/// Puts protocol counters into the environments at both ends.
pub(super) fn place_protocols(
    readings: &[(u32, Protocols)],
    [start, end]: [&mut Environment; 2],
    problems: &mut Vec<Problem>,
) {
    for (before, after) in start.namespaces.iter_mut().zip(&mut end.namespaces) {
        let given = readings.iter().any(|(netns, _)| *netns == before.netns);
        match ends(readings, before.netns) {
            Some((first, last)) => {
                (before.counters, after.counters) = (first.clone(), last.clone());
            }
            None if given => problems.push(single("nstat")),
            None => {}
        }
    }
}

/// Puts device counters into the environments at both ends.
pub(super) fn place_devices(
    readings: &[(u32, Device)],
    [start, end]: [&mut Environment; 2],
    problems: &mut Vec<Problem>,
) {
    let mut used = vec![0; readings.len()];
    for (before, after) in start.namespaces.iter_mut().zip(&mut end.namespaces) {
        let single_device = before.links.len() == 1;
        for (link, later) in before.links.iter_mut().zip(&mut after.links) {
            let own = |device: &Device| single_device || names(&device.file, &link.name);
            let own: Vec<usize> = (0..readings.len())
                .filter(|at| readings[*at].0 == before.netns && own(&readings[*at].1))
                .collect();
            own.iter().for_each(|at| used[*at] += 1);
            let [first, .., last] = own[..] else {
                if !own.is_empty() {
                    problems.push(single("ethtool"));
                }
                continue;
            };
            let counters = |at: usize| readings[at].1.counters;
            if let Some((first, last)) = counters(first).zip(counters(last)) {
                (link.counters, later.counters) = (first, last);
            }
        }
    }
    for ((_, device), _) in readings.iter().zip(used).filter(|(_, used)| *used != 1) {
        let message = format!(
            "{}: of which device it is is not clear: name exactly one in the file's name; it is not used",
            device.file
        );
        problems.push(Problem::data_loss(Code::LeftOut, message));
    }
}

/// Whether a device's name is a part of a file's name, between characters that names of devices do not have.
fn names(file: &str, device: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file);
    let mut parts = name.split(|one: char| !one.is_ascii_alphanumeric() && one != '_');
    parts.any(|part| part == device)
}

fn single(tool: &str) -> Problem {
    let message = format!(
        "one reading of {tool} says nothing about the run: give one from before and one from after, in this order"
    );
    Problem::data_loss(Code::LeftOut, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::model::{Link, Namespace};

    fn reading<'a>(problems: &'a mut Vec<Problem>) -> Reading<'a> {
        Reading {
            name: "x-eth0.txt",
            netns: 1,
            problems,
        }
    }

    #[test]
    fn damaged_lines_are_named_and_the_rest_is_used() {
        let mut problems = Vec::new();
        let text = "#kernel\nTcpRetransSegs   12   0.0\nTcpOutSegs  1x2  0.0\n\nTcpInS";
        let found = protocols(text, &mut reading(&mut problems));
        assert_eq!(found, [("TcpRetransSegs".to_owned(), 12)].into());
        let lines: Vec<bool> = ["line 3", "line 5"]
            .iter()
            .zip(&problems)
            .map(|(line, problem)| problem.message.contains(line))
            .collect();
        assert_eq!((lines, problems.len()), (vec![true, true], 2));
        problems.clear();
        assert!(protocols("{\"kernel\":{\"a\":", &mut reading(&mut problems)).is_empty());
        assert!(problems[0].message.contains("line 1"), "{problems:?}");
    }

    #[test]
    fn devices_are_told_by_the_files_name() {
        let mut problems = Vec::new();
        let text = |packets: u64| {
            format!("NIC statistics:\n     rx_packets: {packets}\n     tx_packets: 2\n")
        };
        let one = |packets| (1, device(&text(packets), &mut reading(&mut Vec::new())));
        let link = |name: &str| Link {
            name: name.to_owned(),
            ..Link::default()
        };
        let mut start = Environment {
            namespaces: vec![Namespace {
                netns: 1,
                links: vec![link("eth0"), link("tun0")],
                ..Namespace::default()
            }],
            ..Environment::default()
        };
        let mut end = start.clone();
        place_devices(&[one(5), one(9)], [&mut start, &mut end], &mut problems);
        let counted = |from: &Environment| from.namespaces[0].links[0].counters.rx_packets;
        assert_eq!((counted(&start), counted(&end)), (5, 9));
        assert_eq!(problems, []);
        let other = |packets| {
            let mut device = one(packets);
            device.1.file = "before.txt".to_owned();
            device
        };
        place_devices(&[other(5), other(9)], [&mut start, &mut end], &mut problems);
        assert_eq!(problems.len(), 2, "{problems:?}");
    }
}
