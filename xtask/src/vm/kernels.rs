//! The kernels that guests run: Debian's packages, unpacked into the user's cache and never
//! installed. Adding one is a row of [`KERNELS`].

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::archive;
use crate::run;
use crate::setup::packages::Packages;
use crate::vpns::cache_folder;

/// One kernel.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// Name on the command line, of its results and of its golden files.
    pub(crate) name: &'static str,
    /// Debian's package that always depends on the newest one of this series.
    package: &'static str,
}

/// All of them.
pub(crate) const KERNELS: &[Kernel] = &[
    Kernel {
        name: "6.1",
        package: "linux-image-cloud-amd64",
    },
    Kernel {
        name: "6.12",
        package: "linux-image-6.12-cloud-amd64",
    },
];

/// Modules that a guest loads before its suites, each after what it depends on. Those that a
/// kernel has built in, or lacks, are left out.
const MODULES: &[&str] = &[
    // The channel that results leave by.
    "virtio_pci",
    "virtio_console",
    "virtio_rng",
    // Devices of the lab and the suites.
    "tun",
    "veth",
    "bridge",
    "8021q",
    "vrf",
    "wireguard",
    // Queueing disciplines.
    "sch_netem",
    "sch_fq",
    "sch_fq_codel",
    "sch_ingress",
    "sch_tbf",
    "sch_prio",
    "cls_bpf",
    "cls_u32",
    // TCP and sockets.
    "tcp_bbr",
    "tcp_cubic",
    "inet_diag",
    "tcp_diag",
    "udp_diag",
    "af_packet",
    "unix",
];

/// A kernel that is ready to boot.
pub(super) struct Bootable {
    /// The compressed kernel.
    pub(super) vmlinuz: PathBuf,
    /// Its modules as a cpio archive, with `/modules/order`: the files in the order of loading.
    pub(super) modules: PathBuf,
}

impl Kernel {
    /// Gets it, from the cache where it is there already.
    pub(super) fn bootable(&self) -> Result<Bootable> {
        let package = self.concrete()?;
        let file = download_name(&package)?;
        let cache = cache_folder()
            .context("neither XDG_CACHE_HOME nor HOME is set")?
            .join("kernels");
        // What is in the cache has the modules that were wanted then.
        let mut hash = DefaultHasher::new();
        MODULES.hash(&mut hash);
        let folder = cache.join(format!("{file}.{:016x}", hash.finish()));
        if !folder.is_dir() {
            fs::create_dir_all(&cache)
                .with_context(|| format!("cannot create {}", cache.display()))?;
            // Renamed when complete, so that an interrupted one is not taken for one.
            let draft = cache.join(format!("{file}.{}", std::process::id()));
            let prepared = prepare(&package, &draft);
            if prepared.is_err() {
                // The error that matters is the one above.
                let _ = fs::remove_dir_all(&draft);
            }
            prepared.with_context(|| format!("cannot prepare {package}"))?;
            fs::rename(&draft, &folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
        }
        Ok(Bootable {
            vmlinuz: folder.join("vmlinuz"),
            modules: folder.join("modules.cpio"),
        })
    }

    /// The package with the newest kernel of the series, e.g. `linux-image-6.1.0-56-cloud-amd64`.
    fn concrete(&self) -> Result<String> {
        let look = || {
            let arguments = ["depends", "--important", self.package];
            let text = run::output(Command::new("apt-cache").args(arguments)).ok()?;
            let names = text
                .lines()
                .filter_map(|line| line.trim().strip_prefix("Depends: "));
            names
                .map(str::to_owned)
                .find(|name| name.starts_with("linux-image-"))
        };
        if let Some(found) = look() {
            return Ok(found);
        }
        if run::is_root() {
            Packages::new().refresh();
        }
        look().with_context(|| {
            format!(
                "apt does not know {} (kernel {}): run apt-get update, on Debian 12 or newer",
                self.package, self.name
            )
        })
    }
}

/// Name of the file that apt would download.
fn download_name(package: &str) -> Result<String> {
    let line = run::output(Command::new("apt-get").args(["download", "--print-uris", package]))?;
    // 'URI' FILE SIZE HASH
    let file = line.split_whitespace().nth(1);
    let name = file.and_then(|file| file.strip_suffix(".deb"));
    Ok(name
        .with_context(|| format!("apt-get says no file of {package}: {line}"))?
        .to_owned())
}

fn prepare(package: &str, draft: &Path) -> Result<()> {
    println!("kernel  {package}: download and unpack");
    let unpacked = draft.join("unpacked");
    fs::create_dir_all(&unpacked)?;
    run::output(
        Command::new("apt-get")
            .args(["--quiet=2", "download", package])
            .current_dir(draft),
    )?;
    let package_file = only(draft, ".deb")?;
    run::output(
        Command::new("dpkg-deb")
            .arg("--extract")
            .args([&package_file, &unpacked]),
    )?;
    fs::copy(
        only(&unpacked.join("boot"), "vmlinuz")?,
        draft.join("vmlinuz"),
    )?;
    let modules = unpacked.join("lib/modules");
    let release = only(&modules, "")?;
    let release = release.file_name().unwrap_or_default();
    run::output(
        Command::new(run::program("depmod")?)
            .arg("-b")
            .arg(&unpacked)
            .arg(release),
    )?;
    let stage = draft.join("stage");
    stage_modules(&unpacked, release.as_ref(), &stage.join("modules"))?;
    archive::write(&stage, &draft.join("modules.cpio"))?;
    for folder in [&unpacked, &stage] {
        fs::remove_dir_all(folder)?;
    }
    fs::remove_file(package_file)?;
    Ok(())
}

/// Copies [`MODULES`] and what they depend on, decompressed, and notes the order.
fn stage_modules(unpacked: &Path, release: &Path, into: &Path) -> Result<()> {
    fs::create_dir_all(into)?;
    let mut order: Vec<String> = Vec::new();
    for name in MODULES {
        let mut modprobe = Command::new(run::program("modprobe")?);
        // Without the configuration of the machine that this runs on.
        modprobe.args(["--show-depends", "--config", "/dev/null", "--dirname"]);
        modprobe
            .arg(unpacked)
            .arg("--set-version")
            .arg(release)
            .arg(name);
        // One that this kernel does not have: built in without a name, or not at all.
        let Ok(text) = run::output(&mut modprobe) else {
            continue;
        };
        let files = text
            .lines()
            .filter_map(|line| line.strip_prefix("insmod ")?.split_whitespace().next());
        for file in files {
            let plain = decompressed(Path::new(file), into)?;
            if !order.contains(&plain) {
                order.push(plain);
            }
        }
    }
    fs::write(into.join("order"), order.join("\n") + "\n")?;
    Ok(())
}

/// Copies a module without its compression; its file name.
fn decompressed(file: &Path, into: &Path) -> Result<String> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    if let Some(plain) = name.strip_suffix(".xz") {
        let output = Command::new("xz")
            .args(["--decompress", "--stdout"])
            .arg(file)
            .output()
            .context("cannot start xz")?;
        if !output.status.success() {
            bail!("xz cannot read {}", file.display());
        }
        fs::write(into.join(plain), output.stdout)?;
        return Ok(plain.to_owned());
    }
    if !name.ends_with(".ko") {
        bail!("{name} is compressed in a way that is not known here");
    }
    fs::copy(file, into.join(&*name))?;
    Ok(name.into_owned())
}

/// The one entry of a folder whose name contains this.
fn only(folder: &Path, part: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("no {}", folder.display()))?;
    let mut found = entries.flatten().map(|entry| entry.path()).filter(|path| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().contains(part))
    });
    match (found.next(), found.next()) {
        (Some(path), None) => Ok(path),
        _ => bail!("{} has not exactly one file {part:?}", folder.display()),
    }
}
