//! Archives of the kind that Linux unpacks as its first file system
//! (Documentation/driver-api/early-userspace/buffer-format.rst in the kernel). Several, one after
//! the other, are unpacked over each other.

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Packs a folder, as root's files.
pub(super) fn write(folder: &Path, archive: &Path) -> Result<()> {
    let mut find = Command::new("find")
        .args([".", "-print0"])
        .current_dir(folder)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start find")?;
    let names = find.stdout.take().context("find has no output")?;
    let file =
        File::create(archive).with_context(|| format!("cannot create {}", archive.display()))?;
    let packed = Command::new("cpio")
        .args([
            "--create",
            "--null",
            "--quiet",
            "--format=newc",
            "--owner=0:0",
        ])
        .current_dir(folder)
        .stdin(names)
        .stdout(file)
        .status()
        .context("cannot start cpio")?;
    if !packed.success() || !find.wait()?.success() {
        bail!("cpio cannot pack {}", folder.display());
    }
    Ok(())
}

/// Joins archives. Each begins at a multiple of four bytes, as cpio fills up its last block.
pub(super) fn join(archives: &[&Path], joined: &Path) -> Result<()> {
    let mut out =
        File::create(joined).with_context(|| format!("cannot create {}", joined.display()))?;
    for archive in archives {
        let mut file =
            File::open(archive).with_context(|| format!("cannot read {}", archive.display()))?;
        io::copy(&mut file, &mut out)?;
    }
    Ok(())
}
