//! The trace file: metadata, record blocks, writer, reader.

pub mod model;
