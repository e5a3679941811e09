//! Silences: times in which no packet passed a tap.
//!
//! Per tap of a namespace, every silence longer than [`LEAST_NS`]; of more than [`GAPS_MAX`] the longest
//! are kept. A silence says nothing by itself: whether there was something to send is the reader's
//! question.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use vpnbench_common::catalog::Tap;

use super::Context;
use crate::rows::Rows;
use crate::trace::Event;

/// Shorter silences are not kept: a scheduler's time slice (`sched_base_slice_ns`, 3 ms) can make one.
const LEAST_NS: u64 = 5_000_000;
/// Silences kept per tap.
const GAPS_MAX: usize = 512;

/// Silences at a tap.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Stalls {
    /// Tap.
    pub tap: String,
    /// Namespace.
    pub namespace: String,
    /// Units that passed.
    pub units: u64,
    /// First unit, seconds after the start of the recording.
    pub first_s: f64,
    /// Last unit.
    pub last_s: f64,
    /// Silences between them, in order of time.
    pub gaps: Vec<Gap>,
}

/// A silence.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Gap {
    /// Last unit before it, seconds after the start of the recording.
    pub start_s: f64,
    /// First unit after it.
    pub end_s: f64,
}

#[derive(Debug, Clone, Default)]
struct Series {
    units: u64,
    first_ns: u64,
    last_ns: u64,
    gaps: Vec<(u64, u64)>,
}

impl Series {
    fn add(&mut self, now_ns: u64) {
        if self.units == 0 {
            self.first_ns = now_ns;
        } else if now_ns.saturating_sub(self.last_ns) >= LEAST_NS {
            self.gaps.push((self.last_ns, now_ns));
            if self.gaps.len() >= 2 * GAPS_MAX {
                self.shorten();
            }
        }
        self.units += 1;
        self.last_ns = self.last_ns.max(now_ns);
    }

    fn shorten(&mut self) {
        self.gaps
            .sort_by_key(|gap| std::cmp::Reverse(gap.1 - gap.0));
        self.gaps.truncate(GAPS_MAX);
        self.gaps.sort_unstable();
    }
}

/// Collects silences.
#[derive(Debug, Clone, Default)]
pub struct Silences {
    taps: Rows<(u32, u8), Series>,
}

impl Silences {
    /// Takes one event.
    pub fn observe(&mut self, event: &Event<'_>) {
        if let Event::Packet(packet) = event {
            let key = (packet.netns, packet.tap);
            let hint = packet.netns << 4 ^ u32::from(packet.tap);
            let series = self.taps.get_or_add(key, hint, usize::MAX, Series::default);
            if let Some(series) = series {
                series.add(packet.header.time_ns);
            }
        }
    }

    /// The silences, by namespace and tap.
    #[must_use]
    pub fn finish(self, context: &Context<'_>) -> Vec<Stalls> {
        let taps: BTreeMap<(u32, u8), Series> = self.taps.into_rows().into_iter().collect();
        let rows = taps.into_iter().filter_map(|((netns, tap), mut series)| {
            series.shorten();
            let second = |ns| context.seconds_since_start(ns);
            let gaps = series.gaps.iter().map(|gap| Gap {
                start_s: second(gap.0),
                end_s: second(gap.1),
            });
            Some(Stalls {
                tap: Tap::from_number(tap)?.name().to_owned(),
                namespace: context.namespace_name(netns),
                units: series.units,
                first_s: second(series.first_ns),
                last_s: second(series.last_ns),
                gaps: gaps.collect(),
            })
        });
        rows.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_silences_are_kept() {
        let mut series = Series::default();
        let mut now = 0;
        for number in 0..4 * GAPS_MAX as u64 {
            now += LEAST_NS + number;
            series.add(now);
        }
        series.add(now + LEAST_NS - 1);
        series.shorten();
        assert_eq!(series.gaps.len(), GAPS_MAX);
        let shortest = series.gaps.iter().map(|gap| gap.1 - gap.0).min();
        assert_eq!(shortest, Some(LEAST_NS + 3 * GAPS_MAX as u64));
        assert!(
            series.gaps.windows(2).all(|pair| pair[0].0 < pair[1].0),
            "in order"
        );
    }
}
