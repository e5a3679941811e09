//! What the lab's wire does to packets, held against what it was told and what arrived. Needs root
//! and /dev/net/tun. Probes are numbered datagrams of this suite's own; the wire's account and its
//! truth log must agree with what the receiver got.
//!
//! Cases on the kernel's netem are skipped where it has none. Those that compare pings with
//! predictions want a machine without other work: `-- --include-ignored` runs them as well.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};
use vpnbench_tests::trials::Trials;

mod wire {
    pub(crate) mod embedded;
    pub(crate) mod host;
    pub(crate) mod probe;
    pub(crate) mod profiles;
}

type Outcome = Result<(), Failed>;
/// Name and body.
type Case = (&'static str, fn() -> Outcome);

fn main() -> ExitCode {
    if std::env::var_os("VPNBENCH").is_none() {
        // The wire is a process of the program under test: say which, and start again.
        let program = std::env::current_exe().expect("this suite has a path");
        let error = Command::new(program)
            .args(std::env::args_os().skip(1))
            .env("VPNBENCH", vpnbench_tests::binary::path())
            .exec();
        panic!("cannot start again: {error}");
    }
    let mut arguments = Arguments::from_args();
    // One after the other: delays are compared with predictions.
    arguments.test_threads = Some(1);
    let missing = if !nix::unistd::geteuid().is_root() {
        Some("needs root")
    } else if !Path::new("/dev/net/tun").exists() {
        Some("/dev/net/tun not found")
    } else {
        None
    };
    let netem = match vpnbench::lab::wire::netem_is_available() {
        _ if missing.is_some() => missing,
        Ok(true) => None,
        Ok(false) => Some("no sch_netem"),
        Err(_) => Some("cannot tell whether there is sch_netem"),
    };
    let mut trials = Trials::new(&arguments);
    let groups: [(&[Case], Option<&str>, bool); 6] = [
        (wire::embedded::CASES, missing, false),
        (wire::profiles::CASES, missing, false),
        (wire::host::CASES, missing, false),
        (wire::profiles::NETEM, netem, false),
        (wire::profiles::PING, missing, true),
        (wire::profiles::PING_NETEM, netem, true),
    ];
    for (cases, missing, wants_quiet) in groups {
        for &(name, body) in cases {
            let trial = Trial::test(name, body);
            match wants_quiet {
                true => trials.add_on_demand(trial, "wants a quiet machine", missing),
                false => trials.add(trial, missing),
            }
        }
    }
    libtest_mimic::run(&arguments, trials.finish()).exit_code()
}

#[allow(clippy::print_stdout, reason = "figures of a measurement, for the log")]
fn say(text: &str) {
    println!("{text}");
}

fn check(holds: bool, otherwise: impl Into<String>) -> Outcome {
    if holds {
        Ok(())
    } else {
        Err(Failed::from(otherwise.into()))
    }
}
