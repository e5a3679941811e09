//! Flows (5-tuples) at each tap: inner flows at `tun.*`, outer flows at `outer.*`.

use std::collections::BTreeMap;

use vpnbench_common::catalog::Tap;
use vpnbench_common::event;

use super::{Context, Problem, address, seconds};
use crate::rows::Rows;
use crate::trace::Event;

/// Flows kept per tap; later ones are counted together.
pub const FLOWS_MAX: usize = 1024;

/// One flow at one tap.
#[derive(Debug, Clone, PartialEq)]
pub struct FlowCount {
    /// `address:port`, or the address alone where the protocol has no ports; `other` for the flows
    /// beyond the first [`FLOWS_MAX`] of the tap.
    pub src: String,
    /// As `src`.
    pub dst: String,
    /// Protocol name or number.
    pub protocol: String,
    /// Tap name.
    pub tap: String,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Units.
    pub units: u64,
    /// Wire segments.
    pub segments: u64,
    /// Bytes as the interface counters count them.
    pub bytes: u64,
    /// Bytes of transport payload.
    pub payload_bytes: u64,
    /// 8 x bytes / (last - first packet); `None` with fewer than two moments.
    pub throughput_bps: Option<f64>,
}

/// Addresses as numbers in the order of their bytes, which are hashed and compared quickly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key {
    tap: Tap,
    netns: u32,
    version: u8,
    protocol: u8,
    src: u128,
    sport: u16,
    dst: u128,
    dport: u16,
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    units: u64,
    segments: u64,
    bytes: u64,
    payload: u64,
    first_ns: u64,
    last_ns: u64,
}

/// Counts packets per flow and tap.
#[derive(Debug, Clone, Default)]
pub struct Flows {
    flows: Rows<Key, Count>,
    kept: BTreeMap<Tap, usize>,
    others: BTreeMap<(Tap, u32), Count>,
}

impl Flows {
    /// Takes one event.
    pub fn observe(&mut self, event: &Event<'_>) {
        let Event::Packet(packet) = event else { return };
        let Some(key) = key(packet) else { return };
        let ports = u32::from(key.sport) ^ u32::from(key.dport) << 3;
        let hint = ports ^ (key.tap as u32) << 5;
        let row = self.flows.find(&key, hint).or_else(|| {
            let kept = self.kept.entry(key.tap).or_default();
            let room = *kept < FLOWS_MAX;
            *kept += usize::from(room);
            room.then(|| self.flows.add(key, Count::default()))
        });
        let count = match row.and_then(|row| self.flows.at(row)) {
            Some(count) => count,
            None => self.others.entry((key.tap, key.netns)).or_default(),
        };
        if count.units == 0 {
            count.first_ns = packet.header.time_ns;
        }
        count.last_ns = packet.header.time_ns;
        count.units += 1;
        count.segments += u64::from(packet.segments());
        count.bytes += u64::from(packet.len);
        count.payload += u64::from(packet.payload_len);
    }

    /// The flows in order of taps, the largest of each tap first.
    #[must_use]
    pub fn finish(self, _context: &Context<'_>) -> (Vec<FlowCount>, Vec<Problem>) {
        let mut flows = self.flows.into_rows();
        flows.sort_unstable_by_key(|(key, _)| *key);
        let mut rows: Vec<(Tap, FlowCount)> = flows
            .iter()
            .map(|(key, count)| {
                let ports = address::has_ports(key.protocol);
                let end = |ip: u128, port: u16| {
                    address::endpoint(key.version, &ip.to_be_bytes(), ports.then_some(port))
                };
                let protocol = address::protocol(key.protocol);
                (
                    key.tap,
                    row(
                        key.tap,
                        key.netns,
                        (end(key.src, key.sport), end(key.dst, key.dport)),
                        protocol,
                        count,
                    ),
                )
            })
            .collect();
        for (&(tap, netns), count) in &self.others {
            let ends = ("other".to_owned(), "other".to_owned());
            rows.push((tap, row(tap, netns, ends, "other".to_owned(), count)));
        }
        // Stable: flows of equal size keep their order by address.
        rows.sort_by_key(|(tap, row)| (*tap, std::cmp::Reverse(row.bytes)));
        let problems = self.others.iter().map(|((tap, _), count)| {
            let message = format!(
                "more than {FLOWS_MAX} flows at {}: {} units are counted together as \"other\"",
                tap.name(),
                count.units
            );
            Problem::info("flows", message)
        });
        (
            rows.into_iter().map(|(_, row)| row).collect(),
            problems.collect(),
        )
    }
}

fn key(packet: &event::Packet) -> Option<Key> {
    let tap = Tap::from_number(packet.tap)?;
    if packet.ip_version == 0 {
        return None;
    }
    // The port fields of ICMP hold other things.
    let ports = address::has_ports(packet.ip_proto);
    let port = |port: u16| if ports { port } else { 0 };
    Some(Key {
        tap,
        netns: packet.netns,
        version: packet.ip_version,
        protocol: packet.ip_proto,
        src: u128::from_be_bytes(packet.saddr),
        sport: port(packet.sport),
        dst: u128::from_be_bytes(packet.daddr),
        dport: port(packet.dport),
    })
}

fn row(tap: Tap, netns: u32, ends: (String, String), protocol: String, count: &Count) -> FlowCount {
    let elapsed = seconds(count.last_ns.saturating_sub(count.first_ns));
    FlowCount {
        src: ends.0,
        dst: ends.1,
        protocol,
        tap: tap.name().to_owned(),
        netns,
        units: count.units,
        segments: count.segments,
        bytes: count.bytes,
        payload_bytes: count.payload,
        throughput_bps: (elapsed > 0.0).then(|| 8.0 * count.bytes as f64 / elapsed),
    }
}
