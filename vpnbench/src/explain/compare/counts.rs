//! Counts of two sides, by themselves and divided by what they are counts of.
//!
//! A run that lasts twice as long sends twice as much and loses twice as much: to compare such counts is a mistake
//! (`audit-not-normalised`). With counts c0, c1 of n0, n1 things, ln(c1/c0) = ln(n1/n0) + ln((c1/n1) / (c0/n0)). Where
//! the first term is more than half of the sum, the volumes make the difference, not what happened to them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::side::{Counted, Side};

/// Counts that differ by less than so many standard deviations of Poisson's distribution do not differ: 95 %.
const SIGMAS: f64 = 1.96;

/// A count on both sides.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Count {
    /// What is counted.
    pub name: String,
    /// What it is divided by, also a count.
    pub of: String,
    /// Mean over the runs of the first side.
    pub base: f64,
    /// Of the other.
    pub changed: f64,
    /// Divided, all runs of the first side together.
    pub base_ratio: f64,
    /// Of the other.
    pub changed_ratio: f64,
    /// The counts differ, and more than half of that (of the logarithm of their ratio) comes from how much was sent.
    pub by_volume: bool,
}

/// Counts that all runs of both sides have.
#[must_use]
pub fn counts(base: &Side, changed: &Side) -> Vec<Count> {
    let names = base.names(|run| &run.counts);
    names
        .into_iter()
        .filter_map(|(name, of)| {
            let (ours, theirs) = (mean(base, &(name, of))?, mean(changed, &(name, of))?);
            Some(Count {
                name: name.to_owned(),
                of: of.to_owned(),
                base: ours.count,
                changed: theirs.count,
                base_ratio: ours.count / ours.of,
                changed_ratio: theirs.count / theirs.of,
                by_volume: by_volume(ours, theirs),
            })
        })
        .collect()
}

/// Means over the runs; `None` where a run lacks it, or nothing was sent.
fn mean(side: &Side, name: &(&'static str, &'static str)) -> Option<Counted> {
    let everywhere = side.runs.iter().all(|run| run.counts.contains_key(name));
    let of = |pick: fn(&Counted) -> f64| {
        let mean = side.mean(|run| run.counts.get(name).map(pick));
        mean.filter(|_| everywhere)
    };
    Some(Counted {
        count: of(|one| one.count)?,
        of: of(|one| one.of).filter(|of| *of > 0.0)?,
    })
}

fn by_volume(base: Counted, changed: Counted) -> bool {
    let differ = (changed.count - base.count).abs() > SIGMAS * (changed.count + base.count).sqrt();
    let all = (changed.count / base.count).ln();
    let volume = (changed.of / base.of).ln();
    differ && all.is_finite() && volume / all > 0.5
}

#[cfg(test)]
mod tests {
    use super::super::side::RunFacts;
    use super::*;

    fn side(counts: &[(f64, f64)]) -> Side {
        let run = |(count, of): &(f64, f64)| RunFacts {
            counts: [(
                ("retransmissions", "segments"),
                Counted {
                    count: *count,
                    of: *of,
                },
            )]
            .into(),
            ..RunFacts::default()
        };
        Side {
            name: "side".to_owned(),
            runs: counts.iter().map(run).collect(),
        }
    }

    #[test]
    fn twice_as_much_sent_is_not_twice_as_much_lost() {
        let base = side(&[(98.0, 1e5), (102.0, 1e5)]);
        for (other, expected) in [
            // All of it, three quarters and a quarter of the difference come from the volume; nothing differs.
            (side(&[(200.0, 2e5)]), true),
            (side(&[(400.0, 2.83e5)]), true),
            (side(&[(400.0, 1.41e5)]), false),
            (side(&[(110.0, 1.1e5)]), false),
            // Fewer, though more was sent.
            (side(&[(50.0, 2e5)]), false),
            (side(&[(0.0, 2e5)]), false),
        ] {
            let found = counts(&base, &other);
            assert_eq!(found[0].by_volume, expected, "{found:?}");
            assert!((found[0].base_ratio - 1e-3).abs() < 1e-12);
        }
        assert_eq!(counts(&base, &side(&[(1.0, 0.0)])), []);
    }
}
