//! What the TCP senders of the load did together, and what their window reductions cost.
//!
//! A reduction costs the time until the window is back where it was. With CUBIC that is
//! K = cbrt(W (1 - beta) / C) seconds, C = 0.4, beta = 0.7 (RFC 9438, equation 2), or, where the
//! Reno-friendly region is faster, W (1 - beta) / alpha round trips with
//! alpha = 3 (1 - beta) / (1 + beta) (equation 4, section 4.3). W follows from what was given up:
//! `cwnd_lost` of the episodes that were not taken back is the sum of their W (1 - beta). Episodes cost
//! their own time too, and so does waiting for a retransmission timeout.
//!
//! After an episode that the sender takes back (undo: RFC 3522, RFC 3708; `tcp_try_undo_recovery`) the window is
//! what it was. While a fast recovery lasts, proportional rate reduction sends beta of what is delivered (RFC 6937,
//! section 3), so one that is taken back costs 1 - beta of its time; after a timeout next to nothing is sent, so such an
//! episode costs all of it. The state Disorder costs nothing: the window stays, and what was
//! SACKed no longer counts against it (RFC 6675, section 5, step 3; `tcp_packets_in_flight`), so new data goes
//! on being sent.

use crate::analysis::connections::TcpFlow;

/// CUBIC's C (RFC 9438, section 4.1).
const CUBIC_C: f64 = 0.4;
/// CUBIC's beta (RFC 9438, section 4.6).
const CUBIC_BETA: f64 = 0.7;

/// Senders of the load, summed up; shares are weighted by busy time.
#[derive(Debug, Clone, Default)]
pub struct Senders {
    /// How many.
    pub flows: u64,
    /// Seconds with unacknowledged data, over all of them.
    pub busy_s: f64,
    /// Mean seconds with unacknowledged data.
    pub busy_mean_s: f64,
    /// Bytes acknowledged.
    pub acked_bytes: u64,
    /// Share of the busy time limited by the congestion window.
    pub cwnd: f64,
    /// By the receive window.
    pub rwnd: f64,
    /// By the send buffer.
    pub sndbuf: f64,
    /// By the application.
    pub app: f64,
    /// By none of these: pacing and queues of the host.
    pub other: f64,
    /// Median RTT in us, mean over senders.
    pub rtt_us: Option<f64>,
    /// Smallest RTT in us.
    pub rtt_min_us: Option<f64>,
    /// Segment size of the largest sender.
    pub mss: u32,
    /// Segments sent again.
    pub sent_again: u64,
    /// Of these, judged.
    pub judged: u64,
    /// Of these, spurious.
    pub spurious: u64,
    /// Windows reduced and not restored.
    pub reductions: u64,
    /// Recoveries that were taken back.
    pub undone: u64,
    /// Seconds in fast recovery.
    pub recovery_s: f64,
    /// Seconds in recovery from timeouts.
    pub loss_s: f64,
    /// Seconds waiting for retransmission timeouts.
    pub rto_wait_s: f64,
    /// Seconds in episodes that were taken back, and waiting for the timeouts among them.
    pub undone_s: f64,
    /// Seconds that these cost.
    pub undone_cost_s: f64,
    /// Segments sent again in them.
    pub undone_retransmits: u64,
    /// Seconds that it takes to get back what reductions took, at most the rest of the busy time.
    pub regrowth_s: f64,
}

impl Senders {
    /// Sums up senders; `None` if none was ever busy.
    #[must_use]
    pub fn of(flows: &[&TcpFlow]) -> Option<Senders> {
        let mut sum = Senders::default();
        let mut rtts = Vec::new();
        for flow in flows {
            let limits = &flow.limits;
            let busy = limits.times.busy_s;
            if busy <= 0.0 {
                continue;
            }
            // Of a sender that is known from a capture only no share is known.
            let shares = limits.limited_by.unwrap_or_default();
            sum.flows += 1;
            sum.busy_s += busy;
            sum.acked_bytes += limits.acked_bytes;
            sum.cwnd += shares.cwnd * busy;
            sum.rwnd += shares.rwnd * busy;
            sum.sndbuf += shares.sndbuf * busy;
            sum.app += shares.app * busy;
            sum.other += shares.other * busy;
            if sum.mss == 0 {
                sum.mss = limits.mss;
            }
            if let Some(rtt) = limits.rtt_us {
                rtts.push(rtt.p50);
                sum.rtt_min_us = Some(sum.rtt_min_us.map_or(rtt.min, |least| least.min(rtt.min)));
            }
            sum.add_losses(flow);
        }
        if sum.busy_s <= 0.0 {
            return None;
        }
        for share in [
            &mut sum.cwnd,
            &mut sum.rwnd,
            &mut sum.sndbuf,
            &mut sum.app,
            &mut sum.other,
        ] {
            *share /= sum.busy_s;
        }
        sum.busy_mean_s = sum.busy_s / sum.flows as f64;
        if !rtts.is_empty() {
            sum.rtt_us = Some(rtts.iter().sum::<f64>() / rtts.len() as f64);
        }
        Some(sum)
    }

    fn add_losses(&mut self, flow: &TcpFlow) {
        let (limits, sums) = (&flow.limits, &flow.sums);
        let mut all = sums.recovery;
        all.add(&sums.loss);
        let reductions = all.count.saturating_sub(all.undone);
        self.reductions += reductions;
        self.undone += all.undone;
        self.sent_again += flow.spurious.segments + flow.spurious.unseen;
        self.judged += flow.spurious.segments - flow.spurious.undecided;
        self.spurious += flow.spurious.spurious;
        self.recovery_s += limits.times.recovery_s;
        self.loss_s += limits.times.loss_s;
        self.rto_wait_s += limits.times.rto_wait_s;
        // Each timeout begins an episode in Loss; they wait alike.
        let timeouts_undone = sums.loss.undone as f64 / sums.loss.count.max(1) as f64;
        let silent = sums.loss.undone_time_s + timeouts_undone * limits.times.rto_wait_s;
        self.undone_s += sums.recovery.undone_time_s + silent;
        self.undone_cost_s += (1.0 - CUBIC_BETA) * sums.recovery.undone_time_s + silent;
        self.undone_retransmits += all.undone_retransmits;
        let rtt_s = limits.rtt_us.map_or(0.0, |rtt| rtt.mean / 1e6);
        let regrowth = match reductions {
            0 => 0.0,
            _ => reductions as f64 * regrowth_s(all.cwnd_lost as f64 / reductions as f64, rtt_s),
        };
        let in_episodes = limits.times.recovery_s + limits.times.loss_s + limits.times.rto_wait_s;
        self.regrowth_s += regrowth.min((limits.times.busy_s - in_episodes).max(0.0));
    }

    /// Share of the busy time that retransmissions and reductions cost, 0 to 1: while an episode lasts nothing else can
    /// limit; afterwards only a full window shows the cost.
    #[must_use]
    pub fn loss_share(&self) -> f64 {
        let waited = self.rto_wait_s + self.recovery_s + self.loss_s - self.undone_s;
        let cost = waited.max(0.0) + self.undone_cost_s + self.regrowth_s * self.cwnd;
        (cost / self.busy_s).min(1.0)
    }

    /// Of [`Senders::loss_share`], what was spent for data that had arrived: what episodes cost that were taken back, and
    /// of the others as much as of the segments sent again in them were spurious.
    #[must_use]
    pub fn spurious_share(&self) -> f64 {
        let whole = self.loss_share();
        let undone = (self.undone_cost_s / self.busy_s).min(whole);
        let judged = self.judged.saturating_sub(self.undone_retransmits);
        let spurious = self.spurious.saturating_sub(self.undone_retransmits);
        let ratio = match judged {
            0 => 0.0,
            judged => spurious as f64 / judged as f64,
        };
        undone + (whole - undone) * ratio
    }

    /// The rest of it: what was spent for data that was lost.
    #[must_use]
    pub fn needed_share(&self) -> f64 {
        self.loss_share() - self.spurious_share()
    }

    /// Of the retransmissions that could be judged, those that were spurious.
    #[must_use]
    pub fn spurious_ratio(&self) -> Option<f64> {
        (self.judged > 0).then(|| self.spurious as f64 / self.judged as f64)
    }

    /// How long one state of a sender lasts at least, in seconds: a round trip.
    #[must_use]
    pub fn grain_s(&self) -> f64 {
        self.rtt_us.map_or(0.0, |us| us / 1e6)
    }
}

/// Seconds until a window that gave up this many segments is back.
fn regrowth_s(given_up: f64, rtt_s: f64) -> f64 {
    let cubic = (given_up / CUBIC_C).cbrt();
    let alpha = 3.0 * (1.0 - CUBIC_BETA) / (1.0 + CUBIC_BETA);
    let reno = given_up / alpha * rtt_s;
    if rtt_s > 0.0 { cubic.min(reno) } else { cubic }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9438, section 5: with W = 100 segments K = cbrt(30 / 0.4) = 4.2 s; at 1 ms the Reno-friendly
    /// region needs 30 / 0.53 round trips, 57 ms.
    #[test]
    fn what_a_reduction_costs() {
        assert!((regrowth_s(30.0, 1.0) - 4.217).abs() < 1e-2);
        assert!((regrowth_s(30.0, 0.001) - 0.0567).abs() < 1e-3);
    }

    /// Ten recoveries of 10 ms each, half of them taken back with a segment each; the others' ten segments were lost but
    /// for two, and their windows take 2 s to come back. The window limits half of the time.
    #[test]
    fn what_was_taken_back_costs_a_part_of_its_own_time() {
        let senders = Senders {
            busy_s: 10.0,
            cwnd: 0.5,
            recovery_s: 0.1,
            regrowth_s: 2.0,
            undone_s: 0.05,
            undone_cost_s: 0.015,
            undone_retransmits: 5,
            judged: 15,
            spurious: 7,
            ..Senders::default()
        };
        assert!((senders.loss_share() - 0.1065).abs() < 1e-9);
        assert!((senders.spurious_share() - (0.0015 + 0.105 * 0.2)).abs() < 1e-9);
        assert!((senders.needed_share() - 0.105 * 0.8).abs() < 1e-9);
    }

    #[test]
    fn without_a_judgement_all_was_needed() {
        let senders = Senders {
            busy_s: 1.0,
            recovery_s: 0.5,
            ..Senders::default()
        };
        assert!((senders.needed_share() - 0.5).abs() < 1e-9);
    }
}
