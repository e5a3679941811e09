//! What a matrix came to: a row per combination, a line per run.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::analysis::statistics::Summary;
use crate::lab::campaign::{Campaign, Finished, State, by_variant};
use crate::lab::outcome::{RunOutcome, Status};
use crate::lab::scenario::Scenario;
use crate::lab::table;
use crate::lab::vpn::{Vpn, listing};
use crate::report::table::{Align, Screen, Table};

/// Name of this schema.
pub(super) const SCHEMA: &str = "vpnbench.matrix.v1";

/// Figures of the terminal's table, as far as a run has them; the files have all.
const SHOWN: [&str; 12] = [
    "quality_ratio",
    "transfer_s",
    "connect_s",
    "gap_s",
    "throughput_bps_received",
    "reverse_throughput_bps_received",
    "retransmits",
    "rtt_us_mean",
    "rtt_us_p50",
    "rtt_us_p99",
    "loss_ratio",
    "first_byte_us_p50",
];

/// One combination.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Row {
    /// Value by axis.
    pub labels: BTreeMap<String, String>,
    /// Directory of its repetitions below the matrix's.
    pub directory: PathBuf,
    /// What the VPN's program says of itself; null if it was never started.
    pub vpn_version: Option<String>,
    /// Runs that ended well.
    pub done: usize,
    /// Why the others did not, each reason once: "skipped: zerotier-one not found".
    pub reasons: BTreeSet<String>,
    /// Over the runs that ended well.
    pub figures: BTreeMap<String, Summary>,
}

/// A matrix that was run, whole or in part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MatrixResult {
    /// `vpnbench.matrix.v1`.
    pub schema: String,
    /// Names of the axes, slowest first.
    pub axes: Vec<String>,
    /// How often each combination was to run.
    pub repetitions: u32,
    /// Seed of the order.
    pub seed: u64,
    /// Whether every run was made.
    pub complete: bool,
    /// One per combination, in the order of the axes.
    pub rows: Vec<Row>,
    /// The scenario of the first combination, defaults included.
    pub scenario: Option<Scenario>,
    /// Every run with its directory.
    #[schemars(with = "Vec<serde_json::Value>")]
    pub runs: Vec<Finished>,
}

impl MatrixResult {
    /// Sums up what is finished.
    #[must_use]
    pub fn of(campaign: &Campaign, state: &State) -> MatrixResult {
        let groups = by_variant(state, campaign.variants.len());
        let rows = campaign.variants.iter().zip(groups).map(|(variant, runs)| {
            let mut row = row(&runs);
            row.labels = variant.labels.iter().cloned().collect();
            row.directory.clone_from(&variant.directory);
            row
        });
        let first = campaign.variants.first();
        let axes = first.map(|variant| variant.labels.iter().map(|(name, _)| name.clone()));
        MatrixResult {
            schema: SCHEMA.to_owned(),
            axes: axes.into_iter().flatten().collect(),
            repetitions: campaign.repetitions,
            seed: campaign.seed,
            complete: campaign.cells().iter().all(|cell| state.has(*cell)),
            rows: rows.collect(),
            scenario: first.map(|variant| variant.scenario.clone()),
            runs: state.finished().to_vec(),
        }
    }

    /// Writes the table for people.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn write_table(&self, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
        let figures: Vec<&str> = SHOWN
            .into_iter()
            .filter(|name| self.rows.iter().any(|row| row.figures.contains_key(*name)))
            .collect();
        // The table's headings live as long as the program: there are a handful of axes.
        let heads = self
            .axes
            .iter()
            .map(|axis| (leaked(axis.clone()), Align::Name));
        let mut columns: Vec<(&'static str, Align)> = heads.collect();
        columns.extend([("version", Align::Name), ("runs", Align::Number)]);
        columns.extend(
            figures
                .iter()
                .map(|name| (leaked(table::heading(name)), Align::Number)),
        );
        columns.push(("", Align::Name));
        let mut rows = Table::new(&columns);
        for row in &self.rows {
            rows.row(self.cells(row, &figures));
        }
        rows.write("MATRIX", screen, out)?;
        let mut missing = BTreeSet::new();
        for row in &self.rows {
            let labels: Vec<&str> = row.labels.values().map(String::as_str).collect();
            for why in &row.reasons {
                writeln!(out, " {}: {why}", labels.join(" "))?;
            }
            let is_missing = row.reasons.iter().any(|why| why.ends_with(" not found"));
            missing.extend(row.labels.get("vpn").filter(|_| is_missing));
        }
        for name in missing {
            if let Ok(vpn) = name.parse::<Vpn>() {
                writeln!(out, " {name}: {}", listing::how_to_get(vpn).join("; "))?;
            }
        }
        Ok(())
    }

    fn cells(&self, row: &Row, figures: &[&str]) -> Vec<String> {
        let label = |axis: &String| row.labels.get(axis).cloned().unwrap_or_default();
        let mut cells: Vec<String> = self.axes.iter().map(label).collect();
        cells.push(row.vpn_version.clone().unwrap_or_else(|| "-".to_owned()));
        cells.push(format!("{}/{}", row.done, self.repetitions));
        for name in figures {
            cells.push(match row.figures.get(*name) {
                None => "-".to_owned(),
                Some(summary) => table::value_text(name, summary.mean) + &spread(summary),
            });
        }
        // How it ended; the whole reason is below the table.
        let first = row
            .reasons
            .first()
            .and_then(|reason| reason.split(':').next());
        cells.push(first.unwrap_or_default().to_owned());
        cells
    }

    /// Writes a line per run: axes, repetition, status, reason, version, figures.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn write_csv(&self, out: impl Write) -> Result<(), csv::Error> {
        let names: BTreeSet<&str> = self
            .runs
            .iter()
            .flat_map(|run| {
                run.outcome
                    .figures
                    .iter()
                    .map(|figure| figure.name.as_str())
            })
            .collect();
        let mut csv = csv::Writer::from_writer(out);
        let fixed = [
            "repetition",
            "status",
            "reason",
            "vpn_version",
            "started_at",
            "directory",
        ];
        let heads = self.axes.iter().map(String::as_str).chain(fixed);
        csv.write_record(heads.chain(names.iter().copied()))?;
        for run in &self.runs {
            let outcome = &run.outcome;
            let mut fields: Vec<String> = self
                .axes
                .iter()
                .map(|axis| run.labels.get(axis).cloned().unwrap_or_default())
                .collect();
            fields.extend([
                outcome.repetition.to_string(),
                outcome.status.name().to_owned(),
                outcome.reason.clone().unwrap_or_default(),
                outcome.vpn_version.clone().unwrap_or_default(),
                outcome.started_at.clone(),
                run.directory.display().to_string(),
            ]);
            // What a run does not have is empty, never 0.
            let figure = |name: &&str| outcome.figure(name).map(|value| value.to_string());
            fields.extend(names.iter().map(|name| figure(name).unwrap_or_default()));
            csv.write_record(fields)?;
        }
        csv.flush()?;
        Ok(())
    }
}

fn row(runs: &[&RunOutcome]) -> Row {
    let done: Vec<&&RunOutcome> = runs
        .iter()
        .filter(|run| run.status == Status::Done)
        .collect();
    let mut values: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for figure in done.iter().flat_map(|run| &run.figures) {
        values
            .entry(figure.name.clone())
            .or_default()
            .push(figure.value);
    }
    let reasons = runs
        .iter()
        .filter(|run| run.status != Status::Done)
        .map(|run| {
            let reason = run.reason.clone().unwrap_or_default();
            format!("{}: {reason}", run.status.name())
        });
    Row {
        labels: BTreeMap::new(),
        directory: PathBuf::new(),
        vpn_version: runs.iter().find_map(|run| run.vpn_version.clone()),
        done: done.len(),
        reasons: reasons.collect(),
        figures: values
            .into_iter()
            .filter_map(|(name, values)| Some((name, Summary::of(&values)?)))
            .collect(),
    }
}

/// ` +-3 %`: standard deviation as a share of the mean.
fn spread(summary: &Summary) -> String {
    match summary.sd {
        Some(sd) if summary.mean.abs() > 0.0 => {
            format!(" +-{:.0}%", 100.0 * sd / summary.mean.abs())
        }
        _ => String::new(),
    }
}

fn leaked(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}
