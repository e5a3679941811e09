//! The impairment of one direction in plain numbers, and what it should come out as.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::spec::Model;
use super::tables;

/// Shape of the delay around its mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Distribution {
    /// Flat between mean - jitter and mean + jitter.
    #[default]
    Uniform,
    /// Normal, jitter is its standard deviation; iproute2's table, cut at 4 of them.
    Normal,
    /// Pareto with index 3, moved to mean 0: iproute2's table.
    Pareto,
    /// A quarter normal, three quarters Pareto: iproute2's table.
    ParetoNormal,
}

/// What happens to the units that leave one host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Impairment {
    /// Mean delay in nanoseconds.
    pub delay_ns: u64,
    /// Spread of the delay in nanoseconds.
    pub jitter_ns: u64,
    /// Correlation of successive delays, 0 to 1.
    pub delay_correlation: f64,
    /// Shape of the delay.
    pub distribution: Distribution,
    /// Share of units lost, 0 to 1.
    pub loss: f64,
    /// Correlation of successive losses.
    pub loss_correlation: f64,
    /// Share of units sent twice.
    pub duplicate: f64,
    /// Correlation of successive duplications.
    pub duplicate_correlation: f64,
    /// Share of units sent at once, past those that wait.
    pub reorder: f64,
    /// Correlation of successive reorderings.
    pub reorder_correlation: f64,
    /// 0: no reordering; n: after one, n - 1 units are not reordered.
    pub gap: u32,
    /// Bits per second; 0 is unlimited.
    pub rate_bps: u64,
    /// Most units that may wait.
    pub limit: u32,
    /// Longest IP packet in bytes that gets through; 0 is unlimited.
    pub size_limit: u32,
}

impl Default for Impairment {
    /// None, with tc's limit.
    fn default() -> Impairment {
        Impairment {
            delay_ns: 0,
            jitter_ns: 0,
            delay_correlation: 0.0,
            distribution: Distribution::Uniform,
            loss: 0.0,
            loss_correlation: 0.0,
            duplicate: 0.0,
            duplicate_correlation: 0.0,
            reorder: 0.0,
            reorder_correlation: 0.0,
            gap: 0,
            rate_bps: 0,
            limit: 1000,
            size_limit: 0,
        }
    }
}

impl Impairment {
    /// Whether it does nothing.
    #[must_use]
    pub fn is_none(&self) -> bool {
        let limit = self.limit;
        *self
            == Impairment {
                limit,
                ..Impairment::default()
            }
    }

    /// Mean delay in nanoseconds that units should have, where `limit` and `rate` play no part. A
    /// delay drawn below zero counts as zero, because netem sends such units at once: with a
    /// uniform spread s beyond the mean m that makes (m + s)^2 / 4s. Units that `reorder` sends at
    /// once wait not at all.
    #[must_use]
    pub fn expected_delay_ns(&self, model: Model) -> f64 {
        let (mean, spread) = (self.delay_ns as f64, self.jitter_ns as f64);
        let drawn = match tables::table(self.distribution) {
            Some(table) => {
                let at = |entry: i16| mean + f64::from(entry) * spread / tables::SCALE as f64;
                let total: f64 = table.iter().map(|&entry| at(entry).max(0.0)).sum();
                total / table.len() as f64
            }
            None if spread <= mean => mean,
            None => (mean + spread).powi(2) / (4.0 * spread),
        };
        drawn * (1.0 - self.expected_jumps(model))
    }

    /// Share of units that `reorder` should send at once. With a gap of g each of them follows
    /// g - 1 units that may not and on average 1/p that may.
    #[must_use]
    pub fn expected_jumps(&self, model: Model) -> f64 {
        let share = expected_share(self.reorder, self.reorder_correlation, model);
        if share == 0.0 || self.gap == 0 {
            return 0.0;
        }
        1.0 / (f64::from(self.gap - 1) + 1.0 / share)
    }

    /// Share of units that `loss` should lose.
    #[must_use]
    pub fn expected_loss(&self, model: Model) -> f64 {
        expected_share(self.loss, self.loss_correlation, model)
    }

    /// The first key that makes no sense, and why.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        let refused = |key, reason: &str| Err((key, reason.to_owned()));
        let correlations = [
            (
                self.delay_correlation,
                self.jitter_ns > 0,
                "delay_correlation",
                "a jitter",
            ),
            (
                self.loss_correlation,
                self.loss > 0.0,
                "loss_correlation",
                "a loss",
            ),
            (
                self.duplicate_correlation,
                self.duplicate > 0.0,
                "duplicate_correlation",
                "a duplicate share",
            ),
            (
                self.reorder_correlation,
                self.reorder > 0.0,
                "reorder_correlation",
                "a reorder share",
            ),
        ];
        for (correlation, has_base, key, base) in correlations {
            if correlation > 0.0 && !has_base {
                return refused(key, &format!("has no effect without {base}"));
            }
            if correlation >= 1.0 {
                return refused(
                    key,
                    "at 100% the first draw would decide about all that follow",
                );
            }
        }
        if self.reorder > 0.0 && self.delay_ns == 0 && self.jitter_ns == 0 {
            return refused(
                "reorder",
                "needs a delay: without one nobody waits who could be passed",
            );
        }
        if self.gap > 0 && self.reorder == 0.0 {
            return refused("gap", "has no effect without a reorder share");
        }
        if self.distribution != Distribution::Uniform && self.jitter_ns == 0 {
            return refused("distribution", "has no effect without a jitter");
        }
        if self.jitter_ns > i32::MAX as u64 {
            return refused("jitter", "netem takes at most 2.147 s (2^31 - 1 ns)");
        }
        if self.delay_ns > 60_000_000_000 {
            return refused("delay", "more than a minute");
        }
        if self.limit == 0 {
            return refused("limit", "with 0 every unit would be dropped");
        }
        if (1..8).contains(&self.rate_bps) {
            return refused("rate", "at least 8bit: netem counts whole bytes per second");
        }
        Ok(())
    }
}

/// The share that comes out where `share` was asked for. netem compares it with a weighted mean of
/// fresh and former random numbers, x = (1 - rho) u + rho x', which is not uniform. The stationary
/// distribution F of x satisfies F(x) = E[clamp((x - rho x') / (1 - rho), 0, 1)], solved here by
/// iteration on a grid of 1/1024.
fn expected_share(share: f64, correlation: f64, model: Model) -> f64 {
    const CELLS: usize = 1024;
    if share == 0.0 || correlation == 0.0 || model == Model::Exact {
        return share;
    }
    let middle = |cell: usize| (cell as f64 + 0.5) / CELLS as f64;
    let below = |x: f64, density: &[f64]| -> f64 {
        let part = |(cell, weight): (usize, &f64)| {
            weight * ((x - correlation * middle(cell)) / (1.0 - correlation)).clamp(0.0, 1.0)
        };
        density.iter().enumerate().map(part).sum()
    };
    let mut density = vec![1.0 / CELLS as f64; CELLS];
    // What is left of the start after n rounds is of the order of rho^n.
    let rounds = ((1e-6_f64).ln() / correlation.ln())
        .ceil()
        .clamp(1.0, 200.0) as usize;
    for _ in 0..rounds {
        let cumulated: Vec<f64> = (0..=CELLS)
            .map(|cell| below(cell as f64 / CELLS as f64, &density))
            .collect();
        density = cumulated.windows(2).map(|pair| pair[1] - pair[0]).collect();
    }
    below(share, &density)
}

#[cfg(test)]
mod tests {
    use super::super::{Profile, WireSpec};
    use super::*;

    fn profile(profile: Profile) -> Impairment {
        let spec = WireSpec {
            profile,
            ..WireSpec::default()
        };
        spec.impairment(1)
    }

    #[test]
    fn delays_below_zero_count_as_zero() {
        let ms = |name, model| profile(name).expected_delay_ns(model) / 1e6;
        let near = |value: f64, expected: f64| (value - expected).abs() < 1e-3;
        assert!(near(ms(Profile::Low, Model::Netem), 2.0));
        // 11^2 / 28 and 21^2 / 60; the exact model's reordering takes its share off.
        assert!(near(ms(Profile::Medium, Model::Netem), 4.3214));
        assert!(near(ms(Profile::High, Model::Netem), 7.35));
        assert!(near(ms(Profile::Medium, Model::Exact), 4.3214 * 0.975));
    }

    #[test]
    fn netems_correlation_leaves_nothing_of_the_profiles_reordering() {
        for name in [Profile::Low, Profile::Medium, Profile::High] {
            let jumps = profile(name).expected_jumps(Model::Netem);
            assert!(jumps < 1e-4, "{name:?}: {jumps}");
        }
        assert!((profile(Profile::High).expected_jumps(Model::Exact) - 0.05).abs() < 1e-12);
        // A half is the middle of any symmetric distribution.
        let half = expected_share(0.5, 0.5, Model::Netem);
        assert!((half - 0.5).abs() < 1e-3, "{half}");
    }

    #[test]
    fn a_gap_thins_reordering_out() {
        let impairment = Impairment {
            delay_ns: 1,
            reorder: 0.25,
            gap: 5,
            ..Impairment::default()
        };
        assert!((impairment.expected_jumps(Model::Exact) - 1.0 / 8.0).abs() < 1e-12);
    }
}
