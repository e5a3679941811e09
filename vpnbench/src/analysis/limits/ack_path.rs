//! The way back: how long the receiver holds acknowledgements, and what becomes of their spacing.
//!
//! * ACK delay: from the arrival of the first segment that extends the receiver's data in sequence
//!   and is not acknowledged yet (`tcp.rx`) to the packet that acknowledges it at the receiver's
//!   device (RFC 5681, section 4.2, bounds it).
//! * Return path: the same acknowledgement from the receiver's device to the sender's TCP.
//! * Compression after Paxson, "Measurements and Analysis of End-to-End Internet Dynamics" (1997),
//!   section 16.3: three successive acknowledgements that arrive within less than 0.75 of the time
//!   within which they were sent.
//! * Loss: acknowledgements without data at the receiver's device, less those that reached the
//!   sender's TCP in ESTABLISHED.

use std::collections::VecDeque;

use hdrhistogram::Histogram;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::quantiles::{Quantiles, histogram};

/// Acknowledgements on their way that are remembered.
const FLYING_MAX: usize = 4096;
/// Spread after compression, of the spread before it.
const COMPRESSED: f64 = 0.75;

/// The way back of one direction of a connection; parts that were not seen are null.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AckPath {
    /// Acknowledgements without data at the receiver's device.
    pub sent: Option<u64>,
    /// Acknowledgements without data at the sender's TCP.
    pub arrived: Option<u64>,
    /// Of `sent`, those that did not arrive, or only after the connection had left ESTABLISHED.
    pub lost: Option<u64>,
    /// Time the receiver held acknowledgements, us.
    pub delay_us: Option<Quantiles>,
    /// From the receiver's device to the sender's TCP, us.
    pub return_us: Option<Quantiles>,
    /// Groups of three acknowledgements.
    pub groups: u64,
    /// Share of the groups that arrived compressed; null without a group.
    pub compressed_share: Option<f64>,
}

/// Follows acknowledgements.
#[derive(Debug, Clone)]
pub(super) struct AckPathState {
    sent: u64,
    arrived: u64,
    receiver_seen: bool,
    /// End and time of the first segment in sequence that is not acknowledged.
    waiting: Option<(u64, u64)>,
    highest_sent: u64,
    flying: VecDeque<(u64, u64)>,
    /// Times at both ends of the last two acknowledgements.
    last: [Option<(u64, u64)>; 2],
    delay: Histogram<u32>,
    way: Histogram<u32>,
    groups: u64,
    compressed: u64,
}

impl Default for AckPathState {
    fn default() -> AckPathState {
        AckPathState {
            sent: 0,
            arrived: 0,
            receiver_seen: false,
            waiting: None,
            highest_sent: 0,
            flying: VecDeque::new(),
            last: [None; 2],
            delay: histogram(),
            way: histogram(),
            groups: 0,
            compressed: 0,
        }
    }
}

impl AckPathState {
    /// Data reaches the receiver.
    pub(super) fn data_arrived(&mut self, time: u64, start: u64, end: u64, rcv_nxt: u64) {
        self.receiver_seen = true;
        if start <= rcv_nxt && end > rcv_nxt && self.waiting.is_none() {
            self.waiting = Some((end, time));
        }
    }

    /// An acknowledgement leaves the receiver's device.
    pub(super) fn sent(&mut self, time: u64, ack: u64, pure: bool) {
        self.sent += u64::from(pure);
        if let Some((end, since)) = self.waiting
            && ack >= end
        {
            record(&mut self.delay, time.saturating_sub(since));
            self.waiting = None;
        }
        if ack > self.highest_sent {
            self.highest_sent = ack;
            if self.flying.len() == FLYING_MAX {
                self.flying.pop_front();
            }
            self.flying.push_back((ack, time));
        }
    }

    /// An acknowledgement reaches the sender's TCP.
    pub(super) fn arrived(&mut self, time: u64, ack: u64, pure: bool) {
        self.arrived += u64::from(pure);
        while let Some(&(number, left)) = self.flying.front() {
            if number > ack {
                break;
            }
            self.flying.pop_front();
            if number == ack {
                record(&mut self.way, time.saturating_sub(left));
                self.spacing(left, time);
            }
        }
    }

    fn spacing(&mut self, left: u64, arrived: u64) {
        if let [Some(first), Some(_)] = self.last {
            let before = left.saturating_sub(first.0);
            let after = arrived.saturating_sub(first.1);
            self.groups += 1;
            self.compressed += u64::from((after as f64) < COMPRESSED * before as f64);
        }
        self.last = [self.last[1], Some((left, arrived))];
    }

    pub(super) fn finish(&self) -> AckPath {
        let both = self.sent > 0 && self.arrived > 0;
        AckPath {
            sent: (self.sent > 0).then_some(self.sent),
            arrived: (self.arrived > 0).then_some(self.arrived),
            lost: both.then(|| self.sent.saturating_sub(self.arrived)),
            delay_us: self
                .receiver_seen
                .then(|| Quantiles::of(&self.delay))
                .flatten(),
            return_us: Quantiles::of(&self.way),
            groups: self.groups,
            compressed_share: (self.groups > 0)
                .then(|| self.compressed as f64 / self.groups as f64),
        }
    }
}

fn record(histogram: &mut Histogram<u32>, ns: u64) {
    // Auto-resizing: an error would mean more than 2^63 us.
    let _ = histogram.record(ns / 1000);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_acks_at_once_are_compressed() {
        let mut path = AckPathState::default();
        for (number, time) in [(1, 0), (2, 10), (3, 20)] {
            path.sent(time * 1_000_000, number, true);
        }
        for (number, time) in [(1, 50), (2, 51), (3, 52)] {
            path.arrived(time * 1_000_000, number, true);
        }
        let found = path.finish();
        assert_eq!((found.groups, found.compressed_share), (1, Some(1.0)));
        assert_eq!((found.sent, found.lost), (Some(3), Some(0)));
        let way = found.return_us.unwrap_or_default();
        assert!((way.max - 50_000.0).abs() < 1000.0, "{way:?}");
    }

    #[test]
    fn the_receiver_holds_an_ack_from_the_first_segment_on() {
        let mut path = AckPathState::default();
        path.data_arrived(1_000_000, 100, 200, 100);
        path.data_arrived(3_000_000, 200, 300, 200);
        path.sent(5_000_000, 300, true);
        let delay = path.finish().delay_us.unwrap_or_default();
        assert!((delay.max - 4000.0).abs() < 40.0, "{delay:?}");
    }
}
