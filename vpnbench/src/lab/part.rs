//! Programs of the lab's own. Each runs as a process of this same binary, so that it is measured,
//! ended and found like any other daemon: `vpnbench lab part NAME SETTINGS_JSON`.
//!
//! A part is a row in [`PARTS`]. It catches SIGTERM through [`super::signals`] (installed before it
//! starts), ends soon after, and returns; what it has to account for it writes before that.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::{LabError, Result};
use super::process::{Process, Program};
use super::signals;
use super::tunnel;
use super::undo::Undo;
use super::wire;

/// One program of the lab's own.
pub(super) struct Part {
    /// What it is called on the command line, and its process in `ps` (15 bytes at most).
    pub(super) name: &'static str,
    /// Runs until it is done or a signal arrives; gets its settings as JSON.
    pub(super) run: fn(&str) -> Result<()>,
}

/// Those that are no benchmark's.
const PARTS: &[Part] = &[
    Part {
        name: tunnel::NAME,
        run: tunnel::run,
    },
    Part {
        name: tunnel::relay::NAME,
        run: tunnel::relay::run,
    },
    Part {
        name: wire::NAME,
        run: wire::run,
    },
];

/// All of them.
fn parts() -> impl Iterator<Item = &'static Part> {
    PARTS.iter().chain(super::benchmark::PARTS)
}

/// The binary that holds the parts: `VPNBENCH` if set (for a test, whose own executable is another
/// program), else the running one.
pub fn program() -> Result<PathBuf> {
    match std::env::var_os("VPNBENCH") {
        Some(path) => Ok(path.into()),
        None => std::env::current_exe().map_err(LabError::failed("finding", "this program's file")),
    }
}

/// The command line of a part, after the program's name.
pub fn arguments(name: &str, settings: &impl Serialize) -> Result<Vec<String>> {
    let json = serde_json::to_string(settings).map_err(LabError::failed(
        "writing the settings of the lab's part",
        name,
    ))?;
    Ok(["lab", "part", name, &json].map(str::to_owned).to_vec())
}

/// Reads a part's settings. An error names the part and the key.
pub fn settings<T: DeserializeOwned>(name: &str, json: &str) -> Result<T> {
    serde_json::from_str(json).map_err(LabError::failed(
        "reading the settings of the lab's part",
        name,
    ))
}

/// Starts a part in a namespace, as a step of a run: it ends with the run.
pub(crate) fn start(
    undo: &mut Undo,
    name: &str,
    settings: &impl Serialize,
    netns: &Path,
    log: PathBuf,
) -> Result<Process> {
    let program = program()?;
    let arguments = arguments(name, settings)?;
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    undo.start(&Program {
        name: &program.to_string_lossy(),
        arguments: &arguments,
        netns,
        log,
    })
}

/// Runs a part in this process until it is done or a signal arrives.
pub fn run(name: &str, settings: &str) -> Result<()> {
    let part = parts().find(|part| part.name == name);
    let part = part.ok_or_else(|| {
        let names: Vec<&str> = parts().map(|part| part.name).collect();
        let there_are = format!("there is none; there are: {}", names.join(", "));
        LabError::failed("running the lab's part", name)(there_are)
    })?;
    signals::install()?;
    // A report then says which part it was instead of "vpnbench".
    let comm = std::ffi::CString::new(part.name).map_err(LabError::failed("naming", name))?;
    nix::sys::prctl::set_name(&comm).map_err(LabError::failed("naming", name))?;
    (part.run)(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_fit_a_thread_name() {
        let mut names: Vec<&str> = parts().map(|part| part.name).collect();
        assert!(names.iter().all(|name| name.len() <= 15), "{names:?}");
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
    }

    #[test]
    fn an_unknown_part_is_an_error_that_names_it() {
        let error = run("no-such-part", "{}").map_err(|error| error.to_string());
        assert!(error.is_err_and(|text| text.contains("no-such-part")));
    }

    #[test]
    fn settings_pass_through_the_command_line() {
        let Ok(line) = arguments("x", &("a b", 3)) else {
            panic!("no arguments")
        };
        assert_eq!(line[..3], ["lab", "part", "x"]);
        let read: Result<(String, u8)> = settings("x", &line[3]);
        assert_eq!(read.ok(), Some(("a b".to_owned(), 3)));
        let wrong: Result<u8> = settings("x", "\"y\"");
        assert!(wrong.is_err_and(|error| error.to_string().contains("part x")));
    }
}
