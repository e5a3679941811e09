//! Differences as the study's documents hold them; the arithmetic is `analysis::statistics`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::analysis::statistics::{Summary, difference, hedges_g};
pub use crate::analysis::statistics::{mean, median, variance};

/// 95 % confidence interval of the mean (Student's t, n - 1 degrees of freedom); `None` with fewer
/// than two values.
#[must_use]
pub fn mean_interval(values: &[f64]) -> Option<(f64, f64)> {
    let interval = Summary::of(values)?.mean_interval?;
    Some((interval.low, interval.high))
}

/// A difference of two means with its interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Difference {
    /// Mean of the first minus mean of the second.
    pub difference: f64,
    /// Lower end of the 95 % confidence interval.
    pub low: f64,
    /// Upper end of the 95 % confidence interval.
    pub high: f64,
    /// Hedges' g: the difference in pooled standard deviations, corrected for small samples
    /// (Hedges 1981, factor 1 - 3 / (4 (n1 + n2) - 9)); null without spread.
    pub effect_size: Option<f64>,
    /// Samples of the first.
    pub first_n: usize,
    /// Samples of the second.
    pub second_n: usize,
}

impl Difference {
    /// Whether the interval excludes zero.
    #[must_use]
    pub fn is_beyond_spread(&self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }
}

/// Welch's interval for the difference of two means with unequal variances. `None` with fewer than
/// two samples on a side. Where neither side varies the interval is the difference itself.
#[must_use]
pub fn welch(first: &[f64], second: &[f64]) -> Option<Difference> {
    variance(first).and(variance(second))?;
    let found = difference(second, first);
    let difference = mean(first)? - mean(second)?;
    let (low, high) = found.map_or((difference, difference), |found| {
        (found.interval.low, found.interval.high)
    });
    Some(Difference {
        difference,
        low,
        high,
        effect_size: hedges_g(second, first),
        first_n: first.len(),
        second_n: second.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_and_medians() {
        assert_eq!(mean(&[1.0, 2.0, 6.0]), Some(3.0));
        assert_eq!(median(&[6.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0]), Some(2.5));
        assert_eq!(
            (mean(&[]), median(&[]), variance(&[1.0])),
            (None, None, None)
        );
    }

    /// 12.706 is the 97.5 % quantile of t with one degree of freedom.
    #[test]
    fn interval_of_a_mean() {
        let (low, high) = mean_interval(&[1.0, 3.0]).expect("two samples");
        assert!((low - (2.0 - 12.706)).abs() < 1e-2 && (high - 14.706).abs() < 1e-2);
        assert_eq!(mean_interval(&[1.0]), None);
    }

    /// The figures of R's `t.test(c(38.41, 37.68, 48.3), c(24.43, 30.02, 34.5))`.
    #[test]
    fn welch_agrees_with_r() {
        let found = welch(&[38.41, 37.68, 48.3], &[24.43, 30.02, 34.5]).expect("two samples");
        assert!((found.difference - 11.813_333).abs() < 1e-5, "{found:?}");
        assert!(found.low < 0.0 && found.high > 24.0, "{found:?}");
        assert!(!found.is_beyond_spread());
    }

    #[test]
    fn no_spread_is_no_interval() {
        let found = welch(&[1.0, 1.0], &[3.0, 3.0]).expect("two samples");
        assert_eq!(
            (found.low, found.high, found.effect_size),
            (-2.0, -2.0, None)
        );
        assert!(welch(&[1.0], &[3.0, 3.0]).is_none());
    }
}
