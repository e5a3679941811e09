//! What can be run in a guest.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Result, bail};

use super::programs::OWN;

/// A test program of this repository, or the doctor.
pub(super) struct Suite {
    /// Name on the command line; of a test program, its name.
    pub(super) name: &'static str,
    /// What it shows.
    pub(super) about: &'static str,
}

/// Compared with a golden file per kernel.
pub(super) const DOCTOR: &str = "doctor";

/// All of them.
pub(super) const SUITES: &[Suite] = &[
    Suite {
        name: DOCTOR,
        about: "which probes the kernel accepts, compared with tests/doctor/KERNEL.json",
    },
    Suite {
        name: "kernel",
        about: "capture exactness on a live kernel",
    },
    Suite {
        name: "discover",
        about: "finding tunnels, daemons and sockets",
    },
    Suite {
        name: "wire",
        about: "the lab's wire, netem too, against what it was told",
    },
    Suite {
        name: "lab",
        about: "the lab's tunnels",
    },
    Suite {
        name: "lab_vpn",
        about: "the lab's VPNs, that of the kernel too",
    },
];

/// What `cargo xtask test` runs on every kernel: each program loads and records, at every tap.
pub(super) const SHORT: &[&str] = &[
    "doctor",
    "kernel=tun_v4,receive_overflow_v4",
    "lab_vpn=wireguard_is_seen",
];

/// What `cargo xtask test --vm` runs on every kernel.
pub(super) const FULL: &[&str] = &[
    "doctor",
    "kernel",
    "wire=netem,alike",
    "lab_vpn=wireguard_is_seen",
];

/// One suite with the cases wanted, or a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Of [`SUITES`], with filters; all cases without one.
    Suite(&'static str, Vec<String>),
    /// A shell command.
    Command(String),
}

/// Reads `SUITE` or `SUITE=CASE,CASE`.
pub(super) fn parse(text: &str) -> Result<Wanted> {
    let (name, filters) = text.split_once('=').unwrap_or((text, ""));
    let Some(suite) = SUITES.iter().find(|suite| suite.name == name) else {
        let all: Vec<String> = SUITES
            .iter()
            .map(|suite| format!("  {:<9} {}", suite.name, suite.about))
            .collect();
        bail!("no suite {name:?}; there are:\n{}", all.join("\n"));
    };
    let filters = filters.split(',').filter(|filter| !filter.is_empty());
    Ok(Wanted::Suite(
        suite.name,
        filters.map(str::to_owned).collect(),
    ))
}

/// The shell script that runs them all, one after the other, and fails when one has failed;
/// `on_demand` includes the cases that otherwise run on demand only.
pub(super) fn script(
    wanted: &[Wanted],
    environment: &BTreeMap<&str, String>,
    on_demand: bool,
) -> String {
    let extra = if on_demand { " --include-ignored" } else { "" };
    let mut script = String::from("failed=0\ncd /out\n");
    for (name, value) in environment {
        let _ = writeln!(script, "export {name}={}", quoted(value));
    }
    let mut part = |title: &str, command: &str| {
        let _ = writeln!(script, "echo {}", quoted(&format!("== {title}")));
        let _ = writeln!(
            script,
            "{command} || {{ echo \"failed: status $?\"; failed=1; }}"
        );
    };
    for wanted in wanted {
        match wanted {
            Wanted::Command(command) => part(command, &format!("sh -c {}", quoted(command))),
            Wanted::Suite(DOCTOR, _) => part(
                DOCTOR,
                &format!("{OWN}/vpnbench doctor --format json >doctor.json"),
            ),
            Wanted::Suite(name, filters) if filters.is_empty() => {
                part(name, &format!("{OWN}/{name} --color never{extra}"));
            }
            Wanted::Suite(name, filters) => {
                for filter in filters {
                    let filter_word = quoted(filter);
                    let command = format!("{OWN}/{name} --color never{extra} {filter_word}");
                    part(&format!("{name} {filter}"), &command);
                }
            }
        }
    }
    script.push_str("exit $failed\n");
    script
}

/// As one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_may_name_cases() {
        assert_eq!(
            parse("kernel=tun_v4,tap").unwrap(),
            Wanted::Suite("kernel", vec!["tun_v4".to_owned(), "tap".to_owned()])
        );
        assert_eq!(
            parse("doctor").unwrap(),
            Wanted::Suite("doctor", Vec::new())
        );
        let error = parse("kernels").unwrap_err().to_string();
        assert!(error.contains("no suite \"kernels\"") && error.contains("wire"));
        assert!(SHORT.iter().chain(FULL).all(|text| parse(text).is_ok()));
    }

    #[test]
    fn a_script_goes_on_after_a_failure_and_says_so_at_the_end() {
        let wanted = [
            Wanted::Command("echo \"it's\"; false".to_owned()),
            Wanted::Command("echo second".to_owned()),
        ];
        let environment = BTreeMap::from([("WORD", "two words".to_owned())]);
        let script = script(&wanted, &environment, false).replace("cd /out", "cd /");
        let output = std::process::Command::new("sh")
            .args(["-c", &script])
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(said.contains("it's\nfailed: status 1\n"), "{said}");
        assert!(said.ends_with("second\n"), "{said}");
    }
}
