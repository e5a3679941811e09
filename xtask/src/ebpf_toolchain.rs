//! Picks the compiler and linker for the eBPF object. One file, std only, compiled into xtask and
//! into vpnbench's build script, so that `setup` checks exactly what the build will use.
//!
//! Two routes, in this order: rustup's nightly with `rust-src` (builds `core` itself), else
//! Debian's `rustc-web` in /usr/bin, which has a prebuilt `core` for the BPF targets. Whichever
//! is found, bpf-linker must be linked against the same LLVM major: it reads rustc's bitcode.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The bpf-linker release this project is built and tested with.
pub(crate) const LINKER_VERSION: &str = "0.13.0";

/// The eBPF target of a machine with this byte order.
pub(crate) fn ebpf_target(big_endian: bool) -> &'static str {
    if big_endian {
        "bpfeb-unknown-none"
    } else {
        "bpfel-unknown-none"
    }
}

/// How `core` for the eBPF target comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// rustup's nightly with `rust-src`: cargo builds `core`.
    Nightly,
    /// A rustc in /usr/bin with a prebuilt `core`, as Debian ships it.
    System,
}

/// A compiler that can build the eBPF crate.
#[derive(Debug, Clone)]
pub(crate) struct Compiler {
    /// Where it comes from.
    pub(crate) route: Route,
    /// The compiler's executable.
    pub(crate) rustc: PathBuf,
    /// Release, for instance `1.96.0`.
    pub(crate) release: String,
    /// Major version of its LLVM.
    pub(crate) llvm: u32,
}

/// An installed bpf-linker.
#[derive(Debug, Clone)]
pub(crate) struct Linker {
    /// Its executable.
    pub(crate) path: PathBuf,
    /// Its version, for instance `0.13.0`.
    pub(crate) version: String,
    /// Major version of the LLVM it is linked against, when the executable tells.
    pub(crate) llvm: Option<u32>,
}

/// The first compiler, in the order of the routes, that can build for `target`.
pub(crate) fn find_compiler(target: &str) -> Option<Compiler> {
    nightly_compiler().or_else(|| system_compiler(Path::new("/usr/bin/rustc"), target))
}

fn nightly_compiler() -> Option<Compiler> {
    let mut sysroot = rustup_nightly();
    sysroot.args(["--print", "sysroot"]);
    let sysroot = PathBuf::from(stdout_of(&mut sysroot)?.trim());
    let library = sysroot.join("lib/rustlib/src/rust/library/Cargo.lock");
    let rustc = sysroot.join("bin/rustc");
    if !library.exists() {
        return None;
    }
    describe(Route::Nightly, rustc)
}

/// `rustup run` rather than `rustc +nightly`: it fails instead of installing what is missing.
fn rustup_nightly() -> Command {
    let mut command = Command::new("rustup");
    command
        .env("RUSTUP_AUTO_INSTALL", "0")
        .args(["run", "nightly", "rustc"]);
    command
}

fn system_compiler(rustc: &Path, target: &str) -> Option<Compiler> {
    let mut query = Command::new(rustc);
    query.args(["--print", "target-libdir", "--target", target]);
    let libraries = PathBuf::from(stdout_of(&mut query)?.trim());
    let has_core = fs::read_dir(libraries).ok()?.flatten().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with("libcore-") && name.ends_with(".rlib")
    });
    if has_core {
        describe(Route::System, rustc.to_owned())
    } else {
        None
    }
}

fn describe(route: Route, rustc: PathBuf) -> Option<Compiler> {
    let version = stdout_of(Command::new(&rustc).arg("-vV"))?;
    let llvm = llvm_major(&version)?;
    let release = field(&version, "release: ")?.to_owned();
    Some(Compiler {
        route,
        rustc,
        release,
        llvm,
    })
}

/// The LLVM major in the output of `rustc -vV`.
pub(crate) fn llvm_major(version: &str) -> Option<u32> {
    field(version, "LLVM version: ")?
        .split('.')
        .next()?
        .parse()
        .ok()
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name))
}

/// The bpf-linker in PATH, else the one cargo installed.
pub(crate) fn find_linker() -> Option<Linker> {
    let mut candidates: Vec<PathBuf> =
        env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect();
    let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    candidates.extend(cargo_home.or(home).map(|cargo| cargo.join("bin")));
    candidates
        .into_iter()
        .map(|folder| folder.join("bpf-linker"))
        .find_map(|path| {
            let output = stdout_of(Command::new(&path).arg("--version"))?;
            let version = output.trim().strip_prefix("bpf-linker ")?.to_owned();
            let llvm = fs::read(&path)
                .ok()
                .and_then(|program| linked_llvm(&program));
            Some(Linker {
                path,
                version,
                llvm,
            })
        })
}

/// The LLVM major an executable was linked against. bpf-linker does not print it: a dynamically
/// linked one names its library (`libLLVM.so.22.1`, formerly `libLLVM-22.so`), a static one holds
/// the version LLVM writes into bitcode files (`LLVM22.1.2-rust-...`).
fn linked_llvm(program: &[u8]) -> Option<u32> {
    let needles: [&[u8]; 3] = [b"libLLVM.so.", b"libLLVM-", b"LLVM"];
    needles.into_iter().find_map(|needle| {
        let starts = 0..program.len().saturating_sub(needle.len());
        starts
            .filter(|&at| program[at..].starts_with(needle))
            .find_map(|at| {
                let rest = &program[at + needle.len()..];
                let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
                let ended = matches!(rest.get(digits), Some(b'.' | 0));
                let major = std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()?;
                (digits == 2 && ended).then_some(major)
            })
    })
}

/// Why this linker cannot serve this compiler, or nothing.
pub(crate) fn mismatch(compiler: &Compiler, linker: &Linker) -> Option<String> {
    let llvm = linker.llvm?;
    (llvm != compiler.llvm).then(|| {
        format!(
            "{} is linked against LLVM {llvm}, but {} ({}) writes LLVM {} bitcode: reinstall it \
             for LLVM {}",
            linker.path.display(),
            compiler.rustc.display(),
            compiler.release,
            compiler.llvm,
            compiler.llvm,
        )
    })
}

/// Compiler and linker for `target`, or what to install.
pub(crate) fn find(target: &str) -> Result<(Compiler, Linker), String> {
    let compiler = find_compiler(target).ok_or_else(|| {
        format!(
            "no Rust toolchain that can build for {target}: run `cargo xtask setup`, or install \
             either `rustup toolchain install nightly --component rust-src` or, on Debian, \
             `apt-get install --no-install-recommends rustc-web libstd-rust-web-dev-bpf`"
        )
    })?;
    let linker = find_linker().ok_or_else(|| {
        format!(
            "bpf-linker is in neither PATH nor ~/.cargo/bin: run `cargo xtask setup`, or `cargo \
             install bpf-linker --version {LINKER_VERSION} --locked --no-default-features \
             --features llvm-{}` with LLVM_PREFIX naming LLVM {}",
            compiler.llvm, compiler.llvm
        )
    })?;
    match mismatch(&compiler, &linker) {
        Some(reason) => Err(format!("{reason} (`cargo xtask setup` does it)")),
        None => Ok((compiler, linker)),
    }
}

/// What one eBPF build needs to know.
pub(crate) struct EbpfBuild<'a> {
    /// The cargo to run where the route does not bring its own.
    pub(crate) cargo: OsString,
    /// `build`, `check` or `clippy`.
    pub(crate) subcommand: &'a str,
    /// Folder of the eBPF crate.
    pub(crate) source: &'a Path,
    /// Target directory of this build alone.
    pub(crate) target_dir: &'a Path,
    /// eBPF target triple.
    pub(crate) target: &'a str,
    /// Architecture of the kernel the programs will run on, as cargo names it.
    pub(crate) architecture: &'a str,
}

/// Settings of an outer cargo (or the user) for the host's crates, wrong for this build.
const FOREIGN_SETTINGS: [&str; 12] = [
    "CARGO",
    "RUSTC",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTDOC",
    "RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "CARGO_BUILD_TARGET_DIR",
    "RUSTUP_TOOLCHAIN",
];

/// The cargo command of one eBPF build, in release mode.
pub(crate) fn cargo(compiler: &Compiler, linker: &Linker, build: EbpfBuild<'_>) -> Command {
    let mut command = match compiler.route {
        Route::Nightly => Command::new("rustup"),
        Route::System => Command::new(&build.cargo),
    };
    for name in FOREIGN_SETTINGS {
        command.env_remove(name);
    }
    match compiler.route {
        Route::Nightly => {
            command.args([
                "run",
                "nightly",
                "cargo",
                build.subcommand,
                "-Zbuild-std=core",
            ]);
        }
        Route::System => {
            // RUSTC_BOOTSTRAP: aya-ebpf uses unstable features, and this rustc is a stable one.
            command
                .env("RUSTC", &compiler.rustc)
                .env("RUSTC_BOOTSTRAP", "1");
            command.arg(build.subcommand);
        }
    }
    let flags = [
        format!("--cfg=bpf_target_arch=\"{}\"", build.architecture),
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
    ];
    let linker_variable = format!(
        "CARGO_TARGET_{}_LINKER",
        build.target.to_uppercase().replace('-', "_")
    );
    command
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env(linker_variable, &linker.path)
        .current_dir(build.source)
        .args(["--release", "--target", build.target, "--target-dir"])
        .arg(build.target_dir);
    command
}

fn stdout_of(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_llvm_major_of_rustc() {
        let version = "rustc 1.96.0\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        assert_eq!(llvm_major(version), Some(22));
        assert_eq!(llvm_major("rustc 1.96.0\n"), None);
    }

    #[test]
    fn finds_the_llvm_an_executable_is_linked_against() {
        assert_eq!(linked_llvm(b"\0libLLVM.so.22.1\0"), Some(22));
        assert_eq!(linked_llvm(b"\0libLLVM-19.so.1\0"), Some(19));
        assert_eq!(linked_llvm(b"LLVM\0LLVM21.1.2-rust-1.94\0"), Some(21));
        assert_eq!(linked_llvm(b"LLVM ERROR"), None);
    }

    #[test]
    fn explains_a_linker_of_another_llvm() {
        let compiler = Compiler {
            route: Route::System,
            rustc: PathBuf::from("/usr/bin/rustc"),
            release: "1.96.0".to_owned(),
            llvm: 22,
        };
        let mut linker = Linker {
            path: PathBuf::from("bpf-linker"),
            version: String::new(),
            llvm: Some(22),
        };
        assert_eq!(mismatch(&compiler, &linker), None);
        linker.llvm = Some(21);
        let reason = mismatch(&compiler, &linker).unwrap_or_default();
        assert!(
            reason.contains("LLVM 21") && reason.contains("LLVM 22"),
            "{reason}"
        );
        linker.llvm = None;
        assert_eq!(mismatch(&compiler, &linker), None);
    }
}
