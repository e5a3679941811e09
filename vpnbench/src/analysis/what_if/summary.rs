//! The predictions of all senders together, and what this kernel makes of each setting.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ensemble::Ratio;
use super::replay::Reproduced;
use super::rules::Rules;
use super::sender::{Copies, Outcome};
use super::throughput::{self, Control};
use super::{Change, Output};

/// One sender's part.
#[derive(Debug, Clone, Copy)]
pub struct Sender<'a> {
    /// What the model found.
    pub output: &'a Output,
    /// bit/s.
    pub throughput_bps: Option<f64>,
    /// Highest rate of a tenth of a second, bit/s.
    pub peak_bps: f64,
    /// How far round trips grew with the window ([`throughput::absorption`]).
    pub absorption: Option<f64>,
    /// Share of the busy time limited by the congestion window.
    pub cwnd_share: f64,
}

/// What happened, over all senders, by what the model makes of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Actual {
    /// Whether it is known which were spurious; without that all count as needed.
    pub spurious_known: bool,
    /// In fast recovery.
    pub fast: Copies,
    /// Timeouts, and recovering from one.
    pub slow: Copies,
    /// Tail loss probes that sent a segment again.
    pub probes: Copies,
    /// Handshakes, path MTU, not recognised: no setting changes them.
    pub other: Copies,
}

impl Actual {
    /// Segments sent again.
    #[must_use]
    pub fn total(&self) -> u64 {
        let all = [self.fast, self.slow, self.probes, self.other];
        all.iter().map(Copies::total).sum()
    }

    /// Of those, spurious.
    #[must_use]
    pub fn spurious(&self) -> u64 {
        let all = [self.fast, self.slow, self.probes, self.other];
        all.iter().map(|one| one.spurious).sum()
    }
}

/// Segments sent again, by cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PredictedCauses {
    /// In fast recovery.
    pub fast: u64,
    /// By a timeout, and while recovering from one.
    pub timeout: u64,
    /// Tail loss probes.
    pub probe: u64,
    /// Handshakes, path MTU, not recognised: as they were.
    pub other: u64,
}

/// How much of what happened the model reproduces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReproducedShares {
    /// Of the segments sent again in fast recovery, those the model had given up at that moment,
    /// from the recorded state before each acknowledgement; null without one.
    pub fast_retransmits: Option<f64>,
    /// Of the entries into fast recovery, those at which the model had given something up.
    pub entries: Option<f64>,
    /// Segments the model gave up / segments the kernel counted as lost.
    pub given_up_per_lost: Option<f64>,
    /// Segments the free-running model sends again under the settings as they were.
    pub simulated_retransmits: u64,
    /// Segments that were sent again in fact.
    pub actual_retransmits: u64,
    /// Throughput of the simulated runs as it was, over the measured one, mean over the senders; null
    /// where none was simulated.
    #[serde(default)]
    pub simulated_throughput: Option<f64>,
}

/// Which way throughput goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The interval is above what was measured.
    Higher,
    /// It is below.
    Lower,
    /// It holds what was measured, or differs from it by less than a tenth or than the model misses: no
    /// difference is predicted.
    Same,
}

/// Share of the throughput below which the model claims no difference.
const CLAIMED: f64 = 0.1;

impl Direction {
    /// `simulated`: throughput of the simulated runs as it was, over the measured one. A model that
    /// misses that by a factor claims no change smaller than the factor.
    fn of(was: f64, simulated: Option<f64>, (expected, low, high): (f64, f64, f64)) -> Direction {
        let missed = simulated.map_or(1.0, |share| share.max(1.0 / share));
        let claimed = missed.max(1.0 + CLAIMED);
        if low > was && expected > was * claimed {
            Direction::Higher
        } else if high < was && expected < was / claimed {
            Direction::Lower
        } else {
            Direction::Same
        }
    }
}

/// A prediction.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Prediction {
    /// The change.
    pub change: &'static str,
    /// Segments sent again, for the same data.
    pub retransmits: u64,
    /// The same by cause.
    pub by_cause: PredictedCauses,
    /// Of those, spurious.
    pub spurious: Option<u64>,
    /// bit/s: expected, and its 95 % interval over the simulated runs.
    pub throughput_bps: Option<(f64, f64, f64)>,
    /// What that is against the throughput as it was.
    pub throughput: Option<Direction>,
    /// What this kernel makes of the setting.
    pub kernel: String,
    /// How well the model did.
    pub reproduced: ReproducedShares,
}

/// The predictions of all senders that met anything out of order; none without one.
#[must_use]
pub fn summary(senders: &[Sender<'_>], actual: Actual) -> Vec<Prediction> {
    let simulated: Vec<&Sender<'_>> = senders.iter().filter(|one| one.output.simulated).collect();
    let Some(rules) = simulated.first().map(|one| one.output.rules) else {
        return Vec::new();
    };
    let mut reproduced = Reproduced::default();
    for one in &simulated {
        reproduced.add(&one.output.reproduced);
    }
    let was = total(&simulated, 0);
    let mut shares = shares(&reproduced, &was, actual);
    let rates = simulated.iter().filter_map(|one| one.output.simulated_rate);
    let (count, sum) = rates.fold((0u32, 0.0), |(count, sum), rate| (count + 1, sum + rate));
    shares.simulated_throughput = (count > 0).then(|| sum / f64::from(count));
    let before: f64 = senders.iter().filter_map(|one| one.throughput_bps).sum();
    let changes = Change::ALL.iter().enumerate().skip(1);
    changes
        .map(|(index, change)| {
            let unprobed = rules.probes() && !change.rules(&rules).probes();
            let changed = total(&simulated, index);
            let predicted = counts(*change, actual, &was, &changed, unprobed);
            let throughput_bps = throughput(senders, index);
            Prediction {
                change: name(*change),
                retransmits: predicted.total(),
                by_cause: PredictedCauses {
                    fast: predicted.fast.total(),
                    timeout: predicted.slow.total(),
                    probe: predicted.probes.total(),
                    other: predicted.other.total(),
                },
                spurious: predicted.spurious_known.then(|| predicted.spurious()),
                throughput_bps,
                throughput: throughput_bps
                    .map(|found| Direction::of(before, shares.simulated_throughput, found)),
                kernel: kernel(*change, &rules, &simulated),
                reproduced: shares,
            }
        })
        .collect()
}

/// What would have been sent again. What was lost is lost under any setting and has to be sent again, so
/// the needed copies stay as many, and the simulation only says how many wait for a timeout; spurious ones go as
/// their simulated count. Apart, so that no more are spurious than sent. Without verdicts the sum goes as the
/// simulated sum.
fn counts(
    change: Change,
    actual: Actual,
    was: &Outcome,
    simulated: &Outcome,
    unprobed: bool,
) -> Actual {
    let probes = if unprobed {
        Copies::default()
    } else {
        actual.probes
    };
    if !actual.spurious_known {
        let copies = |actual: Copies, was: Copies, simulated: Copies| Copies {
            needed: scaled(actual.needed, was.total(), simulated.total()),
            spurious: 0,
        };
        return Actual {
            fast: copies(actual.fast, was.fast, simulated.fast),
            slow: copies(actual.slow, was.slow, simulated.slow),
            probes,
            ..actual
        };
    }
    // A tail that was lost, without its probe.
    let unprobed = actual.probes.needed - probes.needed;
    let needed = actual.fast.needed + actual.slow.needed + unprobed;
    let slow = scaled(actual.slow.needed, was.slow.needed, simulated.slow.needed) + unprobed;
    let slow = slow.min(needed);
    let lossless = change == Change::Lossless;
    let copies = |needed: u64, spurious: u64| Copies {
        needed: if lossless { 0 } else { needed },
        spurious,
    };
    let spurious = |actual: Copies, was: Copies, simulated: Copies| {
        scaled(actual.spurious, was.spurious, simulated.spurious)
    };
    Actual {
        fast: copies(
            needed - slow,
            spurious(actual.fast, was.fast, simulated.fast),
        ),
        slow: copies(slow, spurious(actual.slow, was.slow, simulated.slow)),
        probes: copies(probes.needed, probes.spurious),
        ..actual
    }
}

/// What happened, changed as the simulation changed.
fn scaled(actual: u64, was: u64, simulated: u64) -> u64 {
    if actual == 0 || was == 0 {
        return (actual + simulated).saturating_sub(was);
    }
    let exact = u128::from(actual) * u128::from(simulated);
    let half = u128::from(was) / 2;
    u64::try_from((exact + half) / u128::from(was)).unwrap_or(u64::MAX)
}

fn total(senders: &[&Sender<'_>], index: usize) -> Outcome {
    let mut result = Outcome::default();
    for one in senders {
        result.add(&one.output.outcomes[index]);
    }
    result
}

fn shares(found: &Reproduced, was: &Outcome, actual: Actual) -> ReproducedShares {
    let share = |part: u64, of: u64| (of > 0).then(|| part as f64 / of as f64);
    ReproducedShares {
        fast_retransmits: share(found.predicted, found.fast),
        entries: share(found.entries_predicted, found.entries),
        given_up_per_lost: share(found.given_up, found.lost),
        simulated_retransmits: was.resent(),
        actual_retransmits: actual.total(),
        simulated_throughput: None,
    }
}

/// The sum over the senders; `None` if the throughput of none is known, or that of one not simulated.
fn throughput(senders: &[Sender<'_>], index: usize) -> Option<(f64, f64, f64)> {
    let mut sum: Option<(f64, f64, f64)> = None;
    for one in senders {
        let Some(throughput_bps) = one.throughput_bps else {
            continue;
        };
        let flow = throughput::Flow {
            throughput_bps,
            peak_bps: one.peak_bps,
            absorption: one.absorption,
            cwnd_share: one.cwnd_share,
            control: one.output.rules.control,
        };
        // Where nothing was out of order, nothing changes either.
        let same = !one.output.simulated || flow.control == Control::Other;
        let ratio = match same {
            true => Some(Ratio::SAME),
            false => one.output.ratios[index],
        };
        let (expected, low, high) = throughput::predict(&flow, ratio?);
        let before = sum.unwrap_or_default();
        sum = Some((before.0 + expected, before.1 + low, before.2 + high));
    }
    sum
}

fn name(change: Change) -> &'static str {
    match change {
        Change::None => "as it was",
        Change::Reordering => "tcp_reordering=10",
        Change::Recovery => "tcp_recovery=0",
        Change::EarlyRetrans => "tcp_early_retrans=0",
        Change::All => "tcp_reordering=10, tcp_recovery=0, tcp_early_retrans=0",
        Change::InOrder => "no reordering from the sender's device to the receiver's TCP",
        Change::Lossless => "no loss from the sender's device to the receiver's TCP",
    }
}

fn kernel(change: Change, rules: &Rules, senders: &[&Sender<'_>]) -> String {
    let reordering = || {
        let cached = senders.iter().find_map(|one| one.output.cached_metrics);
        match cached {
            Some(value) => format!(
                "the sysctl has no effect here: tcp_metrics had {value} for the destination"
            ),
            None => "tcp_reordering matters only until reordering has been seen on the connection"
                .to_owned(),
        }
    };
    let recovery = || {
        if rules.has_rfc6675 {
            format!("this kernel: {}", Change::Recovery.rules(rules).algorithm())
        } else {
            "tcp_recovery=0 has no effect from Linux 6.17 on: RACK stays".to_owned()
        }
    };
    let probes = || {
        if rules.probes() {
            "no tail loss probes; a tail that is lost waits for the timeout".to_owned()
        } else {
            "tail loss probes were off".to_owned()
        }
    };
    match change {
        Change::Reordering => reordering(),
        Change::Recovery => recovery(),
        Change::EarlyRetrans => probes(),
        Change::All => [reordering(), recovery(), probes()].join("; "),
        Change::None | Change::InOrder | Change::Lossless => rules.algorithm().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_model_that_misses_claims_less() {
        let found = (3.0, 2.0, 4.0);
        assert_eq!(Direction::of(1.0, Some(1.2), found), Direction::Higher);
        assert_eq!(Direction::of(1.0, Some(0.25), found), Direction::Same);
        assert_eq!(Direction::of(1.0, None, (0.95, 0.9, 0.99)), Direction::Same);
        assert_eq!(Direction::of(1.0, None, (0.5, 0.4, 0.6)), Direction::Lower);
    }

    fn copies() -> impl Strategy<Value = Copies> {
        (0u64..2000, 0u64..2000).prop_map(|(needed, spurious)| Copies { needed, spurious })
    }

    fn outcome() -> impl Strategy<Value = Outcome> {
        (copies(), copies()).prop_map(|(fast, slow)| Outcome {
            fast,
            slow,
            ..Outcome::default()
        })
    }

    proptest! {
        /// Whatever the simulations say, the rows add up.
        #[test]
        fn no_more_are_spurious_than_sent_and_causes_sum_to_the_total(
            kinds in [copies(), copies(), copies(), copies()],
            spurious_known in any::<bool>(),
            simulated in proptest::collection::vec(outcome(), Change::ALL.len()),
        ) {
            let [fast, slow, probes, other] = kinds;
            let actual = Actual { spurious_known, fast, slow, probes, other };
            let mut outcomes = [Outcome::default(); Change::ALL.len()];
            outcomes.copy_from_slice(&simulated);
            let output = Output { outcomes, simulated: true, ..Output::default() };
            let sender = Sender {
                output: &output,
                throughput_bps: None,
                peak_bps: 0.0,
                absorption: None,
                cwnd_share: 1.0,
            };
            let rows = summary(&[sender], actual);
            prop_assert_eq!(rows.len(), Change::ALL.len() - 1);
            for row in rows {
                let causes = row.by_cause;
                let sum = causes.fast + causes.timeout + causes.probe + causes.other;
                prop_assert_eq!(sum, row.retransmits, "{}", row.change);
                prop_assert_eq!(row.spurious.is_some(), spurious_known);
                prop_assert!(row.spurious.unwrap_or(0) <= row.retransmits, "{:?}", row);
                let Some(found) = row.spurious else { continue };
                let needed = match row.change == name(Change::Lossless) {
                    true => other.needed,
                    false => fast.needed + slow.needed + probes.needed + other.needed,
                };
                prop_assert_eq!(row.retransmits - found, needed, "{}", row.change);
            }
        }

        /// Where the simulation changes nothing, nothing changes.
        #[test]
        fn the_same_simulation_predicts_what_happened(actual in 0u64..5000, was in 0u64..5000) {
            prop_assert_eq!(scaled(actual, was, was), actual);
        }
    }
}
