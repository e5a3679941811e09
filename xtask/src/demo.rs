//! `cargo xtask demo`: from a fresh machine to a real diagnosis.

use std::process::Command;

use anyhow::{Result, bail};

use crate::{run, setup};

/// What the demo runs: the lab's reference tunnel on its embedded wire, which delays, loses and
/// reorders, captured and explained. Nothing of it needs a VPN to be installed.
const DEMO: [&str; 3] = ["lab", "run", "demo"];

/// Sets up, builds and runs. A development build: a release takes more than twice as long to build on a new machine
/// and finds the same in so short a run; the tests use this one, too.
pub(crate) fn run() -> Result<()> {
    setup::run_for_lab()?;
    run::visibly(&mut run::cargo(&["build", "--workspace", "--bins"])?)?;
    let vpnbench = run::target_dir()?.join("debug/vpnbench");
    let mut command = if run::is_root() {
        Command::new(&vpnbench)
    } else if run::is_installed("sudo") {
        let mut sudo = Command::new("sudo");
        sudo.arg(&vpnbench);
        sudo
    } else {
        bail!(
            "the demo creates network namespaces and loads eBPF programs: run it as root, as there \
             is no sudo: {} {}",
            vpnbench.display(),
            DEMO.join(" ")
        );
    };
    run::visibly(command.args(DEMO))
}
