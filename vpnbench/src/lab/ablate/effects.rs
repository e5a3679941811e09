//! Effect sizes and intervals of an ablation, and when a difference is within the noise.

use std::collections::BTreeMap;
use std::io::{self, Write};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::predicted::{self, Predicted};
use crate::analysis::statistics::{
    CONFIDENCE, Difference, Interval, Summary, difference, hedges_g, holm, ratio_of_means,
};
use crate::explain::units::probability;
use crate::lab::campaign::{Campaign, State, by_variant};
use crate::lab::outcome::{Better, RunOutcome, Status};
use crate::lab::scenario::Scenario;
use crate::lab::table;
use crate::report::table::{Align, Screen, Table};

/// Name of this schema.
pub(super) const SCHEMA: &str = "vpnbench.ablation.v1";

/// What can be said about a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// More than the spread of the repetitions explains, also after Holm's adjustment for the
    /// number of switches.
    Differs,
    /// Not more than the spread of the repetitions explains.
    WithinNoise,
    /// Too few runs, or none that varies: nothing can be said.
    TooFew,
}

/// One figure with a switch and without.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Effect {
    /// Name of the figure.
    pub figure: String,
    /// Which way it is better.
    pub better: Option<Better>,
    /// With the switch.
    pub changed: Summary,
    /// Mean with the switch over mean of the base; null where the base has values of 0 or less.
    pub ratio: Option<f64>,
    /// Its BCa bootstrap interval; null with fewer than four runs on a side.
    pub ratio_interval: Option<Interval>,
    /// Welch's comparison; null with fewer than two runs on a side.
    pub difference: Option<Difference>,
    /// Welch's interval as shares of the base's mean.
    pub relative_interval: Option<Interval>,
    /// Standardised difference.
    pub hedges_g: Option<f64>,
    /// Welch's p after Holm's adjustment over the switches of this figure.
    pub p_adjusted: Option<f64>,
    /// What follows.
    pub verdict: Verdict,
}

/// One switch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SwitchEffects {
    /// `KEY=VALUE`.
    pub switch: String,
    /// Runs that ended well.
    pub done: usize,
    /// Why others did not.
    pub reasons: Vec<String>,
    /// By figure, in the order the runs have them.
    pub effects: Vec<Effect>,
}

/// An ablation that was run, whole or in part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Ablation {
    /// `vpnbench.ablation.v1`.
    pub schema: String,
    /// The base, defaults included.
    pub scenario: Option<Scenario>,
    /// Level of the intervals.
    pub confidence: f64,
    /// Runs asked for per variant.
    pub repetitions: u32,
    /// Whether every run was made.
    pub complete: bool,
    /// Base runs that ended well.
    pub base_done: usize,
    /// Why others did not.
    pub base_reasons: Vec<String>,
    /// The base's figures.
    pub base: BTreeMap<String, Summary>,
    /// One per switch, in the order given.
    pub switches: Vec<SwitchEffects>,
    /// Of those switches that the reports of the base runs have a prediction for (`what_if`).
    #[serde(default)]
    pub predicted: Vec<Predicted>,
    /// Figures for the table, main one first.
    pub main_figures: Vec<String>,
}

/// Values of each figure in the order the runs have them.
fn values(runs: &[&RunOutcome]) -> Vec<(String, Option<Better>, Vec<f64>)> {
    let mut all: Vec<(String, Option<Better>, Vec<f64>)> = Vec::new();
    let done = runs.iter().filter(|run| run.status == Status::Done);
    for figure in done.flat_map(|run| &run.figures) {
        match all.iter_mut().find(|(name, ..)| *name == figure.name) {
            Some((_, _, values)) => values.push(figure.value),
            None => all.push((figure.name.clone(), figure.better, vec![figure.value])),
        }
    }
    all
}

fn reasons(runs: &[&RunOutcome]) -> Vec<String> {
    let bad = runs.iter().filter(|run| run.status != Status::Done);
    let mut reasons: Vec<String> = bad
        .map(|run| {
            format!(
                "{}: {}",
                run.status.name(),
                run.reason.clone().unwrap_or_default()
            )
        })
        .collect();
    reasons.dedup();
    reasons
}

fn done(runs: &[&RunOutcome]) -> usize {
    runs.iter().filter(|run| run.status == Status::Done).count()
}

impl Ablation {
    /// Compares each switch with the base.
    #[must_use]
    pub fn of(campaign: &Campaign, state: &State) -> Ablation {
        let groups = by_variant(state, campaign.variants.len());
        let base_runs = groups.first().cloned().unwrap_or_default();
        let base = values(&base_runs);
        let first = campaign.variants.first();
        let asked = first.map(|first| first.scenario.ablation.figures.clone());
        let switches = campaign.variants.iter().zip(&groups).skip(1);
        let mut switches: Vec<SwitchEffects> = switches
            .map(|(variant, runs)| SwitchEffects {
                switch: variant.labels[0].1.clone(),
                done: done(runs),
                reasons: reasons(runs),
                effects: effects(&base, &values(runs), campaign.seed),
            })
            .collect();
        adjust(&mut switches);
        let variants = campaign.variants.iter().zip(&groups).skip(1);
        let predicted = variants.filter_map(|(variant, runs)| {
            Predicted::of(&variant.labels[0].1, &base_runs, runs, campaign.seed)
        });
        let mut ablation = Ablation {
            schema: SCHEMA.to_owned(),
            scenario: first.map(|first| first.scenario.clone()),
            confidence: CONFIDENCE,
            repetitions: campaign.repetitions,
            complete: campaign.cells().iter().all(|cell| state.has(*cell)),
            base_done: done(&base_runs),
            base_reasons: reasons(&base_runs),
            base: base
                .iter()
                .filter_map(|(name, _, values)| Some((name.clone(), Summary::of(values)?)))
                .collect(),
            predicted: predicted.collect(),
            switches,
            main_figures: asked.unwrap_or_default(),
        };
        if ablation.main_figures.is_empty() {
            let main = base.first().map(|(name, ..)| name.clone());
            let retransmits = "retransmits".to_owned();
            ablation.main_figures = main.into_iter().chain([retransmits]).collect();
            ablation.main_figures.dedup();
        }
        ablation
    }

    /// Writes one table per main figure.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn write_table(&self, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
        for name in &self.main_figures {
            let Some(base) = self.base.get(name) else {
                writeln!(out, "{name}: the base has no such figure")?;
                continue;
            };
            let mut rows = Table::new(&[
                ("switch", Align::Name),
                ("runs", Align::Number),
                ("mean", Align::Number),
                ("ratio", Align::Number),
                ("95 % of the ratio", Align::Number),
                ("difference", Align::Number),
                ("g", Align::Number),
                ("p (Holm)", Align::Number),
                // Not cut where the screen is narrow: it is the answer.
                ("", Align::Number),
            ]);
            rows.row(base_cells(name, self.base_done, base));
            for switch in &self.switches {
                rows.row(cells(name, switch));
            }
            let title = format!("EFFECT ON {}", table::heading(name).to_uppercase());
            rows.write(&title, screen, out)?;
            writeln!(out)?;
        }
        predicted::write_table(&self.predicted, screen, out)?;
        self.write_notes(out)
    }

    fn write_notes(&self, out: &mut dyn Write) -> io::Result<()> {
        let variants = self
            .switches
            .iter()
            .map(|switch| (&switch.switch, &switch.reasons));
        let base = "base".to_owned();
        for (name, reasons) in [(&base, &self.base_reasons)].into_iter().chain(variants) {
            for reason in reasons {
                writeln!(out, " {name}: {reason}")?;
            }
        }
        writeln!(
            out,
            " ratio: mean with the switch over the base's, with its BCa bootstrap interval; difference: \
             Welch's\n 95 % interval as a share of the base's mean; g: Hedges' g; p: Welch's, adjusted \
             over the switches.\n \"within noise\": p (Holm) is above {:.2}.",
            1.0 - self.confidence
        )
    }
}

fn base_cells(name: &str, runs: usize, base: &Summary) -> Vec<String> {
    let sd = base.sd.map_or(String::new(), |sd| {
        format!("sd {}", table::value_text(name, sd))
    });
    let mean = table::value_text(name, base.mean);
    let empty = || String::new();
    vec![
        "base".to_owned(),
        runs.to_string(),
        mean,
        "1".to_owned(),
        empty(),
        empty(),
        empty(),
        empty(),
        sd,
    ]
}

fn cells(name: &str, switch: &SwitchEffects) -> Vec<String> {
    let dash = || "-".to_owned();
    let Some(effect) = switch.effects.iter().find(|effect| effect.figure == name) else {
        let mut cells = vec![table::brief(&switch.switch), switch.done.to_string()];
        cells.extend((0..6).map(|_| dash()));
        cells.push("no runs".to_owned());
        return cells;
    };
    let interval = |interval: Option<Interval>| {
        interval.map_or_else(dash, |i| format!("{:.2} .. {:.2}", i.low, i.high))
    };
    let percent = |i: Interval| format!("{:+.0} .. {:+.0} %", i.low * 100.0, i.high * 100.0);
    vec![
        table::brief(&switch.switch),
        switch.done.to_string(),
        table::value_text(name, effect.changed.mean),
        effect
            .ratio
            .map_or_else(dash, |ratio| format!("{ratio:.2}")),
        interval(effect.ratio_interval),
        effect.relative_interval.map_or_else(dash, percent),
        effect.hedges_g.map_or_else(dash, |g| format!("{g:+.1}")),
        effect.p_adjusted.map_or_else(dash, probability),
        judgement(effect).to_owned(),
    ]
}

fn judgement(effect: &Effect) -> &'static str {
    let up = effect
        .difference
        .is_some_and(|difference| difference.difference > 0.0);
    match (effect.verdict, effect.better, up) {
        (Verdict::TooFew, ..) => "too few runs",
        (Verdict::WithinNoise, ..) => "within noise",
        (Verdict::Differs, Some(Better::Higher), true)
        | (Verdict::Differs, Some(Better::Lower), false) => "better",
        (Verdict::Differs, Some(_), _) => "worse",
        (Verdict::Differs, None, _) => "differs",
    }
}

fn effects(
    base: &[(String, Option<Better>, Vec<f64>)],
    changed: &[(String, Option<Better>, Vec<f64>)],
    seed: u64,
) -> Vec<Effect> {
    let effect = |(name, better, values): &(String, Option<Better>, Vec<f64>)| {
        let (_, _, before) = base.iter().find(|(base_name, ..)| base_name == name)?;
        let ratio = ratio_of_means(before, values, seed);
        let difference = difference(before, values);
        let mean = Summary::of(before)?.mean;
        let relative = difference.filter(|_| mean > 0.0).map(|found| Interval {
            low: found.interval.low / mean,
            high: found.interval.high / mean,
        });
        Some(Effect {
            figure: name.clone(),
            better: *better,
            changed: Summary::of(values)?,
            ratio: ratio.map(|(ratio, _)| ratio),
            ratio_interval: ratio.and_then(|(_, interval)| interval),
            difference,
            relative_interval: relative,
            hedges_g: hedges_g(before, values),
            p_adjusted: None,
            verdict: Verdict::TooFew,
        })
    };
    changed.iter().filter_map(effect).collect()
}

/// Fills in the adjusted probabilities and what follows from them, figure by figure.
fn adjust(switches: &mut [SwitchEffects]) {
    let names: std::collections::BTreeSet<String> = switches
        .iter()
        .flat_map(|switch| switch.effects.iter().map(|effect| effect.figure.clone()))
        .collect();
    for name in names {
        let mut compared: Vec<(&mut Effect, f64)> = switches
            .iter_mut()
            .flat_map(|switch| switch.effects.iter_mut())
            .filter(|effect| effect.figure == name)
            .filter_map(|effect| effect.difference.map(|found| (effect, found.p)))
            .collect();
        let raw: Vec<f64> = compared.iter().map(|(_, p)| *p).collect();
        for ((effect, _), adjusted) in compared.iter_mut().zip(holm(&raw)) {
            effect.p_adjusted = Some(adjusted);
            effect.verdict = match adjusted < 1.0 - CONFIDENCE {
                true => Verdict::Differs,
                false => Verdict::WithinNoise,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Values = (String, Option<Better>, Vec<f64>);

    fn figure(values: &[f64]) -> Vec<Values> {
        vec![(
            "throughput_bps_received".to_owned(),
            Some(Better::Higher),
            values.to_vec(),
        )]
    }

    fn switch(base: &[f64], changed: &[f64]) -> SwitchEffects {
        SwitchEffects {
            switch: "x=y".to_owned(),
            done: changed.len(),
            reasons: Vec::new(),
            effects: effects(&figure(base), &figure(changed), 1),
        }
    }

    #[test]
    fn large_effects_differ_small_ones_are_noise_and_single_runs_say_nothing() {
        let base = [100.0, 104.0, 97.0, 101.0, 99.0];
        let mut switches = vec![
            switch(&base, &[52.0, 49.0, 50.0, 47.0, 51.0]),
            switch(&base, &[101.0, 98.0, 103.0, 99.0, 100.0]),
            switch(&base, &[52.0]),
        ];
        adjust(&mut switches);
        let verdicts: Vec<Verdict> = switches.iter().map(|s| s.effects[0].verdict).collect();
        assert_eq!(
            verdicts,
            [Verdict::Differs, Verdict::WithinNoise, Verdict::TooFew]
        );
        let half = &switches[0].effects[0];
        let ratio = half.ratio_interval.expect("five runs");
        assert!(
            ratio.low < 0.5 && 0.5 < ratio.high && ratio.high < 0.55,
            "{ratio:?}"
        );
        assert_eq!(judgement(half), "worse");
        assert_eq!(judgement(&switches[2].effects[0]), "too few runs");
    }
}
