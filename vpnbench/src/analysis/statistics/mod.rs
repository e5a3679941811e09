//! Comparing two sets of repetitions: what the difference is, how sure it is, and whether it is
//! more than the spread of the repetitions. Pure functions; what cannot be said is `None`.

mod bootstrap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF as _, Normal, StudentsT};

pub use bootstrap::ratio_of_means;

/// Level of all confidence intervals.
pub const CONFIDENCE: f64 = 0.95;

/// A closed interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Repetitions of one measurement.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// How many.
    pub n: usize,
    /// Arithmetic mean.
    pub mean: f64,
    /// Sample standard deviation (divided by n - 1); null for a single value.
    pub sd: Option<f64>,
    /// Middle value; the mean of the two middle ones where n is even.
    pub median: f64,
    /// Least value.
    pub min: f64,
    /// Greatest value.
    pub max: f64,
    /// Interval of the mean from Student's t distribution, mean +- t(n-1) sd / sqrt(n); null for
    /// a single value.
    pub mean_interval: Option<Interval>,
}

impl Summary {
    /// Summarises values; None if there are none.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Summary> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let n = sorted.len();
        let mean = average(values);
        let sd = variance(values).map(f64::sqrt);
        let half = sd.and_then(|sd| Some(quantile(n as f64 - 1.0)? * sd / (n as f64).sqrt()));
        Some(Summary {
            n,
            mean,
            sd,
            median: middle(&sorted),
            min,
            max,
            mean_interval: half.map(|half| Interval {
                low: mean - half,
                high: mean + half,
            }),
        })
    }
}

/// The mean of a changed set minus that of its base.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Difference {
    /// Mean of the changed set minus mean of the base.
    pub difference: f64,
    /// Its interval by Welch's method.
    pub interval: Interval,
    /// Welch's t.
    pub t: f64,
    /// Degrees of freedom (Welch-Satterthwaite).
    pub degrees: f64,
    /// Two-sided probability of a difference this large between two sets of equal means.
    pub p: f64,
}

/// Compares two sets that may vary differently: Welch's t with Satterthwaite's degrees of freedom,
/// t = (m1 - m0) / se, se^2 = s0^2/n0 + s1^2/n1,
/// df = se^4 / ((s0^2/n0)^2/(n0-1) + (s1^2/n1)^2/(n1-1))
/// (B. L. Welch, Biometrika 34, 1947). None with fewer than two values on a side, or where neither
/// side varies at all, since then the spread is not known.
#[must_use]
pub fn difference(base: &[f64], changed: &[f64]) -> Option<Difference> {
    let of = |values: &[f64]| Some((variance(values)? / values.len() as f64, values.len() as f64));
    let ((v0, n0), (v1, n1)) = (of(base)?, of(changed)?);
    let error = (v0 + v1).sqrt();
    if error <= 0.0 {
        return None;
    }
    let degrees = (v0 + v1).powi(2) / (v0.powi(2) / (n0 - 1.0) + v1.powi(2) / (n1 - 1.0));
    let difference = average(changed) - average(base);
    let t = difference / error;
    let half = quantile(degrees)? * error;
    let p = 2.0 * StudentsT::new(0.0, 1.0, degrees).ok()?.cdf(-t.abs());
    Some(Difference {
        difference,
        interval: Interval {
            low: difference - half,
            high: difference + half,
        },
        t,
        degrees,
        p,
    })
}

/// Hedges' g: the difference in units of the pooled standard deviation, with the correction
/// 1 - 3 / (4 df - 1) for small sets (L. V. Hedges, J. Educ. Stat. 6, 1981).
#[must_use]
pub fn hedges_g(base: &[f64], changed: &[f64]) -> Option<f64> {
    let degrees = |values: &[f64]| values.len() as f64 - 1.0;
    let (d0, d1) = (degrees(base), degrees(changed));
    let pooled = (variance(base)? * d0 + variance(changed)? * d1) / (d0 + d1);
    let g = (average(changed) - average(base)) / pooled.sqrt();
    (pooled > 0.0).then_some(g * (1.0 - 3.0 / (4.0 * (d0 + d1) - 1.0)))
}

/// Probabilities adjusted for having looked more than once: with k of them, the i-th smallest (from
/// 0) is multiplied by k - i, none below the one before it (S. Holm, Scand. J. Stat. 6, 1979).
#[must_use]
pub fn holm(probabilities: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    order.sort_by(|a, b| probabilities[*a].total_cmp(&probabilities[*b]));
    let mut adjusted = vec![0.0; probabilities.len()];
    let mut least = 0.0_f64;
    for (rank, at) in order.iter().enumerate() {
        let factor = (probabilities.len() - rank) as f64;
        least = least.max((probabilities[*at] * factor).min(1.0));
        adjusted[*at] = least;
    }
    adjusted
}

/// Arithmetic mean; `None` without values.
#[must_use]
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| average(values))
}

/// Middle value, or the mean of the two middle ones; `None` without values.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    (!sorted.is_empty()).then(|| middle(&sorted))
}

/// Sample variance, divided by n - 1; `None` with fewer than two values.
#[must_use]
pub fn variance(values: &[f64]) -> Option<f64> {
    let middle = average(values);
    let squares: f64 = values.iter().map(|value| (value - middle).powi(2)).sum();
    (values.len() > 1).then(|| squares / (values.len() as f64 - 1.0))
}

/// Arithmetic mean; NaN of nothing, which callers exclude.
fn average(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Median of sorted values, of which there is at least one.
fn middle(sorted: &[f64]) -> f64 {
    let n = sorted.len();
    (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0
}

/// The quantile of Student's t that leaves (1 - [`CONFIDENCE`]) / 2 above it; None without a degree of freedom.
#[must_use]
pub fn quantile(degrees: f64) -> Option<f64> {
    let students = StudentsT::new(0.0, 1.0, degrees).ok()?;
    Some(students.inverse_cdf(1.0 - (1.0 - CONFIDENCE) / 2.0))
}

/// By how much two values differ that vary independently and normally around one mean, with these standard deviations:
/// what they exceed with the probability `level` only. `None` without both, or where neither varies.
#[must_use]
pub fn spread_of_difference(deviations: (Option<f64>, Option<f64>), level: f64) -> Option<f64> {
    let both = deviations.0?.hypot(deviations.1?);
    let normal = Normal::new(0.0, both).ok().filter(|_| both > 0.0)?;
    Some(normal.inverse_cdf(1.0 - level / 2.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Student's sleep data (Biometrika 6, 1908), for which R's `t.test` prints t = -1.8608,
    /// df = 17.776, p = 0.07939, interval -3.3654832 .. 0.2054832.
    const SECOND: [f64; 10] = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4];
    const FIRST: [f64; 10] = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0];

    fn close(value: f64, expected: f64, tolerance: f64) {
        assert!(
            (value - expected).abs() < tolerance,
            "{value} for {expected}"
        );
    }

    #[test]
    fn welch_agrees_with_r() {
        let welch = difference(&SECOND, &FIRST).expect("both vary");
        close(welch.t, -1.8608, 5e-5);
        close(welch.degrees, 17.776, 5e-4);
        close(welch.p, 0.07939, 5e-6);
        close(welch.interval.low, -3.365_483_2, 1e-6);
        close(welch.interval.high, 0.205_483_2, 1e-6);
    }

    #[test]
    fn a_summary_agrees_with_r() {
        // t.test(extra[group == 1]): 0.75, interval -0.5297804 .. 2.0297804.
        let summary = Summary::of(&FIRST).expect("values");
        close(summary.mean, 0.75, 1e-12);
        let interval = summary.mean_interval.expect("ten values");
        close(interval.low, -0.529_780_4, 1e-6);
        close(interval.high, 2.029_780_4, 1e-6);
        close(summary.median, 0.35, 1e-12);
        assert_eq!(Summary::of(&[]), None);
        assert_eq!(
            Summary::of(&[3.0]).map(|one| (one.sd, one.mean_interval)),
            Some((None, None))
        );
    }

    #[test]
    fn holm_agrees_with_r() {
        // p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
        let adjusted = holm(&[0.01, 0.04, 0.03, 0.005]);
        for (value, expected) in adjusted.iter().zip([0.03, 0.06, 0.06, 0.02]) {
            close(*value, expected, 1e-12);
        }
        assert!(holm(&[]).is_empty());
    }

    #[test]
    fn hedges_g_is_the_corrected_standardised_difference() {
        // Cohen's d of these is 1 (means 1 apart, both variances 1), df = 4, factor 1 - 3/15.
        let g = hedges_g(&[1.0, 2.0, 3.0], &[2.0, 3.0, 4.0]).expect("both vary");
        close(g, 0.8, 1e-12);
    }

    #[test]
    fn without_spread_nothing_is_claimed() {
        assert_eq!(difference(&[1.0], &[2.0, 3.0]), None);
        assert_eq!(difference(&[1.0, 1.0], &[2.0, 2.0]), None);
        assert_eq!(hedges_g(&[1.0, 1.0], &[2.0, 2.0]), None);
    }
}
