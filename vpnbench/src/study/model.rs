//! What a tree of results holds: tests, measurements, impairments, problems.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which way data flowed, seen from the client of a test.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// Client to server.
    #[default]
    Forward,
    /// Server to client, at the same time in a bidirectional test.
    Reverse,
}

/// One measurement with its source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Row {
    /// System under test; the campaign is part of it where a tree has several.
    pub system: String,
    /// Impairment profile.
    pub profile: String,
    /// Benchmark, e.g. `tcp`.
    pub benchmark: String,
    /// Client host; null where the tree does not say.
    pub source: Option<String>,
    /// Server host.
    pub target: Option<String>,
    /// Direction of the data.
    pub direction: Direction,
    /// Replicate, from 0.
    pub run: u32,
    /// Flow within the run, from 0.
    pub flow: u32,
    /// Metric, e.g. `sent_bps`.
    pub metric: String,
    /// Value in `unit`.
    pub value: f64,
    /// Unit.
    pub unit: String,
    /// File, relative to the tree.
    pub path: String,
    /// JSON pointer in it (RFC 6901).
    pub pointer: String,
}

/// How a test ended without a result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Failure {
    /// The harness's time limit ended it, with the limit in seconds where it is stated.
    TimeLimit(Option<f64>),
    /// The sending program's own datagrams were refused by its kernel (`EMSGSIZE`): larger than
    /// the device's MTU.
    DatagramTooLong,
    /// The harness failed on the tool's output.
    Harness,
    /// The tool could not connect or lost its control connection.
    ControlConnection,
    /// The file is not what it should be.
    Damaged,
    /// Anything else.
    Other,
}

/// How a test ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// With a result.
    Done,
    /// Without one.
    Failed {
        /// Kind.
        failure: Failure,
        /// The file's own words.
        message: String,
        /// Where they stand in the file.
        pointer: String,
    },
    /// The design has the test, the tree has no file for it.
    Missing,
}

impl Outcome {
    /// `done`, `failed` or `missing`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::Failed { .. } => "failed",
            Outcome::Missing => "missing",
        }
    }

    /// Whether there is a result.
    #[must_use]
    pub fn is_done(&self) -> bool {
        *self == Outcome::Done
    }
}

/// One test: a benchmark of a system under a profile on one link.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Test {
    /// See [`Row::system`].
    pub system: String,
    /// See [`Row::profile`].
    pub profile: String,
    /// See [`Row::benchmark`].
    pub benchmark: String,
    /// See [`Row::source`].
    pub source: Option<String>,
    /// See [`Row::target`].
    pub target: Option<String>,
    /// Replicate, from 0.
    pub run: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// Attempts until it ended so; null where the tree does not say.
    pub attempts: Option<u64>,
    /// Seconds it took, all attempts together.
    pub duration_s: Option<f64>,
    /// Tool and kernel versions, protocol options: what should be the same within a comparison.
    pub conditions: BTreeMap<String, String>,
    /// File, relative to the tree.
    pub path: String,
    /// JSON pointer of the test in it.
    pub pointer: String,
}

impl Test {
    /// `source>target`, or `-` where the tree does not say.
    #[must_use]
    pub fn link(&self) -> String {
        link(self.source.as_deref(), self.target.as_deref())
    }
}

impl Row {
    /// `source>target`, or `-` where the tree does not say.
    #[must_use]
    pub fn link(&self) -> String {
        link(self.source.as_deref(), self.target.as_deref())
    }
}

fn link(source: Option<&str>, target: Option<&str>) -> String {
    match (source, target) {
        (None, None) => "-".to_owned(),
        (source, target) => format!("{}>{}", source.unwrap_or("?"), target.unwrap_or("?")),
    }
}

/// The impairment a tree states for a system and profile.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Impairment {
    /// See [`Row::system`].
    pub system: String,
    /// See [`Row::profile`].
    pub profile: String,
    /// Delay in ms as the file states it.
    pub delay_ms: Option<f64>,
    /// Jitter in ms.
    pub jitter_ms: Option<f64>,
    /// Loss in percent.
    pub loss_percent: Option<f64>,
    /// Reordering in percent.
    pub reorder_percent: Option<f64>,
    /// Correlation of the reordering in percent.
    pub reorder_correlation_percent: Option<f64>,
    /// File, relative to the tree.
    pub path: String,
}

/// Something that was left out, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// File, relative to the tree.
    pub path: String,
    /// JSON pointer; empty for the file itself.
    pub pointer: String,
    /// What is wrong with it.
    pub message: String,
}

/// A tree of results, read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Study {
    /// The tree as given.
    pub root: String,
    /// How it is laid out.
    pub layout: String,
    /// Systems, the reference first, then by name.
    pub systems: Vec<String>,
    /// Profiles, mildest first.
    pub profiles: Vec<String>,
    /// All tests the design has.
    pub tests: Vec<Test>,
    /// All measurements.
    pub rows: Vec<Row>,
    /// Stated impairments.
    pub impairments: Vec<Impairment>,
    /// What was left out.
    pub problems: Vec<Problem>,
    /// Files read.
    pub files: u64,
    /// Rows by cell and metric, made by [`Study::sort`].
    index: HashMap<String, Vec<usize>>,
}

/// Key of the index.
fn cell(system: &str, profile: &str, benchmark: &str, metric: &str) -> String {
    [system, profile, benchmark, metric].join("\0")
}

impl Study {
    /// The system without a tunnel, if the tree has one.
    #[must_use]
    pub fn reference(&self) -> Option<&str> {
        self.systems
            .iter()
            .map(String::as_str)
            .find(|name| is_reference(name))
    }

    /// Tests of a cell.
    pub fn tests_of<'a>(
        &'a self,
        system: &'a str,
        profile: &'a str,
        benchmark: &'a str,
    ) -> impl Iterator<Item = &'a Test> {
        self.tests.iter().filter(move |test| {
            test.system == system && test.profile == profile && test.benchmark == benchmark
        })
    }

    /// Rows of a cell and metric, once [`Study::sort`] has run.
    pub fn rows_of(
        &self,
        system: &str,
        profile: &str,
        benchmark: &str,
        metric: &str,
    ) -> impl Iterator<Item = &Row> + use<'_> {
        let found = self.index.get(&cell(system, profile, benchmark, metric));
        let rows = found.into_iter().flatten();
        rows.filter_map(|at| self.rows.get(*at))
    }

    /// The row of the same file, flow and direction with another metric.
    #[must_use]
    pub fn beside(&self, row: &Row, metric: &str) -> Option<&Row> {
        self.rows_of(&row.system, &row.profile, &row.benchmark, metric)
            .find(|other| {
                other.path == row.path
                    && other.source == row.source
                    && other.run == row.run
                    && other.flow == row.flow
                    && other.direction == row.direction
            })
    }

    /// Benchmarks in the tree, by name.
    #[must_use]
    pub fn benchmarks(&self) -> BTreeSet<&str> {
        self.tests
            .iter()
            .map(|test| test.benchmark.as_str())
            .collect()
    }

    /// Links that a benchmark has anywhere in the tree: the design.
    #[must_use]
    pub fn links(&self, benchmark: &str) -> BTreeSet<String> {
        self.tests
            .iter()
            .filter(|test| test.benchmark == benchmark)
            .map(Test::link)
            .collect()
    }

    /// The profile without impairment, if the tree has one.
    #[must_use]
    pub fn baseline(&self) -> Option<&str> {
        self.profiles
            .iter()
            .map(String::as_str)
            .find(|name| *name == "baseline")
    }
}

/// Whether a system is the bare link.
#[must_use]
pub fn is_reference(system: &str) -> bool {
    let name = system.split('@').next().unwrap_or(system);
    ["internal", "none", "bare", "direct", "no-vpn"]
        .iter()
        .any(|reference| name.eq_ignore_ascii_case(reference))
}

impl Study {
    /// An empty part of a tree that took reading this many files.
    #[must_use]
    pub fn of_files(files: u64) -> Study {
        Study {
            files,
            ..Study::default()
        }
    }

    /// Adds what another part of the tree holds.
    pub fn append(&mut self, other: Study) {
        self.tests.extend(other.tests);
        self.rows.extend(other.rows);
        self.impairments.extend(other.impairments);
        self.problems.extend(other.problems);
        self.files += other.files;
    }

    /// Numbers the tests of each system, profile and benchmark from 0, in their order, as replicates;
    /// the rows that `follow` take the number of their file's test.
    pub fn number_runs(&mut self, follow: impl Fn(&Row) -> bool) {
        let mut next = BTreeMap::<(&str, &str, &str), u32>::new();
        let mut numbers = BTreeMap::<&str, u32>::new();
        for test in &mut self.tests {
            let key = (&*test.system, &*test.profile, &*test.benchmark);
            let number = next.entry(key).or_default();
            test.run = *number;
            numbers.insert(&test.path, *number);
            *number += 1;
        }
        for row in self.rows.iter_mut().filter(|row| follow(row)) {
            row.run = numbers.get(&*row.path).copied().unwrap_or(0);
        }
    }

    /// Adds the tests that the design has and the tree has no file for: a link that a benchmark
    /// has under this profile with another system, where most systems have the benchmark.
    pub fn add_missing(&mut self) {
        let cells: BTreeSet<(String, String)> = self
            .tests
            .iter()
            .map(|test| (test.system.clone(), test.profile.clone()))
            .collect();
        let mut missing = Vec::new();
        let benchmarks: Vec<String> = self.benchmarks().into_iter().map(str::to_owned).collect();
        for benchmark in benchmarks {
            for (system, profile) in &cells {
                let in_profile =
                    |test: &&Test| test.benchmark == benchmark && test.profile == *profile;
                let having: BTreeSet<&str> = self
                    .tests
                    .iter()
                    .filter(in_profile)
                    .map(|test| test.system.as_str())
                    .collect();
                let peers = cells.iter().filter(|(_, other)| other == profile).count();
                if having.len() * 2 <= peers {
                    continue;
                }
                let links: BTreeSet<(Option<String>, Option<String>)> = self
                    .tests
                    .iter()
                    .filter(in_profile)
                    .map(|test| (test.source.clone(), test.target.clone()))
                    .collect();
                for (source, target) in links {
                    let has = self.tests_of(system, profile, &benchmark).any(|test| {
                        test.source == source && (test.target == target || test.target.is_none())
                    });
                    if !has {
                        missing.push(Test {
                            system: system.clone(),
                            profile: profile.clone(),
                            benchmark: benchmark.clone(),
                            source,
                            target,
                            run: 0,
                            outcome: Outcome::Missing,
                            attempts: None,
                            duration_s: None,
                            conditions: BTreeMap::new(),
                            path: String::new(),
                            pointer: String::new(),
                        });
                    }
                }
            }
        }
        self.tests.extend(missing);
    }

    /// Puts everything in an order that does not depend on how it was read.
    pub fn sort(&mut self) {
        let systems: BTreeSet<&str> = self.tests.iter().map(|test| test.system.as_str()).collect();
        let mut systems: Vec<String> = systems.into_iter().map(str::to_owned).collect();
        systems.sort_by_key(|name| (!is_reference(name), name.to_lowercase()));
        let profiles: BTreeSet<&str> = self
            .tests
            .iter()
            .map(|test| test.profile.as_str())
            .collect();
        let mut profiles: Vec<String> = profiles.into_iter().map(str::to_owned).collect();
        let severity = |profile: &str| {
            let stated = self.impairments.iter().filter(|one| one.profile == profile);
            let worst = stated.filter_map(|one| one.delay_ms).fold(0.0, f64::max);
            (profile != "baseline", worst)
        };
        profiles.sort_by(|a, b| {
            let (first, second) = (severity(a), severity(b));
            first
                .0
                .cmp(&second.0)
                .then(first.1.total_cmp(&second.1))
                .then(a.cmp(b))
        });
        (self.systems, self.profiles) = (systems, profiles);
        let key = |test: &Test| {
            (
                test.benchmark.clone(),
                test.profile.clone(),
                test.system.clone(),
                test.link(),
                test.run,
                test.path.clone(),
            )
        };
        self.tests.sort_by_cached_key(key);
        self.rows.sort_by(|a, b| {
            (&a.path, &a.source, a.direction, a.run, a.flow, &a.metric).cmp(&(
                &b.path,
                &b.source,
                b.direction,
                b.run,
                b.flow,
                &b.metric,
            ))
        });
        self.index.clear();
        for (at, row) in self.rows.iter().enumerate() {
            let key = cell(&row.system, &row.profile, &row.benchmark, &row.metric);
            self.index.entry(key).or_default().push(at);
        }
        self.impairments.sort_by(|a, b| a.path.cmp(&b.path));
        self.problems.sort();
    }
}
