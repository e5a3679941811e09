//! What a difference consists of, in parts that add up to it.
//!
//! Throughput is a product. Where a thread of a daemon was saturated in all runs of both sides it is the share of
//! the time in which that ran x packets per second of that time x bits per packet. Else for TCP it is window / RTT x use, where use is what of the window was really
//! under way (bits received x RTT / window); for datagrams it is the rate offered x the share that survived
//! each place. A difference of products is split by the logarithmic mean Divisia index: the part of a
//! factor x is L(T1, T0) ln(x1 / x0) with the logarithmic mean L(a, b) = (a - b) / ln(a / b). It is exact and
//! leaves no rest (B. W. Ang, Energy Policy 32, 2004; 33, 2005).
//!
//! The part of the RTT is split over the stages in proportion to what each changed, and that of the window
//! over the causes of reductions likewise; what the stages or causes do not account for stays with the
//! factor. A latency is a sum already: each stage's change is its part.
//!
//! The interval of a part is that of its values over runs drawn anew (bootstrap percentiles, B. Efron, Ann.
//! Statist. 7, 1979), with a fixed seed.

use std::collections::BTreeMap;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt as _, SeedableRng as _};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::side::{Figure, RunFacts, Side};
use crate::analysis::statistics::{CONFIDENCE, Interval};

/// Draws for the intervals.
const RESAMPLES: usize = 2000;
/// Part of what a factor changed that its stages must account for to be named: less would blow up noise.
const ACCOUNTED: f64 = 0.2;

/// A part of a difference.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Part {
    /// Factor, stage or cause.
    pub name: String,
    /// What of the difference is its, in the unit of the figure.
    pub contribution: f64,
    /// The same of the first side's figure.
    pub relative: Option<f64>,
    /// 95 % interval; null with a single run on either side.
    pub interval: Option<Interval>,
}

/// The parts, largest first.
#[must_use]
pub fn parts(base: &Side, changed: &Side, figure: Figure) -> Vec<Part> {
    let split = |base: &Side, changed: &Side| match figure {
        Figure::Throughput => throughput(base, changed),
        Figure::Rtt => latency(base, changed),
    };
    let Some(values) = split(base, changed) else {
        return Vec::new();
    };
    let mut drawn: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    if base.runs.len() > 1 && changed.runs.len() > 1 {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
        for _ in 0..RESAMPLES {
            let again = split(&redraw(base, &mut random), &redraw(changed, &mut random));
            for (name, _) in &values {
                let found = again
                    .as_ref()
                    .and_then(|all| all.iter().find(|one| one.0 == *name));
                drawn
                    .entry(name)
                    .or_default()
                    .push(found.map_or(0.0, |one| one.1));
            }
        }
    }
    let first = crate::analysis::statistics::mean(&base.values(figure));
    let mut parts: Vec<Part> = values
        .iter()
        .map(|(name, contribution)| Part {
            name: name.clone(),
            contribution: *contribution,
            relative: first
                .filter(|first| *first > 0.0)
                .map(|first| contribution / first),
            interval: drawn
                .get_mut(name.as_str())
                .and_then(|values| percentiles(values)),
        })
        .collect();
    parts.sort_by(|a, b| b.contribution.abs().total_cmp(&a.contribution.abs()));
    parts
}

fn redraw(side: &Side, random: &mut Xoshiro256PlusPlus) -> Side {
    let runs =
        (0..side.runs.len()).map(|_| side.runs[random.random_range(0..side.runs.len())].clone());
    Side {
        name: String::new(),
        runs: runs.collect(),
    }
}

fn percentiles(values: &mut [f64]) -> Option<Interval> {
    values.sort_by(f64::total_cmp);
    let at =
        |share: f64| values.get(((values.len() as f64 * share) as usize).min(values.len() - 1));
    Some(Interval {
        low: *at((1.0 - CONFIDENCE) / 2.0)?,
        high: *at(1.0 - (1.0 - CONFIDENCE) / 2.0)?,
    })
}

/// Logarithmic mean.
fn logarithmic(a: f64, b: f64) -> f64 {
    if (a - b).abs() <= f64::EPSILON * a.abs() {
        a
    } else {
        (a - b) / (a / b).ln()
    }
}

type Named = (String, f64);

fn throughput(base: &Side, changed: &Side) -> Option<Vec<Named>> {
    let rate = |side: &Side| {
        side.mean(|run| run.throughput_bps)
            .filter(|rate| *rate > 0.0)
    };
    let (t0, t1) = (rate(base)?, rate(changed)?);
    let weight = logarithmic(t1, t0);
    let factors = |pick: fn(&RunFacts) -> Option<f64>| {
        let (x0, x1) = (base.mean(pick)?, changed.mean(pick)?);
        (x0 > 0.0 && x1 > 0.0).then_some((x0, x1))
    };
    let limited = |side: &Side| side.runs.iter().all(|run| run.thread.is_some());
    if limited(base)
        && limited(changed)
        && let (Some((b0, b1)), Some((c0, c1))) = (
            factors(|run| Some(run.thread?.working)),
            factors(|run| Some(run.thread?.cost_s)),
        )
    {
        let (ran, cost) = (weight * (b1 / b0).ln(), -weight * (c1 / c0).ln());
        let name = "CPU per packet";
        let mut parts = spread(name, cost, base, changed, |run| &run.thread_stages_ns);
        parts.push(("time with a core".to_owned(), ran));
        parts.push(("bytes per packet".to_owned(), t1 - t0 - ran - cost));
        return Some(parts);
    }
    if let (Some((w0, w1)), Some((r0, r1))) =
        (factors(|run| run.window_bytes), factors(|run| run.rtt_us))
    {
        let window = weight * (w1 / w0).ln();
        let rtt = -weight * (r1 / r0).ln();
        let mut parts = spread("congestion window", window, base, changed, |run| {
            &run.reductions
        });
        parts.extend(spread("round trip", rtt, base, changed, |run| {
            &run.stages_us
        }));
        parts.push(("use of the window".to_owned(), t1 - t0 - window - rtt));
        return Some(parts);
    }
    if let Some((o0, o1)) = factors(|run| run.offered_bps) {
        let mut parts = vec![("rate offered".to_owned(), weight * (o1 / o0).ln())];
        let mut names = base.names(|run| &run.survival);
        names.extend(changed.names(|run| &run.survival));
        names.sort();
        names.dedup();
        for name in names {
            // A place that a side does not have loses nothing there.
            let at = |side: &Side| {
                side.mean(|run| Some(run.survival.get(&name).copied().unwrap_or(1.0)))
            };
            let (s0, s1) = (at(base)?.max(1e-6), at(changed)?.max(1e-6));
            parts.push((format!("lost in {name}"), weight * (s1 / s0).ln()));
        }
        let known: f64 = parts.iter().map(|part| part.1).sum();
        parts.push(("rest".to_owned(), t1 - t0 - known));
        return Some(parts);
    }
    Some(vec![("not known: no sender was seen".to_owned(), t1 - t0)])
}

fn latency(base: &Side, changed: &Side) -> Option<Vec<Named>> {
    let mean = |side: &Side| side.mean(|run| run.rtt_us);
    let whole = mean(changed)? - mean(base)?;
    let mut names = base.names(|run| &run.stages_us);
    names.extend(changed.names(|run| &run.stages_us));
    names.sort();
    names.dedup();
    let at = |side: &Side, name: &str| {
        side.mean(|run| Some(run.stages_us.get(name).copied().unwrap_or(0.0)))
    };
    let mut parts = Vec::new();
    for name in names {
        let change = at(changed, &name)? - at(base, &name)?;
        parts.push((format!("time in {name}"), change));
    }
    let known: f64 = parts.iter().map(|part| part.1).sum();
    parts.push(("outside of all stages".to_owned(), whole - known));
    Some(parts)
}

/// Splits a factor's part over what changed inside it, in proportion; all of it stays with the factor
/// where what changed inside does not point the same way or is too little to tell.
fn spread(
    factor: &str,
    whole: f64,
    base: &Side,
    changed: &Side,
    pick: fn(&RunFacts) -> &BTreeMap<String, f64>,
) -> Vec<Named> {
    let mut names = base.names(pick);
    names.extend(changed.names(pick));
    names.sort();
    names.dedup();
    let at = |side: &Side, name: &str| {
        side.mean(|run| Some(pick(run).get(name).copied().unwrap_or(0.0)))
            .unwrap_or(0.0)
    };
    let changes: Vec<Named> = names
        .iter()
        .map(|name| (name.clone(), at(changed, name) - at(base, name)))
        .collect();
    // More time in a stage, or more reductions, can only have lowered the throughput.
    let pushing: Vec<&Named> = changes.iter().filter(|one| one.1 * whole < 0.0).collect();
    let total: f64 = pushing.iter().map(|one| one.1.abs()).sum();
    let all: f64 = changes.iter().map(|one| one.1.abs()).sum();
    if pushing.is_empty() || total < ACCOUNTED * all {
        return vec![(factor.to_owned(), whole)];
    }
    pushing
        .iter()
        .map(|(name, change)| (format!("{factor}: {name}"), whole * change.abs() / total))
        .collect()
}

/// What would confirm the largest part: take it away and measure again.
#[must_use]
pub fn experiment(parts: &[Part], changed: &Side) -> Option<String> {
    let first = parts.first()?;
    let by_part = [
        (
            "CPU per packet",
            "see which functions it is (vpnbench lab run SCENARIO --set run.stacks=true), change that, and repeat: the part must vanish",
        ),
        (
            "with a core",
            "repeat with cores for the daemon alone (taskset): the part must vanish",
        ),
        (
            "spurious",
            "sysctl net.ipv4.tcp_reordering=30 on both sides, and repeat: the part must vanish with the spurious retransmissions",
        ),
        (
            "loss on the wire",
            "repeat both sides without the loss: vpnbench lab run SCENARIO --set wire.loss=0% --repeat 8",
        ),
        (
            "wire",
            "repeat both sides on the same wire: vpnbench lab ablate SCENARIO --switch wire.delay=0ms",
        ),
        (
            "tun-queue",
            "repeat with another queue: vpnbench lab ablate SCENARIO --switch vpn.settings.txqueuelen=5000",
        ),
        (
            "daemon",
            "repeat with the daemon on cores of its own (taskset), or with its offloads switched: vpnbench lab ablate SCENARIO",
        ),
        (
            "outer-socket",
            "repeat with a larger receive buffer: vpnbench lab ablate SCENARIO --switch vpn.settings.receive_buffer=7500000",
        ),
        (
            "rate offered",
            "repeat with the same rate on both sides: iperf3 -b RATE",
        ),
    ];
    let known = by_part.iter().find(|(name, _)| first.name.contains(name));
    known.map(|(_, text)| (*text).to_owned()).or_else(|| {
        let ids = changed.findings();
        let run = changed.runs.first()?;
        ids.iter()
            .find_map(|id| Some(format!("{id}: {}", run.remedies.get(id)?)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(rate: f64, rtt: f64, window: f64, stages: &[(&str, f64)]) -> RunFacts {
        RunFacts {
            throughput_bps: Some(rate),
            rtt_us: Some(rtt),
            window_bytes: Some(window),
            stages_us: stages
                .iter()
                .map(|(name, us)| ((*name).to_owned(), *us))
                .collect(),
            ..RunFacts::default()
        }
    }

    fn side(runs: Vec<RunFacts>) -> Side {
        Side {
            name: "x".to_owned(),
            runs,
        }
    }

    #[test]
    fn parts_add_up_and_the_slower_stage_is_named() {
        let base = side(vec![run(
            100e6,
            10_000.0,
            125_000.0,
            &[("wire", 8000.0), ("daemon-send", 2000.0)],
        )]);
        let slow = side(vec![run(
            50e6,
            20_000.0,
            125_000.0,
            &[("wire", 8000.0), ("daemon-send", 12_000.0)],
        )]);
        let found = parts(&base, &slow, Figure::Throughput);
        let sum: f64 = found.iter().map(|part| part.contribution).sum();
        assert!((sum + 50e6).abs() < 1.0, "{found:?}");
        assert_eq!(found[0].name, "round trip: daemon-send", "{found:?}");
        assert!((found[0].contribution + 50e6).abs() < 1.0, "{found:?}");
    }

    #[test]
    fn a_latency_is_the_sum_of_its_stages() {
        let base = side(vec![run(0.0, 10_000.0, 0.0, &[("wire", 8000.0)])]);
        let slow = side(vec![run(
            0.0,
            15_000.0,
            0.0,
            &[("wire", 8100.0), ("daemon-send", 4000.0)],
        )]);
        let found = parts(&base, &slow, Figure::Rtt);
        assert_eq!(
            (found[0].name.as_str(), found[0].contribution),
            ("time in daemon-send", 4000.0)
        );
        let sum: f64 = found.iter().map(|part| part.contribution).sum();
        assert!((sum - 5000.0).abs() < 1e-9);
    }

    #[test]
    fn datagrams_are_lost_somewhere() {
        let one = |rate: f64, queue: f64| RunFacts {
            throughput_bps: Some(rate),
            offered_bps: Some(100e6),
            survival: BTreeMap::from([("tun-queue".to_owned(), queue)]),
            ..RunFacts::default()
        };
        let found = parts(
            &side(vec![one(90e6, 0.9)]),
            &side(vec![one(45e6, 0.45)]),
            Figure::Throughput,
        );
        assert_eq!(found[0].name, "lost in tun-queue");
        assert!((found[0].contribution + 45e6).abs() < 1.0, "{found:?}");
    }
}
