//! One importer per kind of result file: JSON in, measurements out. None of them touches the file
//! system. What is missing or makes no sense becomes a problem, never a zero.

pub mod harness;
pub mod hyperfine;
pub mod iperf3;
pub mod ping;
pub mod qperf;
pub mod rist;
pub mod timings;

use serde_json::Value;

use super::model::{Direction, Problem, Row};

/// Which test a file belongs to.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// System.
    pub system: String,
    /// Profile.
    pub profile: String,
    /// Benchmark.
    pub benchmark: String,
    /// Client host.
    pub source: Option<String>,
    /// Server host.
    pub target: Option<String>,
    /// Replicate.
    pub run: u32,
    /// File, relative to the tree.
    pub path: String,
}

/// Collects measurements of one file.
#[derive(Debug)]
pub struct Sink<'a> {
    place: &'a Place,
    root: &'a Value,
    prefix: String,
    /// Measurements.
    pub rows: Vec<Row>,
    /// What was left out.
    pub problems: Vec<Problem>,
}

/// A range that values of a unit stay in; outside of it a value is named and left out.
fn plausible(unit: &str, value: f64) -> bool {
    let (low, high) = match unit {
        // Nothing on one machine sends more than 10 Tbit/s.
        "bit/s" => (0.0, 1e13),
        "%" => (0.0, 100.0),
        // A day.
        "us" => (0.0, 86_400e6),
        "ms" => (0.0, 86_400e3),
        "s" => (0.0, 86_400.0 * 30.0),
        "bytes" | "1" => (0.0, 1e18),
        _ => (f64::MIN, f64::MAX),
    };
    (low..=high).contains(&value)
}

impl<'a> Sink<'a> {
    /// A sink for values below `prefix` of a document.
    #[must_use]
    pub fn new(place: &'a Place, root: &'a Value, prefix: &str) -> Sink<'a> {
        Sink {
            place,
            root,
            prefix: prefix.to_owned(),
            rows: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// The value at a pointer below the prefix.
    #[must_use]
    pub fn get(&self, pointer: &str) -> Option<&'a Value> {
        self.root.pointer(&format!("{}{pointer}", self.prefix))
    }

    /// Takes a number, if it is there: `metric` in `unit` from `pointer`, times `scale`. Returns
    /// whether it was taken.
    pub fn take(
        &mut self,
        metric: &str,
        unit: &str,
        pointer: &str,
        scale: f64,
        flow: Flow,
    ) -> bool {
        let full = format!("{}{pointer}", self.prefix);
        let Some(value) = self.root.pointer(&full).filter(|value| !value.is_null()) else {
            return false;
        };
        let Some(number) = value.as_f64() else {
            self.refuse(
                &full,
                &format!("{metric}: {} is not a number", short(value)),
            );
            return false;
        };
        let number = number * scale;
        if !number.is_finite() || !plausible(unit, number) {
            self.refuse(&full, &format!("{metric}: {number} {unit} makes no sense"));
            return false;
        }
        self.derive(metric, unit, pointer, number, flow);
        true
    }

    /// Names something that was left out.
    pub fn refuse(&mut self, pointer: &str, message: &str) {
        self.problems.push(Problem {
            path: self.place.path.clone(),
            pointer: pointer.to_owned(),
            message: message.to_owned(),
        });
    }
}

/// Which flow of a test a value belongs to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Flow {
    /// Direction.
    pub direction: Direction,
    /// Flow number.
    pub flow: u32,
    /// Replicate within the file, where a file has several.
    pub run: Option<u32>,
}

impl Flow {
    /// The reverse direction.
    pub const REVERSE: Flow = Flow {
        direction: Direction::Reverse,
        flow: 0,
        run: None,
    };
}

/// The head of a value, for messages.
#[must_use]
pub fn short(value: &Value) -> String {
    let text = value.to_string();
    let mut head: String = text.chars().take(60).collect();
    if head.len() < text.len() {
        head.push_str("..");
    }
    head
}

/// The statistics objects of a result: `{min, average, max, percentiles{p25, p50, p75}}`.
fn summary(sink: &mut Sink<'_>, metric: &str, unit: &str, pointer: &str, scale: f64) -> bool {
    let mut taken = false;
    for (suffix, key) in [
        ("", "average"),
        ("_min", "min"),
        ("_max", "max"),
        ("_p25", "percentiles/p25"),
        ("_p50", "percentiles/p50"),
        ("_p75", "percentiles/p75"),
    ] {
        let at = format!("{pointer}/{key}");
        taken |= sink.take(
            &format!("{metric}{suffix}"),
            unit,
            &at,
            scale,
            Flow::default(),
        );
    }
    taken
}

impl Sink<'_> {
    /// Adds a number counted from what stands at `pointer`.
    pub fn derive(&mut self, metric: &str, unit: &str, pointer: &str, value: f64, flow: Flow) {
        self.rows.push(Row {
            system: self.place.system.clone(),
            profile: self.place.profile.clone(),
            benchmark: self.place.benchmark.clone(),
            source: self.place.source.clone(),
            target: self.place.target.clone(),
            direction: flow.direction,
            run: flow.run.unwrap_or(self.place.run),
            flow: flow.flow,
            metric: metric.to_owned(),
            value,
            unit: unit.to_owned(),
            path: self.place.path.clone(),
            pointer: format!("{}{pointer}", self.prefix),
        });
    }
}
