//! What held a TCP sender back, per direction of a connection.
//!
//! Time between two events of a sender is attributed by the state at the later event, which is
//! the state that lasted up to it:
//!
//! * idle: `chrono_type` 0, nothing unacknowledged;
//! * receive window, send buffer: `chrono_type` 2, 3 (`tcp_chrono_start`, net/ipv4/tcp_output.c);
//! * congestion window: busy, and in flight >= `snd_cwnd` or `is_cwnd_limited`;
//! * application: busy, and everything that was written has been sent;
//! * other: busy and none of these (pacing, TSQ, queues of the host).
//!
//! Shares are of the busy time. The kernel's own accounts (`chrono_stat`, what `ss -ti` calls
//! busy, rwnd_limited and sndbuf_limited) stand beside them; they count jiffies.
//!
//! RTT samples run from the device that takes a segment to the acknowledgement that first covers
//! or SACKs it, never over a segment that was sent again (Karn and Partridge 1987).

mod ack_path;
mod quantiles;
mod series;

use hdrhistogram::Histogram;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use ack_path::AckPath;
pub use quantiles::Quantiles;
pub use series::Point;

use super::connections::state::State;
use super::seconds;
use ack_path::AckPathState;
use quantiles::histogram;
use series::Series;

/// Infinite slow-start threshold (`TCP_INFINITE_SSTHRESH`).
const INFINITE: u32 = 0x7fff_ffff;

/// Seconds a sender spent in each state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StateTimes {
    /// Between first and last event.
    pub observed_s: f64,
    /// With unacknowledged data.
    pub busy_s: f64,
    /// In slow start: busy in Open with the window below the threshold.
    pub slow_start_s: f64,
    /// In Disorder: something was SACKed, nothing given up yet.
    pub disorder_s: f64,
    /// In CWR: reducing the window after a congestion mark or a full local queue.
    pub cwr_s: f64,
    /// In fast recovery.
    pub recovery_s: f64,
    /// Recovering from a timeout.
    pub loss_s: f64,
    /// Waiting for a retransmission timeout: from the last event before it to the timeout.
    pub rto_wait_s: f64,
}

/// The kernel's own accounts in seconds, at the resolution of its tick.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Chrono {
    /// One tick.
    pub resolution_s: f64,
    /// Busy and limited by neither.
    pub busy_s: f64,
    /// Limited by the receive window.
    pub rwnd_s: f64,
    /// Limited by the send buffer.
    pub sndbuf_s: f64,
}

/// Ticks from which the kernel's accounts are used.
const TICKS_LEAST: f64 = 16.0;

/// Shares of the busy time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Shares {
    pub cwnd: f64,
    pub rwnd: f64,
    pub sndbuf: f64,
    pub app: f64,
    pub other: f64,
}

/// What a sender did and what held it back.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Output {
    /// Bytes newly acknowledged.
    pub acked_bytes: u64,
    /// 8 x acknowledged bytes / time from first to last event; `None` without two events.
    pub throughput_bps: Option<f64>,
    /// RTT.
    pub rtt_us: Option<Quantiles>,
    /// Where the RTT comes from.
    pub rtt_source: Option<&'static str>,
    /// Segment size at the last event.
    pub mss: u32,
    /// Time-weighted mean of the congestion window in segments.
    pub cwnd_mean: Option<f64>,
    /// Time in states.
    pub times: StateTimes,
    /// Shares of the busy time; `None` if it never was busy.
    pub limited_by: Option<Shares>,
    /// The kernel's accounts; `None` without its tick frequency.
    pub chrono: Option<Chrono>,
    /// Over time.
    pub series: Vec<Point>,
    /// The way back.
    pub acks: AckPath,
}

#[derive(Debug, Clone, Copy, Default)]
struct Spent {
    idle: u64,
    cwnd: u64,
    rwnd: u64,
    sndbuf: u64,
    app: u64,
    other: u64,
    slow_start: u64,
    by_ca: [u64; 5],
    rto_wait: u64,
}

/// Follows one sender.
#[derive(Debug, Clone)]
pub struct Limits {
    first: Option<(u64, State)>,
    last: Option<(u64, State)>,
    /// When the running `chrono_start` was first seen.
    chrono_since: u64,
    spent: Spent,
    cwnd_time: f64,
    acked_bytes: u64,
    rtt: Histogram<u32>,
    srtt: Histogram<u32>,
    series: Series,
    acks: AckPathState,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            first: None,
            last: None,
            chrono_since: 0,
            spent: Spent::default(),
            cwnd_time: 0.0,
            acked_bytes: 0,
            rtt: histogram(),
            srtt: histogram(),
            series: Series::default(),
            acks: AckPathState::default(),
        }
    }
}

impl Limits {
    /// The socket's state at an event of it.
    pub fn state(&mut self, time: u64, state: &State) {
        let Some((since, before)) = self.last else {
            self.first = Some((time, *state));
            self.last = Some((time, *state));
            self.chrono_since = time;
            self.series.state(time, state, 0);
            return;
        };
        let elapsed = time.saturating_sub(since);
        self.attribute(elapsed, state);
        self.cwnd_time += elapsed as f64 * f64::from(state.snd_cwnd);
        if state.chrono_start != before.chrono_start || state.chrono_type != before.chrono_type {
            self.chrono_since = time;
        }
        let delivered = state.delivered.wrapping_sub(before.delivered);
        self.series.state(time, state, u64::from(delivered));
        self.last = Some((time, *state));
    }

    fn attribute(&mut self, elapsed: u64, state: &State) {
        let spent = &mut self.spent;
        if let Some(slot) = spent.by_ca.get_mut(usize::from(state.ca_state)) {
            *slot += elapsed;
        }
        let busy = match state.chrono_type {
            0 => &mut spent.idle,
            2 => &mut spent.rwnd,
            3 => &mut spent.sndbuf,
            _ if state.in_flight() >= state.snd_cwnd || state.bits & 1 != 0 => &mut spent.cwnd,
            _ if state.write_seq == state.snd_nxt => &mut spent.app,
            _ => &mut spent.other,
        };
        *busy += elapsed;
        let below = state.ssthresh >= INFINITE || state.snd_cwnd < state.ssthresh;
        if state.chrono_type != 0 && state.ca_state == 0 && below {
            spent.slow_start += elapsed;
        }
    }

    /// A retransmission timeout: call before [`Limits::state`] of the same event.
    pub fn timed_out(&mut self, time: u64) {
        if let Some((since, _)) = self.last {
            self.spent.rto_wait += time.saturating_sub(since);
        }
    }

    /// Segments were sent again.
    pub fn resent(&mut self, time: u64, segments: u64) {
        self.series.resent(time, segments);
    }

    /// An acknowledgement reaches the sender; `bytes` are newly acknowledged.
    pub fn acked(&mut self, time: u64, ack: u64, bytes: u64, pure: bool, srtt_8us: u32) {
        self.acks.arrived(time, ack, pure);
        if bytes > 0 {
            self.acked_bytes += bytes;
            self.series.acked(time, bytes);
            if srtt_8us > 0 {
                let _ = self.srtt.record(u64::from(srtt_8us / 8));
            }
        }
    }

    /// A sample of the RTT.
    pub fn rtt(&mut self, ns: u64) {
        // Auto-resizing: an error would mean more than 2^63 us.
        let _ = self.rtt.record(ns / 1000);
    }

    /// Data reaches the receiver.
    pub fn data_arrived(&mut self, time: u64, start: u64, end: u64, rcv_nxt: u64) {
        self.acks.data_arrived(time, start, end, rcv_nxt);
    }

    /// An acknowledgement leaves the receiver's device.
    pub fn ack_sent(&mut self, time: u64, ack: u64, pure: bool) {
        self.acks.sent(time, ack, pure);
    }

    /// Bytes newly acknowledged so far.
    #[must_use]
    pub fn acked_bytes(&self) -> u64 {
        self.acked_bytes
    }

    /// Time of the first event, ns; what [`Output::series`] begins with.
    #[must_use]
    pub fn began(&self) -> u64 {
        self.first.as_ref().map_or(0, |first| first.0)
    }

    /// The state at the last event.
    #[must_use]
    pub fn last(&self) -> Option<&State> {
        self.last.as_ref().map(|(_, state)| state)
    }

    /// `hz`: jiffies per second, if known.
    #[must_use]
    pub fn finish(&self, hz: Option<u32>) -> Output {
        let Some(((began, first), (ended, last))) = self.first.zip(self.last) else {
            return Output {
                acks: self.acks.finish(),
                ..Output::default()
            };
        };
        let elapsed = seconds(ended.saturating_sub(began));
        let rtt = Quantiles::of(&self.rtt);
        let srtt = Quantiles::of(&self.srtt);
        let chrono = hz.map(|hz| self.chrono(hz, (&first, (&last, ended))));
        let limited_by = self.shares().map(|shares| match &chrono {
            Some(chrono) => shares.by_accounts(chrono, seconds(self.spent.busy())),
            None => shares,
        });
        Output {
            acked_bytes: self.acked_bytes,
            throughput_bps: (elapsed > 0.0).then(|| 8.0 * self.acked_bytes as f64 / elapsed),
            rtt_source: rtt
                .map(|_| "segment-to-ack")
                .or(srtt.map(|_| "kernel-srtt")),
            rtt_us: rtt.or(srtt),
            mss: last.mss,
            cwnd_mean: (elapsed > 0.0).then(|| self.cwnd_time / (elapsed * 1e9)),
            times: self.times(elapsed),
            limited_by,
            chrono,
            series: self.series.finish(last.mss, ended),
            acks: self.acks.finish(),
        }
    }

    fn times(&self, elapsed: f64) -> StateTimes {
        let spent = &self.spent;
        StateTimes {
            observed_s: elapsed,
            busy_s: seconds(spent.busy()),
            slow_start_s: seconds(spent.slow_start),
            disorder_s: seconds(spent.by_ca[1]),
            cwr_s: seconds(spent.by_ca[2]),
            recovery_s: seconds(spent.by_ca[3]),
            loss_s: seconds(spent.by_ca[4]),
            rto_wait_s: seconds(spent.rto_wait),
        }
    }

    fn shares(&self) -> Option<Shares> {
        let spent = &self.spent;
        let busy = spent.busy();
        let share = |part: u64| part as f64 / busy as f64;
        (busy > 0).then(|| Shares {
            cwnd: share(spent.cwnd),
            rwnd: share(spent.rwnd),
            sndbuf: share(spent.sndbuf),
            app: share(spent.app),
            other: share(spent.other),
        })
    }

    /// What was added to `chrono_stat`, and the account that is running at the end.
    fn chrono(&self, hz: u32, ends: (&State, (&State, u64))) -> Chrono {
        let (first, (last, ended)) = ends;
        let tick = 1.0 / f64::from(hz.max(1));
        let mut sums = [0.0; 3];
        for (sum, (before, after)) in sums
            .iter_mut()
            .zip(first.chrono_stat.iter().zip(&last.chrono_stat))
        {
            *sum = f64::from(after.wrapping_sub(*before)) * tick;
        }
        let running = usize::from(last.chrono_type).checked_sub(1);
        if let Some(sum) = running.and_then(|index| sums.get_mut(index)) {
            *sum += seconds(ended.saturating_sub(self.chrono_since));
        }
        let [busy_s, rwnd_s, sndbuf_s] = sums;
        Chrono {
            resolution_s: tick,
            busy_s,
            rwnd_s,
            sndbuf_s,
        }
    }
}

impl Shares {
    /// With what the kernel's accounts say of the receive window and the send buffer. Between two events a limit may
    /// have begun long after the first, which the events alone do not tell: what they say of the rest is
    /// spread over what the accounts leave. `busy_s`: busy time by the events. Accounts that are not about that time
    /// change nothing.
    fn by_accounts(self, chrono: &Chrono, busy_s: f64) -> Shares {
        let total = chrono.busy_s + chrono.rwnd_s + chrono.sndbuf_s;
        let known = total > TICKS_LEAST * chrono.resolution_s;
        if !known || total < 0.8 * busy_s || total > 1.25 * busy_s {
            return self;
        }
        let (rwnd, sndbuf) = (chrono.rwnd_s / total, chrono.sndbuf_s / total);
        let left = 1.0 - rwnd - sndbuf;
        let rest = self.cwnd + self.app + self.other;
        let part = |share: f64| if rest > 0.0 { left * share / rest } else { 0.0 };
        Shares {
            cwnd: part(self.cwnd),
            rwnd,
            sndbuf,
            app: part(self.app),
            other: if rest > 0.0 { part(self.other) } else { left },
        }
    }
}

impl Spent {
    fn busy(&self) -> u64 {
        self.cwnd + self.rwnd + self.sndbuf + self.app + self.other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Half of the time a limit lasts, which began in the middle between two events.
    #[test]
    fn the_kernels_accounts_say_how_long_a_limit_lasted() {
        let mut limits = Limits::default();
        for number in 0..=100u32 {
            let state = State {
                chrono_type: 2,
                chrono_start: 10 * number + 5,
                chrono_stat: [5 * number, 5 * number, 0],
                packets_out: 10,
                snd_cwnd: 20,
                write_seq: 500,
                ..State::default()
            };
            limits.state(u64::from(number) * 40_000_000, &state);
        }
        let found = limits.finish(Some(250));
        let shares = found.limited_by.unwrap_or_default();
        assert!((shares.rwnd - 0.5).abs() < 0.01, "{shares:?}");
        assert!((shares.other - 0.5).abs() < 0.01, "{shares:?}");
    }

    #[test]
    fn time_belongs_to_the_state_that_lasted() {
        let mut limits = Limits::default();
        let state = |chrono_type, packets_out, write_seq| State {
            chrono_type,
            packets_out,
            write_seq,
            snd_nxt: 100,
            snd_cwnd: 10,
            ssthresh: 5,
            ..State::default()
        };
        limits.state(0, &state(0, 0, 100));
        limits.state(10, &state(1, 10, 200)); // full window
        limits.state(30, &state(1, 4, 100)); // nothing more was written
        limits.state(60, &state(2, 4, 200)); // receive window
        limits.state(100, &state(1, 4, 200)); // neither
        let found = limits.finish(Some(250));
        let shares = found.limited_by.unwrap_or_default();
        assert_eq!((shares.cwnd, shares.app), (0.1, 0.2));
        assert_eq!((shares.rwnd, shares.sndbuf, shares.other), (0.3, 0.0, 0.4));
    }
}
