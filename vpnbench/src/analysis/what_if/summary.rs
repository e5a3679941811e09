//! The predictions of all senders together, and what this kernel makes of each setting.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::replay::Reproduced;
use super::rules::Rules;
use super::simulation::Outcome;
use super::throughput;
use super::{Change, Output};

/// One sender's part.
#[derive(Debug, Clone, Copy)]
pub struct Sender<'a> {
    /// What the model found.
    pub output: &'a Output,
    /// bit/s.
    pub throughput_bps: Option<f64>,
    /// Share of the busy time limited by the congestion window.
    pub cwnd_share: f64,
}

/// What happened, over all senders.
#[derive(Debug, Clone, Copy, Default)]
pub struct Actual {
    /// Segments sent again.
    pub retransmits: u64,
    /// Of those, spurious; `None` if that is not known.
    pub spurious: Option<u64>,
    /// Tail loss probes that sent a segment again, and spurious ones.
    pub probes: (u64, u64),
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
}

/// A prediction.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Prediction {
    /// The change.
    pub change: &'static str,
    /// Segments sent again, for the same data.
    pub retransmits: u64,
    /// Of those, spurious.
    pub spurious: Option<u64>,
    /// bit/s: expected, and within one standard error.
    pub throughput_bps: Option<(f64, f64, f64)>,
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
    let shares = shares(&reproduced, &was, actual);
    let changes = Change::ALL.iter().enumerate().skip(1);
    changes
        .map(|(index, change)| {
            let outcome = total(&simulated, index);
            let unprobed = rules.probes() && !change.rules(&rules).probes();
            let probes = if unprobed { actual.probes } else { (0, 0) };
            let moved = |actual: u64, from: u64, to: u64, less: u64| {
                (actual + to).saturating_sub(from).saturating_sub(less)
            };
            Prediction {
                change: name(*change),
                retransmits: moved(actual.retransmits, was.resent, outcome.resent, probes.0),
                spurious: actual
                    .spurious
                    .map(|one| moved(one, was.spurious, outcome.spurious, probes.1)),
                throughput_bps: throughput(senders, index),
                kernel: kernel(*change, &rules, &simulated),
                reproduced: shares,
            }
        })
        .collect()
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
        simulated_retransmits: was.resent,
        actual_retransmits: actual.retransmits,
    }
}

/// The sum over the senders; `None` if the throughput of none is known.
fn throughput(senders: &[Sender<'_>], index: usize) -> Option<(f64, f64, f64)> {
    let mut sum: Option<(f64, f64, f64)> = None;
    for one in senders {
        let Some(throughput_bps) = one.throughput_bps else {
            continue;
        };
        let flow = throughput::Flow {
            throughput_bps,
            cwnd_share: one.cwnd_share,
            control: one.output.rules.control,
        };
        let [was, changed] = [0, index].map(|at| throughput::Simulated {
            window: one.output.outcomes[at].window_milli as f64 / 1000.0,
            reductions: one.output.outcomes[at].reductions(),
        });
        let (expected, low, high) = throughput::predict(&flow, was, changed);
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
