//! What a guest runs: this build's programs and those of the host that the lab and the suites
//! start, with their shared libraries, packed once and again only when one of them has changed.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result};

use super::archive;
use crate::run;
use crate::vpns::cache_folder;

/// Programs of the host. Those that it lacks are left out; suites say what they skip.
const PROGRAMS: &[&str] = &[
    "dash",
    "ip",
    "tc",
    "ethtool",
    "ping",
    "iperf3",
    "tcpdump",
    "wg",
    "wireguard-go",
    "ss",
    "nstat",
];

/// VPNs of the lab's own cache (`cargo xtask vpns`) that guests compare.
const FROM_CACHE: &[&str] = &["wireguard-go"];

/// Runs before anything else in the guest.
const INIT: &str = include_str!("init.sh");

/// Folder of this build's programs in the guest.
pub(super) const OWN: &str = "/vpnbench";

/// A program of this build.
pub(super) struct Own {
    /// Name in [`OWN`].
    pub(super) name: String,
    /// Where cargo has put it.
    pub(super) path: PathBuf,
}

/// Packs everything; the archive.
pub(super) fn archive(own: &[Own], cache: &Path) -> Result<PathBuf> {
    let mut host: Vec<PathBuf> = PROGRAMS
        .iter()
        .filter_map(|name| run::program(name).ok())
        .collect();
    if let Some(folder) = cache_folder() {
        let files = FROM_CACHE.iter().map(|name| folder.join("bin").join(name));
        host.extend(files.filter(|file| file.is_file()));
    }
    let busybox = run::program("busybox")?;
    let inputs = own.iter().map(|own| &own.path).chain(&host);
    let key = key(inputs.chain([&busybox]))?;
    let packed = cache.join("programs.cpio");
    let note = cache.join("programs.key");
    if packed.is_file() && fs::read_to_string(&note).is_ok_and(|noted| noted == key) {
        return Ok(packed);
    }
    let stage = cache.join("stage");
    if stage.exists() {
        fs::remove_dir_all(&stage)?;
    }
    folders(&stage)?;
    for Own { name, path } in own {
        strip(path, &within(&stage, Path::new(OWN)).join(name))?;
    }
    let mut wanted: BTreeSet<PathBuf> = host.iter().cloned().collect();
    for program in own.iter().map(|own| &own.path).chain(&host) {
        wanted.extend(libraries(program));
    }
    for file in wanted {
        copy(&file, &within(&stage, &file))?;
    }
    copy(&busybox, &stage.join("busybox"))?;
    fs::write(stage.join("init"), INIT)?;
    fs::set_permissions(stage.join("init"), fs::Permissions::from_mode(0o755))?;
    archive::write(&stage, &packed)?;
    fs::write(note, key)?;
    fs::remove_dir_all(stage)?;
    Ok(packed)
}

/// Changes with the list of files, their sizes and the times they were changed.
fn key<'a>(files: impl Iterator<Item = &'a PathBuf>) -> Result<String> {
    let mut hash = DefaultHasher::new();
    INIT.hash(&mut hash);
    for file in files {
        let about =
            fs::metadata(file).with_context(|| format!("cannot read {}", file.display()))?;
        (file, about.len(), about.modified()?).hash(&mut hash);
    }
    Ok(format!("{:016x}", hash.finish()))
}

/// The top of the guest's tree. Folders that are links here are links there.
fn folders(stage: &Path) -> Result<()> {
    for name in ["usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "etc", "root"] {
        fs::create_dir_all(stage.join(name))?;
    }
    fs::create_dir_all(within(stage, Path::new(OWN)))?;
    for name in ["bin", "sbin", "lib", "lib64"] {
        let here = Path::new("/").join(name);
        if let Ok(to) = fs::read_link(here) {
            std::os::unix::fs::symlink(to, stage.join(name))?;
        }
    }
    for (name, text) in [
        ("passwd", "root:x:0:0:root:/root:/bin/sh\n"),
        ("group", "root:x:0:\n"),
        ("hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ] {
        fs::write(stage.join("etc").join(name), text)?;
    }
    std::os::unix::fs::symlink("dash", stage.join("usr/bin/sh"))?;
    Ok(())
}

fn within(stage: &Path, path: &Path) -> PathBuf {
    stage.join(path.strip_prefix("/").unwrap_or(path))
}

/// Copies a file, through links.
fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::copy(from, to)
        .map(drop)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

/// Copies a program without its debug information, most of its size; as it is where that fails.
fn strip(from: &Path, to: &Path) -> Result<()> {
    let stripped = Command::new("strip")
        .args(["--strip-debug", "-o"])
        .args([to, from])
        .output();
    match stripped {
        Ok(output) if output.status.success() => Ok(()),
        _ => copy(from, to),
    }
}

/// The shared libraries of a program and its loader; none of one that is linked statically.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let text = run::output(Command::new("ldd").arg(program)).unwrap_or_default();
    text.split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}

/// PATH of the guest.
pub(super) fn path() -> String {
    let usual = "/usr/bin:/usr/sbin:/bin:/sbin:/busybox-links";
    match env::var("PATH") {
        // Programs that the host has elsewhere are there in the guest, too.
        Ok(path) => format!("{usual}:{path}"),
        Err(_) => usual.to_owned(),
    }
}
