//! Somebody who looks on while a recording is made.

use std::fmt::Debug;
use std::fs::File;

/// Reads a trace while it is written. Called by the recording's own thread, after it has dropped the
/// privileges that it does not need: threads that are started here have no more.
pub trait Observer: Debug + Send + Sync {
    /// Everything is watched and signals are caught. `trace` is at its first byte.
    fn started(&self, trace: File);

    /// Whether the recording should end, as by Ctrl-C.
    fn wants_end(&self) -> bool;

    /// The recording ends: what is on the screen has to go before this returns. The rest of the trace is
    /// still to come.
    fn ending(&self);
}
