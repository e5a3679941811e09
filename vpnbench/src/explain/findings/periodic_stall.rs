//! The path stops at a regular period.

use vpnbench_common::catalog::{ProbeId, Tap};

use crate::explain::facts::{Facts, Way};
use crate::explain::model::Evidence;
use crate::explain::rule::{Judgement, Known, Need, Rule};
use crate::explain::{bounds, confidence, units};

pub(super) const RULE: Rule = Rule {
    id: "periodic-stall",
    claim: "the path stops at a regular period",
    judged: "silences of the tap behind the sender's daemon (on a bare link: in front of the receiver) of about one length (from one of the six longest down to 0.7 of it), while packets still enter the path; their begins are laid over each period that two neighbours suggest and tested for a common phase (Rayleigh's test, its probability multiplied by the lengths and periods tried)",
    needs: &[
        Need::Packets,
        Need::Probe(ProbeId::NetDevStartXmit),
        Need::Probe(ProbeId::NetifReceiveSkb),
    ],
    remedy: "find what runs at that period: the daemon's timers (rekeying, statistics, peer checks), garbage collection, a cron job or a power-saving state of the host; vpnbench threads shows who was on a core when it began",
    refuted_by: "the silences begin at no common phase of any period",
    consequence_of: &[],
    lower_bound: false,
    judge,
};

/// Time in which a packet that enters has left an idle daemon, generously.
const NEAR_S: f64 = 1e-3;
/// Silences from which a period can be told (as for losses, docs/analysis.md).
const LEAST: usize = 5;
/// Sets of silences tried: so many longer ones of another kind (a timeout) may stand beside the regular ones.
const LONGER: usize = 6;

fn judge(facts: &Facts<'_>) -> Judgement {
    let Some(way) = &facts.way else {
        return Judgement::unseen("no packet passed a tap");
    };
    let at = |tap: Tap, namespace: &str| {
        let rows = facts.outputs.stalls.iter();
        rows.filter(|row| row.tap == tap.name() && row.namespace == namespace)
            .max_by_key(|row| row.units)
    };
    let found = if facts.context.start.tunnels.is_empty() {
        at(Tap::OuterRx, &way.receiver)
    } else {
        at(Tap::OuterTx, &way.sender)
    };
    let Some(row) = found else {
        return Judgement::unseen("the outer path was not watched");
    };
    let mut all: Vec<(f64, f64)> = row
        .gaps
        .iter()
        .map(|gap| (gap.start_s, gap.end_s))
        .collect();
    all.retain(|gap| !source_paused(facts, way, *gap));
    let (silences, (period, chance)) = most_regular(&all);
    let total: f64 = silences.iter().map(|gap| gap.1 - gap.0).sum();
    let active = (row.last_s - row.first_s).max(1e-9);
    let share = total / active;
    let nothing = |summary: String| {
        Known {
            probability: 0.0,
            share: Some(0.0),
            summary,
            ..Known::default()
        }
        .into()
    };
    if row.units < 100 || active < 1.0 {
        return Judgement::inapplicable("too little passed to tell silence from pause");
    }
    if silences.len() < LEAST {
        return nothing(format!(
            "{} long silences, too few to have a period",
            silences.len()
        ));
    }
    let material = confidence::time_above(
        share,
        active,
        total / silences.len() as f64,
        bounds::MATERIAL,
    );
    Known {
        probability: confidence::both(1.0 - chance, material),
        share: Some(share),
        summary: format!(
            "the path stops every {} for {}",
            units::duration(period),
            units::duration(total / silences.len() as f64)
        ),
        evidence: vec![
            Evidence::new("period", period, "s", "stalls"),
            Evidence::new("silences", silences.len() as f64, "silences", "stalls").expected("0"),
            Evidence::new("time silent", share, "of the run", "stalls").expected("0"),
            Evidence::new(
                "probability of such phases by chance",
                chance,
                "probability",
                "stalls",
            ),
        ],
        remedy: None,
    }
    .into()
}

/// Whether the load itself paused: nothing entered the path between the last packet before the silence
/// and its end. During a stall packets still enter until the sender's window is full.
fn source_paused(facts: &Facts<'_>, way: &Way, gap: (f64, f64)) -> bool {
    let bare = facts.context.start.tunnels.is_empty();
    let source = if bare { Tap::OuterTx } else { Tap::TunTx };
    let wire = facts.stage("wire").filter(|_| bare);
    let shift = wire.map_or(0.0, |stage| stage.p50_us / 1e6);
    let rows = facts.outputs.stalls.iter();
    let mut rows = rows.filter(|row| row.tap == source.name() && row.namespace == way.sender);
    rows.any(|row| {
        row.gaps.iter().any(|pause| {
            pause.start_s + shift <= gap.0 + NEAR_S && pause.end_s + shift >= gap.1 - NEAR_S
        })
    })
}

/// Of the silences up to each of the longest ones and at least 0.7 times as long, those with the most regular begins, with
/// their period and the probability of that by chance, multiplied by the sets tried.
fn most_regular(all: &[(f64, f64)]) -> (Vec<(f64, f64)>, (f64, f64)) {
    let length = |gap: &(f64, f64)| gap.1 - gap.0;
    let mut longest: Vec<f64> = all.iter().map(length).collect();
    longest.sort_by(|a, b| b.total_cmp(a));
    longest.truncate(LONGER);
    let sets = longest.iter().map(|most| {
        let fits = |gap: &&(f64, f64)| length(gap) <= *most && length(gap) >= most * 0.7;
        let mut set: Vec<(f64, f64)> = all.iter().filter(fits).copied().collect();
        set.sort_by(|a, b| a.0.total_cmp(&b.0));
        let starts: Vec<f64> = set.iter().map(|gap| gap.0).collect();
        let (period, chance) = if starts.len() < LEAST {
            (0.0, 1.0)
        } else {
            best_period(&starts)
        };
        let chance = (chance * longest.len() as f64).min(1.0);
        (set, (period, chance))
    });
    let best = sets.min_by(|a, b| a.1.1.total_cmp(&b.1.1).then(b.0.len().cmp(&a.0.len())));
    best.unwrap_or((Vec::new(), (0.0, 1.0)))
}

/// The period with the most common phase, and the probability of it by chance, for all periods tried.
fn best_period(starts: &[f64]) -> (f64, f64) {
    let steps: Vec<f64> = starts
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .filter(|step| *step > 0.0)
        .collect();
    let first = starts.first().copied().unwrap_or(0.0);
    // A period must fit several times, or any few silences lie in one turn of it.
    let span = starts.last().copied().unwrap_or(first) - first;
    let fits = |period: &f64| *period * (LEAST - 1) as f64 <= span;
    let tried = steps.iter().copied().filter(fits);
    let judged = tried.map(|period| {
        let phases: Vec<f64> = starts
            .iter()
            .map(|start| ((start - first) / period).fract())
            .collect();
        (period, confidence::rayleigh(&phases))
    });
    let best = judged
        .min_by(|a, b| a.1.total_cmp(&b.1))
        .unwrap_or((0.0, 1.0));
    (best.0, (best.1 * steps.len() as f64).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_silence_beside_regular_ones_hides_nothing() {
        let mut all: Vec<(f64, f64)> = (0..10)
            .map(|n| (f64::from(n) * 0.5, f64::from(n) * 0.5 + 0.06))
            .collect();
        all.push((1.2, 1.4));
        let (set, (period, chance)) = most_regular(&all);
        assert_eq!(set.len(), 10);
        assert!(
            (period - 0.5).abs() < 0.01 && chance < 0.01,
            "{period} {chance}"
        );
    }

    #[test]
    fn a_period_is_found_and_chance_is_not() {
        let regular: Vec<f64> = (0..10)
            .map(|n| f64::from(n) * 0.5 + 0.003 * f64::from(n % 3))
            .collect();
        let (period, chance) = best_period(&regular);
        assert!(
            (period - 0.5).abs() < 0.01 && chance < 0.01,
            "{period} {chance}"
        );
        let irregular = [0.0, 0.31, 0.42, 1.17, 1.71, 2.93, 3.02, 4.4];
        assert!(best_period(&irregular).1 > 0.05);
    }
}
