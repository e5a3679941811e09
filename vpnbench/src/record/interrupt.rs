//! The second Ctrl-C.

use nix::sys::signal::{SigHandler, Signal, raise, signal};

/// From here on SIGINT and SIGTERM end the process at once: the kernel detaches what a dead
/// process had attached, and the trace is complete up to its last block.
pub(super) fn back_to_default() {
    for number in [Signal::SIGINT, Signal::SIGTERM] {
        // SAFETY: the default action runs no code of ours.
        let _ = unsafe { signal(number, SigHandler::SigDfl) };
    }
}

/// Ends the process as an interrupt nobody handles would.
pub(super) fn end_now() {
    back_to_default();
    // Fails only for a signal that does not exist.
    let _ = raise(Signal::SIGINT);
}
