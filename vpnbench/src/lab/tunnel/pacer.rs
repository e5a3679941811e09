//! Spaces sends out in time.

use std::thread;
use std::time::Duration;

use super::clock;
use super::context::Side;
use super::lane::PATIENCE;

/// Sends may come this much early, in ns: a sleep is not more exact than that.
const SLACK: u64 = 100_000;

/// Keeps to a rate, without credit for time in which nothing was sent.
#[derive(Debug)]
pub(super) struct Pacer {
    /// Bits a second.
    rate: Option<u64>,
    /// When the next byte may leave.
    next: u64,
}

impl Pacer {
    pub(super) fn new(rate: Option<u64>) -> Pacer {
        Pacer { rate, next: 0 }
    }

    /// Waits until `bytes` may leave.
    pub(super) fn wait(&mut self, bytes: usize, side: &Side) {
        while let Some(early) = self.early(clock::now()) {
            if side.shared.stopping() {
                break;
            }
            thread::sleep(Duration::from_nanos(early).min(PATIENCE));
        }
        self.sent(bytes, clock::now());
    }

    fn early(&self, now: u64) -> Option<u64> {
        let early = self.next.saturating_sub(now);
        (early > SLACK).then_some(early)
    }

    fn sent(&mut self, bytes: usize, now: u64) {
        if let Some(rate) = self.rate {
            self.next = self.next.max(now) + bytes as u64 * 8 * 1_000_000_000 / rate;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_their_time() {
        let mut pacer = Pacer::new(Some(8_000_000)); // a byte per microsecond
        assert_eq!(pacer.early(1000), None);
        pacer.sent(1000, 1000);
        assert_eq!(pacer.early(1000), Some(1_000_000));
        assert_eq!(pacer.early(1_000_000), None, "within the slack");
        pacer.sent(1000, 5_000_000);
        assert_eq!(
            pacer.early(5_000_000),
            Some(1_000_000),
            "no credit for the pause"
        );
        pacer = Pacer::new(None);
        pacer.sent(1000, 0);
        assert_eq!(pacer.early(0), None);
    }
}
