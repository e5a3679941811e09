//! The tunnel's clocks, and burning CPU time.

use nix::time::{ClockId, clock_gettime};

/// CLOCK_MONOTONIC in nanoseconds.
pub(super) fn now() -> u64 {
    read(ClockId::CLOCK_MONOTONIC)
}

/// CPU time of the calling thread in nanoseconds.
pub(super) fn thread_cpu() -> u64 {
    read(ClockId::CLOCK_THREAD_CPUTIME_ID)
}

fn read(clock: ClockId) -> u64 {
    clock_gettime(clock).map_or(0, |time| {
        let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
        seconds * 1_000_000_000 + u64::try_from(time.tv_nsec()).unwrap_or(0)
    })
}

/// Keeps the thread busy for this much CPU time (not wall-clock time, which passes also while it
/// waits for a core) and returns how much it was.
///
/// The clock is a system call, so the work between two looks at it is measured out such that the second
/// is nearly the last. A function of its own, for stack samples to name.
#[inline(never)]
pub(super) fn burn(nanoseconds: u64) -> u64 {
    let start = thread_cpu();
    let (mut steps, mut done) = (0_u64, 0_u64);
    loop {
        let burnt = thread_cpu().saturating_sub(start);
        let Some(left) = nanoseconds.checked_sub(burnt).filter(|left| *left > 0) else {
            return burnt;
        };
        // A step costs about one ns: too few at first, then as many as were seen to be needed.
        let step_ns = if done == 0 {
            4.0
        } else {
            (burnt as f64 / done as f64).max(0.1)
        };
        let more = ((left as f64 / step_ns) as u64).max(16);
        for _ in 0..more {
            steps =
                std::hint::black_box(steps.wrapping_mul(6_364_136_223_846_793_005).rotate_left(7));
        }
        done += more;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burning_uses_the_cpu_time_asked_for() {
        let before = thread_cpu();
        let burnt = burn(2_000_000);
        assert!(burnt >= 2_000_000);
        assert!(thread_cpu() - before >= burnt);
    }
}
