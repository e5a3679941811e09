//! Many simulated runs ([`super::closed`]) with and without a change: how throughput differs on average.
//!
//! Where a run's slow start ends is chance, so single runs of equal settings differ by half and more;
//! only means say something. The runs begin at places spread over the recorded packets, the same for both
//! settings.

use super::closed::{Course, Ran, over, run};
use super::path::Path;
use super::rules::Rules;

/// Simulated runs of each setting.
const RUNS: usize = 24;
/// Segments of a run at most.
const SEGMENTS: u64 = 16_384;
/// Recorded packets without which nothing is simulated.
pub(super) const FEWEST: usize = 32;
/// Runs without which nothing is said.
const FEWEST_RUNS: usize = 4;
/// Standard errors on either side of the mean: 95 %.
const ERRORS: f64 = 1.96;

/// Segments that may still be simulated, over all senders of a recording: what a report may cost.
#[derive(Debug, Clone, Copy)]
pub struct Budget(pub u64);

impl Default for Budget {
    fn default() -> Budget {
        Budget(4_000_000)
    }
}

/// Throughput with a change over that without, by simulation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratio {
    /// Of the means.
    pub expected: f64,
    /// 95 % interval of it, by the spread of the simulated runs.
    pub low: f64,
    /// Its other end.
    pub high: f64,
}

impl Ratio {
    /// Nothing changes.
    pub const SAME: Ratio = Ratio {
        expected: 1.0,
        low: 1.0,
        high: 1.0,
    };

    /// Of paired runs, in segments a second: R = mean(changed) / mean(base), with the standard error of
    /// the residuals `changed - R base` (W. Cochran, Sampling Techniques, 1977, section 6.3).
    fn of(base: &[f64], changed: &[f64]) -> Option<Ratio> {
        let count = base.len().min(changed.len()) as f64;
        let mean = |all: &[f64]| all.iter().sum::<f64>() / count;
        let (before, after) = (mean(base), mean(changed));
        if count < 2.0 || before <= 0.0 || after <= 0.0 {
            return None;
        }
        let expected = after / before;
        let residuals = base.iter().zip(changed);
        let squares: f64 = residuals.map(|(b, c)| (c - expected * b).powi(2)).sum();
        let error = (squares / (count - 1.0) / count).sqrt() / before;
        Some(Ratio {
            expected,
            low: (expected - ERRORS * error).max(0.0),
            high: expected + ERRORS * error,
        })
    }
}

/// A setting of which runs are simulated.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Loss detection.
    pub rules: Rules,
    /// `reordering` at the beginning.
    pub reordering: u32,
    /// The path.
    pub path: Path,
}

/// Runs of one setting.
#[derive(Debug, Clone, Default)]
pub struct Runs {
    /// Segments a second, run by run.
    rates: Vec<f64>,
}

impl Runs {
    fn push(&mut self, ran: &Ran) {
        self.rates.push(ran.rate());
    }

    /// Mean over the runs, segments a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.rates.iter().sum::<f64>() / self.rates.len().max(1) as f64
    }

    /// Throughput over that of other runs.
    #[must_use]
    pub fn over(&self, base: &Runs) -> Option<Ratio> {
        Ratio::of(&base.rates, &self.rates)
    }
}

/// The runs of one sender as it was.
#[derive(Debug, Clone)]
pub struct Base<'a> {
    delays: &'a [u32],
    course: Course,
    /// They.
    pub runs: Runs,
}

impl Base<'_> {
    /// Simulates it; `settings` says how many settings the budget must do for. `None` if too little was
    /// recorded or the budget is used up.
    #[must_use]
    pub fn new<'a>(
        delays: &'a [u32],
        course: Course,
        setting: Setting,
        settings: usize,
        budget: &mut Budget,
    ) -> Option<Base<'a>> {
        if delays.len() < FEWEST {
            return None;
        }
        let mut base = Base {
            delays,
            course: Course {
                segments: course.segments.min(SEGMENTS),
                ..course
            },
            runs: Runs::default(),
        };
        // Each setting is taken to send as much as the base.
        let over = over(setting.path, delays);
        while base.runs.rates.len() < RUNS && budget.0 > 0 {
            let ran = base.run(setting, &over, base.runs.rates.len());
            let spent = ran.outcome.segments * settings.max(1) as u64;
            budget.0 = budget.0.saturating_sub(spent.max(1));
            base.runs.push(&ran);
        }
        (base.runs.rates.len() >= FEWEST_RUNS).then_some(base)
    }

    /// Each run begins elsewhere, all over the recorded packets.
    fn run(&self, setting: Setting, delays: &[u32], number: usize) -> Ran {
        let from = delays.len() * number / RUNS;
        let Setting {
            rules, reordering, ..
        } = setting;
        run(&self.course, rules, reordering, delays, from)
    }

    /// Simulates the same runs with a change.
    #[must_use]
    pub fn with(&self, setting: Setting) -> Runs {
        let delays = over(setting.path, self.delays);
        let mut runs = Runs::default();
        for number in 0..self.runs.rates.len() {
            runs.push(&self.run(setting, &delays, number));
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_that_of_a_ratio_of_means() {
        // Residuals of R = 2: 0, 1, -1; standard error sqrt(2 / 2 / 3) / 2.
        let found = Ratio::of(&[1.0, 2.0, 3.0], &[2.0, 5.0, 5.0]).unwrap();
        assert!((found.expected - 2.0).abs() < 1e-9);
        let error = (1.0f64 / 3.0).sqrt() / 2.0;
        assert!((found.high - 2.0 - 1.96 * error).abs() < 1e-9);
        assert_eq!(Ratio::of(&[1.0, 1.0], &[1.0, 1.0]), Some(Ratio::SAME));
    }

    #[test]
    fn a_budget_that_is_used_up_simulates_nothing() {
        let course = Course {
            cwnd: 10,
            threshold: 10,
            duration: 1_000_000_000,
            segments: 100,
        };
        let setting = Setting {
            rules: Rules::default(),
            reordering: 3,
            path: Path::AsItWas,
        };
        let delays = [5000; 100];
        let mut budget = Budget(2000);
        let base = Base::new(&delays, course, setting, 5, &mut budget).unwrap();
        assert_eq!((base.runs.rates.len(), budget.0), (4, 0));
        assert_eq!(base.with(setting).over(&base.runs), Some(Ratio::SAME));
        assert!(Base::new(&delays, course, setting, 5, &mut budget).is_none());
    }
}
