//! What an analysis met and could not make whole. Loss is data: it is typed, and the report shows it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How much a problem takes away from the figures.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Worth knowing; no figure is wrong.
    Info,
    /// Figures are lower bounds or parts are missing.
    DataLoss,
    /// A figure could not be computed at all.
    Error,
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// How much it takes away.
    pub severity: Severity,
    /// The part of the report it concerns, e.g. `taps` or `trace`.
    pub part: String,
    /// One plain sentence.
    pub message: String,
}

impl Problem {
    /// Worth knowing; no figure is wrong.
    #[must_use]
    pub fn info(part: &str, message: impl Into<String>) -> Problem {
        Problem {
            severity: Severity::Info,
            part: part.to_owned(),
            message: message.into(),
        }
    }

    /// Figures are lower bounds or parts are missing.
    #[must_use]
    pub fn data_loss(part: &str, message: impl Into<String>) -> Problem {
        Problem {
            severity: Severity::DataLoss,
            part: part.to_owned(),
            message: message.into(),
        }
    }
}
