//! Single packets on their whole way: where the median one and the slowest ones spent their time.

use rustc_hash::FxHashMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::Unit;
use crate::analysis::Context;
use crate::analysis::stages::{Stage, us};

/// Packets of a direction kept as a sample.
const SAMPLE: usize = 1024;
/// Slowest packets of a direction kept.
const SLOWEST: usize = 10;
/// Stages between the tunnel devices.
const PARTS: usize = 7;

/// One packet on its way from the sender's tunnel device to the receiver's.
#[derive(Debug, Clone, Copy)]
pub struct Journey {
    from: u16,
    to: u16,
    began_ns: u64,
    total_ns: u64,
    parts: [Option<u64>; PARTS],
}

impl Journey {
    /// The inner part of the way.
    #[must_use]
    pub fn new(from: u16, to: u16, inner: &Unit, written_ns: u64) -> Journey {
        let [queued, sent, read, _] = inner.times;
        let began_ns = if queued == 0 { sent } else { queued };
        let mut parts = [None; PARTS];
        parts[Stage::TunQdisc as usize] = between(queued, sent);
        parts[Stage::TunQueue as usize] = between(sent, read);
        Journey {
            from,
            to,
            began_ns,
            total_ns: written_ns.saturating_sub(began_ns),
            parts,
        }
    }

    /// The outer part of the way.
    pub fn add_outer(&mut self, inner: &Unit, outer: &Unit, written_ns: u64) {
        let [queued, sent, arrived, received] = outer.times;
        self.parts[Stage::DaemonSend as usize] = between(inner.times[2], queued);
        self.parts[Stage::OuterQdisc as usize] = between(queued, sent);
        self.parts[Stage::Wire as usize] = between(sent, arrived);
        self.parts[Stage::OuterSocket as usize] = between(arrived, received);
        let entered = if received == 0 { arrived } else { received };
        self.parts[Stage::DaemonReceive as usize] = between(entered, written_ns);
    }
}

fn between(from_ns: u64, to_ns: u64) -> Option<u64> {
    if from_ns == 0 || to_ns == 0 {
        None
    } else {
        to_ns.checked_sub(from_ns)
    }
}

#[derive(Debug, Clone, Default)]
struct Direction {
    seen: u64,
    sample: Vec<Journey>,
    slowest: Vec<Journey>,
    random: u64,
}

/// A sample of the journeys of each direction, and its slowest.
#[derive(Debug, Clone, Default)]
pub struct Journeys {
    directions: FxHashMap<(u16, u16), Direction>,
}

/// Where one packet spent its time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Waterfall {
    /// `SENDER > RECEIVER` by namespace.
    pub direction: String,
    /// `median`, or `slowest` for each of the ten slowest.
    pub packet: String,
    /// When it entered the tunnel device's queue, seconds after the start of the recording.
    pub at_s: f64,
    /// From the sender's tunnel device to the receiver's.
    pub total_us: f64,
    /// Its time per stage, in order; a stage that was not seen is missing.
    pub stages: Vec<WaterfallStage>,
}

/// One stage of one packet.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WaterfallStage {
    /// Stage.
    pub name: String,
    /// Time in it.
    pub us: f64,
}

impl Journeys {
    /// A packet has arrived.
    pub fn add(&mut self, journey: Journey) {
        let one = self
            .directions
            .entry((journey.from, journey.to))
            .or_default();
        one.seen += 1;
        let full = one.slowest.len() >= SLOWEST;
        if !full
            || one
                .slowest
                .last()
                .is_some_and(|last| journey.total_ns > last.total_ns)
        {
            let at = one
                .slowest
                .partition_point(|other| other.total_ns >= journey.total_ns);
            one.slowest.insert(at, journey);
            one.slowest.truncate(SLOWEST);
        }
        // Reservoir sampling (Vitter, algorithm R) with a fixed seed: the same trace, the same sample.
        if one.sample.len() < SAMPLE {
            one.sample.push(journey);
            return;
        }
        one.random = one
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let at = (one.random >> 33) % one.seen;
        if let Ok(at) = usize::try_from(at)
            && at < SAMPLE
        {
            one.sample[at] = journey;
        }
    }

    /// The waterfalls, median first, by direction.
    #[must_use]
    pub fn finish(
        mut self,
        context: &Context<'_>,
        name: impl Fn(u16, u16) -> String,
    ) -> Vec<Waterfall> {
        let mut directions: Vec<_> = self.directions.drain().collect();
        directions.sort_unstable_by_key(|(ends, _)| *ends);
        let mut rows = Vec::new();
        for ((from, to), mut one) in directions {
            let direction = name(from, to);
            one.sample
                .sort_by_key(|journey| (journey.total_ns, journey.began_ns));
            if let Some(median) = one.sample.get(one.sample.len() / 2) {
                rows.push(median.row(context, &direction, "median"));
            }
            rows.extend(
                one.slowest
                    .iter()
                    .map(|journey| journey.row(context, &direction, "slowest")),
            );
        }
        rows
    }
}

impl Journey {
    fn row(&self, context: &Context<'_>, direction: &str, packet: &str) -> Waterfall {
        let stages = Stage::ALL
            .iter()
            .zip(self.parts)
            .filter_map(|(stage, part)| {
                Some(WaterfallStage {
                    name: stage.name().to_owned(),
                    us: us(part?),
                })
            });
        Waterfall {
            direction: direction.to_owned(),
            packet: packet.to_owned(),
            at_s: context.seconds_since_start(self.began_ns),
            total_us: us(self.total_ns),
            stages: stages.collect(),
        }
    }
}
