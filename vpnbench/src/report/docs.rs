//! Documentation generated from the tables in the code.

use std::fmt::Write as _;

use vpnbench_common::catalog::{Attach, Group, KINDS, PROBES, Probe, Tap};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_file_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/probes.md");
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == probes_markdown(),
            "docs/probes.md is out of date; run: cargo run -p vpnbench --example gen_docs"
        );
    }
}
