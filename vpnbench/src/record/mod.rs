//! Drains the ring buffers, snapshots the environment, writes the trace.

pub mod clock;
mod command;
mod drain;
mod follow;
mod kallsyms;
pub mod session;

pub use session::{Outcome, Request, record};
