//! `cargo xtask bench`: what watching costs, as CPU time for fixed work, paired with tcpdump.

use anyhow::Result;

use crate::{run, setup};

/// Sets up and runs the benchmark (tests/benches/capture.rs) against the optimised program. The
/// benchmark itself only sends packets and reads clocks, so it needs no optimised build of all
/// that the tests depend on.
pub(crate) fn run() -> Result<()> {
    setup::run(false)?;
    let package = ["build", "--release", "--package", "vpnbench"];
    run::visibly(&mut run::cargo(&package)?)?;
    let mut bench = run::cargo(&[
        "bench",
        "--profile",
        "dev",
        "--package",
        "vpnbench-tests",
        "--bench",
        "capture",
    ])?;
    bench.env("VPNBENCH", run::target_dir()?.join("release/vpnbench"));
    run::visibly(&mut bench)
}
