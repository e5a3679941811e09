//! What the reports of the base runs predicted for a switch, beside what the runs with the switch did.

use std::io::{self, Write};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::analysis::statistics::{Interval, mean, ratio_of_means};
use crate::lab::outcome::{PER_MB, RunOutcome, Status};
use crate::lab::table;
use crate::report::table::{Align, Screen, Table};

/// Settings of which reports say what they would have done.
const SECTION: &str = "sysctls.net.ipv4.";
/// The benchmark's figure that a predicted throughput is held against.
const THROUGHPUT: &str = "throughput_bps_received";

/// One figure: predicted by the base runs, and measured with the switch. Means over the runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Held {
    /// Name of the figure.
    pub figure: String,
    /// Of the base runs.
    pub base: f64,
    /// Of what their reports predict.
    pub predicted: f64,
    /// Of the runs with the switch.
    pub measured: f64,
    /// Measured over predicted; null where a prediction is 0.
    pub ratio: Option<f64>,
    /// Its BCa bootstrap interval; null with fewer than four runs on a side.
    pub ratio_interval: Option<Interval>,
}

/// One switch that the reports of the base runs have a prediction for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Predicted {
    /// `KEY=VALUE`.
    pub switch: String,
    /// Base runs with a prediction.
    pub runs: usize,
    /// Share of the fast retransmissions that the model reproduces, in the run in which it does worst.
    pub reproduced_min: Option<f64>,
    /// Retransmissions and throughput.
    pub figures: Vec<Held>,
}

impl Predicted {
    /// Holds the base runs' predictions for a switch against the runs with it; `None` if they have none.
    #[must_use]
    pub fn of(
        switch: &str,
        base: &[&RunOutcome],
        changed: &[&RunOutcome],
        seed: u64,
    ) -> Option<Predicted> {
        let wanted = parts(switch.split("; ").map(|one| one.strip_prefix(SECTION)))?;
        let done = |runs: &[&RunOutcome]| -> Vec<RunOutcome> {
            let done = runs.iter().filter(|run| run.status == Status::Done);
            done.map(|run| (*run).clone()).collect()
        };
        let (base, changed) = (done(base), done(changed));
        let found: Vec<_> = base
            .iter()
            .filter_map(|run| {
                let same =
                    |change: &str| parts(change.split(", ").map(Some)).as_ref() == Some(&wanted);
                let one = run.predictions.iter().find(|one| same(&one.change))?;
                Some((run, one))
            })
            .collect();
        let held = |figure: &str, predicted: Vec<f64>| {
            let of = |runs: &[RunOutcome]| -> Vec<f64> {
                runs.iter().filter_map(|run| run.figure(figure)).collect()
            };
            let measured = of(&changed);
            let ratio = ratio_of_means(&predicted, &measured, seed);
            Some(Held {
                figure: figure.to_owned(),
                base: mean(&of(&base))?,
                predicted: mean(&predicted)?,
                measured: mean(&measured)?,
                ratio: ratio.map(|(ratio, _)| ratio),
                ratio_interval: ratio.and_then(|(_, interval)| interval),
            })
        };
        let copies = found.iter().filter_map(|(_, one)| one.retransmits_per_mb);
        let rates = found.iter().filter_map(|(_, one)| one.throughput_bps);
        let figures = [
            held(PER_MB, copies.collect()),
            held(THROUGHPUT, rates.collect()),
        ];
        let shares = found.iter().filter_map(|(_, one)| one.fast_reproduced);
        (!found.is_empty()).then(|| Predicted {
            switch: switch.to_owned(),
            runs: found.len(),
            reproduced_min: shares.min_by(f64::total_cmp),
            figures: figures.into_iter().flatten().collect(),
        })
    }
}

/// `name=value` parts in one order; `None` if one is of another section.
fn parts<'a>(all: impl Iterator<Item = Option<&'a str>>) -> Option<Vec<&'a str>> {
    let mut all: Vec<&str> = all.collect::<Option<_>>()?;
    all.sort_unstable();
    Some(all)
}

/// Writes one table for all switches.
///
/// # Errors
/// When the writer fails.
pub(super) fn write_table(
    all: &[Predicted],
    screen: Screen,
    out: &mut dyn Write,
) -> io::Result<()> {
    if all.is_empty() {
        return Ok(());
    }
    let mut rows = Table::new(&[
        ("switch", Align::Name),
        ("figure", Align::Name),
        ("base", Align::Number),
        ("predicted", Align::Number),
        ("measured", Align::Number),
        ("measured / predicted", Align::Number),
        ("95 %", Align::Number),
    ]);
    for one in all {
        for held in &one.figures {
            let value = |value| table::value_text(&held.figure, value);
            let dash = || "-".to_owned();
            let interval = held.ratio_interval;
            rows.row(vec![
                table::brief(&one.switch),
                table::heading(&held.figure),
                value(held.base),
                value(held.predicted),
                value(held.measured),
                held.ratio.map_or_else(dash, |ratio| format!("{ratio:.2}")),
                interval.map_or_else(dash, |i| format!("{:.2} .. {:.2}", i.low, i.high)),
            ]);
        }
    }
    rows.write("PREDICTED BY THE BASE'S REPORTS, AND MEASURED", screen, out)?;
    for one in all {
        if let Some(share) = one.reproduced_min {
            writeln!(
                out,
                " {}: the model reproduces at least {:.1} % of the fast retransmissions of each of {} base runs",
                table::brief(&one.switch),
                100.0 * share,
                one.runs
            )?;
        }
    }
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::outcome::PredictedRun;
    use crate::lab::scenario::{Scenario, Source};

    fn run(per_mb: f64, predicted: &[(&str, f64)]) -> RunOutcome {
        let scenario = Scenario::parse(&Source::new("x.toml", ""), &[]).expect("defaults");
        let mut run = RunOutcome::begun(&scenario, 1, String::new());
        run.status = Status::Done;
        run.add(PER_MB, Some(per_mb), None);
        let one = |(change, value): &(&str, f64)| PredictedRun {
            change: (*change).to_owned(),
            retransmits_per_mb: Some(*value),
            throughput_bps: None,
            fast_reproduced: Some(0.9 + value / 100.0),
        };
        run.predictions = predicted.iter().map(one).collect();
        run
    }

    #[test]
    fn the_switch_meets_its_prediction_in_whatever_order_it_names_its_settings() {
        let change = "tcp_reordering=10, tcp_recovery=0";
        let base = [2.0, 3.0, 4.0, 3.0]
            .map(|value| run(60.0, &[("tcp_recovery=0", 9.0), (change, value)]));
        let changed = [5.0, 6.0, 7.0, 6.0].map(|value| run(value, &[]));
        let (base, changed): (Vec<_>, Vec<_>) = (base.iter().collect(), changed.iter().collect());
        let of = |switch: &str| Predicted::of(switch, &base, &changed, 7);
        let found = of("sysctls.net.ipv4.tcp_recovery=0; sysctls.net.ipv4.tcp_reordering=10");
        let found = found.expect("a prediction");
        assert_eq!((found.runs, found.figures.len()), (4, 1));
        assert!((found.reproduced_min.expect("known") - 0.92).abs() < 1e-9);
        let held = &found.figures[0];
        assert_eq!((held.base, held.predicted, held.measured), (60.0, 3.0, 6.0));
        assert_eq!(held.ratio, Some(2.0));
        assert!(held.ratio_interval.is_some_and(|one| one.low > 1.0));
        for other in ["wire.unit=packet", "sysctls.net.ipv4.tcp_reordering=20"] {
            assert_eq!(of(other), None);
        }
    }
}
