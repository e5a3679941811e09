//! What acknowledgements wait on their way back, as a part of the round trip.

use super::facts::Facts;

/// Part of the round trip from which the way back stands out.
pub(super) const PART: f64 = 1.0 / 3.0;

/// Delays below the granularity of timers change nothing (RFC 9002, section 6.1.2: 1 ms).
const GRANULARITY_US: f64 = 1000.0;

/// The way back of the largest sender's acknowledgements; times in us.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct WayBack {
    /// Median from the receiver's device to the sender's TCP.
    pub(super) median_us: f64,
    /// The wire's median in that direction.
    pub(super) wire_back_us: f64,
    /// The same, or that of the way there if it is less.
    pub(super) wire_us: f64,
    /// Median round trip.
    pub(super) rtt_us: f64,
    /// Seconds with unacknowledged data.
    pub(super) busy_s: f64,
    /// Share of the groups of acknowledgements that arrive compressed.
    pub(super) compressed: Option<f64>,
}

impl WayBack {
    /// `Err` says what was not seen.
    pub(super) fn of(facts: &Facts<'_>) -> Result<WayBack, &'static str> {
        let flows = facts.outputs.tcp_flows.iter();
        let flow = flows.max_by_key(|flow| flow.limits.acked_bytes);
        let limits = flow.map(|flow| &flow.limits);
        let Some((limits, back)) = limits.and_then(|limits| Some((limits, limits.acks.return_us?)))
        else {
            return Err("no acknowledgement was seen at both ends");
        };
        let rtt = limits.rtt_us.ok_or("the sender has no RTT samples")?;
        let wire_back = facts.stage_back("wire").map(|stage| stage.p50_us);
        let wire_back = wire_back.ok_or("the wire's own time back is not known")?;
        let there = facts.stage("wire").map(|stage| stage.p50_us);
        Ok(WayBack {
            median_us: back.p50,
            wire_back_us: wire_back,
            wire_us: there.map_or(wire_back, |there| there.min(wire_back)),
            rtt_us: rtt.p50,
            busy_s: limits.times.busy_s,
            compressed: limits.acks.compressed_share,
        })
    }

    /// What the way takes beyond the wire, us.
    pub(super) fn excess_us(&self) -> f64 {
        (self.median_us - self.wire_us).max(0.0)
    }

    /// Whether that is more than timers can tell.
    pub(super) fn tells(&self) -> bool {
        self.excess_us() > GRANULARITY_US
    }

    /// The same as a part of the round trip, 0 to 1.
    pub(super) fn part(&self) -> f64 {
        match self.rtt_us > 0.0 {
            true => (self.excess_us() / self.rtt_us).min(1.0),
            false => 0.0,
        }
    }
}

/// Part of the round trip that late acknowledgements take; 0 where they are not late.
pub(super) fn late(facts: &Facts<'_>) -> f64 {
    match WayBack::of(facts) {
        Ok(way) if way.tells() && way.part() >= PART => way.part(),
        _ => 0.0,
    }
}
