//! How one run of a scenario ended, in one small file beside its trace and report: what a matrix
//! or an ablation collects.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::LabError;
use super::scenario::Scenario;
use crate::analysis::benchmark::{Benchmark, Quantiles};
use crate::report::Report;
use crate::report::model::Verdict;

/// Name of this schema.
pub const SCHEMA: &str = "vpnbench.run.v1";
/// The file in a run's directory. It is written last, so that a directory without it is that of
/// an interrupted run.
pub const FILE: &str = "outcome.json";

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It ran to its end.
    Done,
    /// Something it needs is not on this machine; nothing was measured.
    Skipped,
    /// It could not be set up.
    Failed,
    /// It was set up and the benchmark failed, or did not end in time.
    BenchmarkFailed,
}

impl Status {
    /// Name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Status::Done => "done",
            Status::Skipped => "skipped",
            Status::Failed => "failed",
            Status::BenchmarkFailed => "benchmark failed",
        }
    }
}

/// Which way a figure is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// More is better: throughput.
    Higher,
    /// Less is better: latency, loss.
    Lower,
}

/// One number of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Figure {
    /// Name with its unit, as in the report: `throughput_bps_received`.
    pub name: String,
    /// Value in that unit.
    pub value: f64,
    /// Which way is better; null where neither is.
    pub better: Option<Better>,
}

/// Segments sent again per 10^6 bytes that were acknowledged: comparable between runs of different speed.
pub const PER_MB: &str = "retransmits_per_mb";

/// What a run's report says of other settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PredictedRun {
    /// The settings, as `what_if[].change` of the report.
    pub change: String,
    /// Segments sent again per 10^6 bytes acknowledged.
    pub retransmits_per_mb: Option<f64>,
    /// bit/s, expected.
    pub throughput_bps: Option<f64>,
    /// Share of this run's fast retransmissions that the model reproduces.
    pub fast_reproduced: Option<f64>,
}

/// Whether the report says what the scenario expects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Expectation {
    /// Finding id.
    pub finding: String,
    /// Whether it must be there (true) or must not.
    pub present: bool,
    /// Whether it is as expected: one that must be there is supported and ranks first or second; one
    /// that must not is not supported. Null where the report has no such finding.
    pub met: Option<bool>,
    /// The report's verdict.
    #[serde(default)]
    pub verdict: Option<Verdict>,
    /// Its rank among the supported findings, from 1.
    #[serde(default)]
    pub rank: Option<usize>,
}

/// Rank up to which an expected finding counts as found: one cause or consequence may be beside it.
const FOUND_UP_TO: usize = 2;

impl Expectation {
    /// In words.
    #[must_use]
    pub fn sentence(&self) -> String {
        let wanted = if self.present {
            "expected"
        } else {
            "not expected"
        };
        let found = match (self.verdict, self.rank) {
            (Some(Verdict::Supported), Some(rank)) => format!("supported, rank {rank}"),
            (Some(Verdict::Refuted), _) => "refuted".to_owned(),
            (Some(_), _) => "unknown".to_owned(),
            (None, _) => "not in the report".to_owned(),
        };
        let met = match self.met {
            Some(true) => "as expected",
            Some(false) => "NOT as expected",
            None => "not judged",
        };
        format!("{} ({wanted}): {found}: {met}", self.finding)
    }
}

/// How one run of a scenario ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunOutcome {
    /// `vpnbench.run.v1`.
    pub schema: String,
    /// How it ended.
    pub status: Status,
    /// Why it was skipped or failed.
    pub reason: Option<String>,
    /// Name of the scenario.
    pub scenario: String,
    /// The tunnel.
    pub vpn: String,
    /// What its program says of itself; null if it does not, or was not started.
    pub vpn_version: Option<String>,
    /// The benchmark.
    pub benchmark: String,
    /// Number of the repetition, from 1.
    pub repetition: u32,
    /// Seed of this run: the scenario's, and the repetition's number less 1 added to it.
    pub seed: u64,
    /// RFC 3339 UTC.
    pub started_at: String,
    /// Seconds from the first namespace to the last one removed.
    pub duration_s: f64,
    /// The numbers of the run.
    pub figures: Vec<Figure>,
    /// What the scenario expected of the report.
    pub expectations: Vec<Expectation>,
    /// Supported findings, ranked.
    #[serde(default)]
    pub supported: Vec<String>,
    /// What the report says of other settings.
    #[serde(default)]
    pub predictions: Vec<PredictedRun>,
    /// Version of vpnbench.
    pub tool_version: String,
}

impl RunOutcome {
    /// The outcome of a run that has not ended yet.
    #[must_use]
    pub fn begun(scenario: &Scenario, repetition: u32, started_at: String) -> RunOutcome {
        RunOutcome {
            schema: SCHEMA.to_owned(),
            status: Status::Failed,
            reason: None,
            scenario: scenario.name.clone(),
            vpn: scenario.vpn.name.name().to_owned(),
            vpn_version: None,
            benchmark: scenario.benchmark.bench().name().to_owned(),
            repetition,
            seed: scenario.seed,
            started_at,
            duration_s: 0.0,
            figures: Vec::new(),
            expectations: Vec::new(),
            supported: Vec::new(),
            predictions: Vec::new(),
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// The same, ended by an error of the lab.
    #[must_use]
    pub fn failed(mut self, error: &LabError) -> RunOutcome {
        (self.status, self.reason) = match error {
            LabError::Skipped(what) => (Status::Skipped, Some(what.clone())),
            other => (Status::Failed, Some(other.to_string())),
        };
        self
    }

    /// The value of a figure.
    #[must_use]
    pub fn figure(&self, name: &str) -> Option<f64> {
        let figure = self.figures.iter().find(|figure| figure.name == name);
        figure.map(|figure| figure.value)
    }

    /// Adds a figure if it is known.
    pub fn add(&mut self, name: &str, value: Option<f64>, better: Option<Better>) {
        if let Some(value) = value.filter(|value| value.is_finite())
            && self.figure(name).is_none()
        {
            self.figures.push(Figure {
                name: name.to_owned(),
                value,
                better,
            });
        }
    }

    /// The benchmark's own figures, its main one first.
    pub fn add_benchmark(&mut self, result: &Benchmark) {
        let (higher, lower) = (Some(Better::Higher), Some(Better::Lower));
        let realtime = result.realtime.as_ref();
        let outage = result.outage.as_ref();
        let transfers = result.transfers.as_ref();
        let median = |quantiles: Option<Quantiles>| quantiles.and_then(|quantiles| quantiles.p50);
        let tail = |quantiles: Option<Quantiles>| quantiles.and_then(|quantiles| quantiles.p99);
        let reverse = result.reverse.as_ref();
        let retransmits = result.retransmits.map(|count| count as f64);
        self.add(
            "quality_ratio",
            realtime.and_then(|stream| stream.quality_ratio),
            higher,
        );
        self.add("transfer_s", transfers.and_then(|all| all.mean_s), lower);
        self.add(
            "connect_s",
            outage.and_then(|outage| outage.connect_s),
            lower,
        );
        self.add("gap_s", outage.and_then(|outage| outage.gap_s), lower);
        if result.kind == "load-latency" {
            self.add("rtt_us_p50", median(result.rtt_us), lower);
            self.add("rtt_us_p99", tail(result.rtt_us), lower);
            self.add("idle_rtt_us_p50", median(result.idle_rtt_us), lower);
        }
        self.add(
            "throughput_bps_received",
            result.throughput_bps_received,
            higher,
        );
        self.add("throughput_bps_sent", result.throughput_bps_sent, higher);
        self.add(
            "reverse_throughput_bps_received",
            reverse.and_then(|reverse| reverse.throughput_bps_received),
            higher,
        );
        self.add("retransmits", retransmits, lower);
        self.add("rtt_us_mean", result.rtt_mean_us, lower);
        self.add("rtt_us_p50", median(result.rtt_us), lower);
        self.add("rtt_us_p99", tail(result.rtt_us), lower);
        self.add("loss_ratio", result.loss_ratio, lower);
        self.add("jitter_us", result.jitter_us, lower);
        self.add("connect_us_p50", median(result.connect_us), lower);
        self.add("first_byte_us_p50", median(result.first_byte_us), lower);
    }

    /// What a report says beyond the benchmark's own figures.
    pub fn add_report(&mut self, scenario: &Scenario, report: &Report) {
        let retransmits = report.retransmits.total.map(|total| total as f64);
        self.add("retransmits", retransmits, Some(Better::Lower));
        let acked: u64 = report.tcp_flows.iter().map(|flow| flow.acked_bytes).sum();
        let per_mb = |count: f64| (acked > 0).then(|| count * 1e6 / acked as f64);
        self.add(PER_MB, retransmits.and_then(per_mb), Some(Better::Lower));
        let predicted = report.what_if.iter().map(|one| PredictedRun {
            change: one.change.clone(),
            retransmits_per_mb: one
                .predicted
                .retransmits
                .and_then(|count| per_mb(count as f64)),
            throughput_bps: one.predicted.throughput_bps,
            fast_reproduced: one.reproduced.and_then(|found| found.fast_retransmits),
        });
        self.predictions = predicted.collect();
        let spurious = report.retransmits.spurious.as_ref();
        let count = spurious.map(|spurious| spurious.count as f64);
        self.add("spurious_retransmits", count, Some(Better::Lower));
        let ratio = spurious.and_then(|spurious| spurious.ratio);
        self.add("spurious_ratio", ratio, Some(Better::Lower));
        self.expectations = expectations(scenario, report);
        self.supported = report
            .supported()
            .map(|finding| finding.id.clone())
            .collect();
    }

    /// Writes the file that says the run is complete.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        write_json(&directory.join(FILE), self)
    }
}

/// Compares a report with what its scenario expects.
fn expectations(scenario: &Scenario, report: &Report) -> Vec<Expectation> {
    let supported: Vec<&str> = report
        .supported()
        .map(|finding| finding.id.as_str())
        .collect();
    let expectation = |(id, present): (&String, bool)| {
        let finding = report.findings.iter().find(|finding| finding.id == *id);
        let rank = supported
            .iter()
            .position(|one| one == id)
            .map(|place| place + 1);
        let found = rank.is_some_and(|rank| rank <= FOUND_UP_TO);
        Expectation {
            finding: id.clone(),
            present,
            met: finding.map(|_| if present { found } else { rank.is_none() }),
            verdict: finding.map(|finding| finding.verdict),
            rank,
        }
    };
    let present = scenario.expect.findings.iter().map(|id| (id, true));
    let absent = scenario.expect.absent.iter().map(|id| (id, false));
    present.chain(absent).map(expectation).collect()
}

/// Writes a JSON file at once: whoever reads it sees the old one or the new one.
///
/// # Errors
/// When it cannot be written.
pub fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    serde_json::to_writer_pretty(&mut file, value).map_err(io::Error::from)?;
    file.write_all(b"\n")?;
    file.as_file().sync_data()?;
    // The temporary file is its owner's alone; a result is for whoever may read the directory.
    fs::set_permissions(
        file.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o644),
    )?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}
