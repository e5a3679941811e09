//! What fewer or more reductions of the window do to a flow, by a deterministic model.
//!
//! CUBIC (RFC 9438, section 5.1, with C = 0.4 and beta = 0.7) in its concave region has an average
//! window of 1.054 x RTT^0.75 / p^0.75 segments; in its Reno-friendly region, as Reno, of
//! sqrt(3 / 2) / sqrt(p) (Mathis et al. 1997). The larger one holds. p is the number of window
//! reductions that are not taken back per segment sent. Reno uses the second formula. BBR does not
//! reduce its rate at single losses: no change is predicted.
//!
//! The model says by how much the window changes; only the share of busy time in which the window
//! was the limit can change with it (Amdahl). Uncertainty: the number of reductions is counted with
//! a standard error of its square root, and the formulas hold for regular losses: a factor within
//! 1/sqrt(reductions) of 1 is no change.

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
}

/// Average window in segments for `p` reductions per segment and a RTT in seconds.
#[must_use]
pub fn window(control: Control, p: f64, rtt_s: f64) -> f64 {
    let reno = (1.5 / p).sqrt();
    match control {
        Control::Cubic => reno.max(1.054 * rtt_s.powf(0.75) / p.powf(0.75)),
        Control::Reno => reno,
        Control::Other => 1.0,
    }
}

/// A flow as it was, and the reductions counted in its segments.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    /// bit/s.
    pub throughput_bps: f64,
    /// Mean RTT in s.
    pub rtt_s: f64,
    /// Segments sent for the first time.
    pub segments: u64,
    /// Share of the busy time in which the congestion window was the limit.
    pub cwnd_share: f64,
    /// Congestion control.
    pub control: Control,
}

/// Throughput in bit/s with another number of reductions: expected, and within one standard error
/// of the counts.
#[must_use]
pub fn predict(flow: &Flow, actual: f64, changed: f64) -> (f64, f64, f64) {
    // Less than one reduction was not observed, but cannot be excluded.
    let per_segment = |count: f64| count.max(0.5) / flow.segments.max(1) as f64;
    let scaled = |from: f64, to: f64| {
        let before = window(flow.control, per_segment(from), flow.rtt_s);
        let after = window(flow.control, per_segment(to), flow.rtt_s);
        let factor = after / before;
        let share = flow.cwnd_share.clamp(0.0, 1.0);
        flow.throughput_bps / (1.0 - share + share / factor)
    };
    let expected = scaled(actual, changed);
    if (actual - changed).abs() < 1e-9 {
        return (expected, expected, expected);
    }
    let error = (actual.max(1.0).sqrt() + changed.max(1.0).sqrt()) / 2.0;
    let low = scaled(actual, changed + error);
    let high = scaled(actual, (changed - error).max(0.0));
    (expected, low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_the_reductions_doubles_reno() {
        let flow = Flow {
            throughput_bps: 1e6,
            rtt_s: 0.01,
            segments: 100_000,
            cwnd_share: 1.0,
            control: Control::Reno,
        };
        let (expected, low, high) = predict(&flow, 400.0, 100.0);
        assert!((expected / 2e6 - 1.0).abs() < 1e-9);
        assert!(low < expected && expected < high);
        let (same, ..) = predict(
            &Flow {
                cwnd_share: 0.0,
                ..flow
            },
            400.0,
            100.0,
        );
        assert!((same - 1e6).abs() < 1e-6, "the window was not the limit");
        let (same, ..) = predict(
            &Flow {
                control: Control::Other,
                ..flow
            },
            400.0,
            100.0,
        );
        assert!((same - 1e6).abs() < 1e-6);
    }

    #[test]
    fn cubic_is_reno_on_short_paths() {
        let reno = window(Control::Reno, 0.01, 0.01);
        assert!((window(Control::Cubic, 0.01, 0.01) - reno).abs() < 1e-9);
        assert!(window(Control::Cubic, 1e-6, 0.2) > window(Control::Reno, 1e-6, 0.2));
    }
}
