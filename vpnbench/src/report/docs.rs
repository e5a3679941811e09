//! Documentation generated from the tables in the code.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use vpnbench_common::catalog::{Attach, Group, KINDS, PROBES, Probe, Tap};

use super::doctor::{DoctorProbe, DoctorReport, ProbeState, Verdict};

/// docs/probes.md: groups, probes, taps and records, from the catalog.
#[must_use]
pub fn probes_markdown() -> String {
    let mut text = String::from(
        "# Probes\n\n\
         Generated from `vpnbench-common/src/catalog.rs`; do not edit.\n\
         Regenerate: `cargo run -p vpnbench --example gen_docs`.\n\n\
         A probe is one eBPF program. `vpnbench doctor` says which of them this kernel and user can\n\
         attach; `--probes` takes the names of groups and probes. \"Since\" is the first kernel that\n\
         is known to offer the attach point; the kernel itself is asked at run time.\n",
    );
    for group in Group::ALL {
        let _ = write!(
            text,
            "\n## Group `{}`\n\n{}\n\n",
            group.name(),
            group_doc(group)
        );
        text.push_str("| probe | attaches to | since | emits | stands in for it | shows |\n");
        text.push_str("| --- | --- | --- | --- | --- | --- |\n");
        for probe in PROBES.iter().filter(|probe| probe.group == group) {
            probe_line(&mut text, probe);
        }
    }
    text.push_str("\n## Taps\n\nIn the order a packet passes them from sender to receiver:\n\n");
    for tap in Tap::ALL {
        let _ = writeln!(text, "{}. `{}`", tap as u8, tap.name());
    }
    records(&mut text);
    text
}

fn probe_line(text: &mut String, probe: &Probe) {
    let attach = match probe.attach {
        Attach::TpBtf(name) => format!("tracepoint `{name}`"),
        Attach::Fentry(name) => format!("entry of `{name}`"),
        Attach::CpuClock => "CPU clock".to_owned(),
    };
    let kinds = KINDS.iter().filter(|row| probe.kinds.contains(&row.kind));
    let kinds: Vec<String> = kinds.map(|row| format!("`{}`", row.name)).collect();
    let fallback = PROBES.iter().find(|row| Some(row.id) == probe.fallback);
    let fallback = fallback.map_or(String::new(), |row| format!("`{}`", row.name));
    let _ = writeln!(
        text,
        "| `{}` | {attach} | {} | {} | {fallback} | {} |",
        probe.name,
        probe.since,
        kinds.join(", "),
        probe.doc
    );
}

fn group_doc(group: Group) -> &'static str {
    match group {
        Group::Packets => "Packets at devices. Always attached.",
        Group::Daemon => {
            "Packets into the daemon's hands and the life of its threads. Attached when there is a daemon."
        }
        Group::Drops => "Drops. Always attached.",
        Group::Tcp => "TCP's state. Always attached.",
        Group::Syscalls => "System calls of watched processes. Attached unless `--no-threads`.",
        Group::Threads => "Scheduling of watched threads. Attached unless `--no-threads`.",
        Group::Stacks => "Stack samples. Attached with `--stacks`.",
    }
}

fn records(text: &mut String) {
    text.push_str(
        "\n## Records\n\nIntegers are little-endian in a trace file. All records begin with the same 16 bytes.\n",
    );
    for kind in KINDS {
        let _ = write!(
            text,
            "\n### `{}` (kind {}, {} bytes)\n\n",
            kind.name, kind.kind as u8, kind.size
        );
        text.push_str("| offset | field | type | meaning |\n| --- | --- | --- | --- |\n");
        for field in kind.fields {
            let doc = field.doc.trim();
            let _ = writeln!(
                text,
                "| {} | `{}` | `{}` | {doc} |",
                field.offset, field.name, field.kind
            );
        }
    }
}

/// The doctor's reports in a folder, one file per kernel, with the kernels' names, oldest first.
///
/// # Errors
/// When the folder or a report cannot be read.
pub fn kept_reports(folder: &Path) -> io::Result<Vec<(String, DoctorReport)>> {
    let mut reports = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let report = serde_json::from_slice(&std::fs::read(&path)?)?;
        reports.push((name.into_owned(), report));
    }
    reports.sort_by_key(|(name, _)| {
        let numbers = name.split('.').map(|part| part.parse().unwrap_or(0));
        (numbers.collect::<Vec<u32>>(), name.clone())
    });
    Ok(reports)
}

/// docs/kernels.md: which probe attaches on which kernel, from what the doctor said on each.
/// `reports` are names of kernels with their reports, in the order of the columns.
#[must_use]
pub fn kernels_markdown(reports: &[(String, DoctorReport)]) -> String {
    let mut text = String::from(
        "# Probes on kernels\n\n\
         Generated from tests/doctor/, which `cargo xtask vm --bless doctor` writes; do not edit.\n\
         Regenerate: `cargo run -p vpnbench --example gen_docs`.\n\n\
         `cargo xtask test` compares what `vpnbench doctor` says on each emulated kernel with these.\n\n\
         | kernel | release | verdict |\n| --- | --- | --- |\n",
    );
    for (name, report) in reports {
        let verdict = match report.verdict {
            Verdict::Ready => "ready",
            Verdict::Limited => "limited",
            Verdict::Blocked => "blocked",
        };
        let _ = writeln!(text, "| {name} | {} | {verdict} |", report.kernel);
    }
    let names: Vec<&str> = reports.iter().map(|(name, _)| name.as_str()).collect();
    let _ = writeln!(text, "\n| probe | kind | {} |", names.join(" | "));
    let _ = writeln!(text, "| --- | --- |{}", " --- |".repeat(names.len()));
    for row in PROBES {
        let kind = match row.attach {
            Attach::TpBtf(_) => "tracepoint",
            Attach::Fentry(_) => "function entry",
            Attach::CpuClock => "CPU clock",
        };
        let cells: Vec<String> = reports
            .iter()
            .map(|(_, report)| {
                let found = report.probes.iter().find(|probe| probe.name == row.name);
                found.map_or("not asked".to_owned(), cell)
            })
            .collect();
        let _ = writeln!(text, "| `{}` | {kind} | {} |", row.name, cells.join(" | "));
    }
    text
}

fn cell(probe: &DoctorProbe) -> String {
    let reason = probe.reason.as_deref().unwrap_or_default();
    match probe.status {
        ProbeState::Attachable if reason.is_empty() => "yes".to_owned(),
        ProbeState::Attachable | ProbeState::Fallback => reason.to_owned(),
        ProbeState::Missing => format!("no: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_files_are_current() {
        let top = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        let kernels = kept_reports(&top.join("tests/doctor")).expect("the kept reports");
        for (name, text) in [
            ("probes.md", probes_markdown()),
            ("kernels.md", kernels_markdown(&kernels)),
        ] {
            let committed = std::fs::read_to_string(top.join("docs").join(name));
            assert!(
                committed.unwrap_or_default() == text,
                "docs/{name} is out of date; run: cargo run -p vpnbench --example gen_docs"
            );
        }
    }

    #[test]
    fn the_matrix_says_what_stands_in() {
        let probe = |name: &str, status, reason: Option<&str>| DoctorProbe {
            name: name.to_owned(),
            status,
            reason: reason.map(str::to_owned),
            ..DoctorProbe::default()
        };
        let old = DoctorReport {
            probes: vec![
                probe("tcp_probe", ProbeState::Attachable, None),
                probe(
                    "sock_recv_length",
                    ProbeState::Fallback,
                    Some("sys_exit stands in"),
                ),
                probe("consume_skb", ProbeState::Missing, Some("no tracepoint")),
            ],
            ..DoctorReport::default()
        };
        let text = kernels_markdown(&[("5.9".to_owned(), old)]);
        for line in [
            "| `tcp_probe` | tracepoint | yes |",
            "| `sock_recv_length` | tracepoint | sys_exit stands in |",
            "| `consume_skb` | tracepoint | no: no tracepoint |",
            "| `net_dev_queue` | tracepoint | not asked |",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }
}
