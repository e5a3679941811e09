//! The clocks of the recorder. Analyses never read one: time arrives in the data.

use nix::time::{ClockId, clock_gettime};

fn ns(clock: ClockId) -> u64 {
    clock_gettime(clock).map_or(0, |time| {
        u64::try_from(time.tv_sec()).unwrap_or(0) * 1_000_000_000
            + u64::try_from(time.tv_nsec()).unwrap_or(0)
    })
}

/// `CLOCK_MONOTONIC` in ns: the clock of all records.
#[must_use]
pub fn monotonic_ns() -> u64 {
    ns(ClockId::CLOCK_MONOTONIC)
}

/// CPU seconds of the whole process.
#[must_use]
pub fn process_cpu_s() -> f64 {
    ns(ClockId::CLOCK_PROCESS_CPUTIME_ID) as f64 / 1e9
}
