//! The tables of a study, from any tree: systems down, profiles or columns across.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::metrics::{Figure, Metric, find};
use super::model::Study;

/// A table.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Table {
    /// Stable name.
    pub id: String,
    /// Title.
    pub title: String,
    /// Unit of the cells.
    pub unit: String,
    /// How the plain figures are made.
    pub formula: String,
    /// Whether more is better.
    pub more_is_better: bool,
    /// Columns.
    pub columns: Vec<String>,
    /// Rows.
    pub rows: Vec<TableRow>,
}

/// A row of a table.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TableRow {
    /// System.
    pub system: String,
    /// A figure per column.
    pub figures: Vec<Figure>,
}

/// The metrics that get a table by profile, in the order of the report.
const BY_PROFILE: &[&str] = &[
    "tcp.throughput",
    "tcp.retransmits",
    "tcp.cwnd_max",
    "parallel.throughput",
    "udp.throughput",
    "udp.loss",
    "ping.rtt",
    "ping.loss",
    "quic.throughput",
    "quic.cpu",
    "stream.quality",
    "download.time",
    "connect.time",
    "reconnect.time",
];

/// All tables that the tree has data for.
#[must_use]
pub fn all(study: &Study) -> Vec<Table> {
    let mut tables: Vec<Table> = BY_PROFILE
        .iter()
        .filter_map(|id| find(id))
        .map(|metric| by_profile(study, metric))
        .filter(|table| {
            table
                .rows
                .iter()
                .any(|row| row.figures.iter().any(|figure| figure.plain.is_some()))
        })
        .collect();
    tables.extend(rates(study));
    tables
}

fn by_profile(study: &Study, metric: &Metric) -> Table {
    let row = |system: &String| TableRow {
        system: system.clone(),
        figures: study
            .profiles
            .iter()
            .map(|profile| metric.figure(study, system, profile))
            .collect(),
    };
    let mut table = Table {
        id: metric.id.to_owned(),
        title: metric.title.to_owned(),
        unit: metric.unit.to_owned(),
        formula: metric.formula(),
        more_is_better: metric.more_is_better,
        columns: study.profiles.clone(),
        rows: study.systems.iter().map(row).collect(),
    };
    table.rank();
    table
}

impl Table {
    /// Best first by the sound figure of the first column that has any.
    fn rank(&mut self) {
        let column = (0..self.columns.len())
            .find(|at| self.rows.iter().any(|row| row.figures[*at].sound.is_some()));
        let Some(column) = column else { return };
        let more = self.more_is_better;
        self.rows.sort_by(|a, b| {
            let worst = if more { f64::MIN } else { f64::MAX };
            let value = |row: &TableRow| row.figures[column].sound.unwrap_or(worst);
            let order = value(a).total_cmp(&value(b));
            if more { order.reverse() } else { order }
        });
    }
}

/// Retransmissions per 1000 segments sent, single and parallel: counts made comparable across
/// durations, volumes and segment sizes. Segments are bytes sent / MSS.
fn rates(study: &Study) -> Option<Table> {
    let figure = |system: &str, profile: &str, benchmark: &str| {
        let rates: Vec<f64> = study
            .rows_of(system, profile, benchmark, "retransmits")
            .filter_map(|row| per_1000_segments(study, row))
            .collect();
        let value = super::statistics::mean(&rates);
        let expected = study.tests_of(system, profile, benchmark).count() * 2;
        Figure {
            plain: value,
            sound: value,
            samples: rates.len(),
            expected,
            dead: 0,
        }
    };
    let columns: Vec<(String, &str, &str)> = study
        .profiles
        .iter()
        .flat_map(|profile| {
            ["tcp", "parallel"].map(|benchmark| {
                (
                    format!("{profile} {benchmark}"),
                    profile.as_str(),
                    benchmark,
                )
            })
        })
        .collect();
    let row = |system: &String| TableRow {
        system: system.clone(),
        figures: columns
            .iter()
            .map(|(_, profile, benchmark)| figure(system, profile, benchmark))
            .collect(),
    };
    let mut table = Table {
        id: "retransmit.rate".to_owned(),
        title: "retransmissions per 1000 segments, both directions".to_owned(),
        unit: "per 1000".to_owned(),
        formula: "mean over live flows of 1000 x retransmits / (sent_bytes / mss_bytes)".to_owned(),
        more_is_better: false,
        columns: columns.iter().map(|(name, _, _)| name.clone()).collect(),
        rows: study.systems.iter().map(row).collect(),
    };
    table.rank();
    let any = table
        .rows
        .iter()
        .any(|row| row.figures.iter().any(|figure| figure.plain.is_some()));
    any.then_some(table)
}

/// Retransmissions per 1000 segments of a flow; `None` for dead flows and without a segment size.
#[must_use]
pub fn per_1000_segments(study: &Study, row: &super::model::Row) -> Option<f64> {
    if super::audit::dead_flows::is_dead(study, row) {
        return None;
    }
    let segments = segments(study, row)?;
    (segments > 0.0).then(|| 1000.0 * row.value / segments)
}

/// Segments a flow sent: bytes / MSS.
#[must_use]
pub fn segments(study: &Study, row: &super::model::Row) -> Option<f64> {
    let bytes = study.beside(row, "sent_bytes")?.value;
    let forward = super::model::Row {
        direction: super::model::Direction::Forward,
        ..row.clone()
    };
    let mss = study.beside(&forward, "mss_bytes")?.value;
    (mss > 0.0).then(|| bytes / mss)
}
