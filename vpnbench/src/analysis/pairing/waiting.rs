//! Packets that wait in a queue of the kernel, known by the address of their skb.
//!
//! Addresses are reused as soon as an skb is freed, so an entry lives from the tap in front of the
//! queue to the tap behind it, its drop, or the next packet at that address, which proves that it
//! is gone. Where software segmentation splits a super-packet in the queue, the parts have new
//! addresses and are recognised by flow and number.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;
use vpnbench_common::event;

use super::amount::Amount;
use super::identity::{Identity, Numbering, Unwrap};
use super::transit::inside_limit;
use crate::analysis::stages::Backlog;

/// Units kept per queue; the oldest is given up beyond, and counted.
const UNITS_MAX: usize = 1 << 17;
/// A unit that waits longer is gone in an unseen way.
const PATIENCE_NS: u64 = 10_000_000_000;
/// Units looked at for the super-packet of a segment.
const PARTS_MAX: usize = 256;

/// One waiting unit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    /// When it came, ns.
    pub time_ns: u64,
    /// Which unit.
    pub unit: u64,
    /// What it is recognised by.
    pub id: Option<Identity>,
    /// Segments that have not left.
    pub segments: u32,
    /// Bytes that have not left.
    pub bytes: u32,
    number: u64,
}

impl Entry {
    /// A unit that comes to wait.
    #[must_use]
    pub(crate) fn new(packet: &event::Packet, unit: u64, id: Option<Identity>) -> Entry {
        Entry {
            time_ns: packet.header.time_ns,
            unit,
            id,
            segments: packet.segments(),
            bytes: packet.len,
            number: 0,
        }
    }
}

/// A queue.
#[derive(Debug, Clone, Default)]
pub(crate) struct Waiting {
    by_skb: FxHashMap<u64, Entry>,
    order: VecDeque<(u64, u64)>,
    number: u64,
    last_left: u64,
    slowest_ns: u64,
    /// Units and bytes in it now and at most.
    pub backlog: Backlog,
    /// Left in an unseen way.
    pub vanished: Amount,
    /// Given up for lack of room.
    pub evicted: Amount,
}

impl Waiting {
    /// A unit comes.
    pub(crate) fn insert(&mut self, skb: u64, mut entry: Entry) {
        self.number += 1;
        entry.number = self.number;
        self.backlog
            .come(entry.time_ns, entry.segments, entry.bytes);
        if let Some(old) = self.by_skb.insert(skb, entry) {
            self.gone(&old, false);
        }
        self.order.push_back((skb, self.number));
        self.expire(entry.time_ns);
    }

    /// When the unit at an address came, ns.
    pub(crate) fn since(&self, skb: u64) -> Option<u64> {
        Some(self.by_skb.get(&skb)?.time_ns)
    }

    /// The unit at an address leaves.
    pub(crate) fn take(&mut self, skb: u64, now_ns: u64) -> Option<Entry> {
        let entry = self.by_skb.remove(&skb)?;
        self.left(&entry, now_ns);
        Some(entry)
    }

    fn left(&mut self, entry: &Entry, now_ns: u64) {
        self.last_left = self.last_left.max(entry.number);
        self.slowest_ns = self.slowest_ns.max(now_ns.saturating_sub(entry.time_ns));
        self.backlog.go(entry.segments, entry.bytes);
    }

    /// A part of a waiting super-packet leaves at an address of its own: the super-packet that
    /// holds its numbers.
    pub(crate) fn take_part(&mut self, packet: &event::Packet, id: &Identity) -> Option<Entry> {
        if id.numbering == Numbering::Order {
            return None;
        }
        let skb = self.holder(id)?;
        let whole = self.by_skb.get_mut(&skb)?;
        let segments = packet.segments().min(whole.segments);
        let bytes = packet.len.min(whole.bytes);
        whole.segments -= segments;
        // Each part brings headers of its own: the last one takes what the super-packet has left.
        whole.bytes -= bytes;
        let mut part = *whole;
        let done = whole.segments == 0;
        part.segments = segments;
        part.bytes = bytes;
        if done {
            part.bytes += whole.bytes;
            self.by_skb.remove(&skb);
        }
        self.left(&part, packet.header.time_ns);
        Some(part)
    }

    fn holder(&self, id: &Identity) -> Option<u64> {
        let bits = id.numbering.bits();
        self.order
            .iter()
            .rev()
            .take(PARTS_MAX)
            .find_map(|(skb, number)| {
                let entry = self
                    .by_skb
                    .get(skb)
                    .filter(|entry| entry.number == *number)?;
                let whole = entry
                    .id
                    .filter(|whole| whole.flow == id.flow && entry.segments > 0)?;
                let mut base = Unwrap::default();
                let start = base.next(whole.start, bits);
                let at = base.peek(id.start, bits);
                (at >= start && at < start + i64::from(whole.length)).then_some(*skb)
            })
    }

    fn gone(&mut self, entry: &Entry, evicted: bool) {
        self.backlog.go(entry.segments, entry.bytes);
        let sum = if evicted {
            &mut self.evicted
        } else {
            &mut self.vanished
        };
        sum.add(entry.segments, entry.bytes);
    }

    fn expire(&mut self, now_ns: u64) {
        while let Some(&(skb, number)) = self.order.front() {
            let Some(entry) = self.by_skb.get(&skb).filter(|entry| entry.number == number) else {
                self.order.pop_front();
                continue;
            };
            let full = self.by_skb.len() > UNITS_MAX;
            if !full && entry.time_ns.saturating_add(PATIENCE_NS) > now_ns {
                break;
            }
            let entry = *entry;
            self.by_skb.remove(&skb);
            self.order.pop_front();
            self.gone(&entry, full);
        }
        // Units that left out of order stay in `order` behind one that waits.
        if self.order.len() > 2 * self.by_skb.len() + 1024 {
            let live = &self.by_skb;
            self.order
                .retain(|(skb, number)| live.get(skb).is_some_and(|one| one.number == *number));
        }
    }

    /// What waits at the end: inside, if nothing that came later has left, or if it has not waited
    /// longer than others did; otherwise it vanished.
    pub(crate) fn finish(&mut self, now_ns: u64) -> Amount {
        let mut inside = Amount::default();
        let limit = inside_limit(self.slowest_ns);
        for (_, entry) in self.by_skb.drain() {
            let waits =
                entry.number > self.last_left || now_ns.saturating_sub(entry.time_ns) <= limit;
            let sum = if waits {
                &mut inside
            } else {
                &mut self.vanished
            };
            sum.add(entry.segments, entry.bytes);
        }
        inside
    }
}
