//! Drains the ring buffers, snapshots the environment, writes the trace.

mod calls;
pub mod clock;
mod command;
mod drain;
mod ending;
pub mod environment;
mod follow;
mod go_functions;
mod interrupt;
mod kallsyms;
mod observer;
mod progress;
pub mod session;
mod silence;
mod statistics;
mod tee;
mod user_code;

pub use observer::Observer;
pub use session::{Outcome, Reason, RecordError, Request, command_of, record};
