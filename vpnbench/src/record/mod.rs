//! Drains the ring buffers, snapshots the environment, writes the trace.

pub mod clock;
// command
mod drain;
// follow
mod kallsyms;
// session


