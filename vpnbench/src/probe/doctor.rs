//! Conditions for recording, read from the system.

use std::path::Path;

use caps::{CapSet, Capability};

use super::fields::VMLINUX_BTF;

/// One condition and what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// What is checked.
    pub name: &'static str,
    /// Whether it holds.
    pub ok: bool,
    /// Whether recording is impossible without it.
    pub required: bool,
    /// What was found.
    pub found: String,
    /// What to do if it does not hold.
    pub remedy: Option<&'static str>,
}

/// The user's privileges are not enough to record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("recording needs {}, which this user does not have", .missing.join(", "))]
pub struct NotPrivileged {
    /// Names of the capabilities.
    pub missing: Vec<String>,
}

/// What recording needs, each with the older capability that contains it.
const NEEDED: [(Capability, &str); 4] = [
    (Capability::CAP_BPF, "load programs and create maps"),
    (
        Capability::CAP_PERFMON,
        "attach to tracepoints and read kernel memory",
    ),
    (
        Capability::CAP_NET_ADMIN,
        "see devices of other namespaces and WireGuard peers",
    ),
    (
        Capability::CAP_SYS_PTRACE,
        "find the process that holds a tunnel device",
    ),
];

fn has(capability: Capability) -> bool {
    let effective = |cap| caps::has_cap(None, CapSet::Effective, cap).unwrap_or(false);
    effective(capability)
        || (matches!(capability, Capability::CAP_BPF | Capability::CAP_PERFMON)
            && effective(Capability::CAP_SYS_ADMIN))
}

/// Whether this process may record at all.
///
/// # Errors
/// The capabilities it lacks.
pub fn may_record() -> Result<(), NotPrivileged> {
    let missing: Vec<String> = NEEDED
        .iter()
        .filter(|(capability, _)| !has(*capability))
        .map(|(capability, _)| capability.to_string())
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(NotPrivileged { missing })
    }
}

/// Everything apart from the probes themselves.
#[must_use]
pub fn conditions() -> Vec<Condition> {
    let mut all = vec![btf()];
    for (capability, purpose) in NEEDED {
        all.push(Condition {
            name: "privilege",
            ok: has(capability),
            required: true,
            found: format!("{capability}: {purpose}"),
            remedy: Some("run as root, e.g. with sudo"),
        });
    }
    all.push(namespaces());
    all.push(symbols());
    all.push(lockdown());
    all
}

fn btf() -> Condition {
    let size = std::fs::metadata(VMLINUX_BTF).map(|file| file.len());
    Condition {
        name: "kernel type information (BTF)",
        ok: size.is_ok(),
        required: true,
        found: match size {
            Ok(bytes) => format!("{VMLINUX_BTF}, {} KiB", bytes / 1024),
            Err(error) => format!("{VMLINUX_BTF}: {error}"),
        },
        remedy: Some(
            "use a kernel built with CONFIG_DEBUG_INFO_BTF=y, as all large distributions ship",
        ),
    }
}

fn namespaces() -> Condition {
    Condition {
        name: "other network namespaces",
        ok: has(Capability::CAP_SYS_ADMIN),
        required: false,
        found: "CAP_SYS_ADMIN: enter the namespaces given with --netns".to_owned(),
        remedy: Some("run as root, or run vpnbench inside the namespace"),
    }
}

fn symbols() -> Condition {
    let visible = std::fs::read_to_string("/proc/kallsyms").is_ok_and(|text| {
        text.lines()
            .take(100)
            .any(|line| !line.starts_with("0000000000000000"))
    });
    Condition {
        name: "kernel symbols",
        ok: visible,
        required: false,
        found: if visible {
            "/proc/kallsyms shows addresses"
        } else {
            "/proc/kallsyms hides addresses"
        }
        .to_owned(),
        remedy: Some(
            "run as root with kernel.kptr_restrict below 2; without it causes and places stay numbers",
        ),
    }
}

fn lockdown() -> Condition {
    let path = Path::new("/sys/kernel/security/lockdown");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let confidential = text.contains("[confidentiality]");
    Condition {
        name: "kernel lockdown",
        ok: !confidential,
        required: true,
        found: if text.is_empty() {
            "not reported".to_owned()
        } else {
            text.trim().to_owned()
        },
        remedy: Some(
            "boot with lockdown=integrity or none: confidentiality mode forbids reading kernel memory",
        ),
    }
}
