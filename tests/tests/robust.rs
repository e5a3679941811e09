//! The real recorder where things go wrong: killed, out of disk, its tunnel gone, refused by the
//! kernel. However it ends, it leaves a readable trace, says a clear line, ends with the status of
//! the contract and leaves nothing behind.

use std::process::ExitCode;

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};

#[path = "robust/command.rs"]
mod command;
#[path = "robust/damage.rs"]
mod damage;
#[path = "robust/ending.rs"]
mod ending;
#[path = "robust/output.rs"]
mod output;
#[path = "robust/recorder.rs"]
mod recorder;
#[path = "robust/refusal.rs"]
mod refusal;
#[path = "robust/selectors.rs"]
mod selectors;
#[path = "robust/traffic.rs"]
mod traffic;
#[path = "robust/vanish.rs"]
mod vanish;

struct Case {
    name: &'static str,
    root: bool,
    body: fn() -> Result<()>,
}

const fn root(name: &'static str, body: fn() -> Result<()>) -> Case {
    let root = true;
    Case { name, root, body }
}

const fn anyone(name: &'static str, body: fn() -> Result<()>) -> Case {
    let root = false;
    Case { name, root, body }
}

const CASES: &[Case] = &[
    root("kill_9", ending::kill_9),
    root("kill_9_without_output", ending::kill_9_without_output),
    root("interrupt", ending::interrupt),
    root("interrupt_with_command", ending::interrupt_with_command),
    root("terminate", ending::terminate),
    root("interrupt_twice", ending::interrupt_twice),
    root("two_recorders", ending::two_recorders),
    root("full_disk", output::full_disk),
    root("closed_stdout", output::closed_stdout),
    root("closed_trace_reader", output::closed_trace_reader),
    root("stopped_trace_reader", output::stopped_trace_reader),
    root("output_refused", output::output_refused),
    root("private_trace", output::private_trace),
    root("one_document", output::one_document),
    root("device_vanishes", vanish::device),
    root(
        "device_vanishes_under_command",
        vanish::device_under_command,
    ),
    root("namespace_vanishes", vanish::namespace),
    root("daemon_restarts", vanish::daemon_restarts),
    root("daemon_opens_socket", vanish::daemon_opens_socket),
    root("not_root", refusal::not_root),
    root("no_btf", refusal::no_btf),
    root("no_capability", refusal::no_capability),
    root("bpf_refused", refusal::bpf_refused),
    root("kept_capabilities", refusal::kept_capabilities),
    root("command_missing", command::missing),
    root("command_not_executable", command::not_executable),
    root("command_fails", command::fails),
    root("command_killed", command::killed),
    root("unknown_names", selectors::unknown_names),
    root("ambiguous", selectors::ambiguous),
    root("unroutable", selectors::unroutable),
    anyone("damaged_trace", damage::damaged),
    anyone("unreadable_traces", damage::unreadable),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One after the other: some compare speeds, and two processors are few.
    arguments.test_threads = Some(1);
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        say("skipped: needs root");
    }
    let trial = |case: &'static Case| {
        let body = || (case.body)().map_err(|error| Failed::from(format!("{error:#}")));
        Trial::test(case.name, body).with_ignored_flag(case.root && !is_root)
    };
    libtest_mimic::run(&arguments, CASES.iter().map(trial).collect()).exit_code()
}

#[allow(clippy::print_stdout)] // the line that the contract for skipped tests asks for
fn say(text: &str) {
    println!("{text}");
}
