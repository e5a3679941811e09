//! The audit: what in a tree of results does not hold, before anyone explains it. One file per
//! class of mistake; the classes are part of the public interface.

pub mod conditions;
pub mod consistency;
pub mod counters;
pub mod dead_flows;
pub mod directions;
pub mod failures;
pub mod impairment;
pub mod missing;
pub mod normalised;
pub mod offered_load;
pub mod runs;
pub mod units;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::metrics::Metric;
use super::model::{Row, Study, Test};

/// Something in the tree that does not hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// Class, e.g. `audit-dead-flow`.
    pub class: String,
    /// Class and cell, unique within a report: `audit-dead-flow:tcp/Tinc/medium`.
    pub id: String,
    /// The problem in one sentence.
    pub title: String,
    /// Systems it concerns.
    pub systems: Vec<String>,
    /// Profile; null where it concerns several.
    pub profile: Option<String>,
    /// Benchmark.
    pub benchmark: String,
    /// Where to look.
    pub evidence: Vec<Evidence>,
    /// What the figure should be; null where the data cannot tell.
    pub corrected: Vec<Corrected>,
    /// What it does to the ranking or to what may be said.
    pub effect: String,
}

/// A value in a file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// File, relative to the tree.
    pub path: String,
    /// JSON pointer in it.
    pub pointer: String,
    /// The value as it stands there, or in the unit named.
    pub value: String,
    /// What it shows.
    pub note: String,
}

/// A figure and what it should be.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Corrected {
    /// Which figure: `tcp.throughput@Tinc/medium`.
    pub figure: String,
    /// Unit.
    pub unit: String,
    /// As made by the study's formula.
    pub plain: Option<f64>,
    /// As it should be.
    pub sound: Option<f64>,
    /// How the sound figure is made.
    pub formula: String,
}

/// Runs every class over a study.
#[must_use]
pub fn run(study: &Study) -> Vec<Finding> {
    let classes: [fn(&Study) -> Vec<Finding>; 12] = [
        units::find,
        missing::find,
        dead_flows::find,
        directions::find,
        conditions::find,
        normalised::find,
        counters::find,
        consistency::find,
        failures::find,
        runs::find,
        impairment::find,
        offered_load::find,
    ];
    classes.iter().flat_map(|find| find(study)).collect()
}

impl Evidence {
    /// A measurement as evidence.
    #[must_use]
    pub fn row(row: &Row, note: impl Into<String>) -> Evidence {
        Evidence {
            path: row.path.clone(),
            pointer: row.pointer.clone(),
            value: format!("{} {}", number(row.value), row.unit),
            note: note.into(),
        }
    }

    /// A test without a result as evidence.
    #[must_use]
    pub fn test(test: &Test, note: impl Into<String>) -> Evidence {
        let (value, pointer) = match &test.outcome {
            super::Outcome::Failed {
                message, pointer, ..
            } => (message.clone(), pointer.clone()),
            super::Outcome::Missing => ("no file".to_owned(), String::new()),
            super::Outcome::Done => ("done".to_owned(), test.pointer.clone()),
        };
        let path = if test.path.is_empty() {
            format!(
                "{}/{} ({} {})",
                test.system,
                test.profile,
                test.benchmark,
                test.link()
            )
        } else {
            test.path.clone()
        };
        Evidence {
            path,
            pointer,
            value,
            note: note.into(),
        }
    }
}

/// A number with no more digits than help.
#[must_use]
pub fn number(value: f64) -> String {
    let magnitude = value.abs();
    if value.fract() == 0.0 && magnitude < 1e15 {
        format!("{value:.0}")
    } else if magnitude >= 100.0 {
        format!("{value:.1}")
    } else if magnitude >= 1.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.3}")
    }
}

/// `metric@system/profile`
#[must_use]
pub fn name(metric: &Metric, system: &str, profile: &str) -> String {
    format!("{}@{system}/{profile}", metric.id)
}

/// The plain and the sound figure of a cell.
#[must_use]
pub fn corrected(
    study: &Study,
    metric: &Metric,
    system: &str,
    profile: &str,
    formula: &str,
) -> Corrected {
    let figure = metric.figure(study, system, profile);
    Corrected {
        figure: name(metric, system, profile),
        unit: metric.unit.to_owned(),
        plain: figure.plain,
        sound: figure.sound,
        formula: formula.to_owned(),
    }
}

/// What replacing a system's plain figure by the sound one does to its rank within a profile.
#[must_use]
pub fn rank_effect(study: &Study, metric: &Metric, system: &str, profile: &str) -> String {
    let order = |sound: bool| {
        let mut all: Vec<(&str, f64)> = study
            .systems
            .iter()
            .filter_map(|other| {
                let figure = metric.figure(study, other, profile);
                let value = if sound && other == system {
                    figure.sound
                } else {
                    figure.plain
                };
                Some((other.as_str(), value?))
            })
            .collect();
        all.sort_by(|a, b| {
            if metric.more_is_better {
                b.1.total_cmp(&a.1)
            } else {
                a.1.total_cmp(&b.1)
            }
        });
        all.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    let (plain, sound) = (order(false), order(true));
    let place = |order: &[&str]| order.iter().position(|name| *name == system);
    match (place(&plain), place(&sound)) {
        (Some(before), Some(after)) if before == after => {
            format!(
                "keeps rank {} of {} in {}",
                before + 1,
                plain.len(),
                metric.id
            )
        }
        (Some(before), Some(after)) => {
            let (from, to) = (before.min(after), before.max(after));
            let passed: Vec<&str> = plain[from..=to]
                .iter()
                .copied()
                .filter(|name| *name != system)
                .collect();
            let verb = if after < before {
                "passes"
            } else {
                "falls behind"
            };
            format!(
                "rank {} becomes {} of {} in {}: {verb} {}",
                before + 1,
                after + 1,
                plain.len(),
                metric.id,
                passed.join(", ")
            )
        }
        (Some(before), None) => format!(
            "rank {} of {} in {} rests on no live flow",
            before + 1,
            plain.len(),
            metric.id
        ),
        (None, _) => String::new(),
    }
}
