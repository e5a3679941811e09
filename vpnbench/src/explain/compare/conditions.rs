//! What differs between two sides beside what is compared.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::side::Side;

/// Conditions that may be what is compared: the tunnel itself.
const SUBJECT: [&str; 3] = [KIND, "tunnel.daemon", "tunnel.mtu"];
/// What the benchmark measures and which way its load goes.
pub const DIRECTION: [&str; 2] = ["benchmark.kind", "benchmark.direction"];
/// What every tunnel has.
const KIND: &str = "tunnel.kind";
/// In the names of settings of a tunnel device.
const DEVICE: &str = ".tunnel.";
/// Before the name of a program in its version's.
const VERSION: &str = "version.";
/// A condition that a run does not state.
const UNKNOWN: &str = "unknown";
/// Seconds by which durations may differ: processes start and end.
const DURATION_SLACK: f64 = 0.1;

/// One condition that differs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Difference {
    /// Which.
    pub name: String,
    /// On the first side; several values if its runs differ among themselves.
    pub base: Vec<String>,
    /// On the other.
    pub changed: Vec<String>,
    /// Whether it may be what is compared, and no fault of the comparison.
    pub subject: bool,
}

impl Difference {
    /// Whether one way is compared with another (`audit-direction-mix`).
    #[must_use]
    pub fn is_direction(&self) -> bool {
        DIRECTION.contains(&self.name.as_str())
    }
}

/// Conditions that differ, in order of their names.
#[must_use]
pub fn differences(base: &Side, changed: &Side) -> Vec<Difference> {
    let mut names: BTreeSet<&str> = BTreeSet::new();
    for run in base.runs.iter().chain(&changed.runs) {
        names.extend(run.conditions.keys().map(String::as_str));
    }
    let lacks =
        |side: &Side, name: &str| values(side, name) == BTreeSet::from([UNKNOWN.to_owned()]);
    let one_lacks = |name: &str| lacks(base, name) != lacks(changed, name);
    let differences = names.into_iter().filter_map(|name| {
        let (ours, theirs) = (values(base, name), values(changed, name));
        (!same(name, &ours, &theirs)).then(|| Difference {
            name: name.to_owned(),
            base: ours.into_iter().collect(),
            changed: theirs.into_iter().collect(),
            // Or the settings of a device, or the version of a program, that only one side has.
            subject: SUBJECT.contains(&name)
                || (one_lacks(KIND) && name.contains(DEVICE))
                || (one_lacks(name) && name.starts_with(VERSION)),
        })
    });
    differences.collect()
}

fn values(side: &Side, name: &str) -> BTreeSet<String> {
    let values = side.runs.iter().map(|run| run.conditions.get(name));
    values
        .map(|value| value.cloned().unwrap_or_else(|| UNKNOWN.to_owned()))
        .collect()
}

fn same(name: &str, ours: &BTreeSet<String>, theirs: &BTreeSet<String>) -> bool {
    if ours == theirs {
        return true;
    }
    if !name.ends_with("duration_s") {
        return false;
    }
    let numbers = ours.iter().chain(theirs).map(|text| text.parse::<f64>());
    let Ok(numbers) = numbers.collect::<Result<Vec<f64>, _>>() else {
        return false;
    };
    let most = numbers.iter().copied().fold(0.0, f64::max);
    let least = numbers.iter().copied().fold(f64::INFINITY, f64::min);
    most - least <= DURATION_SLACK * most
}

#[cfg(test)]
mod tests {
    use super::super::side::RunFacts;
    use super::*;

    fn side(pairs: &[(&str, &str)]) -> Side {
        let conditions = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Side {
            name: String::new(),
            runs: vec![RunFacts {
                conditions: conditions.collect(),
                ..RunFacts::default()
            }],
        }
    }

    #[test]
    fn only_what_differs_is_told() {
        let base = side(&[
            ("kernel", "6.18"),
            ("benchmark.duration_s", "10.0"),
            ("tunnel.mtu", "1420"),
        ]);
        let other = side(&[
            ("kernel", "6.12"),
            ("benchmark.duration_s", "10.4"),
            ("tunnel.mtu", "1280"),
        ]);
        let found = differences(&base, &other);
        let names: Vec<(&str, bool)> = found
            .iter()
            .map(|one| (one.name.as_str(), one.subject))
            .collect();
        assert_eq!(names, [("kernel", false), ("tunnel.mtu", true)]);
        let longer = side(&[
            ("kernel", "6.18"),
            ("benchmark.duration_s", "30.0"),
            ("tunnel.mtu", "1420"),
        ]);
        assert_eq!(differences(&base, &longer).len(), 1);
    }

    #[test]
    fn what_only_a_tunnel_has_is_the_tunnel() {
        let bare = side(&[("host 1.outer.qdisc", "netem")]);
        let tunnel = |gso| {
            side(&[
                ("tunnel.kind", "tun"),
                ("host 1.tunnel.tx-gso", gso),
                ("host 1.outer.qdisc", "fq"),
                ("version.wireguard-go", gso),
            ])
        };
        let subjects = |one: &Side, other: &Side| -> Vec<(String, bool)> {
            let found = differences(one, other).into_iter();
            found.map(|one| (one.name, one.subject)).collect()
        };
        let owned = |pairs: &[(&str, bool)]| -> Vec<(String, bool)> {
            pairs
                .iter()
                .map(|(name, subject)| ((*name).to_owned(), *subject))
                .collect()
        };
        let found = subjects(&bare, &tunnel("true"));
        let expected = [
            ("host 1.outer.qdisc", false),
            ("host 1.tunnel.tx-gso", true),
            ("tunnel.kind", true),
            ("version.wireguard-go", true),
        ];
        assert_eq!(found, owned(&expected));
        let found = subjects(&tunnel("false"), &tunnel("true"));
        let expected = [
            ("host 1.tunnel.tx-gso", false),
            ("version.wireguard-go", false),
        ];
        assert_eq!(found, owned(&expected));
    }
}
