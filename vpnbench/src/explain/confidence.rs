//! How sure a comparison is, from the counts behind it.
//!
//! A ratio k of n is compared with a bound by its posterior under Jeffreys' prior, Beta(k + 1/2,
//! n - k + 1/2) (H. Jeffreys, Proc. R. Soc. A 186, 1946; L. D. Brown, T. T. Cai, A. DasGupta, Statistical
//! Science 16, 2001). Times are turned into counts by the length of what can change independently: a
//! round trip for a sender, the time a packet waits for a queue.

use statrs::distribution::{Beta, ContinuousCDF as _};

/// Probability that the true ratio is above `bound` after `hits` of `of`.
#[must_use]
pub fn ratio_above(hits: f64, of: f64, bound: f64) -> f64 {
    if of.is_nan() || of <= 0.0 || bound >= 1.0 {
        return 0.0;
    }
    if bound <= 0.0 {
        return 1.0;
    }
    let hits = hits.clamp(0.0, of);
    Beta::new(hits + 0.5, of - hits + 0.5).map_or(0.0, |posterior| 1.0 - posterior.cdf(bound))
}

/// Probability that the true share of time is above `bound`, when `share` was measured over `seconds`
/// in which the state could change every `grain_s`. At least one change is assumed.
#[must_use]
pub fn time_above(share: f64, seconds: f64, grain_s: f64, bound: f64) -> f64 {
    let changes = if grain_s > 0.0 {
        (seconds / grain_s).max(1.0)
    } else {
        1.0
    };
    ratio_above(share.clamp(0.0, 1.0) * changes, changes, bound)
}

/// The probability that both of two independent claims hold.
#[must_use]
pub fn both(one: f64, other: f64) -> f64 {
    one * other
}

/// Probability of phases at least this aligned by chance: Rayleigh's test, p = exp(-n R^2) with R the
/// mean resultant length (K. V. Mardia, P. E. Jupp, Directional Statistics, 2000, section 6.3.1).
#[must_use]
pub fn rayleigh(phases: &[f64]) -> f64 {
    let n = phases.len() as f64;
    if phases.is_empty() {
        return 1.0;
    }
    let turn = std::f64::consts::TAU;
    let x: f64 = phases.iter().map(|phase| (phase * turn).cos()).sum();
    let y: f64 = phases.iter().map(|phase| (phase * turn).sin()).sum();
    (-(x * x + y * y) / n).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_decide() {
        // Upper tails of Beta(0.5, 25.5) and Beta(10.5, 990.5), from SciPy's beta.sf.
        assert!((ratio_above(0.0, 25.0, 0.05) - 0.107_503).abs() < 1e-5);
        assert!((ratio_above(10.0, 1000.0, 0.01) - 0.520_943).abs() < 1e-5);
        assert!(ratio_above(0.0, 100_000.0, 1e-3) < 1e-9);
        assert!(ratio_above(1000.0, 100_000.0, 1e-3) > 1.0 - 1e-9);
        assert!(
            ratio_above(0.0, 0.0, 0.1) < 1e-9,
            "nothing measured, nothing claimed"
        );
    }

    #[test]
    fn a_short_time_is_not_sure() {
        assert!(time_above(0.2, 10.0, 0.01, 0.05) > 0.99);
        let one = time_above(0.2, 0.01, 0.01, 0.05);
        assert!(one > 0.05 && one < 0.95, "{one}");
    }

    #[test]
    fn aligned_phases_are_no_chance() {
        assert!(rayleigh(&[0.1; 10]) < 1e-4);
        let even: Vec<f64> = (0..10).map(|n| f64::from(n) / 10.0).collect();
        assert!(rayleigh(&even) > 0.99);
    }
}
