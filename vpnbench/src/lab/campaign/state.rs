//! What a campaign has finished, on disk after each run.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Cell;
use crate::lab::outcome::{RunOutcome, Status, write_json};

/// Name of this schema.
pub(super) const SCHEMA: &str = "vpnbench.campaign.v1";
/// The file in the campaign's directory.
pub(super) const FILE: &str = "state.json";

/// A run that ended by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    /// Which.
    pub cell: Cell,
    /// What sets its variant apart.
    pub labels: BTreeMap<String, String>,
    /// Its directory below the campaign's.
    pub directory: PathBuf,
    /// How it ended.
    pub outcome: RunOutcome,
}

/// What a campaign was asked for and what it has of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    schema: String,
    /// What was asked for; a directory belongs to one plan.
    plan: serde_json::Value,
    finished: Vec<Finished>,
}

/// Why a campaign cannot begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file or directory of the campaign.
    #[error("{operation} {}: {source}", path.display())]
    File {
        /// What was tried, as a gerund.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not a state.
    #[error("{} cannot be read as the state of a campaign: {source}", path.display())]
    Damaged {
        /// File.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The directory belongs to another campaign.
    #[error(
        "{} holds other runs than the ones asked for; give another directory with -o, or the same \
         options to go on",
        directory.display()
    )]
    OtherPlan {
        /// Directory.
        directory: PathBuf,
    },
}

impl StateError {
    pub(crate) fn file(
        operation: &'static str,
        path: &Path,
    ) -> impl FnOnce(io::Error) -> StateError {
        let path = path.to_owned();
        move |source| StateError::File {
            operation,
            path,
            source,
        }
    }
}

impl State {
    /// Nothing finished of a plan.
    #[must_use]
    pub fn new(plan: serde_json::Value) -> State {
        State {
            schema: SCHEMA.to_owned(),
            plan,
            finished: Vec::new(),
        }
    }

    /// The state in a directory, or an empty one if it has none. What was skipped is tried again:
    /// nothing was measured, and what was missing may be there now. What failed stays: a
    /// measurement that came out badly is a result.
    ///
    /// # Errors
    /// When the directory belongs to another plan or cannot be read.
    pub fn open(directory: &Path, plan: serde_json::Value) -> Result<State, StateError> {
        let path = directory.join(FILE);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(State::new(plan)),
            other => other.map_err(StateError::file("reading", &path))?,
        };
        let read: Result<State, _> = serde_json::from_str(&text);
        let mut state = read.map_err(|source| StateError::Damaged { path, source })?;
        if state.plan != plan {
            return Err(StateError::OtherPlan {
                directory: directory.to_owned(),
            });
        }
        state
            .finished
            .retain(|finished| finished.outcome.status != Status::Skipped);
        Ok(state)
    }

    /// Whether a run is finished.
    #[must_use]
    pub fn has(&self, cell: Cell) -> bool {
        self.finished.iter().any(|finished| finished.cell == cell)
    }

    /// The finished runs in the order they were made.
    #[must_use]
    pub fn finished(&self) -> &[Finished] {
        &self.finished
    }

    /// How many runs are finished.
    #[must_use]
    pub fn finished_count(&self) -> usize {
        self.finished.len()
    }

    pub(super) fn add(&mut self, finished: Finished) {
        self.finished.push(finished);
    }

    /// Writes the state; a crash leaves the old one or the new one.
    pub(super) fn save(&self, directory: &Path) -> Result<(), StateError> {
        let path = directory.join(FILE);
        write_json(&path, self).map_err(StateError::file("writing", &path))
    }
}
