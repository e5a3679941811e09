//! One line on a terminal while recording.

use std::sync::atomic::Ordering;

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::drain::Signals;

/// Shown on standard error if that is a terminal, and not at all otherwise.
pub(super) struct Progress(ProgressBar);

impl Progress {
    pub(super) fn start(wanted: bool) -> Self {
        let target = if wanted {
            ProgressDrawTarget::stderr_with_hz(5)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("recording {elapsed_precise}  {msg}") {
            bar.set_style(style);
        }
        Self(bar)
    }

    pub(super) fn update(&self, signals: &Signals) {
        let lost = signals.lost.load(Ordering::Relaxed);
        let lost = if lost > 0 {
            format!(", {} lost", HumanCount(lost))
        } else {
            String::new()
        };
        self.0.set_message(format!(
            "{} events{lost}, {}",
            HumanCount(signals.events.load(Ordering::Relaxed)),
            HumanBytes(signals.bytes.load(Ordering::Relaxed)),
        ));
        self.0.tick();
    }

    /// Runs `print` with the line out of the way.
    pub(super) fn suspend(&self, print: impl FnOnce()) {
        self.0.suspend(print);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
