//! What TCP senders sent twice, and what they believe about reordering.

use std::collections::{BTreeSet, VecDeque};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use vpnbench_common::catalog::Tap;
use vpnbench_common::event;

use crate::analysis::pairing::identity::{Identity, Unwrap};
use crate::analysis::{Context, address};
use crate::rows::Rows;

/// Retransmissions of one flow remembered until they have passed the last tap.
const REPEATS_MAX: usize = 2048;
/// Flows kept.
const FLOWS_MAX: usize = 1 << 14;

/// What a sender's TCP believes about reordering on its path (`struct tcp_sock`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TcpBelief {
    /// Local end.
    pub local: String,
    /// Remote end.
    pub remote: String,
    /// Namespace.
    pub namespace: String,
    /// `reord_seen` at the last segment: times reordering was detected.
    pub reord_seen: u32,
    /// `reordering` at the first segment, in segments; above the sysctl if cached metrics set it.
    pub reordering_first: u32,
    /// `reordering` at the last segment.
    pub reordering_last: u32,
    /// Largest `rack.reo_wnd_steps`: the reorder window in quarters of the minimum RTT.
    pub reo_wnd_steps_max: u8,
}

#[derive(Debug, Clone, Copy)]
struct Repeat {
    start: i64,
    end: i64,
    tsval: Option<u32>,
    ip_id: u32,
    units: u32,
}

#[derive(Debug, Clone)]
struct Sender {
    netns: u32,
    ifindex: u32,
    tap: u8,
    numbers: Unwrap,
    end: i64,
    repeats: VecDeque<Repeat>,
}

/// Retransmissions by flow, and beliefs by socket.
#[derive(Debug, Clone, Default)]
pub(super) struct Repeats {
    senders: Rows<u64, Sender>,
    sources: BTreeSet<(u8, [u8; 16])>,
    beliefs: Rows<(u32, u64), (Ends, TcpBelief)>,
}

type Ends = (u8, [u8; 16], u16, [u8; 16], u16);

impl Repeats {
    /// Whether a segment repeats data its sender had sent before. At the sender's first tap the range
    /// tells; later it is recognised.
    pub(super) fn is_repeat(&mut self, packet: &event::Packet, id: &Identity) -> bool {
        let leaves = [
            Tap::TunQueue as u8,
            Tap::OuterQueue as u8,
            Tap::TunTx as u8,
            Tap::OuterTx as u8,
        ];
        let known = self.senders.find(&id.flow, id.flow as u32);
        let row = match known {
            Some(row) => row,
            None => {
                if !leaves.contains(&packet.tap) || self.senders.len() >= FLOWS_MAX {
                    return false;
                }
                self.sources.insert((packet.ip_version, packet.saddr));
                let fresh = Sender {
                    netns: packet.netns,
                    ifindex: packet.ifindex,
                    tap: packet.tap,
                    numbers: Unwrap::default(),
                    end: i64::MIN,
                    repeats: VecDeque::new(),
                };
                self.senders.add(id.flow, fresh)
            }
        };
        let Some(sender) = self.senders.at(row) else {
            return false;
        };
        let first = (sender.netns, sender.ifindex, sender.tap)
            == (packet.netns, packet.ifindex, packet.tap);
        if first {
            sender.send(packet, id)
        } else {
            sender.knows(packet, id)
        }
    }

    /// Addresses of the senders that were seen.
    pub(super) fn senders(&self) -> BTreeSet<(u8, [u8; 16])> {
        self.sources.clone()
    }

    /// The state of a socket.
    pub(super) fn belief(&mut self, segment: &event::TcpProbe) {
        let key = (segment.netns, segment.sk);
        let ends = (
            segment.ip_version,
            segment.laddr,
            segment.lport,
            segment.raddr,
            segment.rport,
        );
        let fresh = || {
            (
                ends,
                TcpBelief {
                    reordering_first: segment.reordering,
                    ..TcpBelief::default()
                },
            )
        };
        let found = self
            .beliefs
            .get_or_add(key, (key.1 >> 7 ^ key.1) as u32, FLOWS_MAX, fresh);
        let Some((known, belief)) = found else {
            return;
        };
        if *known != ends {
            // The socket's address was used again.
            (*known, *belief) = fresh();
        }
        belief.reord_seen = segment.reord_seen;
        belief.reordering_last = segment.reordering;
        belief.reo_wnd_steps_max = belief.reo_wnd_steps_max.max(segment.reo_wnd_steps);
    }

    /// The beliefs of sockets that have seen reordering, or whose threshold moved.
    pub(super) fn finish(self, context: &Context<'_>) -> Vec<TcpBelief> {
        let rows = self
            .beliefs
            .into_rows()
            .into_iter()
            .map(|((netns, _), (ends, mut belief))| {
                let (version, laddr, lport, raddr, rport) = ends;
                belief.local = address::endpoint(version, &laddr, Some(lport));
                belief.remote = address::endpoint(version, &raddr, Some(rport));
                belief.namespace = context.namespace_name(netns);
                belief
            });
        let mut rows: Vec<TcpBelief> = rows.collect();
        rows.sort_by(|a, b| {
            let order = b.reord_seen.cmp(&a.reord_seen);
            let order = order.then_with(|| a.local.cmp(&b.local));
            order.then_with(|| (&a.remote, &a.namespace).cmp(&(&b.remote, &b.namespace)))
        });
        rows
    }
}

impl Sender {
    fn send(&mut self, packet: &event::Packet, id: &Identity) -> bool {
        let start = self.numbers.next(id.start, 32);
        let end = start + i64::from(id.length);
        if end > self.end {
            self.end = end;
            return false;
        }
        let timestamps = packet.flags & event::packet_flags::TIMESTAMPS != 0;
        self.repeats.push_back(Repeat {
            start,
            end,
            tsval: timestamps.then_some(packet.tsval),
            ip_id: packet.ip_id,
            units: packet.segments(),
        });
        if self.repeats.len() > REPEATS_MAX {
            self.repeats.pop_front();
        }
        true
    }

    fn knows(&self, packet: &event::Packet, id: &Identity) -> bool {
        if self.repeats.is_empty() {
            return false;
        }
        let start = self.numbers.peek(id.start, 32);
        let end = start + i64::from(id.length);
        let timestamps = packet.flags & event::packet_flags::TIMESTAMPS != 0;
        let tsval = timestamps.then_some(packet.tsval);
        self.repeats.iter().rev().any(|one| {
            let overlaps = one.start < end && start < one.end;
            let single = one.units == 1 && packet.segments() == 1;
            // Two transmissions within one tick of the timestamp clock: the IP ID decides.
            let same_id = !single || one.ip_id == 0 || one.ip_id == packet.ip_id;
            overlaps && one.tsval == tsval && same_id
        })
    }
}
