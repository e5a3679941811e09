//! What another window does to a flow's throughput.
//!
//! The ratio of simulated runs with and without the change ([`super::ensemble`]) holds for the share of
//! busy time in which the window was the limit; the rest of the time stays (Amdahl). More than the path
//! and the receiver have shown to take (the highest rate of a tenth of a second) is not predicted. BBR
//! does not reduce its rate at single losses: no change is predicted.

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
    /// Share of the busy time in which the congestion window was the limit.
    pub cwnd_share: f64,
    /// Congestion control.
    pub control: Control,
}

/// Throughput in bit/s: expected, and both ends of its interval.
#[must_use]
pub fn predict(flow: &Flow, ratio: Ratio) -> (f64, f64, f64) {
    let most = flow.peak_bps.max(flow.throughput_bps);
    let share = match flow.control {
        Control::Other => 0.0,
        Control::Cubic | Control::Reno => flow.cwnd_share.clamp(0.0, 1.0),
    };
    let scaled = |factor: f64| {
        let longer = 1.0 - share + share / factor.max(f64::MIN_POSITIVE);
        (flow.throughput_bps / longer).min(most)
    };
    (
        scaled(ratio.expected),
        scaled(ratio.low),
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

    #[test]
    fn only_a_window_that_was_the_limit_changes_anything() {
        let flow = Flow {
            throughput_bps: 1e6,
            peak_bps: 2.5e6,
            cwnd_share: 1.0,
            control: Control::Reno,
        };
        let ratio = Ratio {
            expected: 2.0,
            low: 1.5,
            high: 3.0,
        };
        let (expected, low, high) = predict(&flow, ratio);
        assert!((expected / 2e6 - 1.0).abs() < 1e-9);
        assert!((low / 1.5e6 - 1.0).abs() < 1e-9);
        assert!((high / 2.5e6 - 1.0).abs() < 1e-9, "the path's limit");
        let idle = Flow {
            cwnd_share: 0.0,
            ..flow
        };
        let other = Flow {
            control: Control::Other,
            ..flow
        };
        for unchanged in [idle, other] {
            let (same, ..) = predict(&unchanged, ratio);
            assert!((same - 1e6).abs() < 1e-6, "{unchanged:?}");
        }
    }
}
