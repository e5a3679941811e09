//! What the programs in the kernel take, from windows in which the kernel takes the time of each run
//! (BPF statistics). To take it all the time costs as much as some of the programs themselves.
//!
//! Each stretch of the recording has one window, at a random place in it (a stratified sample), so that a
//! load that repeats itself is not always met in the same phase. Only what is counted within the windows is
//! used: whether somebody else has the statistics on in between makes no difference.

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use aya::sys::{Stats, enable_stats};
use rand::RngExt as _;

use crate::probe::attach::{Attached, Counters, ProgramStats};
use crate::probe::netns::{KEPT_BY_STATISTICS, ignore_signals, keep_only};
use crate::trace::model::StatisticsWindows;

/// One window in each stretch of this length. Switching on and off takes the kernel 0.4 ms (it rewrites the
/// code of all places that ask): once in half a second that is less than 0.1 % of a core.
const STRETCH: Duration = Duration::from_millis(500);
/// A tenth of the time, and so a tenth of the cost.
const WINDOW: Duration = Duration::from_millis(50);

/// The thread that opens the windows.
pub(super) struct Statistics {
    /// Its end is the sign to stop.
    stop: Sender<()>,
    thread: JoinHandle<Option<Sampled>>,
}

/// What was seen in the windows.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Sampled {
    /// Runs and ns by probe number, scaled to the whole recording.
    pub(super) programs: BTreeMap<u8, ProgramStats>,
    /// How much of the time that was.
    pub(super) windows: StatisticsWindows,
}

/// Sums over the windows.
#[derive(Debug, Default)]
struct Windows {
    programs: BTreeMap<u8, ProgramStats>,
    on: Duration,
    /// CPU seconds of all programs per second, by window.
    rates: Vec<f64>,
}

impl Statistics {
    /// Starts the thread, which keeps the right to switch the statistics on and no other. To be called
    /// while this thread still has it.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(super) fn start(attached: &Attached) -> io::Result<Statistics> {
        let programs = attached.counters();
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new().name("vpnbench-stats".to_owned());
        let thread = thread.spawn(move || {
            ignore_signals();
            // A thread that cannot give rights away is not a reason to do without the figures.
            let _ = keep_only(KEPT_BY_STATISTICS);
            watch(programs, &stopped)
        })?;
        Ok(Statistics { stop, thread })
    }

    /// Stops it; None if the statistics could not be switched on, or no window was over yet.
    pub(super) fn finish(self) -> Option<Sampled> {
        drop(self.stop);
        self.thread.join().ok().flatten()
    }
}

/// Waits; true if it is time to stop.
fn stopped_within(stop: &Receiver<()>, time: Duration) -> bool {
    !matches!(stop.recv_timeout(time), Err(RecvTimeoutError::Timeout))
}

fn watch(mut programs: Vec<Counters>, stop: &Receiver<()>) -> Option<Sampled> {
    let mut random = rand::rng();
    let begun = Instant::now();
    let mut windows = Windows::default();
    let mut stretch = begun;
    loop {
        let latest = (STRETCH - WINDOW).as_secs_f64();
        let opens = stretch + Duration::from_secs_f64(random.random_range(0.0..latest));
        if stopped_within(stop, opens.saturating_duration_since(Instant::now())) {
            break;
        }
        let on = enable_stats(Stats::RunTime).ok()?;
        let (before, from) = (read(&mut programs), Instant::now());
        let stopped = stopped_within(stop, WINDOW);
        let took = from.elapsed();
        let after = read(&mut programs);
        drop(on);
        // A window that the end cut short says less than the others.
        if stopped {
            break;
        }
        windows.add(&before, &after, took);
        stretch += STRETCH;
        // The machine was too busy for this thread, or asleep: what has passed has no windows.
        while stretch + STRETCH < Instant::now() {
            stretch += STRETCH;
        }
    }
    windows.scaled(begun.elapsed())
}

fn read(programs: &mut [Counters]) -> BTreeMap<u8, ProgramStats> {
    let read = |one: &mut Counters| Some((one.probe, one.read()?));
    programs.iter_mut().filter_map(read).collect()
}

impl Windows {
    fn add(
        &mut self,
        before: &BTreeMap<u8, ProgramStats>,
        after: &BTreeMap<u8, ProgramStats>,
        took: Duration,
    ) {
        let mut all_ns = 0;
        for (probe, after) in after {
            let Some(before) = before.get(probe) else {
                continue;
            };
            let program = self.programs.entry(*probe).or_default();
            let ns = after.ns.saturating_sub(before.ns);
            program.ns += ns;
            program.runs += after.runs.saturating_sub(before.runs);
            all_ns += ns;
        }
        self.on += took;
        self.rates.push(all_ns as f64 / took.as_nanos() as f64);
    }

    /// For the whole recording: what was counted x length / time on. The variance is that of the windows'
    /// mean, sd^2 / n, which for one random window in each of equal stretches is too large rather than too
    /// small (W. G. Cochran, Sampling Techniques, 1977, chapter 5A).
    fn scaled(mut self, length: Duration) -> Option<Sampled> {
        let n = self.rates.len() as f64;
        let (length_s, on_s) = (length.as_secs_f64(), self.on.as_secs_f64());
        if self.rates.is_empty() || on_s == 0.0 {
            return None;
        }
        let scale = length_s / on_s;
        for program in self.programs.values_mut() {
            program.ns = (program.ns as f64 * scale).round() as u64;
            program.runs = (program.runs as f64 * scale).round() as u64;
        }
        let mean = self.rates.iter().sum::<f64>() / n;
        let squares: f64 = self.rates.iter().map(|rate| (rate - mean).powi(2)).sum();
        let variance = || squares / (n - 1.0) / n * length_s.powi(2);
        Some(Sampled {
            programs: self.programs,
            windows: StatisticsWindows {
                count: self.rates.len() as u64,
                share: 1.0 / scale,
                variance_s2: (n > 1.0).then(variance),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(ns: u64, runs: u64) -> BTreeMap<u8, ProgramStats> {
        let stats = ProgramStats {
            ns,
            runs,
            misses: 0,
        };
        [(18, stats)].into()
    }

    #[test]
    fn windows_stand_for_the_whole_and_what_is_between_them_does_not_count() {
        let mut windows = Windows::default();
        let window = Duration::from_millis(50);
        // 1 % of the time in the programs, then 3 %.
        windows.add(&counted(0, 0), &counted(500_000, 1000), window);
        // Somebody else has the statistics on meanwhile.
        windows.add(
            &counted(9_000_000, 9000),
            &counted(10_500_000, 12_000),
            window,
        );
        let sampled = windows.scaled(Duration::from_secs(1)).expect("windows");
        assert_eq!(sampled.programs[&18].ns, 20_000_000);
        assert_eq!(sampled.programs[&18].runs, 40_000);
        assert_eq!(sampled.windows.count, 2);
        assert!((sampled.windows.share - 0.1).abs() < 1e-9, "{sampled:?}");
        // Rates 0.01 and 0.03: sd 0.01414, / sqrt(2) = 0.01.
        let variance = sampled.windows.variance_s2.expect("two windows");
        assert!((variance.sqrt() - 0.01).abs() < 1e-9, "{variance}");
        assert_eq!(Windows::default().scaled(Duration::from_secs(1)), None);
    }

    #[test]
    fn one_window_says_nothing_about_its_spread() {
        let mut windows = Windows::default();
        windows.add(&counted(0, 0), &counted(1, 1), Duration::from_millis(50));
        let sampled = windows.scaled(Duration::from_secs(1)).expect("a window");
        assert_eq!(sampled.windows.variance_s2, None);
    }
}
