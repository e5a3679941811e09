//! A whole run of one sender, simulated: new data leaves as soon as the simulated window lets it, and the
//! path does to each packet what it did to some packet in fact. So throughput follows from what the
//! settings decide: reductions of the window and their undos, time in recovery, and the time that a
//! lost tail waits for the probe or for the timeout.
//!
//! A packet is answered after the delay of a recorded packet, or lost as it was; successive packets take
//! successive recorded ones, from a given one on and round, so that segments of one super-packet keep
//! their common fate where they leave together again. The window is [`super::window`]'s, PRR
//! clocks recovery (`tcp_cwnd_reduction`), RTT and timeout are estimated as in `tcp_rtt_estimator` (net/ipv4/tcp_input.c),
//! the timeout doubles until something is answered, and a tail loss probe sends new data after 2 srtt + 2
//! ticks (`tcp_schedule_loss_probe`). The application always has data, and nothing but the window
//! limits; what else limited in fact is left to [`super::throughput`].

use std::collections::BTreeSet;

use super::board::Board;
use super::fate::Measured;
use super::path::Path;
use super::rules::Rules;
use super::sender::{Copied, Outcome, Road, Sender};
use super::window::Window;

/// A packet that was lost, among delays in us.
pub const LOST: u32 = u32::MAX;
/// `TCP_RTO_MIN`.
const RTO_MIN_NS: u64 = 200_000_000;
/// `TCP_RTO_MAX`.
const RTO_MAX_NS: u64 = 120_000_000_000;
/// `TCP_TIMEOUT_INIT`.
const RTO_FIRST_NS: u64 = 1_000_000_000;
/// Packets on either side of which a path without reordering takes the mean.
const NEAR: usize = 32;

/// RTT estimates and PRR.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Clock {
    /// ns, as `srtt_us` and `mdev_us` but not shifted.
    srtt: f64,
    deviation: f64,
    least: u64,
    doublings: u32,
    prior: f64,
    delivered: u64,
    out: u64,
    /// Segments that recovery lets leave now.
    pub sendable: u64,
}

impl Clock {
    /// An acknowledgement, with the RTT of what it delivers if that was sent once.
    pub(super) fn sample(&mut self, rtt: Option<u64>, measured: &mut Measured) {
        let Some(rtt) = rtt else { return };
        self.doublings = 0;
        let sample = rtt.max(1) as f64;
        if self.srtt == 0.0 {
            (self.srtt, self.deviation, self.least) = (sample, sample / 2.0, rtt);
        } else {
            let error = sample - self.srtt;
            self.srtt += error / 8.0;
            self.deviation += (error.abs() - self.deviation) / 4.0;
            self.least = self.least.min(rtt);
        }
        measured.srtt = self.srtt as u64;
        measured.min_rtt = self.least;
        measured.rto = self.timeout();
    }

    fn timeout(&self) -> u64 {
        if self.srtt == 0.0 {
            return RTO_FIRST_NS << self.doublings.min(7);
        }
        let once = self.srtt as u64 + RTO_MIN_NS.max((4.0 * self.deviation) as u64);
        (once << self.doublings.min(9)).min(RTO_MAX_NS)
    }

    /// The timeout came: the next one takes twice as long.
    pub(super) fn timed_out(&mut self, measured: &mut Measured) {
        self.doublings += 1;
        measured.rto = self.timeout();
    }

    /// `tcp_init_cwnd_reduction`, with the window before it.
    pub(super) fn reduction_begins(&mut self, window: f64) {
        (self.prior, self.delivered, self.out, self.sendable) = (window, 0, 0, 0);
    }

    /// `tcp_cwnd_reduction`: PRR (RFC 6937), with slow start while below the threshold.
    pub(super) fn reduce(&mut self, delivered: u64, threshold: f64, in_flight: u32) {
        if delivered == 0 {
            self.sendable = 0;
            return;
        }
        self.delivered += delivered;
        let in_flight = f64::from(in_flight);
        let below = threshold - in_flight;
        let wanted = if below < 0.0 {
            let share = threshold * self.delivered as f64 / self.prior.max(1.0);
            share.ceil() - self.out as f64
        } else {
            let owed = self.delivered as f64 - self.out as f64;
            below.min(owed.max(delivered as f64) + 1.0)
        };
        let least = u64::from(self.out == 0);
        self.sendable = (wanted.max(0.0) as u64).max(least);
    }

    /// A segment leaves.
    pub(super) fn sent(&mut self) {
        self.out += 1;
        self.sendable = self.sendable.saturating_sub(1);
    }
}

/// The recorded packets, taken in turn.
#[derive(Debug, Clone)]
struct Sampled<'a> {
    delays: &'a [u32],
    at: usize,
    lost: BTreeSet<u64>,
}

impl Sampled<'_> {
    /// Delay of the next packet in ns; `None` if it is lost.
    fn draw(&mut self) -> Option<u64> {
        let delay = self.delays.get(self.at).copied().unwrap_or(LOST);
        self.at = (self.at + 1) % self.delays.len().max(1);
        (delay != LOST).then(|| u64::from(delay) * 1000)
    }
}

impl Road for Sampled<'_> {
    fn copy(&mut self, start: u64, _again: bool, _measured: &Measured) -> Copied {
        Copied {
            spurious: !self.lost.contains(&start),
            delay: self.draw(),
        }
    }

    fn acknowledged(&mut self, edge: u64) {
        self.lost = self.lost.split_off(&edge);
    }
}

/// Delays over another path. Without loss, what was lost takes as long as the packet before it; without
/// reordering, each takes the mean of those near it.
#[must_use]
pub fn over(path: Path, delays: &[u32]) -> Vec<u32> {
    match path {
        Path::AsItWas => delays.to_vec(),
        Path::Lossless => {
            let first = delays.iter().copied().find(|one| *one != LOST);
            let mut last = first.unwrap_or(0);
            let each = delays.iter().map(|&one| {
                if one != LOST {
                    last = one;
                }
                last
            });
            each.collect()
        }
        Path::InOrder => {
            let mut sums = vec![(0u64, 0u64)];
            for &one in delays {
                let (sum, count) = sums.last().copied().unwrap_or_default();
                let known = one != LOST;
                let more = if known { u64::from(one) } else { 0 };
                sums.push((sum + more, count + u64::from(known)));
            }
            let mean = |at: usize| {
                let from = sums[at.saturating_sub(NEAR)];
                let to = sums[(at + NEAR + 1).min(delays.len())];
                let count = to.1.saturating_sub(from.1).max(1);
                u32::try_from((to.0 - from.0) / count).unwrap_or(LOST - 1)
            };
            let each = delays.iter().enumerate().map(
                |(at, &one)| {
                    if one == LOST { LOST } else { mean(at) }
                },
            );
            each.collect()
        }
    }
}

/// How a simulated run begins and ends.
#[derive(Debug, Clone, Copy)]
pub struct Course {
    /// Congestion window at the beginning, in segments.
    pub cwnd: u32,
    /// Slow-start threshold, in segments.
    pub threshold: u32,
    /// How long it may last, ns.
    pub duration: u64,
    /// Segments after which it ends.
    pub segments: u64,
}

/// What a simulated run came to.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Ran {
    /// Segments acknowledged.
    pub delivered: u64,
    /// Time it took, ns.
    pub time: u64,
    /// What was sent again, and why.
    pub outcome: Outcome,
}

impl Ran {
    /// Segments a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.delivered as f64 * 1e9 / self.time.max(1) as f64
    }
}

/// Simulates a run; its first packet is the recorded one at `from`.
#[must_use]
pub fn run(course: &Course, rules: Rules, reordering: u32, delays: &[u32], from: usize) -> Ran {
    let road = Sampled {
        delays,
        at: from % delays.len().max(1),
        lost: BTreeSet::new(),
    };
    let mut sender = Sender::new(rules, reordering, road);
    sender.clock = Some(Clock::default());
    sender.window = Some(Window::new(rules.control, 0, course.cwnd, course.threshold));
    sender.measured = Measured {
        rto: RTO_FIRST_NS,
        mss: 1,
        ..Measured::default()
    };
    // Places are numbers of segments; 0 stands for none.
    (sender.board.una, sender.next) = (1, 1);
    let (mut now, mut probe) = (0, Probe::default());
    loop {
        let mut sent = false;
        while sender.room() > 0 && sender.outcome.segments < course.segments {
            send(&mut sender, now);
            sent = true;
        }
        probe.follow(&sender, now, sent);
        let next = sender.next_time();
        let due = probe.at.filter(|at| next.is_none_or(|next| *at < next));
        let Some(time) = due.or(next).filter(|time| *time <= course.duration) else {
            break;
        };
        now = time;
        if due.is_some() {
            // Of new data, although the window is full.
            probe.fired(sender.next);
            sender.progress = now;
            if sender.outcome.segments < course.segments {
                send(&mut sender, now);
            }
        } else {
            sender.run(now);
        }
    }
    let over = sender.outcome.segments >= course.segments;
    Ran {
        delivered: sender.board.una - 1 + u64::from(sender.board.sacked_out),
        time: if over { now } else { course.duration },
        outcome: sender.outcome,
    }
}

/// A new segment leaves.
fn send(sender: &mut Sender<Sampled<'_>>, now: u64) {
    let start = sender.next;
    let delay = sender.road.draw();
    if delay.is_none() {
        sender.road.lost.insert(start);
    }
    sender.outcome.segments += 1;
    sender.leave(now, start, start + 1, delay.map(|delay| now + delay.max(1)));
    if let Some(clock) = &mut sender.clock {
        clock.sent();
    }
}

/// Tail loss probes.
#[derive(Debug, Clone, Copy, Default)]
struct Probe {
    /// When it is due, ns.
    at: Option<u64>,
    /// `tlp_high_seq`: none before this is acknowledged.
    high: u64,
    answered: u64,
}

impl Probe {
    /// `tcp_schedule_loss_probe`: after each acknowledgement and each transmission.
    fn follow<R: Road>(&mut self, sender: &Sender<R>, now: u64, sent: bool) {
        let quiet = sender.episode.is_none() && sender.board.sacked_out == 0;
        let board: &Board = &sender.board;
        if !sender.rules.probes() || !quiet || board.is_empty() || board.una < self.high {
            self.at = None;
            return;
        }
        let delivered = sender.outcome.delivered;
        if self.at.is_none() || sent || delivered != self.answered {
            let ticks = 2 * sender.rules.tick_ns;
            let alone = if board.len() == 1 { RTO_MIN_NS } else { ticks };
            let wait = match sender.measured.srtt {
                0 => RTO_FIRST_NS,
                srtt => 2 * srtt + alone,
            };
            let timeout = sender.progress + sender.measured.rto;
            self.at = Some((now + wait).min(timeout));
            self.answered = delivered;
        }
    }

    fn fired(&mut self, high: u64) {
        (self.at, self.high) = (None, high + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::super::throughput::Control;
    use super::*;

    const MS: u32 = 1000;

    fn course(segments: u64) -> Course {
        Course {
            cwnd: 4,
            threshold: 4,
            duration: 60_000_000_000,
            segments,
        }
    }

    fn rules(early_retrans: u32) -> Rules {
        Rules {
            early_retrans,
            control: Control::Reno,
            ..Rules::default()
        }
    }

    /// A window of 4, answered after 10 ms: 4 segments every 10 ms, and 1 more each round.
    #[test]
    fn a_window_a_round() {
        let ran = run(&course(15), rules(3), 3, &[10 * MS], 0);
        // 4 + 5 + 6 = 15 after three rounds; the last leaves at 20 ms.
        assert_eq!((ran.delivered, ran.time), (15, 30_000_000));
        assert_eq!(ran.outcome.resent(), 0);
    }

    /// The first of ten segments is lost: three SACKs later it is sent again, once, and that was needed.
    #[test]
    fn a_loss_costs_one_copy_and_one_reduction() {
        let mut delays = vec![10 * MS; 60];
        delays[0] = LOST;
        let ran = run(&course(30), rules(3), 3, &delays, 0);
        assert_eq!(ran.delivered, 30);
        let outcome = ran.outcome;
        assert_eq!((outcome.fast.needed, outcome.fast.spurious), (1, 0));
        assert_eq!(
            (outcome.entries, outcome.undone, outcome.timeouts),
            (1, 0, 0)
        );
    }

    /// All of the first window is lost: with probes something is known after some round trips, without
    /// them only after the timeout.
    #[test]
    fn a_lost_window_waits_for_the_probe_or_for_the_timeout() {
        let mut delays = vec![10 * MS; 400];
        for lost in &mut delays[20..30] {
            *lost = LOST;
        }
        let at = |early| run(&course(200), rules(early), 3, &delays, 0);
        let (probing, waiting) = (at(3), at(0));
        assert!(waiting.outcome.timeouts > probing.outcome.timeouts);
        let slower = waiting.time.saturating_sub(probing.time);
        assert!(slower > 100_000_000, "{slower}");
    }

    /// One segment is 5 ms late: with a threshold of 3 it is sent again needlessly, and the reduction is
    /// taken back; with a threshold of 10 it is waited for.
    #[test]
    fn a_late_segment_is_waited_for_by_a_higher_threshold() {
        let mut delays = vec![10 * MS; 100];
        delays[5] = 12 * MS;
        let wide = Course {
            cwnd: 30,
            threshold: 30,
            ..course(60)
        };
        let at = |reordering| {
            let rules = Rules {
                reordering,
                recovery: 0,
                has_rfc6675: true,
                ..rules(3)
            };
            run(&wide, rules, reordering, &delays, 0).outcome
        };
        let (low, high) = (at(3), at(40));
        assert_eq!((low.fast.needed, low.fast.spurious), (0, 1));
        assert_eq!(low.undone, 1);
        assert_eq!(high.resent(), 0);
    }

    #[test]
    fn other_paths() {
        let delays = [10, LOST, 30, 20];
        assert_eq!(over(Path::Lossless, &delays), [10, 10, 30, 20]);
        assert_eq!(over(Path::InOrder, &delays), [20, LOST, 20, 20]);
        assert_eq!(over(Path::AsItWas, &delays), delays);
    }
}
