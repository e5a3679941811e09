//! Packets per device and tap.
//!
//! Units are what the kernel handles as one object, segments are what they become on the wire
//! (`max(1, gso_segs)`), bytes are what the interface counters count, payload is transport payload.
//! `tcp.rx` counts segments with data as TCP receives them; `outer.recv` and `tun.read` count what
//! a process took.
//!
//! `tun.read` needs care: the probe sees every release of a packet of the tunnel device, and only
//! those in `tun_do_read` are reads. Kernels from 6.12 tell the place; it is resolved when the
//! symbols are known, at the end. On older ones a read is the release of a packet that had passed
//! `tun.tx` and was neither dropped nor read since.

use std::collections::{BTreeMap, VecDeque};

use rustc_hash::FxHashMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use vpnbench_common::catalog::Tap;
use vpnbench_common::event;

use super::devices::Devices;
use super::{Context, Problem, seconds, symbols};
use crate::rows::Rows;
use crate::trace::Event;

/// Packets in the TUN ring remembered for matching; a ring holds `tx_queue_len` (500) by default.
const QUEUED_MAX: usize = 65_536;
/// Distinct taps and release places kept.
const KEYS_MAX: usize = 1024;

/// What passed one tap of one device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TapCount {
    /// Tap name.
    pub tap: String,
    /// Device; null for sockets and where the packet's device is unknown.
    pub device: Option<String>,
    /// Local port of the socket (`outer.recv`).
    pub port: Option<u16>,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Name of the network namespace.
    pub namespace: String,
    /// Units (skbs, or messages taken).
    pub units: u64,
    /// Wire segments, the sum of `max(1, gso_segs)`.
    pub segments: u64,
    /// Bytes as the interface counters count them; null where the tap sees payload only.
    pub bytes: Option<u64>,
    /// Bytes of transport payload; null where the tap does not see the headers.
    pub payload_bytes: Option<u64>,
    /// First packet, seconds after the start of the recording.
    pub first_s: f64,
    /// Last packet, seconds after the start of the recording.
    pub last_s: f64,
    /// 8 x bytes (payload bytes where bytes are null) / (last - first); null with fewer than two
    /// moments.
    pub throughput_bps: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    netns: u32,
    ifindex: u32,
    tap: Tap,
    port: u16,
}

impl Key {
    fn hint(&self) -> u32 {
        (self.netns ^ self.ifindex << 2) << 4 ^ self.tap as u32
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    units: u64,
    segments: u64,
    bytes: Option<u64>,
    payload: Option<u64>,
    first_ns: u64,
    last_ns: u64,
}

impl Count {
    fn add(&mut self, time: u64, segments: u64, bytes: Option<u64>, payload: Option<u64>) {
        if self.units == 0 {
            self.first_ns = time;
        }
        self.last_ns = time;
        self.units += 1;
        self.segments += segments;
        if let Some(bytes) = bytes {
            *self.bytes.get_or_insert(0) += bytes;
        }
        if let Some(payload) = payload {
            *self.payload.get_or_insert(0) += payload;
        }
    }

    fn merge(&mut self, other: &Count) {
        if other.units == 0 {
            return;
        }
        if self.units == 0 {
            *self = *other;
            return;
        }
        self.first_ns = self.first_ns.min(other.first_ns);
        self.last_ns = self.last_ns.max(other.last_ns);
        self.units += other.units;
        self.segments += other.segments;
        let sum = |a: Option<u64>, b: Option<u64>| a.map(|a| a + b.unwrap_or(0)).or(b);
        self.bytes = sum(self.bytes, other.bytes);
        self.payload = sum(self.payload, other.payload);
    }
}

/// Releases of TUN packets at one code address.
#[derive(Debug, Clone, Copy, Default)]
struct Releases {
    all: Count,
    queued_before: Count,
}

/// Packets handed to a TUN device and not yet seen leaving its ring, by address, oldest first.
#[derive(Debug, Clone, Default)]
struct Queued {
    number: u64,
    by_skb: FxHashMap<u64, u64>,
    order: VecDeque<(u64, u64)>,
}

impl Queued {
    fn insert(&mut self, skb: u64) {
        self.number += 1;
        self.by_skb.insert(skb, self.number);
        self.order.push_back((skb, self.number));
        if self.order.len() > QUEUED_MAX
            && let Some((oldest, number)) = self.order.pop_front()
            && self.by_skb.get(&oldest) == Some(&number)
        {
            self.by_skb.remove(&oldest);
        }
    }

    fn remove(&mut self, skb: u64) -> bool {
        self.by_skb.remove(&skb).is_some()
    }
}

/// Counts packets per device and tap.
#[derive(Debug, Clone, Default)]
pub struct Taps {
    counts: Rows<Key, Count>,
    releases: BTreeMap<(u32, u32, u64), Releases>,
    queued: Queued,
    uncounted: u64,
}

impl Taps {
    /// Takes one event.
    pub fn observe(&mut self, event: &Event<'_>) {
        match event {
            Event::Packet(packet) => self.packet(packet),
            Event::Taken(taken) => self.taken(taken),
            Event::TcpProbe(segment) if segment.payload_len > 0 => {
                let payload = Some(u64::from(segment.payload_len));
                let segments = u64::from(segment.gso_segs.max(1));
                let (netns, ifindex) = (segment.netns, segment.iif);
                let key = Key {
                    netns,
                    ifindex,
                    tap: Tap::TcpRx,
                    port: 0,
                };
                self.count(key, |count| {
                    count.add(segment.header.time_ns, segments, None, payload);
                });
            }
            Event::Drop(drop) => {
                self.queued.remove(drop.skb);
            }
            _ => {}
        }
    }

    fn packet(&mut self, packet: &event::Packet) {
        let Some(tap) = Tap::from_number(packet.tap) else {
            self.uncounted += 1;
            return;
        };
        if tap == Tap::TunTx {
            self.queued.insert(packet.skb);
        }
        let key = Key {
            netns: packet.netns,
            ifindex: packet.ifindex,
            tap,
            port: 0,
        };
        let (bytes, payload) = (u64::from(packet.len), u64::from(packet.payload_len));
        let segments = u64::from(packet.segments());
        self.count(key, |count| {
            count.add(packet.header.time_ns, segments, Some(bytes), Some(payload));
        });
    }

    fn taken(&mut self, taken: &event::Taken) {
        let (time, len) = (taken.header.time_ns, u64::from(taken.len));
        let segments = u64::from(taken.gso_segs.max(1));
        match Tap::from_number(taken.tap) {
            Some(Tap::TunRead) => {
                let queued_before = self.queued.remove(taken.skb);
                let place = (taken.netns, taken.ifindex, taken.location);
                if self.releases.len() >= KEYS_MAX && !self.releases.contains_key(&place) {
                    self.uncounted += 1;
                    return;
                }
                let releases = self.releases.entry(place).or_default();
                releases.all.add(time, segments, Some(len), None);
                if queued_before {
                    releases.queued_before.add(time, segments, Some(len), None);
                }
            }
            Some(tap) => {
                let (netns, ifindex, port) = (taken.netns, taken.ifindex, taken.port);
                let key = Key {
                    netns,
                    ifindex,
                    tap,
                    port,
                };
                self.count(key, |count| count.add(time, segments, None, Some(len)));
            }
            None => self.uncounted += 1,
        }
    }

    #[inline]
    fn count(&mut self, key: Key, add: impl FnOnce(&mut Count)) {
        match self
            .counts
            .get_or_add(key, key.hint(), KEYS_MAX, Count::default)
        {
            Some(count) => add(count),
            None => self.uncounted += 1,
        }
    }

    /// The counts, by namespace, device and tap in the order a packet passes them.
    #[must_use]
    pub fn finish(mut self, context: &Context<'_>) -> (Vec<TapCount>, Vec<Problem>) {
        let mut problems = self.decide_reads(context);
        if self.uncounted > 0 {
            let message = format!(
                "{} packets at unknown or too many taps were not counted",
                self.uncounted
            );
            problems.push(Problem::data_loss("taps", message));
        }
        let devices = Devices::new(context);
        // A device that was created again continues under its name.
        let mut by_name: BTreeMap<(u32, Option<String>, Tap, u16), Count> = BTreeMap::new();
        for (key, count) in self.counts.iter() {
            let name = devices.name(key.netns, key.ifindex);
            by_name
                .entry((key.netns, name, key.tap, key.port))
                .or_default()
                .merge(count);
        }
        let rows = by_name
            .into_iter()
            .map(|((netns, device, tap, port), count)| TapCount {
                tap: tap.name().to_owned(),
                device,
                port: (port != 0).then_some(port),
                netns,
                namespace: context.namespace_name(netns),
                units: count.units,
                segments: count.segments,
                bytes: count.bytes,
                payload_bytes: count.payload,
                first_s: context.seconds_since_start(count.first_ns),
                last_s: context.seconds_since_start(count.last_ns),
                throughput_bps: throughput(&count),
            });
        (rows.collect(), problems)
    }

    /// Turns the releases of TUN packets into `tun.read` counts.
    fn decide_reads(&mut self, context: &Context<'_>) -> Vec<Problem> {
        let mut by_identity = 0;
        for (&(netns, ifindex, location), releases) in &self.releases {
            let reads = match symbols::function(context.symbols, location) {
                Some(function) if function.starts_with("tun_do_read") => releases.all,
                Some(_) => continue,
                None => {
                    by_identity += releases.queued_before.units;
                    releases.queued_before
                }
            };
            if reads.units > 0 {
                let key = Key {
                    netns,
                    ifindex,
                    tap: Tap::TunRead,
                    port: 0,
                };
                let count = self
                    .counts
                    .get_or_add(key, key.hint(), usize::MAX, Count::default);
                if let Some(count) = count {
                    count.merge(&reads);
                }
            }
        }
        if by_identity == 0 {
            return Vec::new();
        }
        let message = format!(
            "{by_identity} TUN reads were recognised by packet identity, as the place of release is unknown"
        );
        vec![Problem::info("taps", message)]
    }
}

fn throughput(count: &Count) -> Option<f64> {
    let elapsed = seconds(count.last_ns.saturating_sub(count.first_ns));
    let bytes = count.bytes.or(count.payload)?;
    (elapsed > 0.0).then(|| 8.0 * bytes as f64 / elapsed)
}
