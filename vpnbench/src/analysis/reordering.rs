//! Reordering per tap, flow and direction after RFC 4737.
//!
//! Packets are numbered by their sender: TCP sequence numbers, WireGuard's counter, ICMP sequence
//! numbers, the IP ID ([`super::pairing::identity`]). With s\[i\] the number of the i-th arrival:
//!
//! * *Type-P-Reordered* (section 3): s\[i\] < NextExp, where NextExp is one more than the largest number
//!   so far. The ratio (4.1) is over all numbered packets.
//! * *Extent* (4.2): e = i - j with j the earliest arrival with s\[j\] > s\[i\].
//! * *Late time offset* (4.3): time of i - time of that j.
//! * *n-reordering* (5.4): the n packets just in front of i all have larger numbers.
//!
//! The unit of arrival is the skb unit at the tap, as in a capture there. For TCP only segments with
//! payload take part, and retransmissions are left out: a packet that repeats what its sender had sent
//! before, seen at the sender's first tap and recognised later by range and timestamp (or IP ID).
//! Where the sender's host is not watched, a retransmission of lost data is indistinguishable from a
//! late packet and the row says so.

mod senders;
mod sequence;

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use vpnbench_common::catalog::Tap;
use vpnbench_common::event;

use super::pairing::identity::{Identity, Numbering, identity, numbered_zero};
use super::{Context, Problem, address};
use crate::rows::Rows;
use crate::trace::Event;
use senders::Repeats;
pub use senders::TcpBelief;
use sequence::{Sequence, Totals};

/// Flows kept per trace, over all taps.
const FLOWS_MAX: usize = 1 << 14;
/// Rows of single flows in the output.
const ROWS_MAX: usize = 256;

/// Reordering at a tap (RFC 4737).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Reordering {
    /// Tap.
    pub tap: String,
    /// Namespace of the tap.
    pub namespace: String,
    /// Addresses: `SOURCE > DESTINATION` of the packets, over all their flows.
    pub direction: String,
    /// Protocol and numbering, e.g. `tcp, tcp-sequence`.
    pub numbering: String,
    /// Packets (skb units at the tap) with a number.
    pub packets: u64,
    /// Of these, Type-P-Reordered.
    pub reordered: u64,
    /// `reordered` / `packets`.
    pub ratio: f64,
    /// Reordered packets beyond those at the previous tap of this direction where packets have
    /// numbers; null at the first, and without numbers.
    pub added: Option<i64>,
    /// Median extent in packets; null without a reordered packet.
    pub extent_p50: Option<f64>,
    /// 99th percentile of the extent.
    pub extent_p99: Option<f64>,
    /// Largest extent.
    pub extent_max: Option<f64>,
    /// 99th percentile of the late time offset.
    pub late_time_us_p99: Option<f64>,
    /// Packets that are n-reordered for n = 1, 2, 3 and up to 10 (RFC 4737 section 5.4); 3 is what
    /// a fast retransmit takes for a loss.
    pub n_reordering: Vec<u64>,
    /// Retransmissions left out.
    pub retransmissions: u64,
    /// Whether retransmissions are known: false where their sender was not seen.
    pub retransmissions_known: bool,
    /// Exact repetitions of a number (duplicates), counted once as packets.
    pub duplicates: u64,
    /// Packets without a number, which take no part.
    pub unnumbered: u64,
    /// Reordered packets whose extent reaches back further than what is kept: their extent is a lower bound.
    pub extent_bounded: u64,
}

/// What the packets came to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Output {
    /// Per direction in the order of the taps.
    pub taps: Vec<Reordering>,
    /// What the senders' TCP believes.
    pub beliefs: Vec<TcpBelief>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct FlowKey {
    flow: u64,
    netns: u32,
    ifindex: u32,
    tap: u8,
}

impl FlowKey {
    fn hint(&self) -> u32 {
        self.flow as u32 ^ self.netns << 3 ^ u32::from(self.tap) << 4
    }
}

/// Rows: all flows of equal ends at a tap.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct RowKey {
    version: u8,
    source: [u8; 16],
    destination: [u8; 16],
    protocol: u8,
    numbering: Numbering,
    tap: u8,
    netns: u32,
}

#[derive(Debug, Clone)]
struct FlowState {
    row: RowKey,
    sequence: Sequence,
    units: u64,
    segments: u64,
}

impl FlowState {
    /// Whether batches of UDP_SEGMENT were cut before this tap, where `most` segments a unit were seen
    /// elsewhere. The kernel takes one IP identification for a batch (`__ip_make_skb`,
    /// net/ipv4/ip_output.c), so that those of cut ones overlap: they say nothing about order.
    fn is_cut(&self, most: f64) -> bool {
        let here = self.segments as f64 / self.units.max(1) as f64;
        most > 1.0 && (self.segments == self.units || here < 0.9 * most)
    }
}

/// Measures reordering.
#[derive(Debug, Clone, Default)]
pub struct Reorder {
    flows: Rows<FlowKey, FlowState>,
    repeats: Repeats,
    unnumbered: BTreeMap<RowKey, u64>,
    uncounted: u64,
}

impl Reorder {
    /// Takes one event.
    pub fn observe(&mut self, event: &Event<'_>) {
        match event {
            Event::Packet(packet) => {
                // Pure acknowledgements repeat numbers; fragments and packets without a number have none.
                let acknowledgement = packet.ip_proto == 6 && packet.payload_len == 0;
                if !acknowledgement
                    && !packet.is_later_fragment()
                    && let Some(id) = identity(packet)
                {
                    self.packet(packet, &id);
                }
            }
            Event::TcpProbe(segment) => self.repeats.belief(segment),
            _ => {}
        }
    }

    fn packet(&mut self, packet: &event::Packet, id: &Identity) {
        let key = |flow: u64| FlowKey {
            flow,
            netns: packet.netns,
            ifindex: packet.ifindex,
            tap: packet.tap,
        };
        let zero = (id.numbering == Numbering::Order)
            .then(|| numbered_zero(packet))
            .flatten()
            .filter(|zero| {
                let key = key(zero.flow);
                let state = self.flows.get(&key, key.hint());
                state.is_some_and(|state| state.sequence.is_near(zero))
            });
        let id = zero.as_ref().unwrap_or(id);
        if id.numbering == Numbering::Order {
            if self.unnumbered.len() < FLOWS_MAX {
                *self.unnumbered.entry(row_key(packet, id)).or_default() += 1;
            }
            return;
        }
        let key = key(id.flow);
        let fresh = || FlowState {
            row: row_key(packet, id),
            sequence: Sequence::default(),
            units: 0,
            segments: 0,
        };
        let state = self.flows.get_or_add(key, key.hint(), FLOWS_MAX, fresh);
        let Some(state) = state else {
            self.uncounted += 1;
            return;
        };
        state.units += 1;
        state.segments += u64::from(packet.segments());
        let repeated = id.numbering == Numbering::TcpSequence && self.repeats.is_repeat(packet, id);
        if repeated {
            state.sequence.retransmissions += 1;
        } else {
            // One identification for a whole batch.
            let length = if id.numbering == Numbering::IpId {
                1
            } else {
                id.length
            };
            let id = Identity { length, ..*id };
            state.sequence.arrive(packet.header.time_ns, &id);
        }
    }

    /// The rows of each direction in the order of the taps.
    #[must_use]
    pub fn finish(self, context: &Context<'_>) -> (Output, Vec<Problem>) {
        let mut rows: BTreeMap<RowKey, Totals> = BTreeMap::new();
        let mut sums = self.flows.into_rows();
        sums.sort_unstable_by_key(|(key, _)| (key.netns, key.ifindex, key.tap, key.flow));
        let mut batches: FxHashMap<u64, f64> = FxHashMap::default();
        for (key, state) in &sums {
            let here = state.segments as f64 / state.units.max(1) as f64;
            let most = batches.entry(key.flow).or_insert(1.0);
            *most = most.max(here);
        }
        for (key, state) in sums {
            let most = batches.get(&key.flow).copied().unwrap_or(1.0);
            let totals = rows.entry(state.row.clone()).or_default();
            if state.row.numbering == Numbering::IpId && state.is_cut(most) {
                totals.unnumbered += state.units;
            } else {
                totals.add(&state.sequence);
            }
        }
        for (row, count) in self.unnumbered {
            rows.entry(row).or_default().unnumbered += count;
        }
        let known = self.repeats.senders();
        let mut taps: Vec<Reordering> = Vec::new();
        let mut before: Option<(RowKey, u64)> = None;
        for (key, totals) in rows {
            let same = |other: &RowKey| {
                (
                    other.version,
                    other.source,
                    other.destination,
                    other.protocol,
                    other.numbering,
                ) == (
                    key.version,
                    key.source,
                    key.destination,
                    key.protocol,
                    key.numbering,
                )
            };
            let mut row = totals.row();
            // Where nothing has a number, nothing is known of what was added.
            let numbered = row.packets > 0;
            let previous = before
                .as_ref()
                .filter(|(other, _)| numbered && same(other))
                .map(|(_, count)| *count);
            row.added = previous.and_then(|count| {
                i64::try_from(i128::from(row.reordered) - i128::from(count)).ok()
            });
            let end = |bytes: &[u8; 16]| address::endpoint(key.version, bytes, None);
            row.tap = Tap::from_number(key.tap)
                .map_or_else(|| "?".to_owned(), |tap| tap.name().to_owned());
            row.namespace = context.namespace_name(key.netns);
            row.direction = format!("{} > {}", end(&key.source), end(&key.destination));
            row.numbering = format!(
                "{}, {}",
                address::protocol(key.protocol),
                key.numbering.name()
            );
            row.retransmissions_known = key.numbering != Numbering::TcpSequence
                || known.contains(&(key.version, key.source));
            if numbered {
                before = Some((key, row.reordered));
            }
            taps.push(row);
        }
        let mut problems = Vec::new();
        if self.uncounted > 0 {
            let message = format!("{} packets of too many flows were left out", self.uncounted);
            problems.push(Problem::data_loss("reordering", message));
        }
        if taps.len() > ROWS_MAX {
            let message = format!(
                "{} directions with few packets were left out",
                taps.len() - ROWS_MAX
            );
            problems.push(Problem::info("reordering", message));
            taps.sort_by_key(|row| std::cmp::Reverse(row.packets));
            taps.truncate(ROWS_MAX);
        }
        let beliefs = self.repeats.finish(context);
        (Output { taps, beliefs }, problems)
    }
}

fn row_key(packet: &event::Packet, id: &Identity) -> RowKey {
    RowKey {
        version: packet.ip_version,
        source: packet.saddr,
        destination: packet.daddr,
        protocol: packet.ip_proto,
        numbering: id.numbering,
        tap: packet.tap,
        netns: packet.netns,
    }
}
