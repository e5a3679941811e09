//! The list of a suite's cases: those that cannot run here say why, and those that take long or want
//! a quiet machine run when they are asked for.

use std::path::Path;

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};

/// Collects the cases of one suite.
#[derive(Debug)]
pub struct Trials {
    trials: Vec<Trial>,
    /// Whether ignored cases are asked for (`--ignored`, `--include-ignored`).
    all: bool,
}

impl Trials {
    /// An empty list, under what the command line asks for.
    #[must_use]
    pub fn new(arguments: &Arguments) -> Trials {
        Trials {
            trials: Vec::new(),
            all: arguments.ignored || arguments.include_ignored,
        }
    }

    /// Adds a case; with a reason why it cannot run here it counts as skipped.
    pub fn add(&mut self, trial: Trial, missing: Option<&str>) {
        match missing {
            None => self.trials.push(trial),
            Some(reason) if self.all => say(&format!("skipped: {}: {reason}", trial.name())),
            Some(reason) => self.trials.push(
                trial
                    .with_ignored_flag(true)
                    .with_kind(format!("skipped: {reason}")),
            ),
        }
    }

    /// Adds a case that runs only with `--include-ignored` or `--ignored`, for a reason.
    pub fn add_on_demand(&mut self, trial: Trial, why: &str, missing: Option<&str>) {
        match missing {
            None => self
                .trials
                .push(trial.with_ignored_flag(true).with_kind(why.to_owned())),
            missing => self.add(trial, missing),
        }
    }

    /// Adds a case that needs root, files (with their full path) and programs.
    pub fn add_as_root(
        &mut self,
        name: &str,
        needs: &[&str],
        body: impl FnOnce() -> Result<()> + Send + 'static,
    ) {
        self.add(trial(name, body), missing(needs).as_deref());
    }

    /// The list.
    #[must_use]
    pub fn finish(self) -> Vec<Trial> {
        self.trials
    }
}

/// A case from a body.
#[must_use]
pub fn trial(name: &str, body: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    Trial::test(name, || {
        body().map_err(|error| Failed::from(format!("{error:?}")))
    })
}

/// What a case needs and is not here.
fn missing(needs: &[&str]) -> Option<String> {
    let has = |need: &str| match need.starts_with('/') {
        true => Path::new(need).exists(),
        false => vpnbench::lab::benchmark::is_installed(need),
    };
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root".to_owned());
    }
    let need = needs.iter().find(|need| !has(need))?;
    Some(format!("{need} not found"))
}

#[allow(
    clippy::print_stdout,
    reason = "the line that the contract for skipped tests asks for"
)]
fn say(text: &str) {
    println!("{text}");
}
