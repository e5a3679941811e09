//! `vpnbench lab run`, `matrix` and `ablate` as a user starts them: what a run leaves on disk, what
//! it leaves on the machine (nothing), and what it says when something is wrong. Needs root.

use std::process::ExitCode;

use anyhow::Result;
use libtest_mimic::Arguments;
use vpnbench_tests::trials::Trials;

#[path = "lab_runs/campaigns.rs"]
mod campaigns;
#[path = "lab_runs/errors.rs"]
mod errors;
#[path = "lab_runs/killed.rs"]
mod killed;
#[path = "lab_runs/layout.rs"]
mod layout;

struct Case {
    name: &'static str,
    needs: &'static [&'static str],
    body: fn() -> Result<()>,
}

const fn case(
    name: &'static str,
    needs: &'static [&'static str],
    body: fn() -> Result<()>,
) -> Case {
    Case { name, needs, body }
}

const TUN: &str = "/dev/net/tun";
const WIREGUARD: &[&str] = &[TUN, "wireguard-go", "wg", "ping"];

const CASES: &[Case] = &[
    case("a_run_fills_its_directory", &["ping"], layout::directory),
    case("repetitions_are_summed_up", &["ping"], layout::repetitions),
    case(
        "daemons_get_their_share_of_a_core",
        &["iperf3"],
        layout::daemon_share,
    ),
    case(
        "sysctls_act_in_the_hosts_only",
        &["iperf3"],
        layout::sysctls,
    ),
    case(
        "the_wires_own_devices_are_no_tunnels",
        &[TUN, "iperf3"],
        layout::wires,
    ),
    case("bad_files_name_file_and_line", &[], errors::bad_files),
    case(
        "a_sysctl_that_is_not_there",
        &["ping"],
        errors::missing_sysctl,
    ),
    case("a_missing_tool_is_a_skip", &[TUN], errors::missing_tool),
    case(
        "a_daemon_that_never_comes_up",
        &[TUN],
        errors::silent_daemon,
    ),
    case(
        "a_benchmark_that_hangs_is_ended",
        &["ping"],
        errors::hanging_benchmark,
    ),
    case(
        "a_server_that_dies_fails_the_run",
        &["iperf3"],
        errors::server_dies,
    ),
    case(
        "a_port_in_use_names_its_holder",
        WIREGUARD,
        errors::port_in_use,
    ),
    case(
        "a_matrix_goes_on_after_sigint",
        &["ping"],
        campaigns::matrix,
    ),
    case(
        "an_ablation_compares_with_its_base",
        &["ping"],
        campaigns::ablation,
    ),
    case("another_plan_is_refused", &["ping"], campaigns::other_plan),
    case(
        "twenty_runs_five_of_them_killed",
        WIREGUARD,
        killed::twenty_runs,
    ),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One after the other: each case compares the machine before and after.
    arguments.test_threads = Some(1);
    let mut trials = Trials::new(&arguments);
    for case in CASES {
        trials.add_as_root(case.name, case.needs, || leaving_no_trace(case.body));
    }
    libtest_mimic::run(&arguments, trials.finish()).exit_code()
}

fn leaving_no_trace(body: fn() -> Result<()>) -> Result<()> {
    let before = vpnbench_tests::machine::snapshot()?;
    body()?;
    let after = vpnbench_tests::machine::snapshot()?;
    let changes = vpnbench_tests::machine::changes(&before, &after);
    anyhow::ensure!(changes.is_empty(), "the machine changed: {changes:#?}");
    Ok(())
}
