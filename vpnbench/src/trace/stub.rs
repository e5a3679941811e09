//! The shape of the reader that `report` is written against, until the reader itself is here.

use std::collections::BTreeMap;
use std::path::Path;

use super::Event;
use super::model::{Change, End, Start, Symbols};

/// How bad a [`Problem`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Events are missing.
    DataLoss,
    /// The file contradicts itself.
    Error,
}

/// Something wrong with a trace that does not keep the rest from being read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// A sentence with the place in the file.
    pub message: String,
}

/// What a whole read found beside the events.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Last frame.
    pub end: Option<End>,
    /// Changes while recording.
    pub changes: Vec<Change>,
    /// Kernel symbols.
    pub symbols: Symbols,
    /// Events lost per probe number.
    pub lost: BTreeMap<u8, u64>,
    /// What was wrong with the file.
    pub problems: Vec<Problem>,
    /// Whether the file ends before its end frame.
    pub truncated: bool,
}

/// Why a trace cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{path}: reading traces is not built in yet")]
pub struct TraceError {
    path: String,
}

/// Reads a trace.
#[derive(Debug)]
pub struct Reader {
    start: Start,
}

impl Reader {
    /// Opens a trace.
    pub fn open(path: &Path) -> Result<Reader, TraceError> {
        Err(TraceError {
            path: path.display().to_string(),
        })
    }

    /// The first frame.
    #[must_use]
    pub fn start(&self) -> &Start {
        &self.start
    }

    /// Calls `observe` with each event in the order of time.
    pub fn for_each(self, _observe: impl FnMut(Event<'_>)) -> Result<Summary, TraceError> {
        Ok(Summary::default())
    }
}
