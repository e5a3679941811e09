//! Puts the records of all rings in the order of time.
//!
//! Blocks say up to which time everything has been read (the watermark). Records older than that,
//! less a slack for events that were under way, are handed out; newer ones wait. Each block is sorted
//! by itself, which it nearly always is already, as it is of one ring. Blocks that follow each other form
//! a run, so that there is about one run for each ring, and the runs are merged.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};

use super::codec::Place;
use super::event::Event;

/// How long after its time stamp a record may still be on its way into its ring.
const SLACK_NS: u64 = 100_000_000;
/// Bytes of records that may wait. A writer that follows the rules stays far below.
const WAITING_BYTES_MAX: usize = 256 << 20;

/// How many records ahead are brought into the cache: they were decoded a while ago, all rings in between.
const AHEAD: usize = 6;
/// 8-byte words of a cache line.
const LINE: usize = 8;

/// Decoded records of one block.
#[derive(Default)]
pub(super) struct Block {
    pub(super) records: Vec<u64>,
    /// Where they lie; in the order of time once they are in a [`Merge`].
    pub(super) places: Vec<Place>,
}

impl Block {
    /// Reads a word of each of a record's first lines, so that they are near when it is handed out.
    #[inline]
    fn touch(&self, at: usize) {
        let Some(place) = self.places.get(at) else {
            return;
        };
        for line in 0..3 {
            let word = place.offset as usize + line * LINE;
            std::hint::black_box(self.records.get(word).copied());
        }
    }

    fn event(&self, place: Place) -> Option<Event<'_>> {
        self.records
            .get(place.offset as usize..)
            .and_then(Event::split_first)
            .map(|(event, _)| event)
    }
}

/// A block whose oldest record is not older than the newest of the block before it in its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Waiting {
    time_ns: u64,
    /// In the order of the file.
    number: u64,
    slot: usize,
}

/// The first record of a run that waits. In order of time, then of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Head {
    block: Waiting,
    run: usize,
    at: usize,
}

/// Records on their way into order.
#[derive(Default)]
pub(super) struct Merge {
    blocks: Vec<Block>,
    /// Blocks without waiting records; their memory is used again.
    free: Vec<usize>,
    /// Blocks of each run behind its first.
    runs: Vec<VecDeque<Waiting>>,
    /// Runs without blocks.
    ended: Vec<usize>,
    /// Time of the newest record of each run, and which.
    tails: BTreeSet<(u64, usize)>,
    heads: BinaryHeap<Reverse<Head>>,
    /// Blocks so far.
    number: u64,
    bytes: usize,
    watermark_ns: u64,
    newest_delivered_ns: u64,
    /// Records delivered after newer ones.
    pub(super) late: u64,
    /// How often records had to be handed out early because too many were waiting.
    pub(super) forced: u64,
}

impl Merge {
    /// Room for a block: to be filled and given back with [`add`](Self::add).
    pub(super) fn room(&mut self) -> Block {
        let reused = self.free.last().and_then(|slot| self.blocks.get_mut(*slot));
        let mut block = reused.map(std::mem::take).unwrap_or_default();
        block.records.clear();
        block.places.clear();
        block
    }

    /// Takes the records of a block.
    pub(super) fn add(&mut self, mut block: Block, watermark_ns: u64) {
        self.watermark_ns = self.watermark_ns.max(watermark_ns);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.blocks.push(Block::default());
            self.blocks.len() - 1
        });
        if !block.places.is_sorted_by_key(|place| place.time_ns) {
            block.places.sort_by_key(|place| place.time_ns);
        }
        if let (Some(first), Some(last)) = (block.places.first(), block.places.last()) {
            self.bytes += block.records.len() * 8;
            self.number += 1;
            let waiting = Waiting {
                time_ns: first.time_ns,
                number: self.number,
                slot,
            };
            self.append(waiting, last.time_ns);
        } else {
            self.free.push(slot);
        }
        self.blocks[slot] = block;
    }

    /// Puts a block at the end of the run that it follows most closely, or begins one.
    fn append(&mut self, block: Waiting, newest_ns: u64) {
        let follows = self.tails.range(..=(block.time_ns, usize::MAX)).next_back();
        if let Some(&(tail_ns, run)) = follows {
            self.tails.remove(&(tail_ns, run));
            self.tails.insert((newest_ns, run));
            self.runs[run].push_back(block);
            return;
        }
        let run = self.ended.pop().unwrap_or_else(|| {
            self.runs.push(VecDeque::new());
            self.runs.len() - 1
        });
        self.tails.insert((newest_ns, run));
        self.heads.push(Reverse(Head { block, run, at: 0 }));
    }

    /// Hands out what can have no older company any more. Returns `false` if the receiver wants no more.
    pub(super) fn release(&mut self, deliver: &mut impl FnMut(Event<'_>) -> bool) -> bool {
        if self.bytes > WAITING_BYTES_MAX {
            self.forced += 1;
            return self.finish(deliver);
        }
        self.deliver_before(self.watermark_ns.saturating_sub(SLACK_NS), deliver)
    }

    /// Hands out everything.
    pub(super) fn finish(&mut self, deliver: &mut impl FnMut(Event<'_>) -> bool) -> bool {
        self.deliver_before(u64::MAX, deliver)
    }

    fn deliver_before(
        &mut self,
        limit_ns: u64,
        deliver: &mut impl FnMut(Event<'_>) -> bool,
    ) -> bool {
        let waits = |time_ns: u64| time_ns >= limit_ns && limit_ns != u64::MAX;
        let mut next = self.heads.pop();
        while let Some(Reverse(mut head)) = next {
            // Records of one ring follow each other until another has an older one.
            let other = self.heads.peek().map(|Reverse(other)| *other);
            let is_first = |head: &Head| other.is_none_or(|other| *head < other);
            let block = &self.blocks[head.block.slot];
            while let Some(&place) = block.places.get(head.at) {
                head.block.time_ns = place.time_ns;
                if waits(place.time_ns) || !is_first(&head) {
                    break;
                }
                block.touch(head.at + AHEAD);
                head.at += 1;
                self.late += u64::from(place.time_ns < self.newest_delivered_ns);
                self.newest_delivered_ns = self.newest_delivered_ns.max(place.time_ns);
                if block.event(place).is_some_and(|event| !deliver(event)) {
                    return false;
                }
            }
            next = Some(Reverse(head));
            if head.at == block.places.len() {
                self.end_block(head);
                next = self.heads.pop();
            } else if !is_first(&head)
                && let Some(mut first) = self.heads.peek_mut()
            {
                next = Some(std::mem::replace(&mut *first, Reverse(head)));
            } else {
                break;
            }
        }
        self.heads.extend(next);
        true
    }

    /// All records of a run's first block have been handed out.
    fn end_block(&mut self, head: Head) {
        let done = &self.blocks[head.block.slot];
        self.bytes -= done.records.len() * 8;
        self.free.push(head.block.slot);
        let run = head.run;
        if let Some(block) = self.runs[run].pop_front() {
            self.heads.push(Reverse(Head { block, run, at: 0 }));
            return;
        }
        let newest_ns = done.places.last().map_or(0, |place| place.time_ns);
        self.tails.remove(&(newest_ns, run));
        self.ended.push(run);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vpnbench_common::catalog::Kind;

    use super::*;

    fn add(merge: &mut Merge, times: &[u64], watermark_ns: u64) {
        let mut block = merge.room();
        for &time_ns in times {
            block.places.push(Place {
                time_ns,
                offset: block.records.len() as u32,
            });
            block
                .records
                .extend([time_ns, (Kind::Wakeup as u64) << 48, 0, 0]);
        }
        merge.add(block, watermark_ns);
    }

    #[test]
    fn rings_are_merged_and_the_late_are_counted() {
        let mut merge = Merge::default();
        let mut seen = Vec::new();
        let mut deliver = |event: Event<'_>| {
            seen.push(event.time_ns());
            true
        };
        add(&mut merge, &[5, 1, 9], 0);
        add(&mut merge, &[2, 2, 8, SLACK_NS + 20], SLACK_NS + 7);
        assert!(merge.deliver_before(7, &mut deliver));
        add(&mut merge, &[3, SLACK_NS + 1], u64::MAX);
        assert!(merge.finish(&mut deliver));
        assert_eq!(seen, [1, 2, 2, 5, 3, 8, 9, SLACK_NS + 1, SLACK_NS + 20]);
        assert_eq!(
            (merge.late, merge.bytes, merge.free.len()),
            (1, 0, merge.blocks.len())
        );
    }

    #[test]
    fn a_receiver_can_stop() {
        let mut merge = Merge::default();
        add(&mut merge, &[1, 2, 3], 0);
        let mut count = 0;
        assert!(!merge.finish(&mut |_| {
            count += 1;
            count < 2
        }));
        assert_eq!(count, 2);
    }

    proptest! {
        /// Blocks in any order and steps in between come out as a stable sort of all would have them.
        #[test]
        fn runs_are_merged_as_if_all_were_sorted(
            blocks in prop::collection::vec(prop::collection::vec(0u64..60, 0..12), 0..12),
            steps in prop::collection::vec(0u64..40, 12),
        ) {
            let mut merge = Merge::default();
            let mut seen = Vec::new();
            let mut expected = Vec::new();
            let mut waiting: Vec<u64> = Vec::new();
            for (times, limit) in blocks.iter().zip(steps) {
                add(&mut merge, times, 0);
                waiting.extend(times);
                let mut deliver = |event: Event<'_>| {
                    seen.push(event.time_ns());
                    true
                };
                prop_assert!(merge.deliver_before(limit, &mut deliver));
                waiting.sort_unstable();
                let ready = waiting.partition_point(|time| *time < limit);
                expected.extend(waiting.drain(..ready));
            }
            let mut deliver = |event: Event<'_>| {
                seen.push(event.time_ns());
                true
            };
            prop_assert!(merge.finish(&mut deliver));
            expected.extend(waiting);
            prop_assert_eq!(&seen, &expected);
            prop_assert_eq!(merge.bytes, 0);
            prop_assert_eq!(merge.free.len(), merge.blocks.len());
            prop_assert_eq!(merge.ended.len(), merge.runs.len());
        }
    }
}
