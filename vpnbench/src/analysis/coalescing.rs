//! Segments per skb unit at each tap: what GSO, GRO, UDP_SEGMENT and vnet headers merge.
//!
//! A unit of `gso_segs` segments is one object to every queue, drop and impairment on its way
//! (`skb_shinfo(skb)->gso_segs`, include/linux/skbuff.h). Only units with payload count: pure
//! acknowledgements are never merged and would hide what is.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use vpnbench_common::catalog::Tap;
use vpnbench_common::event;

use super::devices::Devices;
use super::{Context, Problem};
use crate::rows::Rows;
use crate::trace::Event;

/// Taps of devices kept.
const KEYS_MAX: usize = 512;
const SECOND_NS: u64 = 1_000_000_000;
/// Seconds of a run kept one by one.
const SECONDS_MAX: usize = 7200;

/// Segments per unit at a tap.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Coalescing {
    /// Tap.
    pub tap: String,
    /// Device; null for sockets.
    pub device: Option<String>,
    /// Namespace.
    pub namespace: String,
    /// Units with payload.
    pub units: u64,
    /// Wire segments in them.
    pub segments: u64,
    /// `segments` / `units`.
    pub segments_per_unit: f64,
    /// Largest number of segments in a unit.
    pub segments_max: u32,
    /// Share of segments that were in units of more than one.
    pub merged_ratio: f64,
    /// Median bytes of a unit.
    pub unit_bytes_p50: Option<f64>,
    /// Bytes of the largest unit.
    pub unit_bytes_max: Option<u64>,
    /// Course over the run.
    pub seconds: Vec<CoalescingSecond>,
}

/// One second at a tap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CoalescingSecond {
    /// Seconds of the monotonic clock after the one in which the recording began.
    pub second: u32,
    /// Units with payload.
    pub units: u64,
    /// Wire segments in them.
    pub segments: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key {
    netns: u32,
    ifindex: u32,
    tap: u8,
}

#[derive(Debug, Clone)]
struct Count {
    units: u64,
    segments: u64,
    merged: u64,
    most: u32,
    sizes: Histogram<u32>,
    /// Size of the last units, and how many of them are not among `sizes` yet: most are as large as those before.
    last: (u32, u32),
    largest: u64,
    first_second: u64,
    seconds: Vec<(u64, u64)>,
}

/// Counts segments per unit.
#[derive(Debug, Clone, Default)]
pub struct Coalesce {
    /// The second of the last event, and when it began, ns.
    second: (u64, u64),
    counts: Rows<Key, Count>,
    uncounted: u64,
}

impl Coalesce {
    /// Takes one event. TUN reads come through [`Coalesce::read`], when it is known that they are.
    pub fn observe(&mut self, event: &Event<'_>) {
        match event {
            Event::Packet(packet) if packet.payload_len > 0 => {
                let key = Key {
                    netns: packet.netns,
                    ifindex: packet.ifindex,
                    tap: packet.tap,
                };
                self.count(key, packet.header.time_ns, packet.segments(), packet.len);
            }
            Event::Taken(taken) if taken.tap == Tap::OuterRecv as u8 => self.read(taken),
            Event::TcpProbe(segment) if segment.payload_len > 0 => {
                let key = Key {
                    netns: segment.netns,
                    ifindex: segment.iif,
                    tap: Tap::TcpRx as u8,
                };
                let segments = u32::from(segment.gso_segs.max(1));
                self.count(key, segment.header.time_ns, segments, segment.payload_len);
            }
            _ => {}
        }
    }

    /// A process took a unit.
    pub fn read(&mut self, taken: &event::Taken) {
        let key = Key {
            netns: taken.netns,
            ifindex: taken.ifindex,
            tap: taken.tap,
        };
        self.count(
            key,
            taken.header.time_ns,
            u32::from(taken.gso_segs.max(1)),
            taken.len,
        );
    }

    fn count(&mut self, key: Key, time_ns: u64, segments: u32, bytes: u32) {
        if time_ns.wrapping_sub(self.second.1) >= SECOND_NS {
            let second = time_ns / SECOND_NS;
            self.second = (second, second * SECOND_NS);
        }
        let second = self.second.0;
        let hint = (key.netns ^ key.ifindex << 2) << 4 ^ u32::from(key.tap);
        let fresh = || Count::new(second);
        let Some(count) = self.counts.get_or_add(key, hint, KEYS_MAX, fresh) else {
            self.uncounted += 1;
            return;
        };
        count.units += 1;
        count.segments += u64::from(segments);
        count.merged += u64::from(if segments > 1 { segments } else { 0 });
        count.most = count.most.max(segments);
        count.largest = count.largest.max(u64::from(bytes));
        count.size(bytes);
        let at = usize::try_from(second.saturating_sub(count.first_second)).unwrap_or(usize::MAX);
        if at < SECONDS_MAX {
            if count.seconds.len() <= at {
                count.seconds.resize(at + 1, (0, 0));
            }
            count.seconds[at].0 += 1;
            count.seconds[at].1 += u64::from(segments);
        }
    }

    /// The rows, by namespace, in the order of the taps.
    #[must_use]
    pub fn finish(self, context: &Context<'_>) -> (Vec<Coalescing>, Vec<Problem>) {
        let devices = Devices::new(context);
        let start = context.start.clock.monotonic_ns / SECOND_NS;
        let mut counts: BTreeMap<Key, Count> = self.counts.into_rows().into_iter().collect();
        let mut rows: Vec<(u32, u8, Coalescing)> = Vec::new();
        for (key, count) in &mut counts {
            let Some(tap) = Tap::from_number(key.tap) else {
                continue;
            };
            let device = devices.name(key.netns, key.ifindex);
            let row = count.row(tap, device, context.namespace_name(key.netns), start);
            rows.push((key.netns, key.tap, row));
        }
        rows.sort_by_key(|(netns, tap, _)| (*netns, *tap));
        let mut problems = Vec::new();
        if self.uncounted > 0 {
            let message = format!("units at {} more taps were not counted", self.uncounted);
            problems.push(Problem::data_loss("coalescing", message));
        }
        (rows.into_iter().map(|(_, _, row)| row).collect(), problems)
    }
}

impl Count {
    fn new(second: u64) -> Count {
        let sizes = Histogram::new_with_bounds(1, 1 << 20, 3).expect("constant bounds");
        Count {
            units: 0,
            segments: 0,
            merged: 0,
            most: 0,
            sizes,
            last: (0, 0),
            largest: 0,
            first_second: second,
            seconds: Vec::new(),
        }
    }

    fn size(&mut self, bytes: u32) {
        if self.last.0 != bytes {
            self.settle();
            self.last.0 = bytes;
        }
        self.last.1 = self.last.1.saturating_add(1);
    }

    /// Puts the last units among all.
    fn settle(&mut self) {
        let (bytes, units) = self.last;
        if units > 0 {
            self.sizes.saturating_record_n(u64::from(bytes), units);
            self.last.1 = 0;
        }
    }

    fn row(
        &mut self,
        tap: Tap,
        device: Option<String>,
        namespace: String,
        start: u64,
    ) -> Coalescing {
        let first = u32::try_from(self.first_second.saturating_sub(start)).unwrap_or(u32::MAX);
        self.settle();
        let seconds = self.seconds.iter().enumerate().filter(|(_, one)| one.0 > 0);
        Coalescing {
            tap: tap.name().to_owned(),
            device,
            namespace,
            units: self.units,
            segments: self.segments,
            segments_per_unit: self.segments as f64 / self.units as f64,
            segments_max: self.most,
            merged_ratio: self.merged as f64 / self.segments as f64,
            unit_bytes_p50: Some(self.sizes.value_at_quantile(0.5) as f64),
            unit_bytes_max: Some(self.largest),
            seconds: seconds
                .map(|(second, one)| CoalescingSecond {
                    second: first.saturating_add(second as u32),
                    units: one.0,
                    segments: one.1,
                })
                .collect(),
        }
    }
}
