//! A sender over time, in at most [`POINTS_MAX`] intervals of equal length.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::analysis::connections::state::State;
use crate::analysis::seconds;

/// Intervals kept; when there are more, two neighbours become one.
pub(super) const POINTS_MAX: usize = 256;
/// First length of an interval in ns.
const WIDTH_NS: u64 = 100_000_000;

/// One interval of a sender.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Point {
    /// Seconds after the sender's first event.
    pub start_s: f64,
    /// 8 x bytes that were newly acknowledged in it / its length.
    pub throughput_bps: f64,
    /// 8 x segments newly delivered ((S)ACKed, `delivered`) x segment size / its length.
    pub delivery_rate_bps: f64,
    /// Congestion window in segments, last value.
    pub cwnd: u32,
    /// Segments in flight, highest value.
    pub in_flight_max: u32,
    /// Smoothed RTT in us, last value; null before the first sample.
    pub srtt_us: Option<f64>,
    /// Segments sent again.
    pub retransmits: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    acked: u64,
    delivered: u64,
    cwnd: u32,
    in_flight: u32,
    srtt_8us: u32,
    retransmits: u64,
}

/// Collects points.
#[derive(Debug, Clone)]
pub(super) struct Series {
    began: Option<u64>,
    width: u64,
    slots: Vec<Slot>,
}

impl Default for Series {
    fn default() -> Series {
        Series {
            began: None,
            width: WIDTH_NS,
            slots: Vec::new(),
        }
    }
}

impl Series {
    fn slot(&mut self, time: u64) -> &mut Slot {
        let began = *self.began.get_or_insert(time);
        let mut index = (time.saturating_sub(began) / self.width) as usize;
        while index >= POINTS_MAX {
            self.halve();
            index = (time.saturating_sub(began) / self.width) as usize;
        }
        if index >= self.slots.len() {
            // Nothing changed in between.
            let last = self.slots.last().copied().unwrap_or_default();
            let idle = Slot {
                acked: 0,
                delivered: 0,
                retransmits: 0,
                ..last
            };
            self.slots.resize(index + 1, idle);
        }
        &mut self.slots[index]
    }

    fn halve(&mut self) {
        self.width *= 2;
        let merged = self.slots.chunks(2).map(|pair| {
            let last = pair[pair.len() - 1];
            Slot {
                acked: pair.iter().map(|one| one.acked).sum(),
                delivered: pair.iter().map(|one| one.delivered).sum(),
                retransmits: pair.iter().map(|one| one.retransmits).sum(),
                in_flight: pair.iter().map(|one| one.in_flight).max().unwrap_or(0),
                ..last
            }
        });
        self.slots = merged.collect();
    }

    pub(super) fn state(&mut self, time: u64, state: &State, delivered: u64) {
        let slot = self.slot(time);
        slot.delivered += delivered;
        slot.cwnd = state.snd_cwnd;
        slot.in_flight = slot.in_flight.max(state.in_flight());
        slot.srtt_8us = state.srtt_8us;
    }

    pub(super) fn acked(&mut self, time: u64, bytes: u64) {
        self.slot(time).acked += bytes;
    }

    pub(super) fn resent(&mut self, time: u64, segments: u64) {
        self.slot(time).retransmits += segments;
    }

    pub(super) fn finish(&self, mss: u32, last_ns: u64) -> Vec<Point> {
        let width = seconds(self.width);
        let end = seconds(last_ns.saturating_sub(self.began.unwrap_or(last_ns)));
        let points = self.slots.iter().enumerate().map(|(index, slot)| {
            let start_s = index as f64 * width;
            // The last interval is not full.
            let length = width.min(end - start_s).max(width / 1000.0);
            Point {
                start_s,
                throughput_bps: 8.0 * slot.acked as f64 / length,
                delivery_rate_bps: 8.0 * slot.delivered as f64 * f64::from(mss) / length,
                cwnd: slot.cwnd,
                in_flight_max: slot.in_flight,
                srtt_us: (slot.srtt_8us > 0).then(|| f64::from(slot.srtt_8us) / 8.0),
                retransmits: slot.retransmits,
            }
        });
        points.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_bounded_and_keeps_its_sums() {
        let mut series = Series::default();
        for step in 0..10_000u64 {
            series.acked(step * 50_000_000, 100);
        }
        assert!(series.slots.len() <= POINTS_MAX);
        let sum: u64 = series.slots.iter().map(|slot| slot.acked).sum();
        assert_eq!(sum, 1_000_000);
        let points = series.finish(1000, 10_000 * 50_000_000);
        assert!((points[3].throughput_bps - 8.0 * 100.0 * 20.0).abs() < 1.0);
    }
}
