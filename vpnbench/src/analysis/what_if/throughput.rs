//! What another window does to a flow's throughput.
//!
//! The ratio of simulated runs with and without the change ([`super::ensemble`]) holds for the share of
//! busy time in which the window was the limit; the rest of the time stays (Amdahl). A rate is a window per
//! round trip (J. Little, A Proof for the Queuing Formula, 1961), so a window that grows by a factor raises the rate
//! by that factor to the power 1 - a, where a is how far round trips were seen to grow with the window
//! ([`absorption`]): 0 on a path that only delays, 1 where a queue takes the growth. More than the path and the
//! receiver have shown to take (the highest rate of a tenth of a second) is an extrapolation: the lower end
//! of the interval never relies on it, and without a known a nothing does. BBR does not reduce its rate
//! at single losses: no change is predicted.

use super::ensemble::Ratio;

/// Congestion control by what its window answers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// CUBIC.
    Cubic,
    /// Reno and what behaves like it.
    Reno,
    /// Not driven by single losses, or unknown.
    Other,
}

impl Control {
    /// By the kernel's name.
    #[must_use]
    pub fn of(name: Option<&str>) -> Control {
        match name {
            Some("cubic") => Control::Cubic,
            Some("reno" | "newreno") => Control::Reno,
            _ => Control::Other,
        }
    }

    /// By what a socket does at an entry into fast recovery, whatever the sysctl says (programs choose
    /// their own): CUBIC lowers the threshold to 0.7 of the window (RFC 9438, section 4.6), Reno to a half (RFC 5681,
    /// equation 4), BBR leaves it (`bbr_ssthresh`). `None` if the window is too small to tell.
    #[must_use]
    pub fn at_entry(window: u32, threshold: u32) -> Option<Control> {
        if threshold >= INFINITE_THRESHOLD {
            return Some(Control::Other);
        }
        if window < TELLING || threshold > window {
            return None;
        }
        let halved = u64::from(threshold) * 10 < u64::from(window) * 6;
        Some(if halved {
            Control::Reno
        } else {
            Control::Cubic
        })
    }
}

/// `TCP_INFINITE_SSTHRESH`.
const INFINITE_THRESHOLD: u32 = 0x7fff_ffff;
/// Segments of a window of which a half and 0.7 differ by more than rounding.
const TELLING: u32 = 10;

/// A flow as it was.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    /// bit/s.
    pub throughput_bps: f64,
    /// Highest rate of a tenth of a second, bit/s.
    pub peak_bps: f64,
    /// By [`absorption`].
    pub absorption: Option<f64>,
    /// Share of the busy time in which the congestion window was the limit.
    pub cwnd_share: f64,
    /// Congestion control.
    pub control: Control,
}

/// Points without which nothing is said about a queue.
const FEWEST_POINTS: usize = 8;

/// How far round trips grow with the window, from (window, round trip) over time: the slope of ln(round trip)
/// over ln(window) by least squares, within 0 and 1. `None` for fewer than 8 points or a window that never changed.
#[must_use]
pub fn absorption(points: impl Iterator<Item = (f64, f64)>) -> Option<f64> {
    let positive = points.filter(|(window, rtt)| *window > 0.0 && *rtt > 0.0);
    let logs: Vec<(f64, f64)> = positive
        .map(|(window, rtt)| (window.ln(), rtt.ln()))
        .collect();
    if logs.len() < FEWEST_POINTS {
        return None;
    }
    let count = logs.len() as f64;
    let sum = logs
        .iter()
        .fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    let mean = (sum.0 / count, sum.1 / count);
    let both: f64 = logs
        .iter()
        .map(|one| (one.0 - mean.0) * (one.1 - mean.1))
        .sum();
    let squares: f64 = logs.iter().map(|one| (one.0 - mean.0).powi(2)).sum();
    (squares > f64::EPSILON * count).then(|| (both / squares).clamp(0.0, 1.0))
}

/// Throughput in bit/s: expected, and both ends of its interval.
#[must_use]
pub fn predict(flow: &Flow, ratio: Ratio) -> (f64, f64, f64) {
    let seen = flow.peak_bps.max(flow.throughput_bps);
    let share = match flow.control {
        Control::Other => 0.0,
        Control::Cubic | Control::Reno => flow.cwnd_share.clamp(0.0, 1.0),
    };
    let (power, most) = match flow.absorption {
        Some(absorbed) => (1.0 - absorbed, f64::INFINITY),
        None => (1.0, seen),
    };
    let scaled = |factor: f64| {
        let factor = factor.max(f64::MIN_POSITIVE).powf(power);
        let longer = 1.0 - share + share / factor;
        (flow.throughput_bps / longer).min(most)
    };
    (
        scaled(ratio.expected),
        scaled(ratio.low).min(seen),
        scaled(ratio.high),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_shows_its_control() {
        let found = [(10, 7), (10, 5), (20, u32::MAX >> 1), (4, 2), (10, 12)];
        let found = found.map(|(window, threshold)| Control::at_entry(window, threshold));
        let (cubic, reno, other) = (Control::Cubic, Control::Reno, Control::Other);
        assert_eq!(found, [Some(cubic), Some(reno), Some(other), None, None]);
    }

    const FLOW: Flow = Flow {
        throughput_bps: 1e6,
        peak_bps: 2.5e6,
        absorption: Some(0.0),
        cwnd_share: 1.0,
        control: Control::Reno,
    };
    const RATIO: Ratio = Ratio {
        expected: 4.0,
        low: 3.0,
        high: 9.0,
    };

    fn close(found: (f64, f64, f64), expected: [f64; 3]) {
        for (found, expected) in [found.0, found.1, found.2].into_iter().zip(expected) {
            assert!((found / expected - 1.0).abs() < 1e-9, "{found} {expected}");
        }
    }

    #[test]
    fn only_a_window_that_was_the_limit_changes_anything() {
        let idle = Flow {
            cwnd_share: 0.0,
            ..FLOW
        };
        let other = Flow {
            control: Control::Other,
            ..FLOW
        };
        for unchanged in [idle, other] {
            close(predict(&unchanged, RATIO), [1e6, 1e6, 1e6]);
        }
    }

    #[test]
    fn what_no_rate_has_shown_yet_is_expected_but_not_relied_on() {
        close(predict(&FLOW, RATIO), [4e6, 2.5e6, 9e6]);
        let slower = Ratio {
            expected: 0.5,
            low: 0.25,
            high: 0.75,
        };
        close(predict(&FLOW, slower), [0.5e6, 0.25e6, 0.75e6]);
    }

    #[test]
    fn a_queue_takes_the_growth_of_the_window() {
        let queued = Flow {
            absorption: Some(0.5),
            ..FLOW
        };
        close(predict(&queued, RATIO), [2e6, 3f64.sqrt() * 1e6, 3e6]);
        let full = Flow {
            absorption: Some(1.0),
            ..FLOW
        };
        close(predict(&full, RATIO), [1e6, 1e6, 1e6]);
        let unknown = Flow {
            absorption: None,
            ..FLOW
        };
        close(predict(&unknown, RATIO), [2.5e6, 2.5e6, 2.5e6]);
    }

    #[test]
    fn round_trips_show_what_a_queue_takes() {
        let windows = || (1..=20).map(f64::from);
        let slope = |power: f64| absorption(windows().map(|one| (one, 8.0 * one.powf(power))));
        for power in [0.0, 0.4, 1.0] {
            assert!((slope(power).unwrap() - power).abs() < 1e-9);
        }
        assert_eq!(slope(2.0), Some(1.0));
        assert_eq!(slope(-1.0), Some(0.0));
        assert_eq!(absorption(windows().map(|one| (10.0, one))), None);
        assert_eq!(absorption(windows().take(7).map(|one| (one, one))), None);
    }
}
