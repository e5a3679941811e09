//! Acknowledgements that were lost on their way to the sender, by the identification of IPv4: Linux
//! counts it per socket (`ip_select_ident_segs`, include/net/ip.h), so what is missing between two segments of the
//! receiver was lost, or comes late. A lost one may have carried a DSACK.

use std::collections::VecDeque;

/// Gaps that are remembered.
const MISSING_MAX: usize = 4096;
/// A larger step is no gap: another count.
const STEP_MAX: u16 = 512;
/// Steps that count before they are believed.
const LEAST: u32 = 8;

/// Identifications in a row that are missing and when they must have come: not before the segment in front of them,
/// not behind the one after them.
#[derive(Debug, Clone, Copy)]
struct Missing {
    first: u16,
    count: u16,
    since: u64,
    until: u64,
}

/// Segments of the receiver as they reach the sender.
#[derive(Debug, Clone, Default)]
pub(super) struct Acks {
    next: Option<u16>,
    last_ns: u64,
    missing: VecDeque<Missing>,
    /// Steps of one, small gaps, late ones; and all others.
    steps: u32,
    odd: u32,
}

impl Acks {
    /// A segment of the receiver, with its identification.
    pub(super) fn came(&mut self, now: u64, id: u32, segments: u32) {
        let id = id as u16;
        let behind = id.wrapping_add(segments.clamp(1, 64) as u16);
        let Some(next) = self.next else {
            (self.next, self.last_ns) = (Some(behind), now);
            return;
        };
        let ahead = id.wrapping_sub(next);
        let late = next.wrapping_sub(id);
        if ahead < STEP_MAX {
            self.steps += 1;
            if ahead > 0 {
                if self.missing.len() >= MISSING_MAX {
                    self.missing.pop_front();
                }
                self.missing.push_back(Missing {
                    first: next,
                    count: ahead,
                    since: self.last_ns,
                    until: now.max(self.last_ns),
                });
            }
            self.next = Some(behind);
        } else if late <= STEP_MAX {
            match self.comes_late(id) {
                true => self.steps += 1,
                // A repeated one, or a count that stands still.
                false => self.odd += 1,
            }
        } else {
            self.odd += 1;
            self.next = Some(behind);
        }
        self.last_ns = self.last_ns.max(now);
    }

    /// Takes one out of those that are missing; whether it was one.
    fn comes_late(&mut self, id: u16) -> bool {
        let has = |one: &Missing| id.wrapping_sub(one.first) < one.count;
        let Some(place) = self.missing.iter().rposition(has) else {
            return false;
        };
        let Some(gap) = self.missing.remove(place) else {
            return false;
        };
        let before = id.wrapping_sub(gap.first);
        let behind = Missing {
            first: id.wrapping_add(1),
            count: gap.count - before - 1,
            ..gap
        };
        let before = Missing {
            count: before,
            ..gap
        };
        for part in [behind, before] {
            if part.count > 0 {
                self.missing.insert(place, part);
            }
        }
        true
    }

    /// Whether one is missing that may have come in this time.
    pub(super) fn missed(&self, from: u64, until: u64) -> bool {
        if self.steps < LEAST || self.steps <= 4 * self.odd {
            return false;
        }
        // Both times only grow: of those that came late enough, the first one was due first.
        let late = self.missing.partition_point(|one| one.until < from);
        self.missing.get(late).is_some_and(|one| one.since <= until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_was_lost_unless_it_comes_late() {
        let mut acks = Acks::default();
        let start = u32::from(u16::MAX) - 5;
        for number in 0..20u32 {
            // 9 is lost, 12 comes after 14.
            let id = match number {
                9 => continue,
                12 | 13 => number + 1,
                14 => 12,
                _ => number,
            };
            acks.came(u64::from(number) * 10, (start + id) & 0xffff, 1);
        }
        assert!(acks.missed(85, 95) && acks.missed(0, 300));
        assert!(!acks.missed(101, 300), "the late one came");
        assert!(!acks.missed(0, 79));
    }

    #[test]
    fn late_ones_leave_the_others_of_their_gap_missing() {
        let mut acks = Acks::default();
        // A gap of ten across the wrap of the count.
        let start = u32::from(u16::MAX) - 14;
        for number in (0..10).chain(20..22) {
            acks.came(u64::from(number) * 10, (start + number) & 0xffff, 1);
        }
        // From the middle and from both edges, in any order.
        for late in [15, 10, 19, 14, 16, 11, 18, 12, 17] {
            acks.came(300, (start + late) & 0xffff, 1);
            assert!(acks.missed(95, 150), "{late} was not the last one");
        }
        acks.came(300, (start + 15) & 0xffff, 1);
        assert_eq!(acks.odd, 1, "it came before");
        acks.came(300, (start + 13) & 0xffff, 1);
        assert!(!acks.missed(0, 300) && acks.missing.is_empty());
    }

    #[test]
    fn a_count_that_stands_still_says_nothing() {
        let mut acks = Acks::default();
        for number in 0..100 {
            acks.came(number * 10, if number % 3 == 0 { 7 } else { 0 }, 1);
        }
        assert!(!acks.missed(0, 2000));
    }
}
