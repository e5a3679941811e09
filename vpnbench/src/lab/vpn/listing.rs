//! Which VPNs can be run here, and how to get the others: for `vpnbench lab vpn list`, and for
//! docs/lab-vpns.md.

use std::fmt::Write as _;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::sources::{Program, Source, Way};
use super::{Build, Vpn, adapter, programs};

/// All VPNs of the lab.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Listing {
    /// Name and version of this form.
    pub schema: String,
    /// One each.
    pub vpns: Vec<Listed>,
}

/// One VPN.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Listed {
    /// Name on the command line and in scenario files.
    pub name: String,
    /// What it is.
    pub title: String,
    /// Its name in the study, where it stands for one of the study's systems.
    pub study: Option<String>,
    /// Programs that are not found; a run would be skipped for the first of them.
    pub missing: Vec<String>,
    /// Programs that are found, the daemon's builds first.
    pub found: Vec<Found>,
    /// How to get the programs, one way each; empty where none are needed.
    pub ways: Vec<String>,
    /// The most hosts the adapter connects.
    pub most_hosts: usize,
    /// The defaults of the adapter's own keys, `[vpn.settings]`.
    pub settings: Value,
}

/// A program that is found.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Found {
    /// Its name.
    pub program: String,
    /// Where.
    pub path: PathBuf,
    /// In PATH (system), or in the lab's cache.
    pub build: Build,
    /// Its version, as far as it or its package tells.
    pub version: Option<String>,
    /// Whether a run takes this one unless told otherwise.
    pub preferred: bool,
}

/// Looks for every program of every VPN, and asks those found for their versions.
#[must_use]
pub fn list() -> Listing {
    Listing {
        schema: "vpnbench-lab-vpns/1".to_owned(),
        vpns: Vpn::ALL.into_iter().map(listed).collect(),
    }
}

fn listed(vpn: Vpn) -> Listed {
    let row = adapter::row(vpn);
    let source = row.source;
    let found: Vec<Found> = source
        .programs
        .iter()
        .flat_map(|program| found(source, program))
        .collect();
    let is_found = |program: &&Program| found.iter().any(|found| found.program == program.name);
    let missing = source.programs.iter().filter(|program| !is_found(program));
    Listed {
        name: source.name.to_owned(),
        title: source.title.to_owned(),
        study: source.study.map(str::to_owned),
        missing: missing.map(|program| program.name.to_owned()).collect(),
        found,
        ways: source.ways.iter().map(describe).collect(),
        most_hosts: row.most_hosts,
        settings: (row.defaults)(),
    }
}

fn found(source: &Source, program: &Program) -> Vec<Found> {
    let preferred = programs::locate(source, program.name, Build::Any);
    let mut found: Vec<Found> = Vec::new();
    for build in [Build::System, Build::Cached] {
        let Some(path) = programs::locate(source, program.name, build) else {
            continue;
        };
        // The cache's folder may be in PATH.
        if found.iter().any(|other| other.path == path) {
            continue;
        }
        found.push(Found {
            program: program.name.to_owned(),
            version: programs::version(program, &path, source),
            preferred: preferred.as_ref() == Some(&path),
            path,
            build,
        });
    }
    found
}

/// The ways to get a VPN's programs.
#[must_use]
pub fn how_to_get(vpn: Vpn) -> Vec<String> {
    adapter::row(vpn).source.ways.iter().map(describe).collect()
}

/// A way to get programs, as one line.
#[must_use]
pub fn describe(way: &Way) -> String {
    match way {
        Way::Debian { packages, version } => {
            format!(
                "Debian package {} ({version} in Debian 12)",
                packages.join(", ")
            )
        }
        Way::Crate {
            name,
            version,
            needs: [],
        } => format!("crate {name} {version}"),
        Way::Crate {
            name,
            version,
            needs,
        } => format!(
            "crate {name} {version}, which needs Debian packages {}",
            needs.join(", ")
        ),
        Way::Go {
            module, version, ..
        } => format!("Go module {module} {version}"),
        Way::Nowhere { why } => (*why).to_owned(),
    }
}

/// docs/lab-vpns.md.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(
        "# VPNs of the lab\n\n\
         Generated from `vpnbench/src/lab/vpn/`; do not edit.\n\
         Regenerate: `cargo run -p vpnbench --example gen_docs`.\n\n\
         `vpnbench lab run --vpn NAME` starts one; `vpnbench lab vpn list` says which of them are\n\
         found here, in which version; `cargo xtask vpns [NAME ...]` installs what the package\n\
         registries offer. Programs are looked for in PATH and in the lab's cache\n\
         (`$XDG_CACHE_HOME/vpnbench/bin`, else `~/.cache/vpnbench/bin`). Where one is missing, a run\n\
         says `skipped: PROGRAM not found`.\n\n\
         Configurations are those of the study, on addresses of the lab. In a scenario:\n\n\
         ```toml\n[vpn]\nname = \"nebula\"\nbuild = \"any\"      # any, system (PATH), cached\n\
         [vpn.settings]     # the keys below\nmtu = 1440\n```\n\n\
         | name | what it is | system of the study | hosts | from |\n\
         | --- | --- | --- | --- | --- |\n",
    );
    for vpn in Vpn::ALL {
        let row = adapter::row(vpn);
        let source = row.source;
        let ways: Vec<String> = source.ways.iter().map(describe).collect();
        let _ = writeln!(
            text,
            "| [`{}`](#{}) | {} | {} | {} | {} |",
            source.name,
            source.name,
            source.title,
            source.study.unwrap_or(""),
            if row.most_hosts > 2 { "2 or 3" } else { "2" },
            ways.join("; ")
        );
    }
    for vpn in Vpn::ALL {
        section(&mut text, vpn);
    }
    text
}

fn section(text: &mut String, vpn: Vpn) {
    let row = adapter::row(vpn);
    let source = row.source;
    let _ = write!(text, "\n## {}\n\n", source.name);
    for quirk in source.quirks {
        let _ = writeln!(text, "- {quirk}");
    }
    for way in source.ways {
        if let Way::Nowhere { why } = way {
            let _ = writeln!(text, "- Cannot be installed by `cargo xtask vpns`: {why}.");
        }
    }
    let schema = (row.schema)();
    let defaults = (row.defaults)();
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return;
    };
    text.push_str("\n| key | default | meaning |\n| --- | --- | --- |\n");
    for (key, property) in properties {
        let doc = property.get("description").and_then(Value::as_str);
        let default = match defaults.get(key) {
            None | Some(Value::Null) => "unset".to_owned(),
            Some(value) => format!("`{value}`"),
        };
        let doc = doc.unwrap_or_default().replace('\n', " ");
        let _ = writeln!(text, "| `{key}` | {default} | {doc} |");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_file_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/lab-vpns.md");
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == markdown(),
            "docs/lab-vpns.md is out of date; run: cargo run -p vpnbench --example gen_docs"
        );
    }

    #[test]
    fn every_setting_has_a_meaning_and_a_default() {
        for vpn in Vpn::ALL {
            let row = adapter::row(vpn);
            let schema = (row.schema)();
            let defaults = (row.defaults)();
            let properties = schema.get("properties").and_then(Value::as_object);
            for (key, property) in properties.into_iter().flatten() {
                let name = vpn.name();
                assert!(property.get("description").is_some(), "{name}: {key}");
                assert!(defaults.get(key).is_some(), "{name}: {key}");
            }
        }
    }
}
