//! Exactness on a live kernel: every figure beside an account that the test keeps itself, of the
//! interface counters, of the protocol counters, of the scheduler or of its own reads and writes.

use std::process::ExitCode;

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};

#[path = "kernel/accounts.rs"]
mod accounts;
#[path = "kernel/cpu.rs"]
mod cpu;
#[path = "kernel/forwarder.rs"]
mod forwarder;
#[path = "kernel/frames.rs"]
mod frames;
#[path = "kernel/gso.rs"]
mod gso;
#[path = "kernel/hosts.rs"]
mod hosts;
#[path = "kernel/overflow.rs"]
mod overflow;
#[path = "kernel/parsing.rs"]
mod parsing;
#[path = "kernel/recorder.rs"]
mod recorder;
#[path = "kernel/retransmits.rs"]
mod retransmits;
#[path = "kernel/traffic.rs"]
mod traffic;
#[path = "kernel/tunnel.rs"]
mod tunnel;
#[path = "kernel/veth.rs"]
mod veth;
#[path = "kernel/wireguard.rs"]
mod wireguard;

use hosts::Family;

type Test = (&'static str, fn(Family) -> Result<()>);

/// Each runs for IPv4 and IPv6.
const TESTS: &[Test] = &[
    ("veth", veth::veth),
    ("wireguard_go", wireguard::wireguard_go),
    ("tap", tunnel::tap),
    ("tun", tunnel::tun),
    ("retransmissions", retransmits::retransmissions),
    ("receive_overflow", overflow::receive_overflow),
    ("cpu_time", cpu::cpu_time),
    ("parsing", parsing::parsing),
    ("payload", parsing::payload),
    ("super_packets", gso::super_packets),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One at a time: each compares what the whole machine did.
    arguments.test_threads = Some(1);
    let root = nix::unistd::geteuid().is_root();
    if !root {
        say("skipped: needs root");
    }
    let mut trials = Vec::new();
    for &(name, body) in TESTS {
        for family in [Family::V4, Family::V6] {
            let trial = Trial::test(format!("{name}_{}", family.name()), move || {
                body(family).map_err(|error| Failed::from(format!("{error:#}")))
            });
            trials.push(trial.with_ignored_flag(!root));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Prints a line of the test's own.
#[allow(clippy::print_stdout)] // the figures that a test measured are part of its result
fn say(text: &str) {
    println!("{text}");
}
