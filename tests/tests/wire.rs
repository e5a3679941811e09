//! What the lab's wire does to packets, held against what it was told and what arrived. Needs root
//! and /dev/net/tun. Probes are numbered datagrams of this suite's own; the wire's account and its
//! truth log must agree with what the receiver got.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};

mod wire {
    pub(crate) mod embedded;
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
        Some("skipped: needs root")
    } else if !Path::new("/dev/net/tun").exists() {
        Some("skipped: /dev/net/tun not found")
    } else {
        None
    };
    let cases = wire::embedded::CASES.iter().chain(wire::profiles::CASES);
    let trials = cases.map(|(name, run)| {
        let trial = Trial::test(*name, run);
        match missing {
            Some(reason) => trial.with_ignored_flag(true).with_kind(reason),
            None => trial,
        }
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

fn check(holds: bool, otherwise: impl Into<String>) -> Outcome {
    if holds {
        Ok(())
    } else {
        Err(Failed::from(otherwise.into()))
    }
}
