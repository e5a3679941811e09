//! The trace file: metadata, record blocks, writer, reader.

pub mod event;
pub mod model;

pub use event::Event;
