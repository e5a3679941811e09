//! What the user or the kernel does not allow.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use vpnbench::probe::netns::{Capability, KEPT_BY_DISCOVERY, KEPT_BY_STATISTICS};
use vpnbench_tests::binary;

use crate::recorder::{Place, Recorder, SOON};
use crate::traffic::Wire;

/// The program where anybody may run it.
fn public_copy(place: &Place) -> Result<PathBuf> {
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(place.path(""), open.clone())?;
    std::fs::set_permissions(place.path("tmp"), std::fs::Permissions::from_mode(0o777))?;
    let copy = place.path("vpnbench");
    std::fs::copy(binary::path(), &copy)?;
    std::fs::set_permissions(&copy, open)?;
    Ok(copy)
}

const NOBODY: &[&str] = &[
    "setpriv",
    "--reuid",
    "65534",
    "--regid",
    "65534",
    "--clear-groups",
];

pub(crate) fn not_root() -> Result<()> {
    let place = Place::new()?;
    let program = public_copy(&place)?;
    for line in [
        "record --outer lo -o TRACE -- true",
        "attach --outer lo -- true",
    ] {
        let ended = place.finish(place.under(NOBODY, &program, line))?;
        ended.expect(3, &["CAP_BPF", "CAP_PERFMON", "vpnbench doctor", "as root"])?;
        ensure!(!place.trace().exists());
    }
    let ended = place.finish(place.under(NOBODY, &program, "doctor"))?;
    ended.expect(3, &[])?;
    for text in ["CAP_BPF", "CAP_NET_ADMIN", "root"] {
        ensure!(ended.stdout.contains(text), "no {text} in {}", ended.stdout);
    }
    Ok(())
}

pub(crate) fn no_btf() -> Result<()> {
    let place = Place::new()?;
    let empty = place.path("empty");
    std::fs::create_dir(&empty)?;
    let hide = format!(
        "mount --bind {} /sys/kernel/btf && exec \"$@\"",
        empty.display()
    );
    let wrapper = ["unshare", "-m", "sh", "-c", &hide, "sh"];
    let line = "record --outer lo -o TRACE -- true";
    let ended = place.finish(place.under(&wrapper, binary::path(), line))?;
    ended.expect(
        3,
        &[
            "/sys/kernel/btf/vmlinux",
            "CONFIG_DEBUG_INFO_BTF",
            "vpnbench doctor",
        ],
    )?;
    ensure!(!place.trace().exists(), "a trace of nothing");
    let ended = place.finish(place.under(&wrapper, binary::path(), "doctor"))?;
    ended.expect(3, &[])?;
    let text = &ended.stdout;
    ensure!(
        text.contains("/sys/kernel/btf/vmlinux") && text.contains("BTF=y"),
        "{text}"
    );
    // A file that is there and holds nothing.
    let hide = "mount --bind /dev/null /sys/kernel/btf/vmlinux && exec \"$@\"";
    let wrapper = ["unshare", "-m", "sh", "-c", hide, "sh"];
    let ended = place.finish(place.under(&wrapper, binary::path(), line))?;
    ended.expect(3, &["/sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF"])
}

/// Root without the capabilities for BPF.
pub(crate) fn no_capability() -> Result<()> {
    let place = Place::new()?;
    let wrapper = [
        "setpriv",
        "--bounding-set",
        "-bpf,-sys_admin",
        "--inh-caps",
        "-bpf,-sys_admin",
    ];
    let line = "record --outer lo -o TRACE -- true";
    let ended = place.finish(place.under(&wrapper, binary::path(), line))?;
    ended.expect(3, &["CAP_BPF", "vpnbench doctor"])?;
    ensure!(!ended.stderr.contains("CAP_PERFMON,"), "{}", ended.stderr);
    let ended = place.finish(place.under(&wrapper, binary::path(), "doctor"))?;
    ended.expect(3, &[])
}

/// All capabilities, in a user namespace where the kernel does not honour them for BPF.
pub(crate) fn bpf_refused() -> Result<()> {
    let place = Place::new()?;
    let wrapper = ["unshare", "-r", "-n"];
    let line = "record --outer lo -o TRACE -- true";
    let ended = place.finish(place.under(&wrapper, binary::path(), line))?;
    ended.expect(
        3,
        &[
            "does not let this user load BPF programs",
            "vpnbench doctor",
        ],
    )?;
    ensure!(!place.trace().exists(), "a trace of nothing");
    let ended = place.finish(place.under(&wrapper, binary::path(), "doctor"))?;
    ended.expect(3, &[])?;
    ensure!(
        ended.stdout.contains("does not let this user"),
        "{}",
        ended.stdout
    );
    Ok(())
}

/// The effective capabilities of a thread.
fn effective(directory: &str) -> Result<u64> {
    let text = std::fs::read_to_string(format!("{directory}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("CapEff:"));
    Ok(u64::from_str_radix(line.context("no CapEff")?.trim(), 16)?)
}

pub(crate) fn kept_capabilities() -> Result<()> {
    let (place, wire) = (Place::new()?, Wire::new()?);
    let line = format!("record {} -o TRACE -- sleep 600", wire.select());
    let recorder = Recorder::start(&place, &line)?;
    let set = |all: &[Capability]| all.iter().fold(0, |set, cap| set | cap.bitmask());
    let (kept, statistics) = (set(KEPT_BY_DISCOVERY), set(KEPT_BY_STATISTICS));
    let mut names = BTreeSet::new();
    for task in std::fs::read_dir(format!("/proc/{}/task", recorder.pid()))?.flatten() {
        let directory = task.path().display().to_string();
        let name = std::fs::read_to_string(format!("{directory}/comm"))?;
        let held = effective(&directory)?;
        let kept = match name.trim() {
            "vpnbench-stats" => statistics,
            _ => kept,
        };
        ensure!(held & !kept == 0, "{} holds {held:x}", name.trim());
        names.insert(name.trim().to_owned());
    }
    ensure!(
        ["drain", "netns", "stats"]
            .iter()
            .all(|one| names.contains(&format!("vpnbench-{one}"))),
        "{names:?}"
    );
    let [command] = recorder.children() else {
        anyhow::bail!("children {:?}", recorder.children());
    };
    let (own, theirs) = (
        effective("/proc/self")?,
        effective(&format!("/proc/{command}"))?,
    );
    ensure!(
        own == theirs,
        "the command has {theirs:x} instead of {own:x}"
    );
    recorder.signal(Signal::SIGINT)?;
    recorder.ended(&place, SOON)?.expect(0, &[])
}
