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
pub(super) fn burn(nanoseconds: u64) -> u64 {
    let start = thread_cpu();
    loop {
        let burnt = thread_cpu().saturating_sub(start);
        if burnt >= nanoseconds {
            return burnt;
        }
        std::hint::spin_loop();
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
