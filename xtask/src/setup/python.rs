//! Python modules with which the tests read exports a second way, in an environment of their own: nothing of the
//! machine's Python changes.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::vpns::cache_folder;
use anyhow::{Context, Result};

use super::{Setup, absent, ok};
use crate::run;

/// Their names and versions, from the top folder.
const MODULES: &str = "tests/python.txt";
/// Debian's packages without which there is no environment.
const PACKAGES: [&str; 2] = ["python3", "python3-venv"];

impl Setup {
    /// The modules; without them some tests say that they are skipped.
    pub(super) fn python(&mut self) -> Result<()> {
        let Some(folder) = cache_folder().map(|cache| cache.join("python")) else {
            absent("a home folder for the Python modules of some tests");
            return Ok(());
        };
        let modules = run::root()?.join(MODULES);
        let wanted = fs::read_to_string(&modules)
            .with_context(|| format!("cannot read {}", modules.display()))?;
        // Written when all of it is there.
        let done = folder.join("modules.txt");
        let is_there = || fs::read_to_string(&done).is_ok_and(|there| there == wanted);
        if !is_there() && !self.check {
            println!(
                "install Python modules of {MODULES} in {}",
                folder.display()
            );
            match self.install_modules(&folder, &modules) {
                Ok(()) => fs::write(&done, &wanted)
                    .with_context(|| format!("cannot write {}", done.display()))?,
                Err(error) => println!("{error:#}"),
            }
        }
        if is_there() {
            ok("Python modules of the tests");
        } else {
            absent(
                "Python modules: some tests read exports with DuckDB, Polars and Perfetto's descriptors",
            );
        }
        Ok(())
    }

    fn install_modules(&mut self, folder: &PathBuf, modules: &PathBuf) -> Result<()> {
        // `ensurepip` is what Debian leaves to a package of its own.
        if !run::succeeds("python3", &["-c", "import venv, ensurepip"]) {
            self.packages.install(&PACKAGES);
        }
        let mut create = Command::new("python3");
        run::output(create.args(["-m", "venv", "--clear"]).arg(folder))?;
        let mut install = Command::new(folder.join("bin/python3"));
        install.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ]);
        run::output(install.arg("--requirement").arg(modules))?;
        Ok(())
    }
}
