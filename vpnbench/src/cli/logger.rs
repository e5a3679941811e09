//! Log lines on stderr.

use std::io::{self, Write as _};
use std::sync::{Mutex, PoisonError};

use log::{Level, LevelFilter, Log, Metadata, Record};

struct Stderr;

/// Lines that wait while something else has the terminal; None where nothing has.
static HELD: Mutex<Option<Vec<String>>> = Mutex::new(None);

/// Keeps lines until [`release`], while something else has the terminal.
pub(super) fn hold() {
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    held.get_or_insert_default();
}

/// Writes what was kept.
pub(super) fn release() {
    let held = HELD.lock().unwrap_or_else(PoisonError::into_inner).take();
    let mut stderr = io::stderr().lock();
    for line in held.into_iter().flatten() {
        let _ = writeln!(stderr, "{line}");
    }
}

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // What libraries say is for -v.
        let level = metadata.level();
        level <= log::max_level()
            && (metadata.target().starts_with("vpnbench")
                || level <= Level::Warn
                || log::max_level() >= LevelFilter::Debug)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let level = match record.level() {
                Level::Error => "error: ",
                Level::Warn => "warning: ",
                Level::Info => "",
                Level::Debug | Level::Trace => "debug: ",
            };
            let line = format!("vpnbench: {level}{}", record.args());
            let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
            match held.as_mut() {
                Some(held) => held.push(line),
                None => {
                    let _ = writeln!(io::stderr().lock(), "{line}");
                }
            }
        }
    }

    fn flush(&self) {}
}

/// Starts logging to stderr: what happens, errors only if `quiet`, more with each `verbose`.
pub(super) fn start(quiet: bool, verbose: u8) {
    let level = match (quiet, verbose) {
        (true, _) => LevelFilter::Error,
        (false, 0) => LevelFilter::Info,
        (false, 1) => LevelFilter::Debug,
        (false, _) => LevelFilter::Trace,
    };
    if log::set_logger(&Stderr).is_ok() {
        log::set_max_level(level);
    }
}
