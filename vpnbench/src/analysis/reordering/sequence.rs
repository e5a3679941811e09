//! The arrivals of one flow at one tap.

use std::collections::VecDeque;

use hdrhistogram::Histogram;

use super::Reordering;
use crate::analysis::pairing::identity::{Identity, Unwrap};

/// New maxima remembered, to find the earliest packet that overtook another.
const MAXIMA: usize = 4096;
/// Last arrivals remembered for n-reordering.
const RECENT: usize = 64;
/// n-reordering is told for n up to this.
pub(super) const N_MAX: usize = 10;

#[derive(Debug, Clone, Copy)]
struct Arrival {
    number: i64,
    index: u64,
    time_ns: u64,
}

/// One flow.
#[derive(Debug, Clone, Default)]
pub(super) struct Sequence {
    numbers: Unwrap,
    next_expected: Option<i64>,
    index: u64,
    /// Arrivals that raised the maximum: numbers and indices grow.
    maxima: VecDeque<Arrival>,
    /// The last arrivals, each at its index modulo [`RECENT`].
    recent: Vec<i64>,
    extents: Vec<(u64, u64)>,
    counts: Counts,
    pub(super) retransmissions: u64,
}

#[derive(Debug, Clone, Default)]
struct Counts {
    packets: u64,
    reordered: u64,
    duplicates: u64,
    bounded: u64,
    n: [u64; N_MAX],
}

/// Reordered packets of one flow whose extents are kept one by one.
const EXTENTS_MAX: usize = 1 << 16;

impl Sequence {
    /// The next packet of the flow.
    pub(super) fn arrive(&mut self, time_ns: u64, id: &Identity) {
        let bits = id.numbering.bits();
        let first = self.next_expected.is_none();
        let number = if first {
            self.numbers.next(id.start, bits)
        } else {
            self.numbers.peek(id.start, bits)
        };
        let length = i64::from(id.length.max(1));
        let expected = *self.next_expected.get_or_insert(number);
        if number < expected && self.recent.contains(&number) {
            self.counts.duplicates += 1;
            return;
        }
        let index = self.index;
        self.index += 1;
        self.counts.packets += 1;
        if number >= expected {
            self.next_expected = Some(number + length);
            self.numbers.next(id.start, bits);
            self.maxima.push_back(Arrival {
                number,
                index,
                time_ns,
            });
            if self.maxima.len() > MAXIMA {
                self.maxima.pop_front();
            }
        } else {
            self.late(Arrival {
                number,
                index,
                time_ns,
            });
        }
        match self.recent.get_mut(index as usize % RECENT) {
            Some(oldest) => *oldest = number,
            None => self.recent.push(number),
        }
    }

    /// Whether a number is one of those that come up now.
    pub(super) fn is_near(&self, id: &Identity) -> bool {
        let number = self.numbers.peek(id.start, id.numbering.bits());
        self.next_expected
            .is_some_and(|expected| number.abs_diff(expected) <= RECENT as u64)
    }

    fn late(&mut self, late: Arrival) {
        self.counts.reordered += 1;
        let at = self.maxima.partition_point(|one| one.number <= late.number);
        if at == 0 && self.maxima.len() >= MAXIMA {
            self.counts.bounded += 1;
        }
        if let Some(overtook) = self.maxima.get(at)
            && self.extents.len() < EXTENTS_MAX
        {
            let extent = late.index - overtook.index;
            self.extents
                .push((extent, late.time_ns.saturating_sub(overtook.time_ns)));
        }
        let next = (late.index as usize % RECENT).min(self.recent.len());
        let (newer, older) = self.recent.split_at(next);
        let backwards = newer.iter().rev().chain(older.iter().rev());
        let larger = backwards.take_while(|number| **number > late.number);
        let larger = larger.count();
        for n in 0..larger.min(N_MAX) {
            self.counts.n[n] += 1;
        }
    }
}

/// Sums over flows.
#[derive(Debug, Clone)]
pub(super) struct Totals {
    counts: Counts,
    extents: Histogram<u64>,
    extent_max: u64,
    late_ns: Histogram<u64>,
    retransmissions: u64,
    pub(super) unnumbered: u64,
}

impl Default for Totals {
    fn default() -> Self {
        let histogram = |most| Histogram::new_with_bounds(1, most, 3).expect("constant bounds");
        Totals {
            counts: Counts::default(),
            extents: histogram(1 << 32),
            extent_max: 0,
            late_ns: histogram(1 << 40),
            retransmissions: 0,
            unnumbered: 0,
        }
    }
}

impl Totals {
    /// Adds a flow.
    pub(super) fn add(&mut self, flow: &Sequence) {
        self.counts.packets += flow.counts.packets;
        self.counts.reordered += flow.counts.reordered;
        self.counts.duplicates += flow.counts.duplicates;
        self.counts.bounded += flow.counts.bounded;
        for (sum, one) in self.counts.n.iter_mut().zip(flow.counts.n) {
            *sum += one;
        }
        self.retransmissions += flow.retransmissions;
        for &(extent, late_ns) in &flow.extents {
            self.extents.saturating_record(extent);
            self.extent_max = self.extent_max.max(extent);
            self.late_ns.saturating_record(late_ns);
        }
    }

    /// The figures of a row.
    pub(super) fn row(&self) -> Reordering {
        let some = !self.extents.is_empty();
        let extent = |quantile| some.then(|| self.extents.value_at_quantile(quantile) as f64);
        let packets = self.counts.packets;
        Reordering {
            packets,
            reordered: self.counts.reordered,
            ratio: if packets == 0 {
                0.0
            } else {
                self.counts.reordered as f64 / packets as f64
            },
            extent_p50: extent(0.5),
            extent_p99: extent(0.99),
            extent_max: some.then_some(self.extent_max as f64),
            late_time_us_p99: some.then(|| self.late_ns.value_at_quantile(0.99) as f64 / 1000.0),
            n_reordering: self.counts.n.to_vec(),
            retransmissions: self.retransmissions,
            duplicates: self.counts.duplicates,
            unnumbered: self.unnumbered,
            extent_bounded: self.counts.bounded,
            ..Reordering::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::pairing::identity::Numbering;

    fn arrivals(numbers: &[u32], bits: Numbering) -> Reordering {
        let mut sequence = Sequence::default();
        for (time, number) in numbers.iter().enumerate() {
            let id = Identity {
                flow: 1,
                numbering: bits,
                start: *number,
                length: 1,
                salt: 0,
            };
            sequence.arrive(time as u64 * 1_000_000, &id);
        }
        let mut totals = Totals::default();
        totals.add(&sequence);
        totals.row()
    }

    #[test]
    fn the_example_of_the_rfc() {
        // RFC 4737 section 7.1: 4 arrives late by five packets... here 7.2's form: 1 2 3 7 8 9 4 5 6 10.
        let row = arrivals(&[1, 2, 3, 7, 8, 9, 4, 5, 6, 10], Numbering::TunnelCounter);
        assert_eq!((row.packets, row.reordered), (10, 3));
        // 4 comes 3 after 7, 5 comes 4 after, 6 comes 5 after.
        assert_eq!((row.extent_p50, row.extent_max), (Some(4.0), Some(5.0)));
        // In front of 4: 7 8 9, so it is 3-reordered; in front of 5 is 4, which is smaller.
        assert_eq!(&row.n_reordering[..4], &[1, 1, 1, 0]);
        assert_eq!(row.late_time_us_p99.map(f64::round), Some(5001.0));
    }

    #[test]
    fn loss_is_no_reordering_and_wrap_is_none() {
        let row = arrivals(&[1, 2, 5, 6, 9], Numbering::TunnelCounter);
        assert_eq!((row.packets, row.reordered), (5, 0));
        let row = arrivals(&[65_533, 65_534, 65_535, 1, 0, 2], Numbering::IpId);
        assert_eq!((row.packets, row.reordered), (6, 1));
        let row = arrivals(&[u32::MAX - 1, u32::MAX, 0, 1], Numbering::TunnelCounter);
        assert_eq!((row.packets, row.reordered), (4, 0));
    }

    #[test]
    fn duplicates_are_not_reordered() {
        let row = arrivals(&[1, 2, 3, 3, 2, 4], Numbering::TunnelCounter);
        assert_eq!((row.packets, row.reordered, row.duplicates), (4, 0, 2));
    }

    /// The definitions of RFC 4737, word for word and in quadratic time: reordered packets, their
    /// extents, and how many are 1-, 2- and 3-reordered.
    fn by_definition(numbers: &[u32]) -> (u64, Vec<u64>, [u64; 3]) {
        let (mut reordered, mut extents, mut n) = (0, Vec::new(), [0; 3]);
        for (i, number) in numbers.iter().enumerate() {
            let before = &numbers[..i];
            let Some(j) = before.iter().position(|other| other > number) else {
                continue;
            };
            reordered += 1;
            extents.push((i - j) as u64);
            for (count, length) in n.iter_mut().zip(1..) {
                let just_before = &before[i.saturating_sub(length)..];
                *count += u64::from(
                    just_before.len() == length && just_before.iter().all(|other| other > number),
                );
            }
        }
        (reordered, extents, n)
    }

    proptest::proptest! {
        #[test]
        fn equals_the_definitions(delays in proptest::collection::vec(0u32..40, 1..400)) {
            // Packet k leaves at k and arrives at k + delay.
            let mut arrivals: Vec<(u32, u32)> = delays.iter().zip(1u32..).map(|(delay, k)| (k + delay, k)).collect();
            arrivals.sort_unstable();
            let numbers: Vec<u32> = arrivals.into_iter().map(|(_, number)| number).collect();
            let (reordered, mut extents, n) = by_definition(&numbers);
            let row = self::arrivals(&numbers, Numbering::TunnelCounter);
            proptest::prop_assert_eq!((row.packets, row.reordered), (numbers.len() as u64, reordered));
            proptest::prop_assert_eq!(&row.n_reordering[..3], &n[..]);
            extents.sort_unstable();
            proptest::prop_assert_eq!(row.extent_max.map(|most| most as u64), extents.last().copied());
        }
    }
}
