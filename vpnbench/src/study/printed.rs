//! Printed tables held against the data: every number reproduced, or listed with both values.
//!
//! The file maps table to system to column to number. Columns are profiles or one of the names
//! below; a number agrees if it is the computed one rounded to the digits it is printed with.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::metrics::{Metric, find as metric};
use super::model::{Direction, Study};
use super::statistics::mean;
use super::tables::{per_1000_segments, segments};

/// `{table: {system: {column: number or null}}}`.
pub type Tables = BTreeMap<String, BTreeMap<String, BTreeMap<String, Option<f64>>>>;

/// The outcome.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Comparison {
    /// Numbers that agree.
    pub reproduced: u64,
    /// Numbers that do not.
    pub different: u64,
    /// Numbers without data in the tree.
    pub without_data: u64,
    /// Every number.
    pub numbers: Vec<Number>,
}

/// A printed number and its recomputation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Number {
    /// Table, system and column.
    pub cell: String,
    /// As printed; null for a printed gap.
    pub printed: Option<f64>,
    /// From the data.
    pub computed: Option<f64>,
    /// How.
    pub formula: String,
    /// `reproduced`, `different` or `without-data`.
    pub verdict: String,
}

/// Holds printed tables against a study.
#[must_use]
pub fn compare(study: &Study, tables: &Tables) -> Comparison {
    let mut comparison = Comparison::default();
    for (table, rows) in tables {
        for (system, columns) in rows {
            for (column, printed) in columns {
                let found = compute(study, table, system, column);
                let (computed, formula) = found.clone().unwrap_or((
                    None,
                    "no data or formula for this cell in the tree".to_owned(),
                ));
                let verdict = match (printed, computed, &found) {
                    (_, _, None) => "without-data",
                    (None, None, _) => "reproduced",
                    (Some(printed), Some(computed), _) if agrees(*printed, computed) => {
                        "reproduced"
                    }
                    (Some(_), None, _) => "without-data",
                    _ => "different",
                };
                match verdict {
                    "reproduced" => comparison.reproduced += 1,
                    "different" => comparison.different += 1,
                    _ => comparison.without_data += 1,
                }
                comparison.numbers.push(Number {
                    cell: format!("{table} / {system} / {column}"),
                    printed: *printed,
                    computed,
                    formula,
                    verdict: verdict.to_owned(),
                });
            }
        }
    }
    comparison
}

/// Whether a computed number rounds to the printed one, at the digits the printed one shows. A
/// JSON number has lost trailing zeros, so a whole number is taken as rounded to the unit.
fn agrees(printed: f64, computed: f64) -> bool {
    let digits = format!("{printed}")
        .split_once('.')
        .map_or(0, |(_, fraction)| fraction.len());
    let half = 0.5 * 10f64.powi(-i32::try_from(digits).unwrap_or(0));
    (printed - computed).abs() <= half * (1.0 + 1e-9)
}

/// The value and formula of a printed cell; `None` if the tree cannot have it.
fn compute(
    study: &Study,
    table: &str,
    system: &str,
    column: &str,
) -> Option<(Option<f64>, String)> {
    let system = study
        .systems
        .iter()
        .find(|name| name.eq_ignore_ascii_case(system))?;
    // "Metric Profile | Configuration": only the configuration the tree was made with is in it.
    let column = match column.split_once(" | ") {
        Some((column, "Default")) => column,
        Some(_) => return None,
        None => column,
    };
    if let Some(title) = column_of(column) {
        return title.compute(study, system, study.baseline()?);
    }
    if let Some(profile) = study
        .profiles
        .iter()
        .find(|profile| profile.eq_ignore_ascii_case(column))
    {
        return by_profile(table)?.compute(study, system, profile);
    }
    let (title, profile) = column.rsplit_once(' ')?;
    let profile = study
        .profiles
        .iter()
        .find(|name| name.eq_ignore_ascii_case(profile))?;
    titled(title)?.compute(study, system, profile)
}

/// How a cell is made.
#[derive(Debug, Clone, Copy)]
enum Formula {
    Plain(&'static str),
    /// Percent of the reference's figure.
    OfReference(&'static str),
    /// Percent above the reference's figure.
    Overhead(&'static str),
    /// Percent of the same system's baseline, at the mildest impairment.
    Retention(&'static str),
    /// Parallel over single.
    Scaling,
    /// Percent of segments retransmitted, forward.
    RetransmitPercent,
}

fn column_of(column: &str) -> Option<Formula> {
    Some(match column {
        "Throughput_Mbps" | "Single_Mbps" => Formula::Plain("tcp.throughput"),
        "Parallel_Mbps" => Formula::Plain("parallel.throughput"),
        "Retransmits" => Formula::Plain("tcp.retransmits"),
        "AvgRTT_ms" => Formula::Plain("ping.rtt"),
        "Receiver_Mbps" => Formula::Plain("udp.throughput"),
        "Loss_pct" => Formula::Plain("udp.loss"),
        "Mean_s" => Formula::Plain("download.time"),
        "Baseline_pct" => Formula::OfReference("tcp.throughput"),
        "Overhead_pct" => Formula::Overhead("download.time"),
        "Retention_pct" => Formula::Retention("tcp.throughput"),
        "Scaling" => Formula::Scaling,
        _ => return None,
    })
}

fn by_profile(table: &str) -> Option<Formula> {
    let name = table.strip_prefix("tab:").unwrap_or(table);
    let (benchmark, _) = name.split_once('_')?;
    Some(Formula::Plain(match benchmark {
        "tcp" => "tcp.throughput",
        "parallel" => "parallel.throughput",
        "udp" => "udp.throughput",
        "ping" | "latency" => "ping.rtt",
        "rist" | "stream" => "stream.quality",
        "nix" | "download" => "download.time",
        "quic" | "qperf" => "quic.throughput",
        _ => return None,
    }))
}

fn titled(title: &str) -> Option<Formula> {
    Some(match title {
        "Single TCP" => Formula::Plain("tcp.throughput"),
        "Parallel TCP" => Formula::Plain("parallel.throughput"),
        "Nix cache" | "Download" => Formula::Plain("download.time"),
        "Retransmit_pct" => Formula::RetransmitPercent,
        _ => return None,
    })
}

impl Formula {
    fn compute(self, study: &Study, system: &str, profile: &str) -> Option<(Option<f64>, String)> {
        let plain = |id: &str, system: &str, profile: &str| {
            metric(id).and_then(|metric| metric.figure(study, system, profile).plain)
        };
        let formula = |id: &str| metric(id).map_or_else(String::new, Metric::formula);
        let reference = study.reference();
        Some(match self {
            Formula::Plain(id) => (plain(id, system, profile), formula(id)),
            Formula::OfReference(id) => {
                let share = plain(id, system, profile)
                    .zip(plain(id, reference?, profile))
                    .map(|(own, bare)| 100.0 * own / bare);
                (
                    share,
                    format!("100 x ({}) / the same of the bare link", formula(id)),
                )
            }
            Formula::Overhead(id) => {
                let bare = reference?;
                // A table prints no overhead for the reference itself.
                let share = (system != bare)
                    .then(|| plain(id, system, profile).zip(plain(id, bare, profile)))
                    .flatten();
                (
                    share.map(|(own, bare)| 100.0 * (own / bare - 1.0)),
                    format!("100 x (({}) / the same of the bare link - 1)", formula(id)),
                )
            }
            Formula::Retention(id) => {
                let mildest = study
                    .profiles
                    .iter()
                    .find(|name| Some(name.as_str()) != study.baseline())?;
                let share = plain(id, system, mildest)
                    .zip(plain(id, system, profile))
                    .map(|(low, base)| 100.0 * low / base);
                (
                    share,
                    format!(
                        "100 x ({} at {mildest}) / the same at {profile}",
                        formula(id)
                    ),
                )
            }
            Formula::Scaling => {
                let ratio = plain("parallel.throughput", system, profile)
                    .zip(plain("tcp.throughput", system, profile))
                    .map(|(all, one)| all / one);
                (
                    ratio,
                    "(sum over links of parallel.sent_bps) / (mean over links of tcp.sent_bps)"
                        .to_owned(),
                )
            }
            Formula::RetransmitPercent => {
                let rates: Vec<f64> = study
                    .rows_of(system, profile, "tcp", "retransmits")
                    .filter(|row| {
                        row.direction == Direction::Forward && segments(study, row).is_some()
                    })
                    .filter_map(|row| Some(per_1000_segments(study, row)? / 10.0))
                    .collect();
                (
                    mean(&rates),
                    "mean over links of 100 x retransmits / (sent_bytes / mss_bytes), forward"
                        .to_owned(),
                )
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::agrees;

    #[test]
    fn rounding_to_the_printed_digits() {
        assert!(agrees(29.6, 29.649));
        assert!(!agrees(29.6, 29.66));
        assert!(agrees(1398.0, 1398.49));
        assert!(!agrees(0.92, 0.93));
    }
}
