//! apt, where there is one and the user may use it. Nothing is ever removed.

use std::process::Command;

use crate::run;

const INSTALL: [&str; 4] = ["install", "--yes", "--no-install-recommends", "--no-remove"];

/// The machine's package manager.
pub(crate) struct Packages {
    has_apt: bool,
    updated: bool,
}

impl Packages {
    /// Looks for apt.
    pub(crate) fn new() -> Packages {
        Packages {
            has_apt: run::is_installed("apt-get"),
            updated: false,
        }
    }

    /// The command that installs these packages, where there is one.
    pub(crate) fn command(&self, packages: &[&str]) -> Option<String> {
        let sudo = if run::is_root() { "" } else { "sudo " };
        let packages = packages.join(" ");
        self.has_apt.then(|| {
            format!("{sudo}apt-get install --no-install-recommends --no-remove {packages}")
        })
    }

    /// Installs packages, all or none, if this user may; whether it worked.
    pub(crate) fn install(&mut self, packages: &[&str]) -> bool {
        if !self.has_apt || !run::is_root() {
            return false;
        }
        self.refresh();
        println!("install {}", packages.join(" "));
        quietly(apt().args(INSTALL).args(packages))
    }

    /// Refreshes the package lists, once. A mirror that cannot be reached is apt's to report: the
    /// lists that are there may do.
    pub(crate) fn refresh(&mut self) {
        if !self.updated {
            self.updated = true;
            println!("install (apt-get update)");
            if !quietly(apt().arg("update")) {
                println!("going on with the package lists that are there");
            }
        }
    }
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.arg("-qq").env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Runs apt; its output matters only when it fails.
fn quietly(command: &mut Command) -> bool {
    match command.output() {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            println!("{} failed:\n{}", run::line_of(command), text.trim_end());
            false
        }
        Err(error) => {
            println!("{}: {error}", run::line_of(command));
            false
        }
    }
}
