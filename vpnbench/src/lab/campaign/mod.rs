//! Many runs in one go: every variant as often as asked, in random order within each repetition so
//! that slow changes of the machine hit all variants alike, with a file from which an interrupted
//! campaign goes on. A matrix and an ablation are campaigns.

mod state;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rand::SeedableRng as _;
use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::SliceRandom as _;
use serde::{Deserialize, Serialize};

pub use state::{Finished, State, StateError};

use super::outcome::{RunOutcome, Status};
use super::scenario::{Order, Scenario};

/// One setting of everything that is varied.
#[derive(Debug, Clone)]
pub struct Variant {
    /// What sets it apart, for tables: axis and value.
    pub labels: Vec<(String, String)>,
    /// Its directory below the campaign's; repetitions are directories in it.
    pub directory: PathBuf,
    /// What runs.
    pub scenario: Scenario,
}

/// What is to run.
#[derive(Debug, Clone)]
pub struct Campaign {
    /// The variants.
    pub variants: Vec<Variant>,
    /// How often each runs.
    pub repetitions: u32,
    /// Runs of the first variant made before everything else and thrown away.
    pub warm_up: u32,
    /// Order within a repetition.
    pub order: Order,
    /// Seed of the order.
    pub seed: u64,
}

/// One run of a campaign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cell {
    /// Index of the variant.
    pub variant: usize,
    /// Number of the repetition, from 1.
    pub repetition: u32,
}

/// Makes one run in a directory. An error ends the campaign; a run that failed is an outcome.
pub type Runner<'a, E> = &'a mut dyn FnMut(&Scenario, u32, Option<&Path>) -> Result<RunOutcome, E>;

/// Why a campaign ended early.
#[derive(Debug, thiserror::Error)]
pub enum CampaignError<E> {
    /// A run could not go on, and neither can the next: interrupted, not permitted.
    #[error(transparent)]
    Run(E),
    /// The campaign's own files.
    #[error(transparent)]
    State(#[from] StateError),
}

impl Campaign {
    /// A campaign over variants, run as the first one's `[run]` section says.
    #[must_use]
    pub fn of(variants: Vec<Variant>) -> Campaign {
        let run = variants.first().map(|first| first.scenario.run.clone());
        let run = run.unwrap_or_default();
        Campaign {
            repetitions: run.repetitions,
            warm_up: run.warm_up,
            order: run.order,
            seed: variants.first().map_or(1, |first| first.scenario.seed),
            variants,
        }
    }

    /// What was asked for: two campaigns with the same plan make the same runs.
    #[must_use]
    pub fn plan(&self) -> serde_json::Value {
        let variant = |variant: &Variant| {
            serde_json::json!({
                "labels": variant.labels,
                "scenario": variant.scenario,
            })
        };
        self.variants.iter().map(variant).collect()
    }

    /// All runs in the order they are made. The order depends on the seed alone, so that it is the
    /// same after an interruption.
    #[must_use]
    pub fn cells(&self) -> Vec<Cell> {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(self.seed);
        let mut cells = Vec::new();
        for repetition in 1..=self.repetitions {
            let mut block: Vec<Cell> = (0..self.variants.len())
                .map(|variant| Cell {
                    variant,
                    repetition,
                })
                .collect();
            if self.order == Order::Random {
                block.shuffle(&mut rng);
            }
            cells.append(&mut block);
        }
        cells
    }

    /// Directory of a run below the campaign's.
    #[must_use]
    pub fn directory_of(&self, cell: Cell) -> PathBuf {
        let variant = &self.variants[cell.variant].directory;
        variant.join(format!("{:03}", cell.repetition))
    }

    /// Makes every run that `state` does not have yet. After each the state is on disk.
    ///
    /// # Errors
    /// When the runner cannot go on, or the state cannot be written; what was finished stays.
    pub fn run<E>(
        &self,
        directory: &Path,
        state: &mut State,
        runner: Runner<'_, E>,
        say: &mut dyn FnMut(&str),
    ) -> Result<(), CampaignError<E>> {
        let cells = self.cells();
        let open: Vec<Cell> = cells.into_iter().filter(|cell| !state.has(*cell)).collect();
        let total = self.variants.len() * self.repetitions as usize;
        if state.finished_count() > 0 {
            say(&format!(
                "{} of {total} runs are there already",
                state.finished_count()
            ));
        }
        self.warm_up(&open, runner, say)?;
        let begun = Instant::now();
        for (made, cell) in open.iter().enumerate() {
            let variant = &self.variants[cell.variant];
            let place = directory.join(self.directory_of(*cell));
            clear(&place)?;
            let outcome = runner(&variant.scenario, cell.repetition, Some(&place));
            let outcome = outcome.map_err(CampaignError::Run)?;
            let left = open.len() - made - 1;
            let remaining = begun.elapsed().as_secs_f64() / (made as f64 + 1.0) * left as f64;
            let number = state.finished_count() + 1;
            say(&line(
                number,
                total,
                variant,
                &outcome,
                (left > 0).then_some(remaining),
            ));
            state.add(Finished {
                cell: *cell,
                labels: variant.labels.iter().cloned().collect(),
                directory: self.directory_of(*cell),
                outcome,
            });
            state.save(directory)?;
        }
        Ok(())
    }

    fn warm_up<E>(
        &self,
        open: &[Cell],
        runner: Runner<'_, E>,
        say: &mut dyn FnMut(&str),
    ) -> Result<(), CampaignError<E>> {
        let Some(first) = self.variants.first().filter(|_| !open.is_empty()) else {
            return Ok(());
        };
        for number in 1..=self.warm_up {
            let outcome = runner(&first.scenario, number, None).map_err(CampaignError::Run)?;
            let reason = outcome
                .reason
                .map_or(String::new(), |why| format!(": {why}"));
            say(&format!(
                "warm-up {number} of {}: {}{reason}",
                self.warm_up,
                outcome.status.name()
            ));
        }
        Ok(())
    }
}

/// Removes what an interrupted run has left in its directory.
fn clear(place: &Path) -> Result<(), StateError> {
    match fs::remove_dir_all(place) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StateError::file("removing", place)(error))
        }
        _ => fs::create_dir_all(place).map_err(StateError::file("creating", place)),
    }
}

/// One line of progress.
fn line(
    number: usize,
    total: usize,
    variant: &Variant,
    outcome: &RunOutcome,
    remaining_s: Option<f64>,
) -> String {
    let labels: Vec<&str> = variant
        .labels
        .iter()
        .map(|(_, value)| value.as_str())
        .collect();
    let result = match (outcome.status, &outcome.reason) {
        (Status::Done, _) => {
            let main = outcome.figures.first();
            main.map_or_else(|| "done".to_owned(), super::table::figure_text)
        }
        (status, Some(reason)) => format!("{}: {reason}", status.name()),
        (status, None) => status.name().to_owned(),
    };
    let left = remaining_s.map_or(String::new(), |seconds| {
        format!(", about {} left", crate::report::units::duration(seconds))
    });
    format!(
        "[{number}/{total}] {} #{}: {result}{left}",
        labels.join(" "),
        outcome.repetition
    )
}

/// The outcomes of each variant, in the order of the variants, repetitions in order.
#[must_use]
pub fn by_variant(state: &State, variants: usize) -> Vec<Vec<&RunOutcome>> {
    let mut sorted: BTreeMap<Cell, &RunOutcome> = BTreeMap::new();
    for finished in state.finished() {
        sorted.insert(finished.cell, &finished.outcome);
    }
    let mut groups = vec![Vec::new(); variants];
    for (cell, outcome) in sorted {
        if let Some(group) = groups.get_mut(cell.variant) {
            group.push(outcome);
        }
    }
    groups
}

#[cfg(test)]
mod tests;
