//! Python with the modules of tests/python.txt, which read exports a second way.

use std::process::{Command, Stdio};

use vpnbench::lab::vpn::sources::cache_folder;

/// The Python that `cargo xtask setup` has given the modules, else the machine's own.
#[must_use]
pub fn python() -> Command {
    let own = cache_folder().map(|cache| cache.join("python/bin/python3"));
    match own.filter(|own| own.exists()) {
        Some(own) => Command::new(own),
        None => Command::new("python3"),
    }
}

/// Why modules, separated by commas, cannot be used here; None if they can.
#[must_use]
pub fn missing(modules: &str) -> Option<String> {
    let import = format!("import {modules}");
    let found = python()
        .args(["-c", &import])
        .stderr(Stdio::null())
        .status();
    let works = found.is_ok_and(|status| status.success());
    (!works).then(|| format!("python3 has no {modules}"))
}
