//! What can go wrong in the lab, naming the operation, the object and the next step.

use std::error::Error;
use std::io;
use std::path::Path;
use std::time::Duration;

/// Result of a lab operation.
pub type Result<T> = std::result::Result<T, LabError>;

/// A lab operation that did not succeed. Whatever had been created is removed either way.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Something the run needs is not installed; a test counts as skipped, not as failed.
    #[error("skipped: {0}")]
    Skipped(String),
    /// The user may not do it.
    #[error("the lab creates network namespaces and needs root: run it with sudo")]
    NotPermitted,
    /// SIGINT, SIGTERM or SIGHUP arrived.
    #[error("interrupted")]
    Interrupted,
    /// An operation on an object failed.
    #[error("{operation} {object}: {source}")]
    Failed {
        /// What was tried, as a gerund.
        operation: &'static str,
        /// On what.
        object: String,
        /// Why it failed.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A condition was not met in time.
    #[error("waited {} s for {what}: {hint}", .limit.as_secs_f32())]
    TimedOut {
        /// The condition.
        what: String,
        /// How long it had.
        limit: Duration,
        /// What to look at; the end of a daemon's log when there is one.
        hint: String,
    },
    /// A program ended although it was still needed.
    #[error("{program} ended while waiting for {what}: {log}")]
    Ended {
        /// The program.
        program: String,
        /// The condition it was to bring about.
        what: String,
        /// End of its log.
        log: String,
    },
}

impl LabError {
    /// Builds [`LabError::Failed`], for `map_err`.
    pub(crate) fn failed<E: Into<Box<dyn Error + Send + Sync>>>(
        operation: &'static str,
        object: impl ToString,
    ) -> impl FnOnce(E) -> LabError {
        let object = object.to_string();
        move |source| LabError::Failed {
            operation,
            object,
            source: source.into(),
        }
    }

    /// Builds [`LabError::Failed`] about a file.
    pub(crate) fn file(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LabError {
        Self::failed(operation, path.display())
    }
}
