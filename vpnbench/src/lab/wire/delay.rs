//! How long a unit waits.

use super::impairment::Impairment;
use super::random::{Copula, Crandom, Prandom};
use super::spec::Model;
use super::tables;

/// Draws delays around a mean.
#[derive(Debug, Clone)]
pub(super) struct Delay {
    mean_ns: i64,
    spread_ns: i64,
    table: Option<Vec<i16>>,
    source: Source,
}

#[derive(Debug, Clone)]
enum Source {
    Netem(Crandom),
    Exact(Copula),
}

impl Delay {
    /// `last` is where netem's correlated generator starts.
    pub(super) fn new(impairment: &Impairment, model: Model, last: u32) -> Delay {
        let correlation = impairment.delay_correlation;
        Delay {
            mean_ns: impairment.delay_ns.cast_signed(),
            spread_ns: impairment.jitter_ns.cast_signed(),
            table: tables::table(impairment.distribution),
            source: match model {
                Model::Netem => Source::Netem(Crandom::new(correlation, last)),
                Model::Exact => Source::Exact(Copula::new(correlation)),
            },
        }
    }

    /// The next delay in nanoseconds; negative when the spread exceeds the mean, which makes the
    /// unit leave at once.
    pub(super) fn draw(&mut self, random: &mut Prandom) -> i64 {
        if self.spread_ns == 0 {
            return self.mean_ns;
        }
        let deviation = match (&mut self.source, &self.table) {
            // As `tabledist` (net/sched/sch_netem.c). The modulus wraps many times within 2^32
            // for spreads of milliseconds, so that of a correlation nothing is left.
            (Source::Netem(source), None) => {
                i64::from(source.draw(random)) % (2 * self.spread_ns) - self.spread_ns
            }
            (Source::Netem(source), Some(table)) => scaled(
                table[source.draw(random) as usize % table.len()],
                self.spread_ns,
            ),
            (Source::Exact(source), None) => {
                let spread = self.spread_ns as f64;
                (spread * (2.0 * source.draw(random) - 1.0)).round() as i64
            }
            (Source::Exact(source), Some(table)) => {
                let at = (source.draw(random) * table.len() as f64) as usize;
                scaled(table[at.min(table.len() - 1)], self.spread_ns)
            }
        };
        self.mean_ns + deviation
    }
}

/// A table's entry times sigma, rounded as the kernel does it without overflow.
fn scaled(entry: i16, sigma: i64) -> i64 {
    let entry = i64::from(entry);
    let part = (sigma % tables::SCALE) * entry;
    let half = if part >= 0 {
        tables::SCALE / 2
    } else {
        -tables::SCALE / 2
    };
    (part + half) / tables::SCALE + (sigma / tables::SCALE) * entry
}

#[cfg(test)]
mod tests {
    use super::super::impairment::Distribution;
    use super::*;

    fn impairment(distribution: Distribution, delay_correlation: f64) -> Impairment {
        Impairment {
            delay_ns: 4_000_000,
            jitter_ns: 7_000_000,
            delay_correlation,
            distribution,
            ..Impairment::default()
        }
    }

    #[test]
    fn uniform_delays_are_the_kernels_arithmetic() {
        let mut plain = Prandom::new(11);
        let mut random = Prandom::new(11);
        let mut delay = Delay::new(&impairment(Distribution::Uniform, 0.0), Model::Netem, 0);
        for _ in 0..1000 {
            let expected = i64::from(plain.draw() % 14_000_000) + 4_000_000 - 7_000_000;
            assert_eq!(delay.draw(&mut random), expected);
        }
    }

    #[test]
    fn table_entries_round_away_from_zero() {
        assert_eq!(scaled(8192, 1000), 1000);
        assert_eq!(scaled(-8192, 1000), -1000);
        assert_eq!(scaled(4096, 7_000_000), 3_500_000);
        // 3 * 1365 / 8192 = 0.4999: down. 3 * 1366 / 8192 = 0.5002: up.
        assert_eq!((scaled(1365, 3), scaled(1366, 3)), (0, 1));
        assert_eq!((scaled(-1365, 3), scaled(-1366, 3)), (0, -1));
    }

    #[test]
    fn both_models_share_mean_and_spread() {
        for distribution in [
            Distribution::Uniform,
            Distribution::Normal,
            Distribution::Pareto,
            Distribution::ParetoNormal,
        ] {
            for model in [Model::Netem, Model::Exact] {
                let mut random = Prandom::new(5);
                let mut delay = Delay::new(&impairment(distribution, 0.0), model, 0);
                let values: Vec<f64> = (0..100_000)
                    .map(|_| delay.draw(&mut random) as f64)
                    .collect();
                let mean = values.iter().sum::<f64>() / 1e5;
                // The Pareto tables are cut on the right, which lowers their mean by 0.03 sigma.
                assert!(
                    (mean - 4e6).abs() < 0.05 * 7e6,
                    "{distribution:?} {model:?}: {mean}"
                );
            }
        }
    }

    #[test]
    fn netems_modulus_destroys_the_correlation_of_uniform_delays() {
        for (model, expected) in [(Model::Netem, 0.0), (Model::Exact, 0.5)] {
            let mut random = Prandom::new(5);
            let mut delay = Delay::new(&impairment(Distribution::Uniform, 0.5), model, 1 << 31);
            let values: Vec<f64> = (0..100_000)
                .map(|_| delay.draw(&mut random) as f64)
                .collect();
            let mean = values.iter().sum::<f64>() / 1e5;
            let variance: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
            let pairs = values
                .windows(2)
                .map(|pair| (pair[0] - mean) * (pair[1] - mean));
            let found = pairs.sum::<f64>() / variance;
            assert!((found - expected).abs() < 0.03, "{model:?}: {found}");
        }
    }
}
