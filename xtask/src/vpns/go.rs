//! Commands of Go modules, built in a throw-away module of our own: unlike `go install`, that also
//! works for a module whose requirements have to be replaced, and for a program of this repository.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::sources::StandIn;
use super::write;
use crate::run;

/// A throw-away module that requires one module.
pub(super) struct Build<'a> {
    pub(super) folder: PathBuf,
    pub(super) module: &'a str,
    pub(super) version: &'a str,
    pub(super) linker: &'a str,
    pub(super) stand_in: Option<&'a StandIn>,
    pub(super) source: Option<&'a str>,
}

impl Build<'_> {
    /// Writes the module and resolves what it requires.
    pub(super) fn prepare(&self) -> Result<()> {
        let mut module = "module vpnbench.invalid/throwaway\n\ngo 1.25\n".to_owned();
        if let Some(stand_in) = self.stand_in {
            let replace = format!("\nreplace {} => ./stand-in\n", stand_in.module);
            module.push_str(&replace);
            let folder = self.folder.join("stand-in");
            write(
                &folder.join("go.mod"),
                &format!("module {}\n\ngo 1.22\n", stand_in.module),
            )?;
            write(&folder.join("stand_in.go"), stand_in.source)?;
        }
        write(&self.folder.join("go.mod"), &module)?;
        if let Some(source) = self.source {
            write(&self.folder.join("main.go"), source)?;
        }
        let wanted = format!("{}@{}", self.module, self.version);
        run::visibly(self.go().args(["get", &wanted]))?;
        self.take_over_checksums()
    }

    /// The checksum database does not know every version that a module requires; the module itself,
    /// whose own checksum has been verified, lists them.
    fn take_over_checksums(&self) -> Result<()> {
        let folder = run::output(
            self.go()
                .args(["list", "-m", "-f", "{{.Dir}}", self.module]),
        )?;
        let theirs = Path::new(folder.trim()).join("go.sum");
        let mut all = fs::read_to_string(self.folder.join("go.sum")).unwrap_or_default();
        all.push_str(&fs::read_to_string(theirs).unwrap_or_default());
        write(&self.folder.join("go.sum"), &all)
    }

    /// Builds one package into a program.
    pub(super) fn command(&self, package: &str, program: &Path) -> Result<()> {
        let flags = format!("-s -w {}", self.linker);
        let arguments = ["build", "-trimpath", "-ldflags", flags.trim_end(), "-o"];
        run::visibly(
            self.go()
                .args(arguments.map(OsStr::new))
                .arg(program)
                .arg(package),
        )
    }

    fn go(&self) -> Command {
        let mut command = Command::new("go");
        command.current_dir(&self.folder);
        // `-mod=mod`: the checksums of packages that only a command needs are added as it builds.
        command.env("GOFLAGS", "-mod=mod -buildvcs=false");
        command.env("CGO_ENABLED", "0");
        command
    }
}
