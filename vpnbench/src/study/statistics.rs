//! Means, spreads and intervals.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF as _, StudentsT};

/// Arithmetic mean; `None` without values.
#[must_use]
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Sample variance (divisor n - 1); `None` with fewer than two values.
#[must_use]
pub fn variance(values: &[f64]) -> Option<f64> {
    let mean = mean(values).filter(|_| values.len() > 1)?;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some(squares / (values.len() - 1) as f64)
}

/// Median; `None` without values.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        length if length % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// 95 % confidence interval of the mean (Student's t, n - 1 degrees of freedom); `None` with fewer
/// than two values.
#[must_use]
pub fn mean_interval(values: &[f64]) -> Option<(f64, f64)> {
    let (mean, variance) = (mean(values)?, variance(values)?);
    let n = values.len() as f64;
    let t = StudentsT::new(0.0, 1.0, n - 1.0).ok()?.inverse_cdf(0.975);
    let half = t * (variance / n).sqrt();
    Some((mean - half, mean + half))
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

/// Welch's interval for the difference of two means with unequal variances (Welch 1947; degrees
/// of freedom by Welch-Satterthwaite). `None` with fewer than two samples on a side.
#[must_use]
pub fn welch(first: &[f64], second: &[f64]) -> Option<Difference> {
    let (m1, m2) = (mean(first)?, mean(second)?);
    let (n1, n2) = (first.len() as f64, second.len() as f64);
    let (v1, v2) = (variance(first)?, variance(second)?);
    let (s1, s2) = (v1 / n1, v2 / n2);
    let difference = m1 - m2;
    let error = (s1 + s2).sqrt();
    let half = if error > 0.0 {
        let freedom = (s1 + s2).powi(2) / (s1.powi(2) / (n1 - 1.0) + s2.powi(2) / (n2 - 1.0));
        StudentsT::new(0.0, 1.0, freedom).ok()?.inverse_cdf(0.975) * error
    } else {
        0.0
    };
    let pooled = (((n1 - 1.0) * v1 + (n2 - 1.0) * v2) / (n1 + n2 - 2.0)).sqrt();
    let correction = 1.0 - 3.0 / (4.0 * (n1 + n2) - 9.0);
    Some(Difference {
        difference,
        low: difference - half,
        high: difference + half,
        effect_size: (pooled > 0.0).then(|| correction * difference / pooled),
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
