//! Drains the ring buffers, snapshots the environment, writes the trace.

pub mod environment;
