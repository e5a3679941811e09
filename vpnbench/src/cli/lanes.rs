//! The analyses in two threads: one reads a recording and copies what it reads into batches, the other takes them
//! through the lanes of the analyses. Where many batches wait, the reader takes some for a lane that nobody is at:
//! which of the two has more to do differs between captures and traces, and neither waits for the other.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::analysis::Analyses;
use crate::analysis::lanes::Lane;
use crate::trace::{Batch, Event};

/// 8-byte words of records that are handed over at a time: what fits a core's own cache, and so much that waking the
/// other thread costs little beside it.
const WORDS: usize = 1 << 14;
/// Batches that some lane has not had from which on the reader helps instead of reading on.
const WAITING: usize = 8;

/// Takes the events of a recording that is being read.
pub(super) struct Feed<'r, 'a> {
    batch: Batch,
    lanes: &'r Lanes<'a>,
}

impl Feed<'_, '_> {
    /// Takes one event, in time order.
    #[inline]
    pub(super) fn observe(&mut self, event: &Event<'_>) {
        self.batch.push(event);
        if self.batch.words() >= WORDS {
            self.batch = self.lanes.add(std::mem::take(&mut self.batch));
        }
    }
}

impl Drop for Feed<'_, '_> {
    /// Ends the lanes, also where the reader panicked: their thread would wait for ever.
    fn drop(&mut self) {
        let last = std::mem::take(&mut self.batch);
        let mut queue = self.lanes.queue();
        queue.batches.push_back(Arc::new(last));
        queue.ended = true;
        self.lanes.changed.notify_all();
    }
}

/// Lanes that take batches in order, each in its own time and in whichever thread comes first.
struct Lanes<'a> {
    takes: Vec<Mutex<Lane<'a>>>,
    queue: Mutex<Queue>,
    /// The queue changed.
    changed: Condvar,
}

/// Batches that not all lanes have had.
struct Queue {
    batches: VecDeque<Arc<Batch>>,
    /// How many of the batches here each lane has had.
    had: Vec<usize>,
    /// Whether a thread is at a lane.
    taken: Vec<bool>,
    /// Room to be used again.
    free: Vec<Batch>,
    ended: bool,
}

impl Queue {
    /// A lane that nobody is at and that is behind the others, and its next batch.
    fn next(&mut self) -> Option<(usize, Arc<Batch>)> {
        let idle = (0..self.had.len()).filter(|lane| !self.taken[*lane]);
        let lane = idle.min_by_key(|lane| self.had[*lane])?;
        let batch = self.batches.get(self.had[lane])?.clone();
        self.taken[lane] = true;
        Some((lane, batch))
    }

    /// Lets batches go that all lanes have had.
    fn clear(&mut self) {
        while self.had.iter().all(|had| *had > 0) {
            self.had.iter_mut().for_each(|had| *had -= 1);
            if let Some(Ok(mut batch)) = self.batches.pop_front().map(Arc::try_unwrap) {
                batch.clear();
                self.free.push(batch);
            }
        }
    }
}

impl<'a> Lanes<'a> {
    fn new(takes: Vec<Lane<'a>>) -> Lanes<'a> {
        let lanes = takes.len();
        Lanes {
            takes: takes.into_iter().map(Mutex::new).collect(),
            queue: Mutex::new(Queue {
                batches: VecDeque::new(),
                had: vec![0; lanes],
                taken: vec![false; lanes],
                free: Vec::new(),
                ended: false,
            }),
            changed: Condvar::new(),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a batch and gives room for another one; where many wait, first takes one of them for a lane.
    fn add(&self, batch: Batch) -> Batch {
        let mut queue = self.queue();
        while queue.batches.len() >= WAITING {
            queue = self.help(queue);
        }
        queue.batches.push_back(Arc::new(batch));
        self.changed.notify_all();
        queue.free.pop().unwrap_or_else(|| Batch::with_room(WORDS))
    }

    /// Takes batches until there are no more.
    fn follow(&self) {
        let mut queue = self.queue();
        while !queue.ended || !queue.batches.is_empty() {
            queue = self.help(queue);
        }
    }

    /// Takes one batch for a lane, or waits until that can be done.
    fn help<'q>(&'q self, mut queue: MutexGuard<'q, Queue>) -> MutexGuard<'q, Queue> {
        let Some((lane, batch)) = queue.next() else {
            let changed = self.changed.wait(queue);
            return changed.unwrap_or_else(PoisonError::into_inner);
        };
        drop(queue);
        let at = At { lanes: self, lane };
        // A lane that panicked takes nothing more; the thread in which it did tells of it.
        if let Ok(mut take) = self.takes[lane].lock() {
            take(&batch);
        }
        drop(batch);
        drop(at);
        self.queue()
    }
}

/// A thread's stay at a lane, which ends with its batch also where the lane panics.
struct At<'r, 'a> {
    lanes: &'r Lanes<'a>,
    lane: usize,
}

impl Drop for At<'_, '_> {
    fn drop(&mut self) {
        let mut queue = self.lanes.queue();
        queue.taken[self.lane] = false;
        queue.had[self.lane] += 1;
        queue.clear();
        self.lanes.changed.notify_all();
    }
}

/// Takes all events that `read` gives to its feed, in time order. Returns what `read` does. The outcome is that
/// of [`Analyses::observe`] with the same events.
pub(super) fn follow_all<R>(
    analyses: &mut Analyses,
    read: impl FnOnce(&mut Feed<'_, '_>) -> R,
) -> R {
    through(analyses.lanes(), read)
}

/// The same with lanes of any kind.
fn through<R>(lanes: Vec<Lane<'_>>, read: impl FnOnce(&mut Feed<'_, '_>) -> R) -> R {
    let lanes = Lanes::new(lanes);
    thread::scope(|scope| {
        let mut feed = Feed {
            batch: Batch::with_room(WORDS),
            lanes: &lanes,
        };
        scope.spawn(|| lanes.follow());
        let result = read(&mut feed);
        drop(feed);
        lanes.follow();
        result
    })
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use bytemuck::Zeroable as _;
    use vpnbench_common::catalog::Kind;
    use vpnbench_common::event;

    use super::*;

    /// Feeds so many packets, of which each has its number as time.
    fn packets(feed: &mut Feed<'_, '_>, many: u64) {
        let mut packet = event::Packet::zeroed();
        packet.header.kind = Kind::Packet as u8;
        for number in 0..many {
            packet.header.time_ns = number;
            feed.observe(&Event::Packet(&packet));
        }
    }

    fn counting(count: &mut u64) -> Lane<'_> {
        Box::new(move |batch| {
            for event in batch.events() {
                assert_eq!(event.header().time_ns, *count, "in order");
                *count += 1;
            }
        })
    }

    #[test]
    fn each_lane_has_all_events_in_order() {
        for many in [0, 1, 100_000] {
            let mut counts = [0; 3];
            let lanes = counts.iter_mut().map(counting).collect();
            through(lanes, |feed| packets(feed, many));
            assert_eq!(counts, [many; 3]);
        }
    }

    #[test]
    fn a_panic_in_a_lane_or_in_the_reader_ends_all() {
        let mut others = 0;
        let mut batches = 0;
        let panics: Lane<'_> = Box::new(|_| {
            batches += 1;
            assert!(batches < 3, "a lane that fails");
        });
        let lanes = vec![panics, counting(&mut others)];
        let ended = catch_unwind(AssertUnwindSafe(|| {
            through(lanes, |feed| packets(feed, 100_000));
        }));
        assert!(ended.is_err() && batches == 3, "{batches} batches");
        let mut count = 0;
        let ended = catch_unwind(AssertUnwindSafe(|| {
            through(vec![counting(&mut count)], |feed| {
                packets(feed, 50_000);
                panic!("a reader that fails");
            });
        }));
        assert!(ended.is_err());
        assert_eq!(count, 50_000, "what was read before");
    }
}
