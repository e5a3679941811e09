//! How losses are distributed: one by one or in bursts, by size, at a period.
//!
//! Packets are taken in the order they left. The two-state model of Gilbert ("Capacity of a burst-noise
//! channel", Bell System Technical Journal 39, 1960) is estimated from transitions: p = P(lost | the one
//! before arrived), r = P(arrived | the one before was lost). Independent loss has p = 1 - r; 1 / r is
//! the mean length of a run of losses (RFC 3357 calls the runs loss periods).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::analysis::pairing::transit::Closed;

/// Run lengths told one by one; longer ones are counted with the last.
const RUNS: usize = 16;
/// Width of a size class in bytes.
const SIZE_STEP: u32 = 16;
/// Packets on each side from which a size threshold is believed.
const SIDE_LEAST: u64 = 20;
/// Runs of losses whose distances are kept.
const STARTS_MAX: usize = 4096;
/// Coefficient of variation of the distances below which losses are periodic.
const PERIODIC: f64 = 0.2;

/// How the losses of one direction are distributed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LossStructure {
    /// What was lost: `outer` packets between the hosts, or `inner` packets from tunnel device to
    /// tunnel device.
    pub level: String,
    /// `SENDER > RECEIVER` by namespace.
    pub direction: String,
    /// Segments whose fate is known.
    pub packets: u64,
    /// Of these, lost.
    pub lost: u64,
    /// `lost` / `packets`.
    pub ratio: f64,
    /// Runs of consecutive losses.
    pub runs: u64,
    /// Longest run.
    pub run_max: u64,
    /// Mean length of a run; null without a loss.
    pub run_mean: Option<f64>,
    /// Runs of length 1, 2, .. 15, and 16 or more.
    pub run_lengths: Vec<u64>,
    /// Gilbert's p.
    pub gilbert_p: Option<f64>,
    /// Gilbert's r.
    pub gilbert_r: Option<f64>,
    /// Packets larger than this many bytes are (nearly) all lost and others are (nearly) not; null
    /// without such a threshold.
    pub size_threshold_bytes: Option<u32>,
    /// The next size above it that there was: the limit lies between; null without a threshold.
    #[serde(default)]
    pub size_lost_bytes: Option<u32>,
    /// Period of the runs in ms; null if they are not periodic.
    pub period_ms: Option<f64>,
}

/// Collects the fates of packets in the order they left.
#[derive(Debug, Clone, Default)]
pub struct Fates {
    packets: u64,
    lost: u64,
    run: u64,
    runs: u64,
    run_max: u64,
    lengths: [u64; RUNS],
    /// Transitions: arrived to arrived, arrived to lost, lost to arrived, lost to lost.
    steps: [u64; 4],
    before: Option<bool>,
    sizes: BTreeMap<u32, (u64, u64)>,
    starts: Vec<u64>,
}

impl Fates {
    /// The next departure.
    pub fn add(&mut self, one: &Closed) {
        let arrived = one.segments - one.missing;
        // Inside a unit that was lost in part the order is not known: what arrived comes first.
        self.repeat(false, arrived, one.departed_ns);
        self.repeat(true, one.missing, one.departed_ns);
        let size = self.sizes.entry(one.segment_bytes / SIZE_STEP).or_default();
        size.0 += u64::from(one.segments);
        size.1 += u64::from(one.missing);
    }

    /// Adds another flow of the same direction; runs do not reach across flows.
    pub fn merge(&mut self, mut other: Fates) {
        other.end_run();
        self.end_run();
        self.packets += other.packets;
        self.lost += other.lost;
        self.runs += other.runs;
        self.run_max = self.run_max.max(other.run_max);
        for (sum, one) in self.lengths.iter_mut().zip(other.lengths) {
            *sum += one;
        }
        for (sum, one) in self.steps.iter_mut().zip(other.steps) {
            *sum += one;
        }
        for (class, (packets, lost)) in other.sizes {
            let size = self.sizes.entry(class).or_default();
            *size = (size.0 + packets, size.1 + lost);
        }
        self.starts.extend(other.starts);
        self.starts.sort_unstable();
        self.starts.truncate(STARTS_MAX);
    }

    fn repeat(&mut self, lost: bool, times: u32, now_ns: u64) {
        if times == 0 {
            return;
        }
        self.packets += u64::from(times);
        if let Some(before) = self.before {
            self.steps[2 * usize::from(before) + usize::from(lost)] += 1;
        }
        self.steps[3 * usize::from(lost)] += u64::from(times - 1);
        if lost {
            self.lost += u64::from(times);
            if self.run == 0 && self.starts.len() < STARTS_MAX {
                self.starts.push(now_ns);
            }
            self.run += u64::from(times);
        } else {
            self.end_run();
        }
        self.before = Some(lost);
    }

    fn end_run(&mut self) {
        let run = std::mem::take(&mut self.run);
        if run > 0 {
            self.runs += 1;
            self.run_max = self.run_max.max(run);
            let at = usize::try_from(run - 1).unwrap_or(RUNS).min(RUNS - 1);
            self.lengths[at] += 1;
        }
    }

    /// The row; `None` without a packet.
    #[must_use]
    pub fn finish(mut self, level: &str, direction: &str) -> Option<LossStructure> {
        if self.packets == 0 {
            return None;
        }
        self.end_run();
        let ratio = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
        let [kept, begun, ended, lasted] = self.steps;
        let (arrives, vanishes) = self.threshold().unzip();
        Some(LossStructure {
            level: level.to_owned(),
            direction: direction.to_owned(),
            packets: self.packets,
            lost: self.lost,
            ratio: self.lost as f64 / self.packets as f64,
            runs: self.runs,
            run_max: self.run_max,
            run_mean: ratio(self.lost, self.runs),
            run_lengths: self.lengths.to_vec(),
            gilbert_p: ratio(begun, kept + begun),
            gilbert_r: ratio(ended, ended + lasted),
            size_threshold_bytes: arrives,
            size_lost_bytes: vanishes,
            period_ms: self.period(),
        })
    }

    /// The size above which at least 90 % are lost and below which at most 10 % are, with at least
    /// 20 packets on either side, and the next size there was. Where several sizes are such, the one with the
    /// fewest packets on the wrong side.
    fn threshold(&self) -> Option<(u32, u32)> {
        let all = self
            .sizes
            .values()
            .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        let mut below = (0u64, 0u64);
        let mut best: Option<(u64, u32, u32)> = None;
        let next = self.sizes.keys().skip(1);
        for ((class, &(packets, lost)), next) in self.sizes.iter().zip(next) {
            below = (below.0 + packets, below.1 + lost);
            let above = (all.0 - below.0, all.1 - below.1);
            let enough = below.0 >= SIDE_LEAST && above.0 >= SIDE_LEAST;
            if enough && below.1 * 10 <= below.0 && above.1 * 10 >= above.0 * 9 {
                let wrong = below.1 + (above.0 - above.1);
                if best.is_none_or(|(least, ..)| wrong < least) {
                    best = Some((wrong, (class + 1) * SIZE_STEP - 1, next * SIZE_STEP));
                }
            }
        }
        best.map(|(_, arrives, vanishes)| (arrives, vanishes))
    }

    /// Mean distance of the runs, if there are at least six and they are regular.
    fn period(&self) -> Option<f64> {
        let gaps: Vec<f64> = self
            .starts
            .windows(2)
            .map(|pair| (pair[1].saturating_sub(pair[0])) as f64)
            .collect();
        if gaps.len() < 5 {
            return None;
        }
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        (mean > 0.0 && variance.sqrt() / mean < PERIODIC).then_some(mean / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fates(pattern: &str, gap_ns: u64, size: impl Fn(char) -> u32) -> LossStructure {
        let mut fates = Fates::default();
        for (at, mark) in pattern.chars().enumerate() {
            let missing = u32::from(mark == 'x' || mark == 'X');
            let segment_bytes = size(mark);
            fates.add(&Closed {
                departed_ns: at as u64 * gap_ns,
                segments: 1,
                missing,
                segment_bytes,
            });
        }
        fates.finish("outer", "a > b").expect("packets")
    }

    #[test]
    fn runs_and_gilbert_estimate() {
        let row = fates("..x..xxx....x.", 1, |_| 1400);
        assert_eq!(
            (row.packets, row.lost, row.runs, row.run_max),
            (14, 5, 3, 3)
        );
        assert_eq!(&row.run_lengths[..3], &[2, 0, 1]);
        assert_eq!(row.gilbert_p, Some(3.0 / 8.0));
        assert_eq!(row.gilbert_r, Some(3.0 / 5.0));
        assert_eq!((row.size_threshold_bytes, row.period_ms), (None, None));
    }

    #[test]
    fn a_size_threshold_is_found() {
        let pattern = ".X".repeat(40);
        let row = fates(&pattern, 1, |mark| if mark == 'X' { 1400 } else { 100 });
        let threshold = row.size_threshold_bytes.expect("a threshold");
        assert!((100..1400).contains(&threshold), "{threshold}");
        let vanishes = row.size_lost_bytes.expect("a size that is lost");
        assert!((threshold + 1..=1400).contains(&vanishes), "{vanishes}");
    }

    #[test]
    fn a_size_between_that_arrives_belongs_below_the_threshold() {
        // So few of 600 bytes that nine tenths of all above 100 bytes are lost.
        let pattern = format!("{}{}", ".X".repeat(100), "m.".repeat(5));
        let size = |mark| match mark {
            'X' => 1400,
            'm' => 600,
            _ => 100,
        };
        let row = fates(&pattern, 1, size);
        let threshold = row.size_threshold_bytes.expect("a threshold");
        assert!((600..1400).contains(&threshold), "{threshold}");
    }

    #[test]
    fn a_period_is_found() {
        let row = fates(&"x.........".repeat(20), 1_000_000, |_| 100);
        assert_eq!(row.period_ms, Some(10.0));
        let row = fates("x...x.x........x.x.......x....x..x.", 1_000_000, |_| 100);
        assert_eq!(row.period_ms, None);
    }
}
