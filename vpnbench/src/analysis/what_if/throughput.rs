//! What another window does to a flow, by a deterministic model.
//!
//! The simulated window ([`super::window`]) with the change, over the one as it was, says by how much the
//! window changes; only the share of busy time in which the window was the limit can change with it
//! (Amdahl). BBR does not reduce its rate at single losses: no change is predicted. Uncertainty: the
//! number of window reductions is counted with a standard error of its square root, and a window goes
//! with the square root of the distance between two of them (Mathis et al. 1997).

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

/// A flow as it was.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    /// bit/s.
    pub throughput_bps: f64,
    /// Share of the busy time in which the congestion window was the limit.
    pub cwnd_share: f64,
    /// Congestion control.
    pub control: Control,
}

/// What a simulation says about the window.
#[derive(Debug, Clone, Copy)]
pub struct Simulated {
    /// Mean window in segments.
    pub window: f64,
    /// Reductions that were not taken back.
    pub reductions: u64,
}

/// Throughput in bit/s: expected, and within one standard error of the counts.
#[must_use]
pub fn predict(flow: &Flow, was: Simulated, changed: Simulated) -> (f64, f64, f64) {
    let scaled = |factor: f64| {
        let share = flow.cwnd_share.clamp(0.0, 1.0);
        flow.throughput_bps / (1.0 - share + share / factor)
    };
    let same = flow.control == Control::Other || was.window <= 0.0 || changed.window <= 0.0;
    let factor = if same {
        1.0
    } else {
        changed.window / was.window
    };
    let expected = scaled(factor);
    if (factor - 1.0).abs() < 1e-9 {
        return (expected, expected, expected);
    }
    let relative = |count: u64| 0.5 / (count.max(1) as f64).sqrt();
    let error = 1.0 + relative(was.reductions) + relative(changed.reductions);
    (expected, scaled(factor / error), scaled(factor * error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_window_that_was_the_limit_changes_anything() {
        let flow = Flow {
            throughput_bps: 1e6,
            cwnd_share: 1.0,
            control: Control::Reno,
        };
        let was = Simulated {
            window: 10.0,
            reductions: 400,
        };
        let changed = Simulated {
            window: 20.0,
            reductions: 100,
        };
        let (expected, low, high) = predict(&flow, was, changed);
        assert!((expected / 2e6 - 1.0).abs() < 1e-9);
        assert!(low < expected && expected < high);
        assert!((high / 2e6 - 1.075).abs() < 1e-9);
        let idle = Flow {
            cwnd_share: 0.0,
            ..flow
        };
        let other = Flow {
            control: Control::Other,
            ..flow
        };
        for unchanged in [idle, other] {
            let (same, ..) = predict(&unchanged, was, changed);
            assert!((same - 1e6).abs() < 1e-6, "{unchanged:?}");
        }
    }
}
