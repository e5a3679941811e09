//! Finding a VPN's programs, and asking them for their version.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::Build;
use super::sources::{self, Program, Source, Way};
use crate::lab::error::{LabError, Result};

/// How long a program may take to print its version.
const VERSION_LIMIT: Duration = Duration::from_secs(5);
/// Folders that root's PATH has and a user's often lacks; daemons are in them.
const SYSTEM_FOLDERS: [&str; 2] = ["/usr/sbin", "/sbin"];

/// The programs of a VPN, in the order of its row.
#[derive(Debug, Clone)]
pub(crate) struct Programs(Vec<(&'static Program, PathBuf)>);

impl Programs {
    /// Path of a program of the row.
    pub(super) fn path(&self, name: &str) -> Result<&Path> {
        let found = self.0.iter().find(|(program, _)| program.name == name);
        let missing = || LabError::failed("looking for", name)("it is not in the VPN's row");
        found.map(|(_, path)| path.as_path()).ok_or_else(missing)
    }

    /// Version of the first program, the daemon.
    pub(super) fn version(&self, source: &Source) -> Option<String> {
        let (program, path) = self.0.first()?;
        version(program, path, source)
    }
}

/// Where all programs of a VPN are; the first that is missing makes the run a skipped one.
pub(super) fn locate_all(source: &'static Source, build: Build) -> Result<Programs> {
    let mut found = Vec::new();
    for program in source.programs {
        let path = locate(source, program.name, build)
            .ok_or_else(|| LabError::Skipped(format!("{} not found", program.name)))?;
        found.push((program, path));
    }
    Ok(Programs(found))
}

/// Where a program of a VPN is.
#[must_use]
pub fn locate(source: &Source, program: &str, build: Build) -> Option<PathBuf> {
    let in_path = || in_path(program);
    let cached = || {
        let path = sources::cache_folder()?.join("bin").join(program);
        path.is_file().then_some(path)
    };
    // Tools that several VPNs share do not come in builds.
    let shared = program == "wg";
    match build {
        _ if shared => in_path(),
        Build::System => in_path(),
        Build::Cached => cached(),
        Build::Any if source.prefer_cached => cached().or_else(in_path),
        Build::Any => in_path().or_else(cached),
    }
}

fn in_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let given = env::split_paths(&path);
    // An empty PATH means that nothing is to be found, not even in the usual places.
    let usual = SYSTEM_FOLDERS.map(PathBuf::from);
    let has_usual = env::split_paths(&path).any(|folder| folder == Path::new("/usr/bin"));
    let usual = usual.into_iter().filter(|_| has_usual);
    given
        .chain(usual)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

/// The version a program prints; where it prints none, that of its Debian package or crate. None when
/// none is known.
#[must_use]
pub fn version(program: &Program, path: &Path, source: &Source) -> Option<String> {
    let printed = (!program.version.is_empty())
        .then(|| output_of(path, program.version))
        .flatten();
    let own = printed.as_deref().and_then(find_version);
    own.or_else(|| packaged(path, source))
        .or_else(|| installed_crate(path, source))
}

/// Version of the crate that a program in the lab's cache is from, as cargo noted it.
fn installed_crate(path: &Path, source: &Source) -> Option<String> {
    let folder = path.parent()?.parent()?;
    let program = path.file_name()?.to_str()?;
    let notes = fs::read_to_string(folder.join(".crates.toml")).ok()?;
    source.ways.iter().find_map(|way| match way {
        Way::Crate { name, .. } => noted(&notes, name, program),
        _ => None,
    })
}

/// From `"NAME VERSION (SOURCE)" = ["PROGRAM", ..]` in the section `v1`.
fn noted(notes: &str, name: &str, program: &str) -> Option<String> {
    let notes: toml::Table = notes.parse().ok()?;
    notes
        .get("v1")?
        .as_table()?
        .iter()
        .find_map(|(installed, programs)| {
            let version = installed.strip_prefix(name)?.strip_prefix(' ')?;
            let mut programs = programs.as_array()?.iter();
            let is_its = programs.any(|one| one.as_str() == Some(program));
            version
                .split(' ')
                .next()
                .filter(|_| is_its)
                .map(str::to_owned)
        })
}

/// The first word that looks like a version: digits and dots, perhaps after a `v`, perhaps with
/// a suffix after a dash.
fn find_version(text: &str) -> Option<String> {
    text.split_whitespace().find_map(|word| {
        let word = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let word = word.strip_prefix('v').unwrap_or(word);
        let numbers = word.split(['-', '+']).next()?;
        let parts: Vec<&str> = numbers.split('.').collect();
        let is_number = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        (parts.len() >= 2 && parts.iter().take(2).all(is_number)).then(|| word.to_owned())
    })
}

/// Version of the Debian package that a program in /usr belongs to.
fn packaged(path: &Path, source: &Source) -> Option<String> {
    if !path.starts_with("/usr") || path.starts_with("/usr/local") {
        return None;
    }
    let packages = source.ways.iter().find_map(|way| match way {
        Way::Debian { packages, .. } => packages.first(),
        _ => None,
    });
    let arguments = ["--show", "--showformat=${Version}", packages?];
    let version = output_of(Path::new("dpkg-query"), &arguments)?;
    (!version.is_empty()).then_some(version)
}

/// What a program writes to both outputs before it ends, if it does so in time.
fn output_of(path: &Path, arguments: &[impl AsRef<OsStr>]) -> Option<String> {
    let mut child = Command::new(path)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    let deadline = Instant::now() + VERSION_LIMIT;
    while child.try_wait().ok()?.is_none() {
        if Instant::now() >= deadline {
            let _ended = child.kill().and_then(|()| child.wait());
            return None;
        }
        thread::sleep(Duration::from_millis(2));
    }
    let mut text = String::new();
    let mut read = |stream: &mut dyn Read| stream.read_to_string(&mut text).is_ok();
    // A version that is not UTF-8 is none.
    let read_all = read(child.stdout.as_mut()?) && read(child.stderr.as_mut()?);
    read_all.then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_in_what_the_programs_print() {
        for (text, version) in [
            (
                "wireguard-go v0.0.20220316\n\nUserspace",
                Some("0.0.20220316"),
            ),
            ("Version: 1.6.1", Some("1.6.1")),
            ("tinc version 1.0.36 (built)", Some("1.0.36")),
            ("OpenVPN 2.6.14 x86_64-pc-linux-gnu", Some("2.6.14")),
            (
                "1.102.3-ERR-BuildInfo\n  go version",
                Some("1.102.3-ERR-BuildInfo"),
            ),
            ("easytier-core 2.0.3-~\n", Some("2.0.3")),
            ("Build name: unknown\nBuild version: unknown", None),
            ("", None),
        ] {
            assert_eq!(find_version(text).as_deref(), version, "{text}");
        }
    }

    #[test]
    fn cargo_notes_which_crate_a_program_is_from() {
        let notes = "[v1]\n\"a 1.0.0 (registry+x)\" = [\"a\"]\n\"b-c 3.1.1 (registry+x)\" = [\n\"b\",\n\"c\",\n]\n";
        assert_eq!(noted(notes, "b-c", "c").as_deref(), Some("3.1.1"));
        assert_eq!(noted(notes, "b-c", "a"), None);
        assert_eq!(noted(notes, "b", "b"), None);
    }

    #[test]
    fn a_program_that_does_not_end_has_no_version() {
        assert_eq!(output_of(Path::new("/no/such/program"), &["x"]), None);
    }
}
