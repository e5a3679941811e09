//! The real program.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Path of the `vpnbench` program of this build, built once if a test crate was built alone.
///
/// # Panics
/// When it cannot be built; the tests that need it cannot run then.
#[must_use]
pub fn path() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(build)
}

/// A command that runs it.
#[must_use]
pub fn vpnbench() -> Command {
    Command::new(path())
}

fn build() -> PathBuf {
    // A program that was built already, for benchmarks of another profile.
    if let Some(path) = std::env::var_os("VPNBENCH") {
        return path.into();
    }
    // Test programs are in target/PROFILE/deps.
    let test = std::env::current_exe().expect("the test program has a path");
    let profile = test.ancestors().nth(2).expect("target/PROFILE/deps/TEST");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // As `cargo test --workspace` has built the rest: of one package alone, dependencies would get fewer
    // features, and all of them would be built once more.
    command.args(["build", "--quiet", "--workspace", "--bin", "vpnbench"]);
    if profile.ends_with("release") {
        command.arg("--release");
    }
    let status = command
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .expect("cargo runs");
    assert!(status.success(), "vpnbench cannot be built");
    profile.join("vpnbench")
}
