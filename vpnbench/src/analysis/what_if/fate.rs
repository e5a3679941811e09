//! What became of each segment, known some time after it was acknowledged: whether its original
//! arrived although it was sent again is told by duplicates that come later.

use std::collections::VecDeque;

use super::board::{EVER, SACKED, Segment};
use crate::analysis::spurious::{Original, Spurious};

/// How long a segment that was sent again waits for its verdict, ns.
const WAIT_NS: u64 = 1_000_000_000;
/// Segments that wait.
const WAITING_MAX: usize = 1 << 16;

/// A segment's fate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fate {
    /// Place of the first byte.
    pub start: u64,
    /// Place after the last byte.
    pub end: u64,
    /// First transmission, ns.
    pub sent: u64,
    /// When the sender learns, or would have learnt, that the original arrived; `None` if it was
    /// lost.
    pub original: Option<u64>,
    /// From the transmission of the last copy to the notice of its arrival, ns; of the original if
    /// there is no other.
    pub delay: u64,
    /// Copies that were sent in fact.
    pub copies: u8,
    /// It was not simply delivered in order.
    pub disordered: bool,
    /// Minimum RTT, smoothed RTT and timeout at that time, ns.
    pub measured: Measured,
}

/// What the sender measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Measured {
    /// Minimum RTT, ns.
    pub min_rtt: u64,
    /// Smoothed RTT, ns.
    pub srtt: u64,
    /// Retransmission timeout, ns.
    pub rto: u64,
    /// Segment size in bytes.
    pub mss: u32,
    /// Congestion window in segments.
    pub cwnd: u32,
    /// Slow-start threshold in segments, until something was sent again.
    pub threshold: Option<u32>,
}

/// Segments that were acknowledged and wait for their verdict, in order of sequence numbers.
#[derive(Debug, Clone, Default)]
pub struct Waiting {
    queue: VecDeque<(Segment, Measured)>,
}

impl Waiting {
    /// A segment was acknowledged.
    pub fn push(&mut self, segment: Segment, measured: Measured) {
        self.queue.push_back((segment, measured));
    }

    /// The next segment whose fate is sure by now.
    pub fn pop(&mut self, now: u64, verdicts: &Spurious) -> Option<Fate> {
        let (segment, measured) = self.queue.front()?;
        let again = segment.is(EVER);
        let ripe = segment.delivered + WAIT_NS <= now || self.queue.len() > WAITING_MAX;
        if again && !ripe {
            return None;
        }
        let original = if again {
            verdicts.original(segment.start, segment.end)
        } else {
            None
        };
        let fate = fate(segment, *measured, original);
        self.queue.pop_front();
        Some(fate)
    }
}

fn fate(segment: &Segment, measured: Measured, original: Option<Original>) -> Fate {
    let again = segment.is(EVER);
    let known = if !again {
        Some(segment.delivered)
    } else {
        original.filter(|one| one.arrived).map(|one| {
            // Answered sooner after the copy than the path allows: the original's answer.
            let early = segment.delivered < segment.sent + measured.min_rtt;
            if one.first || early {
                segment.delivered
            } else {
                one.duplicate_at
                    .unwrap_or(segment.delivered)
                    .max(segment.delivered)
            }
        })
    };
    let by_copy = again && known != Some(segment.delivered);
    let from = if by_copy {
        segment.sent
    } else {
        segment.first_sent
    };
    Fate {
        start: segment.start,
        end: segment.end,
        sent: segment.first_sent,
        original: known,
        delay: segment.delivered.saturating_sub(from),
        copies: segment.resent,
        disordered: segment.disordered || segment.is(SACKED) || again,
        measured,
    }
}
