//! The reference tunnel: every switch carries packets and switches what it says, every fault is
//! accounted for exactly, and nothing is left behind. Needs root. Independent witnesses are the
//! devices' counters, the UDP and IP MIB counters, and what the test itself sends and receives.

use std::process::ExitCode;

use anyhow::Result;
use libtest_mimic::Arguments;
use vpnbench_tests::trials::Trials;

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
    let mut trials = Trials::new(&arguments);
    for &(name, body) in TESTS {
        trials.add_as_root(name, &["/dev/net/tun"], body);
    }
    libtest_mimic::run(&arguments, trials.finish()).exit_code()
}
