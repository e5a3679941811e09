//! TCP's 32-bit sequence numbers on a line that does not wrap.

/// Where the line starts, so that numbers before the first one seen stay positive.
const ORIGIN: u64 = 1 << 33;

/// Places sequence numbers near the highest one seen: within 2 GiB, which the window never exceeds
/// (RFC 7323, section 2.2).
#[derive(Debug, Clone, Copy, Default)]
pub struct Sequence {
    highest: Option<u64>,
}

impl Sequence {
    /// The place of a number that the connection's data has reached.
    pub fn place(&mut self, number: u32) -> u64 {
        let place = self.near(number);
        self.highest = Some(self.highest.map_or(place, |highest| highest.max(place)));
        place
    }

    /// The place of any other number, which may be 0 or old.
    #[must_use]
    pub fn near(&self, number: u32) -> u64 {
        let Some(highest) = self.highest else {
            return ORIGIN + u64::from(number);
        };
        let distance = i64::from(number.wrapping_sub(highest as u32) as i32);
        highest.saturating_add_signed(distance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_on_across_the_wrap_in_both_directions() {
        let mut sequence = Sequence::default();
        let first = sequence.place(u32::MAX - 9);
        assert_eq!(sequence.place(10), first + 20);
        assert_eq!(sequence.place(u32::MAX - 19), first - 10);
        assert_eq!(sequence.place(11), first + 21);
        let far = sequence.near(0x7fff_0000);
        assert_eq!(
            sequence.place(12),
            first + 22,
            "{far} did not move the line"
        );
    }
}
