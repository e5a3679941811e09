//! Audits a tree of benchmark results before anyone believes it: `vpnbench study DIR`.
//!
//! ```text
//! files -> layout (which file is which test) -> import (rows with path and pointer) -> Study
//! Study -> tables, audit, anomalies, claims -> Findings of `vpnbench.study.v1`
//! ```
//!
//! Every number keeps the file and the JSON pointer it came from, so that each statement can be
//! checked by hand. Failures, missing files and values that make no sense are data: they are
//! named and left out, never silently. Only `layout` touches the file system; everything after it
//! is a pure function of the [`Study`].

pub mod anomalies;
pub mod audit;
pub mod claims;
pub mod document;
pub mod import;
pub mod layout;
pub mod metrics;
pub mod model;
pub mod plots;
pub mod printed;
pub mod statistics;
pub mod tables;
pub mod terminal;
pub mod tidy_table;
pub mod web;

pub use layout::read;
pub use model::{Direction, Failure, Outcome, Row, Study, Test};

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Name of the schema of `vpnbench study --format json`.
pub const SCHEMA: &str = "vpnbench.study.v1";

/// What `vpnbench study` found in a tree.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Findings {
    /// `vpnbench.study.v1`.
    pub schema: String,
    /// The tree as given.
    pub root: String,
    /// How the tree is laid out.
    pub layout: String,
    /// Systems, the reference (no tunnel) first.
    pub systems: Vec<String>,
    /// Impairment profiles, mildest first.
    pub profiles: Vec<String>,
    /// Files read.
    pub files: u64,
    /// Measurements read.
    pub measurements: u64,
    /// Tests by outcome: `done`, `failed`, `missing`.
    pub tests: BTreeMap<String, u64>,
    /// Tables.
    pub tables: Vec<tables::Table>,
    /// What does not hold, by class.
    pub audit: Vec<audit::Finding>,
    /// Results that contradict an expectation.
    pub anomalies: Vec<anomalies::Anomaly>,
    /// Claims held against the data; empty without a claims file.
    pub claims: Vec<claims::Judged>,
    /// Printed tables held against the data; null without them.
    pub printed: Option<printed::Comparison>,
    /// What was left out, and why.
    pub problems: Vec<model::Problem>,
}

/// Runs everything over a tree that has been read.
#[must_use]
pub fn examine(
    study: &Study,
    claims: Option<&claims::File>,
    printed: Option<&printed::Tables>,
) -> Findings {
    let audit = audit::run(study);
    let mut tests = BTreeMap::new();
    for test in &study.tests {
        *tests.entry(test.outcome.name().to_owned()).or_default() += 1;
    }
    Findings {
        schema: SCHEMA.to_owned(),
        root: study.root.clone(),
        layout: study.layout.clone(),
        systems: study.systems.clone(),
        profiles: study.profiles.clone(),
        files: study.files,
        measurements: study.rows.len() as u64,
        tests,
        tables: tables::all(study),
        anomalies: anomalies::find(study, &audit),
        claims: claims.map_or_else(Vec::new, |file| claims::judge(study, &audit, file)),
        printed: printed.map(|tables| printed::compare(study, tables)),
        audit,
        problems: study.problems.clone(),
    }
}
