//! The congestion window of a simulated sender: what raises it, lowers it and gives it back, after
//! net/ipv4/tcp_input.c (`tcp_may_raise_cwnd`, `tcp_init_undo`, `tcp_undo_cwnd_reduction`),
//! `tcp_slow_start` and `tcp_cong_avoid_ai` (tcp_cong.c).
//!
//! Congestion avoidance is Reno's, for CUBIC with the increase that makes its average the same (RFC
//! 9438, section 4.3: alpha = 3 (1 - beta) / (1 + beta), beta = 0.7); the concave growth of CUBIC on long
//! paths is not modelled. In recovery the window is at its threshold at once.

use super::throughput::Control;

/// A window of 1 segment is the least.
const LEAST: f64 = 1.0;
/// `TCP_INFINITE_SSTHRESH`, from here on.
const INFINITE: f64 = 1e9;

/// The window, and what an undo gives back.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    segments: f64,
    threshold: f64,
    before: Option<(f64, f64)>,
    increase: f64,
    factor: f64,
    area: f64,
    since: u64,
    began: u64,
}

impl Window {
    /// A window that starts at a moment in ns with what the socket had, in segments.
    #[must_use]
    pub fn new(control: Control, now: u64, segments: u32, threshold: u32) -> Window {
        let (increase, factor) = match control {
            Control::Cubic => (3.0 * 0.3 / 1.7, 0.7),
            Control::Reno | Control::Other => (1.0, 0.5),
        };
        Window {
            segments: f64::from(segments).max(LEAST),
            threshold: f64::from(threshold).min(INFINITE),
            before: None,
            increase,
            factor,
            area: 0.0,
            since: now,
            began: now,
        }
    }

    fn pass(&mut self, now: u64) {
        self.area += self.segments * now.saturating_sub(self.since) as f64;
        self.since = self.since.max(now);
    }

    /// The window, in segments.
    #[must_use]
    pub fn segments(&self) -> f64 {
        self.segments
    }

    /// The slow-start threshold, in segments.
    #[must_use]
    pub fn threshold(&self) -> f64 {
        self.threshold
    }

    /// An acknowledgement that may raise the window delivers segments.
    pub fn raise(&mut self, now: u64, delivered: u64) {
        self.pass(now);
        let mut left = delivered as f64;
        if self.segments < self.threshold {
            let step = left.min(self.threshold - self.segments);
            self.segments += step;
            left -= step;
        }
        self.segments += left * self.increase / self.segments;
    }

    /// Segments were given up, or the timeout came.
    pub fn reduce(&mut self, now: u64, timeout: bool) {
        self.pass(now);
        // tcp_current_ssthresh
        let threshold = self.threshold.max(0.75 * self.segments);
        self.before = Some((self.segments, threshold));
        self.threshold = (self.factor * self.segments).max(2.0);
        self.segments = if timeout { LEAST } else { self.threshold };
    }

    /// The reduction was needless.
    pub fn restore(&mut self, now: u64) {
        self.pass(now);
        if let Some((segments, threshold)) = self.before.take() {
            self.segments = self.segments.max(segments);
            self.threshold = self.threshold.max(threshold);
        }
    }

    /// Slow start ended at this threshold in fact, without a loss (HyStart): it would have here.
    pub fn slow_start_ends(&mut self, threshold: u32) {
        let threshold = f64::from(threshold);
        if self.threshold >= INFINITE && self.before.is_none() && threshold < INFINITE {
            self.threshold = threshold.max(2.0);
        }
    }

    /// Mean over time in segments.
    #[must_use]
    pub fn mean(&self) -> f64 {
        let time = self.since.saturating_sub(self.began);
        if time == 0 {
            return self.segments;
        }
        self.area / time as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_then_grows_by_one_a_round_and_comes_back_after_an_undo() {
        let mut window = Window::new(Control::Reno, 0, 10, u32::MAX);
        window.raise(1, 10);
        assert!((window.segments - 20.0).abs() < 1e-9);
        window.reduce(2, false);
        assert!((window.segments - 10.0).abs() < 1e-9);
        window.restore(3);
        assert!((window.segments - 20.0).abs() < 1e-9);
        window.reduce(4, true);
        assert!((window.segments - 1.0).abs() < 1e-9);
        window.raise(5, 9);
        window.raise(6, 10);
        assert!((window.segments - 11.0).abs() < 1e-9);
    }

    #[test]
    fn the_mean_is_over_time() {
        let mut window = Window::new(Control::Reno, 0, 10, 10);
        window.reduce(10, false);
        window.raise(30, 0);
        assert!((window.mean() - (10.0 * 10.0 + 5.0 * 20.0) / 30.0).abs() < 1e-9);
    }
}
