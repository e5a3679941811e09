//! Why one run differs from another: first whether the conditions were equal, then whether there is a
//! difference at all, then what it consists of, and the experiment that would confirm it.
//!
//! A side is one or more runs of the same thing. With two or more on both sides the difference of their
//! means has Welch's interval and Hedges' g. With single runs only the spread inside the runs is known,
//! not that between runs, so a difference cannot be shown; what it would consist of is told all the same.
//! But if a second of one run and a second of the other differ by as much, none is shown.

pub mod conditions;
pub mod counts;
pub mod decompose;
pub mod side;
pub mod twice;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::probability;
use crate::analysis::statistics::{self, Interval, Summary};
use conditions::Difference as Condition;
use counts::Count;
use decompose::Part;
pub use side::{Figure, RunFacts, Side};
use twice::Twice;

/// Name of this schema.
pub const SCHEMA: &str = "vpnbench.compare.v1";

/// Sides compared with the first of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Comparison {
    /// `vpnbench.compare.v1`.
    pub schema: String,
    /// The sides, the first being what the others are compared with.
    pub sides: Vec<SideSummary>,
    /// Each further side beside the first.
    pub pairs: Vec<Pair>,
}

/// One side.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SideSummary {
    /// What the user called it.
    pub name: String,
    /// Runs.
    pub runs: usize,
    /// Name of the figure that is compared, with its unit.
    pub figure: String,
    /// The figure over the runs.
    pub summary: Option<Summary>,
    /// Findings supported in most runs, most frequent first.
    pub findings: Vec<String>,
}

/// Probability, between equal sides, of a difference as large as the one seen, below which it is claimed. At the usual
/// 0.05 one comparison in twenty of equal things would be said to differ; who compares many runs would find causes for
/// what is none. At 0.01 at most two of forty are, with a probability of 99 % (binomial).
const LEVEL: f64 = 0.01;

/// What the figures say about a difference.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Equal sides would hardly ever differ so much: p < 0.01.
    Differs,
    /// They would. Of single runs: two seconds of them would.
    NoDifference,
    /// Too few runs, or no common figure.
    #[default]
    Unknown,
}

/// One side beside the first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Pair {
    /// Name of the first side.
    pub base: String,
    /// Name of the other.
    pub changed: String,
    /// What differs that should not.
    pub conditions: Vec<Condition>,
    /// Audits that speak against the comparison (`vpnbench explain ID`).
    #[serde(default)]
    pub audits: Vec<String>,
    /// Whether the figures differ.
    pub verdict: Verdict,
    /// In words.
    pub summary: String,
    /// The figure of the other side less that of the first.
    pub difference: Option<f64>,
    /// Its 95 % interval by Welch; null with a single run on a side.
    pub interval: Option<Interval>,
    /// Two-sided probability of such a difference between equal sides.
    pub p: Option<f64>,
    /// With a single run on a side: by how much a second of one side and a second of the other differ at most, with a
    /// probability of 99 %. Null where the benchmark does not tell its seconds.
    #[serde(default)]
    pub within: Option<f64>,
    /// Hedges' g.
    pub effect_size: Option<f64>,
    /// What the difference consists of; the parts add up to it.
    pub parts: Vec<Part>,
    /// Counts, and the same divided by what was sent.
    #[serde(default)]
    pub counts: Vec<Count>,
    /// Findings supported on the other side and not on the first, and the other way round.
    pub findings_gained: Vec<String>,
    /// Findings supported on the first side only.
    pub findings_lost: Vec<String>,
    /// What would confirm it.
    pub experiment: Option<String>,
    /// Where both sides are recordings of one run, say a trace and captures: do they agree, and why not.
    #[serde(default)]
    pub same_run: Option<Twice>,
}

/// Compares sides with the first.
#[must_use]
pub fn compare(sides: &[Side]) -> Comparison {
    let pairs = match sides {
        [] => Vec::new(),
        [base, others @ ..] => others.iter().map(|other| pair(base, other)).collect(),
    };
    Comparison {
        schema: SCHEMA.to_owned(),
        sides: sides.iter().map(summary).collect(),
        pairs,
    }
}

fn summary(side: &Side) -> SideSummary {
    let figure = side.figure();
    let values = figure.map_or(Vec::new(), |figure| side.values(figure));
    SideSummary {
        name: side.name.clone(),
        runs: side.runs.len(),
        figure: figure.map_or(String::new(), |figure| figure.name().to_owned()),
        summary: Summary::of(&values),
        findings: side.findings(),
    }
}

fn pair(base: &Side, changed: &Side) -> Pair {
    let conditions = conditions::differences(base, changed);
    let mut pair = Pair {
        base: base.name.clone(),
        changed: changed.name.clone(),
        conditions,
        ..Pair::default()
    };
    if let ([one], [other]) = (&base.runs[..], &changed.runs[..]) {
        pair.same_run = twice::compare(&one.sight, &other.sight);
        if pair.same_run.is_some() {
            pair.summary = "both are recordings of one run".to_owned();
            return pair;
        }
    }
    let (ours, theirs) = (base.findings(), changed.findings());
    pair.findings_gained = theirs
        .iter()
        .filter(|id| !ours.contains(id))
        .cloned()
        .collect();
    pair.findings_lost = ours
        .iter()
        .filter(|id| !theirs.contains(id))
        .cloned()
        .collect();
    let figure = match (base.figure(), changed.figure()) {
        (Some(one), Some(other)) if one == other => one,
        (Some(one), Some(other)) => {
            pair.summary = format!(
                "{} measures {} and {} measures {}: they cannot be compared",
                base.name,
                one.name(),
                changed.name,
                other.name()
            );
            return pair;
        }
        _ => {
            pair.summary = "a side has no figure that could be compared".to_owned();
            return pair;
        }
    };
    pair.counts = counts::counts(base, changed);
    pair.audits = audits(&pair);
    judge(&mut pair, figure, base, changed);
    pair.parts = decompose::parts(base, changed, figure);
    if pair.verdict != Verdict::NoDifference {
        pair.experiment = decompose::experiment(&pair.parts, changed);
    }
    pair
}

/// Audits that conditions and counts raise.
fn audits(pair: &Pair) -> Vec<String> {
    let unequal = || pair.conditions.iter().filter(|one| !one.subject);
    let found = [
        (
            "audit-direction-mix",
            unequal().any(Condition::is_direction),
        ),
        ("audit-unequal-conditions", unequal().next().is_some()),
        (
            "audit-not-normalised",
            pair.counts.iter().any(|one| one.by_volume),
        ),
    ];
    let found = found.into_iter().filter(|(_, applies)| *applies);
    found.map(|(id, _)| id.to_owned()).collect()
}

fn judge(pair: &mut Pair, figure: Figure, base: &Side, changed: &Side) {
    let within = (base.within(), changed.within());
    let (base, changed) = (base.values(figure), changed.values(figure));
    let (Some(first), Some(second)) = (statistics::mean(&base), statistics::mean(&changed)) else {
        pair.summary = "a side has no run with that figure".to_owned();
        return;
    };
    let difference = second - first;
    pair.difference = Some(difference);
    let percent = |value: f64| match first {
        0.0 => 0.0,
        _ => 100.0 * value / first,
    };
    let relative = percent(difference);
    let told = format!("{} is {relative:+.1} % beside {}", pair.changed, pair.base);
    let Some(found) = statistics::difference(&base, &changed) else {
        if base.len() < 2 || changed.len() < 2 {
            pair.within = statistics::spread_of_difference(within, LEVEL);
            pair.audits.push("audit-too-few-runs".to_owned());
            let share = pair.within.map(percent);
            (pair.verdict, pair.summary) = single(&told, relative, share);
            return;
        }
        (pair.verdict, pair.summary) = match difference == 0.0 {
            true => (
                Verdict::NoDifference,
                format!("{} is the same in all runs", figure.name()),
            ),
            false => (
                Verdict::Differs,
                format!("{told}, and is the same in all runs of a side"),
            ),
        };
        return;
    };
    pair.interval = Some(found.interval);
    pair.p = Some(found.p);
    pair.effect_size = statistics::hedges_g(&base, &changed);
    let range = format!(
        "{:+.1} to {:+.1} %, p: {}",
        percent(found.interval.low),
        percent(found.interval.high),
        probability(found.p)
    );
    (pair.verdict, pair.summary) = match found.p < LEVEL {
        true => (Verdict::Differs, format!("{told} ({range})")),
        false => (
            Verdict::NoDifference,
            format!("{told}, within what runs differ among themselves ({range})"),
        ),
    };
}

/// Single runs whose figures differ by `relative`, and their seconds by up to `within`, both in percent.
fn single(told: &str, relative: f64, within: Option<f64>) -> (Verdict, String) {
    const MORE: &str = "a single run does not say how much runs differ among themselves: repeat both (audit-too-few-runs)";
    match within {
        None => (Verdict::Unknown, format!("{told}, but {MORE}")),
        Some(within) if relative.abs() <= within => (
            Verdict::NoDifference,
            format!(
                "{told}, within what two seconds of these runs differ (up to {within:.1} %); {MORE}"
            ),
        ),
        Some(within) => (
            Verdict::Unknown,
            format!(
                "{told}, more than two seconds of these runs differ (up to {within:.1} %), but {MORE}"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::side::RunFacts;
    use super::*;

    fn side(name: &str, rates: &[f64]) -> Side {
        let run = |rate: &f64| RunFacts {
            throughput_bps: Some(*rate),
            rtt_us: Some(10_000.0),
            window_bytes: Some(rate / 8.0 / 100.0 / 0.9),
            ..RunFacts::default()
        };
        Side {
            name: name.to_owned(),
            runs: rates.iter().map(run).collect(),
        }
    }

    #[test]
    fn equal_sides_do_not_differ_and_unequal_ones_do() {
        let base = side("a", &[100e6, 104e6, 98e6, 101e6]);
        let same = side("b", &[101e6, 99e6, 103e6, 100e6]);
        let other = side("c", &[131e6, 129e6, 133e6, 130e6]);
        let found = compare(&[base, same, other]);
        assert_eq!(
            found.pairs[0].verdict,
            Verdict::NoDifference,
            "{}",
            found.pairs[0].summary
        );
        assert_eq!(
            found.pairs[1].verdict,
            Verdict::Differs,
            "{}",
            found.pairs[1].summary
        );
        let pair = &found.pairs[1];
        let sum: f64 = pair.parts.iter().map(|part| part.contribution).sum();
        let difference = pair.difference.expect("both have runs");
        assert!(
            (sum - difference).abs() < 1e-6 * difference.abs(),
            "{sum} {difference}"
        );
        assert_eq!(pair.parts[0].name, "congestion window", "{:?}", pair.parts);
    }

    #[test]
    fn a_saturated_thread_explains_before_tcp_does() {
        let limited = |name: &str, rates: &[f64], cost_s: f64| {
            let mut side = side(name, rates);
            for run in &mut side.runs {
                run.thread = Some(side::ThreadFacts {
                    working: 0.9,
                    cost_s,
                });
                run.thread_stages_ns = [("daemon-send".to_owned(), cost_s * 1e9)].into();
            }
            side
        };
        let base = limited("a", &[100e6, 104e6, 98e6, 101e6], 60e-6);
        let slow = limited("b", &[50e6, 52e6, 49e6, 50.5e6], 120e-6);
        let found = compare(&[base, slow]);
        let (pair, first) = (&found.pairs[0], &found.pairs[0].parts[0]);
        assert_eq!(first.name, "CPU per packet: daemon-send");
        assert!(first.contribution < -45e6, "{first:?}");
        let sum: f64 = pair.parts.iter().map(|part| part.contribution).sum();
        let difference = pair.difference.expect("both have runs");
        assert!((sum - difference).abs() < 1e-6 * difference.abs());
    }

    #[test]
    fn single_runs_show_nothing() {
        let found = compare(&[side("a", &[100e6]), side("b", &[50e6])]);
        assert_eq!(found.pairs[0].verdict, Verdict::Unknown);
        assert!(found.pairs[0].summary.contains("audit-too-few-runs"));
        assert!(found.pairs[0].interval.is_none() && !found.pairs[0].parts.is_empty());
    }

    #[test]
    fn single_runs_differ_no_more_than_their_seconds() {
        let run = |name: &str, rate: f64| {
            let mut side = side(name, &[rate]);
            side.runs[0].within = Some(4e6);
            side
        };
        // 2.576 x sqrt(2) x 4 Mbit/s = 14.6 Mbit/s.
        let found = compare(&[run("a", 100e6), run("b", 114e6), run("c", 115e6)]);
        let verdicts: Vec<Verdict> = found.pairs.iter().map(|pair| pair.verdict).collect();
        assert_eq!(verdicts, [Verdict::NoDifference, Verdict::Unknown]);
        assert_eq!(found.pairs[1].audits, ["audit-too-few-runs"]);
        let within = found.pairs[0].within.expect("both tell their seconds");
        assert!((within - 14.57e6).abs() < 1e4, "{within}");
        let runs = compare(&[side("a", &[100e6, 100e6]), side("b", &[90e6, 90e6])]);
        assert_eq!(runs.pairs[0].verdict, Verdict::Differs);
    }
}
