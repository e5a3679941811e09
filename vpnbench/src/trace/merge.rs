//! Puts the records of all rings in the order of time.
//!
//! Blocks say up to which time everything has been read (the watermark). Records older than that,
//! less a slack for events that were under way, are sorted and handed out; newer ones wait. What
//! waits is a handful of nearly sorted runs, which the standard stable sort finds and merges.

use super::codec::Place;
use super::event::Event;

/// How long after its time stamp a record may still be on its way into its ring.
const SLACK_NS: u64 = 100_000_000;
/// Bytes of records that may wait. A writer that follows the rules stays far below.
const WAITING_BYTES_MAX: usize = 256 << 20;
/// With fewer new records than this it is not worth sorting.
const RELEASE_MIN: usize = 4096;

/// How many records ahead are brought into the cache: they were decoded a while ago, all rings in between.
const AHEAD: usize = 6;
/// 8-byte words of a cache line.
const LINE: usize = 8;

/// Reads a word of each of a record's first lines, so that they are near when it is handed out.
#[inline]
fn touch(chunk: &Chunk, offset: usize) {
    for line in 0..3 {
        std::hint::black_box(chunk.records.get(offset + line * LINE).copied());
    }
}

/// Decoded records of one block.
#[derive(Default)]
struct Chunk {
    records: Vec<u64>,
    /// Records that have not been handed out.
    waiting: usize,
}

/// A record that waits.
#[derive(Debug, Clone, Copy)]
struct Entry {
    time_ns: u64,
    chunk: u32,
    offset: u32,
}

/// Records on their way into order.
#[derive(Default)]
pub(super) struct Merge {
    chunks: Vec<Chunk>,
    /// Chunks without waiting records; their memory is used again.
    free: Vec<u32>,
    entries: Vec<Entry>,
    /// Entries in front that are sorted already.
    sorted: usize,
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
    pub(super) fn room(&mut self) -> Vec<u64> {
        let reused = self
            .free
            .last()
            .and_then(|&chunk| self.chunks.get_mut(chunk as usize));
        let mut records = reused
            .map(|chunk| std::mem::take(&mut chunk.records))
            .unwrap_or_default();
        records.clear();
        records
    }

    /// Takes the records of a block.
    pub(super) fn add(&mut self, records: Vec<u64>, places: &[Place], watermark_ns: u64) {
        self.watermark_ns = self.watermark_ns.max(watermark_ns);
        let chunk = self.free.pop().unwrap_or_else(|| {
            self.chunks.push(Chunk::default());
            self.chunks.len() as u32 - 1
        });
        self.bytes += records.len() * 8;
        if places.is_empty() {
            self.free.push(chunk);
        }
        self.chunks[chunk as usize] = Chunk {
            records,
            waiting: places.len(),
        };
        self.entries.extend(places.iter().map(|place| Entry {
            time_ns: place.time_ns,
            chunk,
            offset: place.offset,
        }));
    }

    /// Hands out what can have no older company any more, `promptly` or once it is worth sorting.
    /// Returns `false` if the receiver wants no more.
    pub(super) fn release(
        &mut self,
        promptly: bool,
        deliver: &mut impl FnMut(Event<'_>) -> bool,
    ) -> bool {
        let fresh = self.entries.len() - self.sorted;
        if self.bytes > WAITING_BYTES_MAX {
            self.forced += 1;
            return self.deliver_before(u64::MAX, deliver);
        }
        // Each release looks at all that waits; doing it rarely keeps the effort per record small.
        if !promptly && fresh < RELEASE_MIN.max(self.sorted / 2) {
            return true;
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
        self.entries.sort_by_key(|entry| entry.time_ns);
        let ready = match limit_ns {
            u64::MAX => self.entries.len(),
            limit => self.entries.partition_point(|entry| entry.time_ns < limit),
        };
        for (at, entry) in self.entries[..ready].iter().enumerate() {
            if let Some(next) = self.entries.get(at + AHEAD) {
                touch(&self.chunks[next.chunk as usize], next.offset as usize);
            }
            self.late += u64::from(entry.time_ns < self.newest_delivered_ns);
            self.newest_delivered_ns = self.newest_delivered_ns.max(entry.time_ns);
            let chunk = &mut self.chunks[entry.chunk as usize];
            chunk.waiting -= 1;
            if chunk.waiting == 0 {
                self.bytes -= chunk.records.len() * 8;
                self.free.push(entry.chunk);
            }
            let event = chunk
                .records
                .get(entry.offset as usize..)
                .and_then(Event::first);
            if event.is_some_and(|event| !deliver(event)) {
                return false;
            }
        }
        self.entries.drain(..ready);
        self.sorted = self.entries.len();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vpnbench_common::catalog::Kind;

    fn add(merge: &mut Merge, times: &[u64], watermark_ns: u64) {
        let mut records = merge.room();
        let mut places = Vec::new();
        for &time_ns in times {
            places.push(Place {
                time_ns,
                offset: records.len() as u32,
            });
            records.extend([time_ns, (Kind::Wakeup as u64) << 48, 0, 0]);
        }
        merge.add(records, &places, watermark_ns);
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
            (1, 0, merge.chunks.len())
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
}
