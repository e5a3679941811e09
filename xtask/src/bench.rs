//! `cargo xtask bench`: what watching costs, as CPU time for fixed work, paired with tcpdump; how
//! fast captures are analysed beside tshark and tcptrace; and how fast the analyses are and how much memory they
//! take.

use anyhow::{Context, Result};

use crate::{run, setup};

/// Events of which the rate of the analyses is measured, and of the trace for their memory.
const EVENTS: [&str; 2] = ["20000000", "100000000"];

/// Sets up and runs the benchmarks (tests/benches/) against the optimised program. They
/// only send packets, write a file and read clocks, so they need no optimised build of all that the tests
/// depend on.
pub(crate) fn run() -> Result<()> {
    setup::run(false)?;
    let package = ["build", "--release", "--package", "vpnbench"];
    run::visibly(&mut run::cargo(&package)?)?;
    for name in ["capture", "switches", "captures"] {
        let mut bench = run::cargo(&[
            "bench",
            "--profile",
            "dev",
            "--package",
            "vpnbench-tests",
            "--bench",
            name,
        ])?;
        bench.env("VPNBENCH", run::target_dir()?.join("release/vpnbench"));
        run::visibly(&mut bench)?;
    }
    analyses()
}

/// vpnbench/examples/analysis_speed.rs: events from memory, then a trace through writer and reader,
/// which takes about 4 GiB of the target directory for a while.
fn analyses() -> Result<()> {
    let example = [
        "run",
        "--release",
        "--package",
        "vpnbench",
        "--example",
        "analysis_speed",
        "--",
    ];
    run::visibly(run::cargo(&example)?.arg(EVENTS[0]))?;
    let trace = run::target_dir()?.join("analysis_speed.vbt");
    let measured = run::visibly(run::cargo(&example)?.arg(EVENTS[1]).arg(&trace));
    let removed = std::fs::remove_file(&trace).context("removing the trace");
    measured.and(removed)
}
