//! `cargo xtask vpns [NAME ...]`: installs the VPNs of the lab that a package registry offers, in
//! pinned versions. Each step looks first, so repeating it is cheap; one that fails does not keep
//! the others away. What is built goes into the lab's cache, never into the system.

#[path = "../../../vpnbench/src/lab/vpn/sources.rs"]
#[allow(dead_code, unreachable_pub, reason = "the lab uses the rest")]
mod sources;

mod go;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run;
use crate::setup::packages::Packages;
pub(crate) use sources::cache_folder;
use sources::{SOURCES, Source, Way};

/// What became of one way to get one VPN.
struct Step {
    vpn: &'static str,
    what: String,
    outcome: Outcome,
}

enum Outcome {
    /// It was there.
    There,
    Installed,
    /// It cannot be had from a registry.
    Nowhere(&'static str),
    Failed(String),
}

/// Installs these VPNs, or all.
pub(crate) fn run(names: &[String]) -> Result<()> {
    let known = |name: &&String| !SOURCES.iter().any(|source| source.name == **name);
    if let Some(unknown) = names.iter().find(known) {
        let all: Vec<&str> = SOURCES.iter().map(|source| source.name).collect();
        bail!("no VPN {unknown:?}; there are: {}", all.join(", "));
    }
    let cache = cache_folder().context("neither XDG_CACHE_HOME nor HOME is set")?;
    let mut installer = Installer {
        bin: cache.join("bin"),
        cache,
        packages: Packages::new(),
    };
    fs::create_dir_all(&installer.bin)
        .with_context(|| format!("cannot create {}", installer.bin.display()))?;
    let wanted = SOURCES
        .iter()
        .filter(|source| names.is_empty() || names.iter().any(|name| name == source.name));
    let mut steps = Vec::new();
    for source in wanted {
        for way in source.ways {
            steps.push(installer.step(source, way));
        }
    }
    summarise(&steps)
}

fn summarise(steps: &[Step]) -> Result<()> {
    println!("\n{:<13} {:<55} outcome", "vpn", "from");
    let mut failures = 0;
    for Step { vpn, what, outcome } in steps {
        let outcome = match outcome {
            Outcome::There => "there already".to_owned(),
            Outcome::Installed => "installed".to_owned(),
            Outcome::Nowhere(why) => format!("cannot be had: {why}"),
            Outcome::Failed(why) => {
                failures += 1;
                format!("FAILED: {why}")
            }
        };
        println!("{vpn:<13} {what:<55} {outcome}");
    }
    if failures > 0 {
        bail!("{failures} of {} could not be installed", steps.len());
    }
    Ok(())
}

struct Installer {
    cache: PathBuf,
    bin: PathBuf,
    packages: Packages,
}

impl Installer {
    fn step(&mut self, source: &Source, way: &'static Way) -> Step {
        let (what, outcome) = match way {
            Way::Debian { packages, .. } => {
                let what = format!("Debian {}", packages.join(", "));
                (what, self.debian(packages))
            }
            Way::Crate {
                name,
                version,
                needs,
            } => {
                let what = format!("crate {name} {version}");
                (what, self.cargo(name, version, needs))
            }
            Way::Go {
                module, version, ..
            } => (format!("Go {module} {version}"), self.go(way)),
            Way::Nowhere { why } => ("-".to_owned(), Ok(Outcome::Nowhere(why))),
        };
        Step {
            vpn: source.name,
            what,
            outcome: outcome.unwrap_or_else(|error| Outcome::Failed(format!("{error:#}"))),
        }
    }

    fn debian(&mut self, packages: &[&str]) -> Result<Outcome> {
        let is_there = |package: &&str| {
            let format = "--showformat=${db:Status-Status}";
            let output = Command::new("dpkg-query")
                .args(["--show", format, *package])
                .output();
            output.is_ok_and(|output| output.stdout == b"installed")
        };
        if packages.iter().all(is_there) {
            return Ok(Outcome::There);
        }
        if self.packages.install(packages) {
            return Ok(Outcome::Installed);
        }
        let command = self.packages.command(packages);
        bail!(
            command.map_or("there is no apt here".to_owned(), |command| {
                format!("by hand: {command}")
            })
        )
    }

    /// `cargo install` keeps a list of its own of what it has installed in which version.
    fn cargo(&mut self, name: &str, version: &str, needs: &[&str]) -> Result<Outcome> {
        let list = fs::read_to_string(self.cache.join(".crates.toml")).unwrap_or_default();
        if list.contains(&format!("\"{name} {version} ")) {
            return Ok(Outcome::There);
        }
        if !needs.is_empty() {
            self.debian(needs)
                .with_context(|| format!("building {name} needs {}", needs.join(", ")))?;
        }
        let mut command = Command::new(run::cargo_program());
        command.args(["install", "--locked", "--version", version, name, "--root"]);
        command.arg(&self.cache);
        // One folder for all: they share many dependencies.
        command.env("CARGO_TARGET_DIR", self.cache.join("build"));
        command.env_remove("CARGO_MANIFEST_DIR");
        run::visibly(&mut command)?;
        Ok(Outcome::Installed)
    }

    fn go(&self, way: &Way) -> Result<Outcome> {
        let Way::Go {
            module,
            version,
            commands,
            linker,
            stand_in,
            source,
        } = way
        else {
            bail!("not a Go module");
        };
        // Programs do not reliably say which version of their module they are.
        let note = self.cache.join("go").join(module.replace('/', "_"));
        let names: Vec<&str> = commands.iter().map(|(_, name)| *name).collect();
        let content = format!("{version} {}", names.join(" "));
        let noted = fs::read_to_string(&note).unwrap_or_default();
        let is_noted = noted.lines().any(|line| line == content);
        if is_noted && names.iter().all(|name| self.bin.join(name).is_file()) {
            return Ok(Outcome::There);
        }
        if !run::is_installed("go") {
            bail!("go not found; install Go 1.26 or newer");
        }
        let build = go::Build {
            folder: self.cache.join("build").join(module.replace('/', "_")),
            module,
            version,
            linker,
            stand_in: stand_in.as_ref(),
            source: *source,
        };
        build.prepare()?;
        for (package, name) in *commands {
            build.command(package, &self.bin.join(name))?;
        }
        write(&note, &format!("{noted}{content}\n"))?;
        Ok(Outcome::Installed)
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
