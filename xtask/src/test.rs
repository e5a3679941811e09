//! `cargo xtask test`: everything that must hold before a change is merged, stopping at the first
//! failure. CI runs exactly this.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::ebpf_toolchain::{self, Compiler, EbpfBuild, Route};
use crate::vm::{self, Extent};
use crate::{run, setup, tidy};

/// Runs it all; with `on_kernels` whole suites on other kernels, too, not only short ones.
pub(crate) fn run(on_kernels: bool) -> Result<()> {
    step("set-up");
    setup::run(false)?;
    step("format");
    run::visibly(&mut run::cargo(&["fmt", "--check", "--all"])?)?;
    let ebpf = run::root()?.join("vpnbench-ebpf");
    run::visibly(run::cargo(&["fmt", "--check"])?.current_dir(&ebpf))?;
    step("structure");
    tidy::run()?;
    step("lints");
    let clippy = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ];
    run::visibly(&mut run::cargo(&clippy)?)?;
    lint_ebpf(&ebpf)?;
    step("tests");
    let root = run::is_root();
    if !root {
        println!("not root: the kernel and lab suites are skipped, and say so");
    }
    // The program that the suites drive is built together with them: alone it would resolve other
    // features of its dependencies and build them all a second time.
    run::visibly(&mut run::cargo(&["build", "--workspace", "--all-targets"])?)?;
    // One test program after the other; the kernel and lab suites also run their cases one by one.
    let mut tests = run::heeding_signals(&run::cargo(&["test", "--workspace"])?);
    tests.env("VPNBENCH", run::target_dir()?.join("debug/vpnbench"));
    run::visibly(&mut tests)?;
    let skipped = if root {
        ""
    } else {
        " (kernel and lab suites skipped: needs root)"
    };
    step("other kernels");
    let extent = if on_kernels {
        Extent::Full
    } else {
        Extent::Short
    };
    let kernels = match vm::test(extent)? {
        true => "",
        false => " (other kernels skipped)",
    };
    println!("\ntest: everything passed{skipped}{kernels}");
    Ok(())
}

fn step(name: &str) {
    println!("\n== {name}");
}

/// Lints the eBPF crate where the toolchain that builds it has clippy; rustup's stable clippy
/// cannot, as it has no `core` for the target.
fn lint_ebpf(source: &Path) -> Result<()> {
    let target = ebpf_toolchain::ebpf_target(cfg!(target_endian = "big"));
    let (compiler, linker) = ebpf_toolchain::find(target).map_err(anyhow::Error::msg)?;
    let Some(subcommand) = clippy_subcommand(&compiler) else {
        println!(
            "skipped: clippy for the eBPF crate ({} has none)",
            compiler.rustc.display()
        );
        return Ok(());
    };
    let target_dir = run::target_dir()?.join("ebpf-clippy");
    let build = EbpfBuild {
        cargo: run::cargo_program(),
        subcommand,
        source,
        target_dir: &target_dir,
        target,
        architecture: std::env::consts::ARCH,
    };
    let mut command = ebpf_toolchain::cargo(&compiler, &linker, build);
    if compiler.route == Route::System {
        // What `cargo clippy` does, but with the driver that belongs to this compiler.
        command.env(
            "RUSTC_WORKSPACE_WRAPPER",
            driver(&compiler).context("no clippy-driver")?,
        );
        command.env(
            "CLIPPY_ARGS",
            "-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__",
        );
    } else {
        command.args(["--", "-D", "warnings"]);
    }
    run::visibly(&mut command)
}

fn clippy_subcommand(compiler: &Compiler) -> Option<&'static str> {
    match compiler.route {
        Route::Nightly => {
            let has = run::succeeds("rustup", &["run", "nightly", "cargo-clippy", "--version"]);
            has.then_some("clippy")
        }
        Route::System => driver(compiler).map(|_| "check"),
    }
}

/// The clippy-driver beside a compiler, if it is of the same release.
fn driver(compiler: &Compiler) -> Option<std::path::PathBuf> {
    let driver = compiler.rustc.with_file_name("clippy-driver");
    let output = Command::new(&driver)
        .args(["--rustc", "--version"])
        .output()
        .ok()?;
    let version = String::from_utf8_lossy(&output.stdout).into_owned();
    version.contains(&compiler.release).then_some(driver)
}
