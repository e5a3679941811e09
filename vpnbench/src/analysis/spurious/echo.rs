//! When the receiver made an acknowledgement, by its own clock in the TCP timestamp: what waited on the
//! way back is told from what was answered late.
//!
//! The least of (arrival - timestamp) is the offset of the clocks and the shortest way back. A timestamp plus
//! that is when an acknowledgement would have come had it not waited. Clocks drift: the least of the last
//! seconds counts.

/// Linux counts milliseconds (`TCP_TS_HZ`, include/net/tcp.h).
const TICK_NS: i64 = 1_000_000;
/// How long a least value counts, ns: two of these.
const SPAN_NS: u64 = 2_000_000_000;
/// Acknowledgements before anything is said.
const LEAST: u32 = 16;
/// How far ticks may be from milliseconds, as a share of the time they span.
const OFF: f64 = 0.02;

/// The receiver's clock as its acknowledgements show it.
#[derive(Debug, Clone, Default)]
pub(super) struct Echo {
    first: Option<(u64, u32)>,
    last: Option<u32>,
    seen: u32,
    began: u64,
    least: [Option<i64>; 2],
}

impl Echo {
    /// An acknowledgement arrives with a timestamp. When it would have come without any waiting, at the latest; `None`
    /// while that cannot be told, and where the clock does not count milliseconds.
    pub(super) fn came(&mut self, now: u64, tsval: u32) -> Option<u64> {
        let (began, first) = *self.first.get_or_insert((now, tsval));
        // Late ones do not turn the clock back.
        let last = self.last.get_or_insert(tsval);
        if tsval.wrapping_sub(*last) as i32 > 0 {
            *last = tsval;
        }
        let ticks = i64::from(tsval.wrapping_sub(first) as i32) * TICK_NS;
        let passed = now.saturating_sub(began) as i64;
        let offset = passed - ticks;
        if now.saturating_sub(self.began) > SPAN_NS {
            self.began = now;
            self.least = [None, self.least[0]];
        }
        let least = self.least[0].map_or(offset, |least| least.min(offset));
        self.least[0] = Some(least);
        let least = self.least[1].map_or(least, |before| before.min(least));
        self.seen = self.seen.saturating_add(1);
        let wrong = (offset - least).unsigned_abs() as f64 > OFF * passed as f64 + 1e9;
        if self.seen < LEAST || wrong {
            return None;
        }
        // The clock may have stood anywhere within its tick, here and where the least was seen.
        let made = ticks + least + TICK_NS;
        Some(began.saturating_add_signed(made).min(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn what_waited_on_the_way_back_was_made_before() {
        let mut echo = Echo::default();
        for number in 0..40u64 {
            echo.came(5_000 * MS + number * MS, 77 + number as u32);
        }
        let now = 5_060 * MS;
        assert_eq!(echo.came(now, 77 + 45), Some(5_046 * MS));
        assert_eq!(echo.came(now + MS, 77 + 61), Some(now + MS), "at once");
    }

    #[test]
    fn another_clock_says_nothing() {
        let mut echo = Echo::default();
        let mut last = None;
        for number in 0..4000u64 {
            last = echo.came(number * MS, (number / 10) as u32);
        }
        assert_eq!(last, None);
    }
}
