//! The trace file: metadata, record blocks, writer, reader.

pub mod event;
pub mod model;
mod stub;

pub use event::Event;
pub use stub::{Problem, Reader, Severity, Summary, TraceError};
