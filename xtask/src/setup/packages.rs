//! apt, where there is one and the user may use it. Nothing is ever removed.

use std::process::Command;

use crate::run;

const INSTALL: [&str; 4] = ["install", "--yes", "--no-install-recommends", "--no-remove"];

/// The machine's package manager.
pub(super) struct Packages {
    has_apt: bool,
    updated: bool,
}

impl Packages {
    /// Looks for apt.
    pub(super) fn new() -> Packages {
        Packages {
            has_apt: run::is_installed("apt-get"),
            updated: false,
        }
    }

    /// The command that installs these packages, where there is one.
    pub(super) fn command(&self, packages: &[&str]) -> Option<String> {
        let sudo = if run::is_root() { "" } else { "sudo " };
        let packages = packages.join(" ");
        self.has_apt.then(|| {
            format!("{sudo}apt-get install --no-install-recommends --no-remove {packages}")
        })
    }

    /// Installs packages, all or none, if this user may; whether it worked.
    pub(super) fn install(&mut self, packages: &[&str]) -> bool {
        if !self.has_apt || !run::is_root() {
            return false;
        }
        self.update();
        println!("install {}", packages.join(" "));
        apt()
            .args(INSTALL)
            .args(packages)
            .status()
            .is_ok_and(|status| status.success())
    }

    /// Refreshes the package lists, once. A mirror that cannot be reached is apt's to report: the
    /// lists that are there may do.
    fn update(&mut self) {
        if !self.updated {
            self.updated = true;
            println!("install (apt-get update)");
            let done = apt()
                .arg("update")
                .status()
                .is_ok_and(|status| status.success());
            if !done {
                println!("apt-get update failed; going on with the lists that are there");
            }
        }
    }
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.arg("-qq").env("DEBIAN_FRONTEND", "noninteractive");
    command
}
