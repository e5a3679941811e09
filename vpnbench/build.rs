//! Builds the kernel programs (vpnbench-ebpf) and puts the object into OUT_DIR, from where the
//! loader embeds it: `aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/vpnbench-ebpf"))`.

#[path = "../xtask/src/ebpf_toolchain.rs"]
#[allow(dead_code, reason = "shared with xtask, which uses the rest")]
mod ebpf_toolchain;

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use ebpf_toolchain::{EbpfBuild, cargo, ebpf_target, find};

fn main() -> Result<(), String> {
    build().map_err(|error| format!("building the eBPF programs: {error}"))
}

fn build() -> Result<(), Box<dyn Error>> {
    let manifest_dir = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let root = manifest_dir
        .parent()
        .ok_or("vpnbench is not in a workspace")?;
    let out_dir = PathBuf::from(variable("OUT_DIR")?);
    let architecture = variable("CARGO_CFG_TARGET_ARCH")?
        .into_string()
        .map_err(|_| "not UTF-8")?;
    let target = ebpf_target(variable("CARGO_CFG_TARGET_ENDIAN")? == "big");
    watch(root);

    let (compiler, linker) = find(target)?;
    println!("cargo::rerun-if-changed={}", compiler.rustc.display());
    println!("cargo::rerun-if-changed={}", linker.path.display());

    let target_dir = out_dir.join("ebpf");
    let status = cargo(
        &compiler,
        &linker,
        EbpfBuild {
            cargo: variable("CARGO")?,
            subcommand: "build",
            source: &root.join("vpnbench-ebpf"),
            target_dir: &target_dir,
            target,
            architecture: &architecture,
        },
    )
    .status()?;
    if !status.success() {
        return Err(failure(&compiler, &linker).into());
    }
    let object = target_dir.join(target).join("release/vpnbench-ebpf");
    let embedded = out_dir.join("vpnbench-ebpf");
    // A target directory that was copied as hard links must not write into the original.
    let _ = fs::remove_file(&embedded);
    fs::copy(&object, embedded).map_err(|error| format!("{}: {error}", object.display()))?;
    Ok(())
}

fn variable(name: &str) -> Result<OsString, String> {
    env::var_os(name).ok_or_else(|| format!("cargo did not set {name}"))
}

/// Everything the object is made from, so that a change rebuilds it and nothing else does.
fn watch(root: &Path) {
    for path in [
        "vpnbench-ebpf/src",
        "vpnbench-ebpf/Cargo.toml",
        "vpnbench-ebpf/Cargo.lock",
        "vpnbench-common/src",
        "vpnbench-common/Cargo.toml",
        "xtask/src/ebpf_toolchain.rs",
        "vpnbench/build.rs",
    ] {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
}

/// Which tools failed, and the usual reason when it is not the source.
fn failure(compiler: &ebpf_toolchain::Compiler, linker: &ebpf_toolchain::Linker) -> String {
    let llvm = linker
        .llvm
        .map_or_else(|| "unknown".to_owned(), |llvm| llvm.to_string());
    format!(
        "cargo failed with {} {} (LLVM {}) and {} {} (LLVM {llvm}); its messages are above. If they \
         speak of unreadable bitcode, the two LLVM versions differ: run `cargo xtask setup`",
        compiler.rustc.display(),
        compiler.release,
        compiler.llvm,
        linker.path.display(),
        linker.version,
    )
}
