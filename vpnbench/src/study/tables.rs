//! The tables of a study, from any tree: systems down, profiles or columns across.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::audit::dead_flows::is_dead;
use super::metrics::{Figure, Metric, find};
use super::model::{Direction, Row, Study};
use super::statistics::{mean, mean_interval};

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

/// A count made comparable: name, title, unit, formula and how a row of `retransmits` becomes it.
type Rate = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    fn(&Study, &Row) -> Option<f64>,
);

/// Retransmissions beside what they are to be measured against, over all live flows of both
/// directions, single and parallel.
const RATES: [Rate; 3] = [
    (
        "retransmit.rate",
        "retransmissions per 1000 segments, both directions",
        "per 1000",
        "mean over live flows of 1000 x retransmits / (sent_bytes / mss_bytes)",
        per_1000_segments,
    ),
    (
        "retransmit.per_second",
        "retransmissions per second of a flow, both directions",
        "1/s",
        "mean over live flows of retransmits / seconds",
        per_second,
    ),
    (
        "retransmit.per_gigabyte",
        "retransmissions per GB sent, both directions",
        "1/GB",
        "mean over live flows of retransmits / (sent_bytes / 1e9)",
        per_gigabyte,
    ),
];

fn rates(study: &Study) -> Vec<Table> {
    RATES
        .iter()
        .filter_map(|rate| rate_table(study, rate))
        .collect()
}

fn rate_table(study: &Study, (id, title, unit, formula, of): &Rate) -> Option<Table> {
    let figure = |system: &str, profile: &str, benchmark: &str| {
        let rows = study.rows_of(system, profile, benchmark, "retransmits");
        let rates: Vec<f64> = rows.filter_map(|row| of(study, row)).collect();
        let value = mean(&rates);
        let expected = study.tests_of(system, profile, benchmark).count() * 2;
        Figure {
            plain: value,
            sound: value,
            interval: mean_interval(&rates),
            samples: rates.len(),
            expected,
            dead: 0,
        }
    };
    let columns: Vec<(String, &str, &str)> = study
        .profiles
        .iter()
        .flat_map(|profile| {
            let column = |benchmark| {
                (
                    format!("{profile} {benchmark}"),
                    profile.as_str(),
                    benchmark,
                )
            };
            ["tcp", "parallel"].map(column)
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
        id: (*id).to_owned(),
        title: (*title).to_owned(),
        unit: (*unit).to_owned(),
        formula: (*formula).to_owned(),
        more_is_better: false,
        columns: columns.iter().map(|(name, _, _)| name.clone()).collect(),
        rows: study.systems.iter().map(row).collect(),
    };
    table.rank();
    let mut figures = table.rows.iter().flat_map(|row| &row.figures);
    figures
        .any(|figure| figure.plain.is_some())
        .then_some(table)
}

/// The same count per second of a flow.
fn per_second(study: &Study, row: &Row) -> Option<f64> {
    let seconds = study
        .beside(row, "seconds")
        .filter(|_| !is_dead(study, row))?;
    (seconds.value > 0.0).then(|| row.value / seconds.value)
}

/// The same count per 10^9 bytes sent.
fn per_gigabyte(study: &Study, row: &Row) -> Option<f64> {
    let bytes = study
        .beside(row, "sent_bytes")
        .filter(|_| !is_dead(study, row))?;
    (bytes.value > 0.0).then(|| row.value / (bytes.value / 1e9))
}

/// Retransmissions per 1000 segments of a flow; `None` for dead flows and without a segment size.
#[must_use]
pub fn per_1000_segments(study: &Study, row: &Row) -> Option<f64> {
    if is_dead(study, row) {
        return None;
    }
    let segments = segments(study, row)?;
    (segments > 0.0).then(|| 1000.0 * row.value / segments)
}

/// Segments a flow sent: bytes / MSS.
#[must_use]
pub fn segments(study: &Study, row: &Row) -> Option<f64> {
    let bytes = study.beside(row, "sent_bytes")?.value;
    let forward = Row {
        direction: Direction::Forward,
        ..row.clone()
    };
    let mss = study.beside(&forward, "mss_bytes")?.value;
    (mss > 0.0).then(|| bytes / mss)
}
