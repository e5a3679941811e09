//! The receiver's book: what is missing, what to ask for again, what came in time.
//!
//! As librist does it: the playout clock is set by the first packet (its arrival less its time at
//! the sender), a packet is in time if it arrives within the buffer after its own time on that
//! clock, and a gap is asked for after the time reordering may take, then again each RTT. Time
//! comes with each call.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::packet::REQUEST_MAX;

/// What a gap may owe to reordering before it is asked for (librist: `reorder_buffer` 25 ms), ns.
const REORDER_NS: u64 = 25_000_000;
/// Least and largest time between two requests for the same packet (librist: `rtt_min`,
/// `rtt_max`), ns.
const RETRY_NS: [u64; 2] = [50_000_000, 500_000_000];
/// Requests for one packet (librist: `max_retries`).
const RETRIES: u32 = 20;
/// Gaps larger than this are no loss but another stream.
const GAP_MAX: u64 = 100_000;
/// Length of an interval, ns.
const INTERVAL_NS: u64 = 1_000_000_000;

/// A packet that has not come.
#[derive(Debug, Clone, Copy)]
struct Missing {
    noticed_ns: u64,
    asked_ns: Option<u64>,
    times: u32,
}

/// Counts and times of the receiver.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Account {
    /// Different packets that arrived.
    pub(super) received: u64,
    /// In time, recovered ones included.
    pub(super) in_time: u64,
    /// In time and only thanks to another copy.
    pub(super) recovered: u64,
    /// Arrived when their time was over.
    pub(super) late: u64,
    /// Further copies.
    pub(super) duplicates: u64,
    /// First copies that came behind a later packet.
    pub(super) reordered: u64,
    /// Packets asked for, each time counted.
    pub(super) requested: u64,
    /// Payload bytes of different packets.
    pub(super) bytes: u64,
    /// RFC 3550 interarrival jitter, ns.
    pub(super) jitter_ns: f64,
    /// Payload bytes delivered in time, by second of the stream.
    pub(super) in_time_bytes: Vec<u64>,
    /// RTT by its own probes, us.
    pub(super) rtt_us: Vec<f64>,
}

/// The receiver's state.
#[derive(Debug, Default)]
pub(super) struct Receiver {
    buffer_ns: u64,
    /// Arrival less sender's time of the first packet.
    offset_ns: Option<i128>,
    first_due_ns: u64,
    seen: BTreeSet<u64>,
    next: u64,
    missing: BTreeMap<u64, Missing>,
    transit_ns: Option<i128>,
    rtt_ns: u64,
    pub(super) account: Account,
}

impl Receiver {
    pub(super) fn new(buffer_ns: u64) -> Receiver {
        Receiver {
            buffer_ns,
            rtt_ns: RETRY_NS[0],
            ..Receiver::default()
        }
    }

    /// A data packet arrived.
    pub(super) fn data(&mut self, now_ns: u64, seq: u64, due_ns: u64, again: u32, bytes: u32) {
        let transit = i128::from(now_ns) - i128::from(due_ns);
        if self.offset_ns.is_none() {
            self.offset_ns = Some(transit);
            self.first_due_ns = due_ns;
            self.next = seq;
        }
        if seq >= self.next + GAP_MAX {
            return;
        }
        if !self.seen.insert(seq) {
            self.account.duplicates += 1;
            return;
        }
        self.account.received += 1;
        self.account.bytes += u64::from(bytes);
        self.missing.remove(&seq);
        for gap in self.next..seq {
            let new = Missing {
                noticed_ns: now_ns,
                asked_ns: None,
                times: 0,
            };
            self.missing.insert(gap, new);
        }
        let behind = seq < self.next;
        self.next = self.next.max(seq + 1);
        self.forget();
        if again == 0 {
            self.account.reordered += u64::from(behind);
            self.jitter(transit);
        }
        if transit - self.offset_ns.unwrap_or(transit) > i128::from(self.buffer_ns) {
            self.account.late += 1;
            return;
        }
        self.account.in_time += 1;
        self.account.recovered += u64::from(again > 0);
        let second = (due_ns.saturating_sub(self.first_due_ns) / INTERVAL_NS) as usize;
        let bins = &mut self.account.in_time_bytes;
        bins.resize(bins.len().max(second + 1), 0);
        bins[second] += u64::from(bytes);
    }

    /// J += (|D| - J) / 16 (RFC 3550, section 6.4.1), first copies only.
    fn jitter(&mut self, transit: i128) {
        if let Some(before) = self.transit_ns.replace(transit) {
            let difference = (transit - before).unsigned_abs() as f64;
            self.account.jitter_ns += (difference - self.account.jitter_ns) / 16.0;
        }
    }

    /// Numbers so old that they can neither be duplicates nor be missed take no memory.
    fn forget(&mut self) {
        let oldest = self.next.saturating_sub(GAP_MAX);
        if self.seen.first().is_some_and(|first| *first < oldest) {
            self.seen = self.seen.split_off(&oldest);
        }
    }

    /// A probe was answered.
    pub(super) fn rtt(&mut self, rtt_ns: u64) {
        self.rtt_ns = rtt_ns;
        self.account.rtt_us.push(rtt_ns as f64 / 1e3);
    }

    /// What to ask for now.
    pub(super) fn requests(&mut self, now_ns: u64) -> Vec<u64> {
        let limit = self.buffer_ns;
        // What cannot come in time any more is lost.
        self.missing
            .retain(|_, one| now_ns.saturating_sub(one.noticed_ns) < limit);
        let retry = self.rtt_ns.clamp(RETRY_NS[0], RETRY_NS[1]);
        let mut asked = Vec::new();
        for (seq, one) in &mut self.missing {
            let due = match one.asked_ns {
                None => one.noticed_ns + REORDER_NS.min(limit / 4),
                Some(asked_ns) => asked_ns + retry,
            };
            if now_ns >= due && one.times < RETRIES && asked.len() < REQUEST_MAX {
                one.asked_ns = Some(now_ns);
                one.times += 1;
                asked.push(*seq);
            }
        }
        self.account.requested += asked.len() as u64;
        asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// A receiver that got packets 0..5 but not 2, one each 10 ms, 5 ms on the way.
    fn with_a_gap() -> Receiver {
        let mut receiver = Receiver::new(400 * MS);
        for seq in [0, 1, 3, 4] {
            receiver.data((seq * 10 + 5) * MS, seq, seq * 10 * MS, 0, 1316);
        }
        receiver
    }

    #[test]
    fn a_gap_is_asked_for_after_reordering_had_its_time_and_then_once_per_rtt() {
        let mut receiver = with_a_gap();
        assert!(receiver.requests(50 * MS).is_empty());
        assert_eq!(receiver.requests(61 * MS), [2]);
        assert!(receiver.requests(100 * MS).is_empty());
        assert_eq!(receiver.requests(111 * MS), [2]);
        receiver.data(120 * MS, 2, 20 * MS, 1, 1316);
        assert!(receiver.requests(300 * MS).is_empty());
        let account = receiver.account;
        assert_eq!(
            (account.received, account.in_time, account.recovered),
            (5, 5, 1)
        );
        assert_eq!(
            (account.late, account.requested, account.reordered),
            (0, 2, 0)
        );
    }

    #[test]
    fn what_comes_too_late_or_twice_is_told_apart() {
        let mut receiver = with_a_gap();
        receiver.data(426 * MS, 2, 20 * MS, 1, 1316);
        receiver.data(427 * MS, 2, 20 * MS, 2, 1316);
        let account = &receiver.account;
        assert_eq!(
            (account.late, account.recovered, account.duplicates),
            (1, 0, 1)
        );
        assert_eq!((account.received, account.in_time), (5, 4));
        assert!(receiver.requests(500 * MS).is_empty(), "it is there");
    }

    #[test]
    fn a_reordered_packet_is_neither_lost_nor_recovered() {
        let mut receiver = with_a_gap();
        receiver.data(46 * MS, 2, 20 * MS, 0, 1316);
        assert!(receiver.requests(100 * MS).is_empty());
        let account = receiver.account;
        assert_eq!(
            (account.reordered, account.recovered, account.in_time),
            (1, 0, 5)
        );
        assert_eq!(account.in_time_bytes, [5 * 1316]);
        assert!(account.jitter_ns > 0.0);
    }

    #[test]
    fn after_its_time_nobody_asks_for_it() {
        let mut receiver = with_a_gap();
        assert!(receiver.requests(440 * MS).is_empty());
    }
}
