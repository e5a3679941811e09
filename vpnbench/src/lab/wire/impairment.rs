//! The impairment of one direction in plain numbers, and what it should come out as.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
