//! What a finding consists of, as it stands in reports.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the evidence says about a claim.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Verdict {
    Supported,
    Refuted,
    #[default]
    Unknown,
}

/// One explained fact.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// Stable name; `vpnbench explain ID` says what it means.
    pub id: String,
    /// What the evidence says.
    pub verdict: Verdict,
    /// Probability that the verdict is right, from the counts behind it; null where it is unknown.
    pub confidence: Option<f64>,
    /// Share of the problem it accounts for: of the time the senders were busy, of the packets that did
    /// not arrive, or of the time a packet takes. Null where that cannot be said.
    pub share: Option<f64>,
    /// One sentence with the main figures.
    pub summary: String,
    /// The figures, most telling first.
    pub evidence: Vec<Evidence>,
    /// What to do about it.
    pub remedy: Option<String>,
    /// The observation that would refute it.
    pub refuted_by: Option<String>,
    /// Why it is unknown.
    #[serde(default)]
    pub reason: Option<String>,
    /// Whether there was anything it could apply to: false for a claim about TCP in a run without TCP.
    #[serde(default)]
    pub applicable: bool,
    /// Supported findings of this run that it follows from; it ranks below them.
    #[serde(default)]
    pub consequence_of: Vec<String>,
    /// Whether what it may follow from has no part in it in this run.
    #[serde(skip)]
    pub stands_alone: bool,
}

/// A measured value behind a finding.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// What was measured.
    pub metric: String,
    /// The value.
    pub value: Option<f64>,
    /// Its unit.
    pub unit: String,
    /// What it would be without the problem.
    pub expected: Option<String>,
    /// Part of the report it comes from.
    pub source: String,
}

impl Evidence {
    /// A value with its unit and the part of the report it comes from.
    #[must_use]
    pub fn new(metric: impl Into<String>, value: f64, unit: &str, source: &str) -> Evidence {
        Evidence {
            metric: metric.into(),
            value: Some(value),
            unit: unit.to_owned(),
            expected: None,
            source: source.to_owned(),
        }
    }

    /// The same, with what it would be without the problem.
    #[must_use]
    pub fn expected(mut self, expected: impl Into<String>) -> Evidence {
        self.expected = Some(expected.into());
        self
    }
}
