//! The trace file: metadata, record blocks, writer, reader. docs/trace-format.md describes the
//! file to the byte.
//!
//! [`Writer`] takes records ring by ring and stores them in compressed blocks; [`Reader`] gives
//! the events back in the order of time, in one pass and in bounded memory. A file that is damaged
//! or cut short is read as far as possible, and what is missing is stated as a [`Problem`].

mod batch;
mod codec;
mod command_output;
mod error;
mod event;
mod file;
mod format;
mod frames;
mod index;
mod merge;
pub mod model;
mod output;
mod pass;
mod problem;
mod reader;
mod totals;
mod upgrade;
mod varint;
mod writer;

pub use batch::Batch;
pub use error::TraceError;
pub use event::Event;
pub use file::{Existing, TraceFile};
pub use index::{Index, IndexEntry};
pub use pass::{Receiver, Summary};
pub(crate) use problem::Problems;
pub use problem::{Code, Problem, Severity};
pub use reader::{Input, Reader, Verdict};
pub use totals::Totals;
pub use upgrade::{FORMAT_VERSION, VERSIONS, Version, own_layouts};
pub use writer::Writer;

#[cfg(test)]
mod tests;
