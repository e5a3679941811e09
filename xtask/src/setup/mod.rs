//! `cargo xtask setup`: installs what is missing, or says what to install. Each step looks first,
//! so repeating it is cheap and changes nothing.

pub(crate) mod packages;
mod python;
mod tools;

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::ebpf_toolchain::{self, Compiler, LINKER_VERSION, Linker, Route};
use crate::run;
use packages::Packages;
use tools::Need;

/// Debian's packages with a compiler and `core` for the BPF targets.
const SYSTEM_COMPILER: [&str; 2] = ["rustc-web", "libstd-rust-web-dev-bpf"];
/// The lints that belong to that compiler.
const LINTS: &str = "rust-web-clippy";
const NIGHTLY: [&str; 7] = [
    "toolchain",
    "install",
    "nightly",
    "--profile=minimal",
    "--component=rust-src",
    "--component=clippy",
    "--no-self-update",
];

/// Sets everything up; with `check` only looks.
pub(crate) fn run(check: bool) -> Result<()> {
    Setup::new(check).all()
}

/// Sets up what a build needs.
pub(crate) fn run_for_build() -> Result<()> {
    let mut setup = Setup::new(false);
    setup.ebpf()?;
    setup.tools(|tool| tool.need == Need::Build);
    setup.verdict()
}

/// Sets up what a build and a run of the lab need: not what only tests use, which is large.
pub(crate) fn run_for_lab() -> Result<()> {
    let mut setup = Setup::new(false);
    setup.ebpf()?;
    setup.tools(|tool| tool.need != Need::SomeTests);
    setup.verdict()
}

struct Setup {
    /// Only look.
    check: bool,
    packages: Packages,
    /// What is missing and could not be installed, each with what to do about it.
    missing: Vec<String>,
}

impl Setup {
    fn new(check: bool) -> Setup {
        Setup {
            check,
            packages: Packages::new(),
            missing: Vec::new(),
        }
    }

    fn all(mut self) -> Result<()> {
        self.ebpf()?;
        self.rust_components();
        self.ebpf_lints();
        self.tools(|_| true);
        self.python()?;
        self.verdict()
    }

    fn verdict(self) -> Result<()> {
        if self.missing.is_empty() {
            return Ok(());
        }
        bail!("missing; to install it:\n  {}", self.missing.join("\n  "))
    }

    /// The compiler and the linker for the eBPF programs.
    fn ebpf(&mut self) -> Result<()> {
        let target = ebpf_toolchain::ebpf_target(cfg!(target_endian = "big"));
        if ebpf_toolchain::find_compiler(target).is_none() {
            self.install_compiler(target);
        }
        match ebpf_toolchain::find_compiler(target) {
            Some(compiler) => {
                let source = match compiler.route {
                    Route::Nightly => "rustup nightly with rust-src",
                    Route::System => "prebuilt core",
                };
                let Compiler {
                    rustc,
                    release,
                    llvm,
                    ..
                } = &compiler;
                ok(&format!(
                    "rustc {release} for {target} ({source}, LLVM {llvm}, {})",
                    rustc.display()
                ));
                self.linker(&compiler)
            }
            None => {
                absent("a Rust toolchain for the eBPF programs, and its bpf-linker");
                Ok(())
            }
        }
    }

    /// Debian's compiler when it can be had without removing anything, else rustup's nightly.
    fn install_compiler(&mut self, target: &str) {
        let by_package = self.packages.command(&SYSTEM_COMPILER);
        let by_rustup = format!("rustup {}", NIGHTLY.join(" "));
        if !self.check {
            if self.packages.install(&SYSTEM_COMPILER)
                && ebpf_toolchain::find_compiler(target).is_some()
            {
                return;
            }
            if run::is_installed("rustup") {
                println!("install {by_rustup} (Debian's rustc-web cannot be installed here)");
                let installed = run::visibly(Command::new("rustup").args(NIGHTLY));
                if installed.is_ok() && ebpf_toolchain::find_compiler(target).is_some() {
                    return;
                }
            }
        }
        self.missing.push(match by_package {
            Some(command) => format!("{command}   (or: {by_rustup})"),
            None => by_rustup,
        });
    }

    /// bpf-linker, for the LLVM of this compiler.
    fn linker(&mut self, compiler: &Compiler) -> Result<()> {
        if let Some(linker) = fitting_linker(compiler) {
            let llvm = linker
                .llvm
                .map_or_else(|| "unknown".to_owned(), |llvm| llvm.to_string());
            ok(&format!("bpf-linker {} (LLVM {llvm})", linker.version));
            return Ok(());
        }
        let llvm_package = format!("llvm-{}-dev", compiler.llvm);
        let prefix = format!("/usr/lib/llvm-{}", compiler.llvm);
        let has_llvm = || {
            std::path::Path::new(&prefix)
                .join("bin/llvm-config")
                .exists()
        };
        let feature = format!("llvm-{}", compiler.llvm);
        let mut install = Command::new(run::cargo_program());
        install.args([
            "install",
            "bpf-linker",
            "--version",
            LINKER_VERSION,
            "--locked",
            "--force",
        ]);
        install.args(["--no-default-features", "--features", &feature]);
        install.env("LLVM_PREFIX", &prefix);
        if !self.check && (has_llvm() || self.packages.install(&[&llvm_package]) && has_llvm()) {
            println!(
                "install bpf-linker {LINKER_VERSION} for LLVM {}",
                compiler.llvm
            );
            run::visibly(&mut install)?;
            let linker = fitting_linker(compiler)
                .context("bpf-linker was installed, but another one comes first in PATH")?;
            ok(&format!(
                "bpf-linker {} (LLVM {})",
                linker.version, compiler.llvm
            ));
            return Ok(());
        }
        absent(&format!(
            "bpf-linker {LINKER_VERSION} for LLVM {}",
            compiler.llvm
        ));
        if !has_llvm() {
            let fallback = format!("LLVM {} with its headers, in {prefix}", compiler.llvm);
            self.missing
                .push(self.packages.command(&[&llvm_package]).unwrap_or(fallback));
        }
        let line =
            run::line_of(&install).replacen(&*run::cargo_program().to_string_lossy(), "cargo", 1);
        self.missing.push(format!("LLVM_PREFIX={prefix} {line}"));
        Ok(())
    }

    /// What `cargo xtask test` formats and lints with: rustup's, or Debian's where there is no rustup.
    fn rust_components(&mut self) {
        let has_rustup = run::is_installed("rustup");
        for (component, probe, package) in [
            ("rustfmt", "fmt", "rustfmt-web"),
            ("clippy", "clippy", LINTS),
        ] {
            let has = || {
                let mut command = Command::new(run::cargo_program());
                let output = command.args([probe, "--version"]).output();
                output.is_ok_and(|output| output.status.success())
            };
            let add = ["component", "add", component];
            if !has() && !self.check && has_rustup {
                println!("install {component}");
                // Judged by what is there afterwards.
                let _status = Command::new("rustup").args(add).status();
            } else if !has() && !self.check {
                self.packages.install(&[package]);
            }
            if has() {
                ok(component);
                continue;
            }
            absent(component);
            let by_package = self.packages.command(&[package]).filter(|_| !has_rustup);
            let by_rustup = || format!("rustup {}", add.join(" "));
            self.missing.push(by_package.unwrap_or_else(by_rustup));
        }
    }

    /// Lints for the eBPF programs; without them `cargo xtask test` says that it skips those.
    fn ebpf_lints(&mut self) {
        let target = ebpf_toolchain::ebpf_target(cfg!(target_endian = "big"));
        let Some(compiler) = ebpf_toolchain::find_compiler(target) else {
            return;
        };
        let driver = compiler.rustc.with_file_name("clippy-driver");
        if compiler.route == Route::System && !self.check && !driver.exists() {
            self.packages.install(&[LINTS]);
        }
    }

    /// What the build links, and what the lab, the demo and the tests run.
    fn tools(&mut self, wanted: fn(&tools::Tool) -> bool) {
        let wanted: Vec<&tools::Tool> = tools::TOOLS.iter().filter(|tool| wanted(tool)).collect();
        let lacking: Vec<&&tools::Tool> = wanted
            .iter()
            .filter(|tool| !run::is_installed(tool.program))
            .collect();
        let mut names: Vec<&str> = lacking.iter().map(|tool| tool.package).collect();
        names.dedup();
        if !names.is_empty() && !self.check && !self.packages.install(&names) {
            // One that this release lacks must not keep the others away.
            for name in &names {
                self.packages.install(&[name]);
            }
        }
        let mut still = Vec::new();
        for tool in wanted {
            if run::is_installed(tool.program) {
                ok(tool.program);
            } else {
                absent(&format!("{}: {}", tool.program, tool.why));
                if tool.need != Need::SomeTests {
                    still.push(tool.package);
                }
            }
        }
        still.dedup();
        if !still.is_empty() {
            let by_hand = || format!("the packages with {}", still.join(", "));
            self.missing
                .push(self.packages.command(&still).unwrap_or_else(by_hand));
        }
    }
}

/// The installed bpf-linker, if it is of the right version and LLVM.
fn fitting_linker(compiler: &Compiler) -> Option<Linker> {
    ebpf_toolchain::find_linker().filter(|linker| {
        linker.version == LINKER_VERSION && ebpf_toolchain::mismatch(compiler, linker).is_none()
    })
}

fn ok(what: &str) {
    println!("ok      {what}");
}

fn absent(what: &str) {
    println!("missing {what}");
}
