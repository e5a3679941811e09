//! `cargo xtask build`: set up, then build.

use anyhow::Result;

use crate::{run, setup};

/// Builds everything; vpnbench's build script builds the eBPF programs along with it.
pub(crate) fn run(release: bool) -> Result<()> {
    setup::run_for_build()?;
    let arguments: &[&str] = if release {
        &["build", "--release"]
    } else {
        &["build"]
    };
    run::visibly(&mut run::cargo(arguments)?)
}
