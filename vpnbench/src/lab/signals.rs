//! Turns SIGINT, SIGTERM and SIGHUP into a flag, so that a run ends by unwinding its undo stack.

use std::os::raw::{c_int, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use libc::siginfo_t;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use super::error::{LabError, Result};

const HANDLED: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

static RECEIVED: AtomicUsize = AtomicUsize::new(0);
/// The handlers found at installation, which are called as well.
static PREVIOUS: [OnceLock<SigHandler>; HANDLED.len()] = [const { OnceLock::new() }; HANDLED.len()];

/// Catches the signals from now on, for the life of the process. Handlers installed before (or
/// after, by tokio) keep working.
pub(crate) fn install() -> Result<()> {
    static INSTALLED: OnceLock<std::result::Result<(), nix::Error>> = OnceLock::new();
    INSTALLED
        .get_or_init(catch_all)
        .map_err(LabError::failed("catching", "signals"))
}

fn catch_all() -> nix::Result<()> {
    // Without SA_RESTART: a blocking wait returns and notices the flag.
    let action = SigAction::new(
        SigHandler::SigAction(on_signal),
        SaFlags::empty(),
        SigSet::empty(),
    );
    for (signal, previous) in HANDLED.into_iter().zip(&PREVIOUS) {
        // SAFETY: `on_signal` only touches atomics and calls the handler that was there before.
        let found = unsafe { sigaction(signal, &action) }?;
        if matches!(found.handler(), SigHandler::SigIgn) {
            // Ignored on purpose (nohup): put it back.
            // SAFETY: restores the action this process had.
            unsafe { sigaction(signal, &found) }?;
        }
        let _first = previous.set(found.handler());
    }
    Ok(())
}

extern "C" fn on_signal(number: c_int, info: *mut siginfo_t, context: *mut c_void) {
    RECEIVED.fetch_add(1, Ordering::SeqCst);
    let index = HANDLED.iter().position(|signal| *signal as c_int == number);
    match index.and_then(|index| PREVIOUS[index].get()) {
        Some(SigHandler::Handler(previous)) => previous(number),
        Some(SigHandler::SigAction(previous)) => previous(number, info, context),
        _ => {}
    }
}

/// How many of the signals arrived since the first [`install`].
#[must_use]
pub fn received() -> usize {
    RECEIVED.load(Ordering::SeqCst)
}

/// Fails once a signal has arrived.
pub(crate) fn check() -> Result<()> {
    if received() == 0 {
        Ok(())
    } else {
        Err(LabError::Interrupted)
    }
}
