//! Log lines on stderr.

use std::io::{self, Write as _};

use log::{Level, LevelFilter, Log, Metadata, Record};

struct Stderr;

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
            let _ = writeln!(io::stderr().lock(), "vpnbench: {level}{}", record.args());
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
