//! The books of the analysis beside what was planted: the reference tunnel's and the embedded wire's
//! own logs of every packet, the kernel's counters, and an independent reading of a capture. Needs
//! root. Where a log has each packet, the ledger must have the same number.
//!
//! A kernel that runs no program on top of some tasks hides events from the recorder (see
//! `vpnbench_tests::witness`). In a run in which the kernel's own trace events show such, figures
//! may differ by as many segments, and the test says so.

use std::process::ExitCode;

use anyhow::Result;
use libtest_mimic::Arguments;
use vpnbench_tests::trials::Trials;

#[path = "books/capture.rs"]
mod capture;
#[path = "books/faults.rs"]
mod faults;
#[path = "books/keep.rs"]
mod keep;
#[path = "books/overflow.rs"]
mod overflow;
#[path = "books/path.rs"]
mod path;
#[path = "books/run.rs"]
mod run;
#[path = "books/sender.rs"]
mod sender;
#[path = "books/stream.rs"]
mod stream;
#[path = "books/table.rs"]
mod table;
#[path = "books/tcp.rs"]
mod tcp;

/// Name, what it needs, and the case.
type Case = (&'static str, &'static [&'static str], fn() -> Result<()>);

const TUN: &str = "/dev/net/tun";
const IPERF: &[&str] = &[TUN, "iperf3"];
const SS: &[&str] = &[TUN, "iperf3", "ss"];
const CAPTURE: &[&str] = &[TUN, "iperf3", "tcpdump", "tshark"];

const CASES: &[Case] = &[
    (
        "nothing_is_lost_and_nothing_unexplained",
        IPERF,
        faults::lossless,
    ),
    ("drops_at_the_sender", IPERF, faults::drops_at_the_sender),
    (
        "drops_at_the_receiver",
        IPERF,
        faults::drops_at_the_receiver,
    ),
    ("duplicates", IPERF, faults::duplicates),
    ("size_limit", IPERF, faults::size_limit),
    ("delay_in_the_daemon", &[TUN, "ping"], faults::delay),
    ("delay_on_the_wire", &[TUN, "ping"], path::delay),
    ("queue_in_the_daemon", IPERF, overflow::daemon_queue),
    ("small_tun_queue", IPERF, overflow::tun_queue),
    ("small_socket_buffer", IPERF, overflow::socket_buffer),
    ("loss_and_copies_on_the_wire", IPERF, path::loss),
    ("loss_of_cut_batches_on_the_wire", IPERF, path::cut_batches),
    ("bytes_of_a_tcp_stream", IPERF, stream::tcp),
    ("bytes_and_datagrams_of_quic", IPERF, stream::quic),
    ("retransmissions_at_medium", IPERF, tcp::medium),
    ("retransmissions_at_low_and_high", IPERF, tcp::low_and_high),
    ("limits_as_ss_tells_them", SS, sender::limits),
    ("intervals_as_iperf3_tells_them", IPERF, sender::intervals),
    ("reordering_as_tshark_sees_it", CAPTURE, capture::reordering),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One after the other: each loads the machine.
    arguments.test_threads = Some(1);
    let mut trials = Trials::new(&arguments);
    for &(name, needs, body) in CASES {
        trials.add_as_root(name, needs, move || {
            table::case(name);
            keep::case(name, body)
        });
    }
    let conclusion = libtest_mimic::run(&arguments, trials.finish());
    if let Err(error) = table::write() {
        say(&format!("the page was not written: {error}"));
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

/// Says what a case found; shown with `--nocapture`.
#[expect(clippy::print_stderr, reason = "figures of a test")]
fn say(text: &str) {
    eprintln!("{text}");
}
