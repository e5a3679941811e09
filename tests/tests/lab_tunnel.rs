//! The reference tunnel: every switch carries packets and switches what it says, every fault is
//! accounted for exactly, and nothing is left behind. Needs root. Independent witnesses are the
//! devices' counters, the UDP and IP MIB counters, and what the test itself sends and receives.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};

#[path = "lab_tunnel/faults.rs"]
mod faults;
#[path = "lab_tunnel/life.rs"]
mod life;
#[path = "lab_tunnel/switches.rs"]
mod switches;

type Test = (&'static str, fn() -> Result<()>);

const TESTS: &[Test] = &[
    ("every_configuration_carries_both_families", switches::carry),
    (
        "super_packets_come_and_go_with_their_switch",
        switches::super_packets,
    ),
    (
        "unordered_workers_reorder_and_ordered_ones_do_not",
        switches::order,
    ),
    (
        "too_large_packets_are_cut_fragmented_or_refused",
        switches::fragmentation,
    ),
    ("socket_buffers_have_the_size_asked_for", switches::buffers),
    ("drops_are_exact", faults::drops),
    ("copies_are_exact", faults::copies),
    ("reordering_is_exact", faults::reordering),
    ("delays_are_kept", faults::delays),
    ("burnt_time_is_cpu_time", faults::burning),
    ("stalls_are_counted", faults::stalls),
    ("a_full_queue_drops", faults::full_queue),
    ("a_held_lock_makes_others_wait", faults::lock),
    ("the_end_is_quick_and_complete", life::end),
    ("kill_leaves_nothing", life::kill_9),
    ("a_relay_passes_everything_on", life::relay),
    ("wrong_settings_are_named", life::wrong_settings),
    ("the_recorder_finds_it_by_itself", life::recorder),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(2));
    let missing = if !nix::unistd::geteuid().is_root() {
        Some("skipped: needs root")
    } else if !Path::new("/dev/net/tun").exists() {
        Some("skipped: /dev/net/tun not found")
    } else {
        None
    };
    let trial = |&(name, body): &Test| {
        let trial = Trial::test(name, move || {
            body().map_err(|error| Failed::from(format!("{error:#}")))
        });
        match missing {
            Some(reason) => trial.with_ignored_flag(true).with_kind(reason),
            None => trial,
        }
    };
    libtest_mimic::run(&arguments, TESTS.iter().map(trial).collect()).exit_code()
}
