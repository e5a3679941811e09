//! Packets the kernel gave up, by device, reason and place.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use vpnbench_common::catalog::ProbeId;
use vpnbench_common::event;
use vpnbench_common::settings::role;

use super::books::{Reconciliation, Relation};
use super::devices::Devices;
use super::{Context, Problem, symbols};
use crate::trace::Event;

/// Functions that empty the queues of a socket that is closed: the packets had arrived, and nobody was
/// left to take them. `tcp_v4_destroy_sock` frees the out-of-order tree with `skb_rbtree_purge`, without
/// a reason; the lists go through `skb_queue_purge_reason` (net/core/skbuff.c; `skb_queue_purge` before
/// 6.7), those of a UDP socket through `udp_destruct_common` (net/ipv4/udp.c).
const PURGES: [&str; 7] = [
    "skb_rbtree_purge",
    "skb_queue_purge",
    "skb_queue_purge_reason",
    "__skb_queue_purge_reason",
    "inet_sock_destruct",
    "sk_stream_kill_queues",
    "udp_destruct_common",
];
/// Distinct (device, reason, place) combinations kept.
const KEYS_MAX: usize = 4096;
/// `udp_fail_queue_rcv_skb` with a full receive buffer (`-ENOMEM`).
const RECEIVE_BUFFER_FULL: i32 = -12;

/// Packets dropped for one reason at one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DropCount {
    /// Where on the path: `tun-queue`, `tun-qdisc`, `outer-qdisc`, `socket`, `tcp`, `socket-close`, or the
    /// role of the device.
    pub stage: String,
    /// Device; null where the dropped packet no longer has one.
    pub device: Option<String>,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// The kernel's drop reason.
    pub reason: String,
    /// Kernel function that dropped it; null if the trace has no symbol for the address.
    pub place: Option<String>,
    /// Units.
    pub units: u64,
    /// Wire segments.
    pub segments: u64,
    /// Bytes of the dropped skbs.
    pub bytes: u64,
}

/// What the drops came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// Most units first.
    pub drops: Vec<DropCount>,
    /// Receive-buffer overflows beside the kernel's counters.
    pub books: Vec<Reconciliation>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    netns: u32,
    ifindex: u32,
    role: u32,
    reason: u32,
    location: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    units: u64,
    segments: u64,
    bytes: u64,
}

/// Counts drops.
#[derive(Debug, Clone, Default)]
pub struct Drops {
    counts: BTreeMap<Key, Count>,
    sockets: BTreeMap<(u32, u8, i32), u64>,
    uncounted: u64,
}

impl Drops {
    /// Takes one event.
    pub fn observe(&mut self, event: &Event<'_>) {
        match event {
            Event::Drop(drop) => self.drop(drop),
            // UDP-Lite has counters of its own.
            Event::SockDrop(drop) if drop.ip_proto == 17 => {
                *self
                    .sockets
                    .entry((drop.netns, drop.ip_version, drop.error))
                    .or_default() += 1;
            }
            _ => {}
        }
    }

    fn drop(&mut self, drop: &event::Drop) {
        let key = Key {
            netns: drop.netns,
            ifindex: drop.ifindex,
            role: drop.role,
            reason: drop.reason,
            location: drop.location,
        };
        if self.counts.len() >= KEYS_MAX && !self.counts.contains_key(&key) {
            self.uncounted += 1;
            return;
        }
        let count = self.counts.entry(key).or_default();
        count.units += 1;
        count.segments += u64::from(drop.gso_segs.max(1));
        count.bytes += u64::from(drop.len);
    }

    /// The drops with names, and the books of the receive buffers.
    #[must_use]
    pub fn finish(self, context: &Context<'_>) -> (Output, Vec<Problem>) {
        let devices = Devices::new(context);
        let mut named: BTreeMap<Named, Count> = BTreeMap::new();
        for (key, count) in &self.counts {
            let reason = context.start.drop_reasons.get(&key.reason);
            let reason = reason
                .cloned()
                .unwrap_or_else(|| format!("reason {}", key.reason));
            let place = symbols::function(context.symbols, key.location).map(str::to_owned);
            let stage = stage(key.role, &reason, place.as_deref()).to_owned();
            let device = devices.name(key.netns, key.ifindex);
            let sum = named
                .entry((key.netns, device, stage, reason, place))
                .or_default();
            sum.units += count.units;
            sum.segments += count.segments;
            sum.bytes += count.bytes;
        }
        let books = self.receive_buffers(&named, context);
        let mut drops: Vec<DropCount> = named.into_iter().map(row).collect();
        drops.sort_by_key(|row| std::cmp::Reverse(row.units));
        let mut problems = Vec::new();
        if self.uncounted > 0 {
            let message = format!(
                "{} drops at too many places were not counted",
                self.uncounted
            );
            problems.push(Problem::data_loss("drops", message));
        }
        (Output { drops, books }, problems)
    }

    /// `UdpRcvbufErrors` counts each datagram refused with -12 (net/ipv4/udp.c,
    /// `__udp_queue_rcv_skb`), `Udp6RcvbufErrors` its IPv6 twin. net/ipv6/udp.c has that tracepoint since
    /// Linux 6.10 only; where it told nothing, the datagrams that were freed there are counted.
    fn receive_buffers(
        &self,
        named: &BTreeMap<Named, Count>,
        context: &Context<'_>,
    ) -> Vec<Reconciliation> {
        let mut lines = Vec::new();
        for namespace in &context.start.environment.namespaces {
            for (version, counter) in [(4, "UdpRcvbufErrors"), (6, "Udp6RcvbufErrors")] {
                let told = self
                    .sockets
                    .get(&(namespace.netns, version, RECEIVE_BUFFER_FULL));
                let freed = || match version {
                    6 => refused_by_udpv6(named, namespace.netns),
                    _ => 0,
                };
                let observed = context.attached(ProbeId::UdpFailQueueRcvSkb);
                let seen = observed.then(|| told.copied().unwrap_or_else(freed));
                let kernel = context.counter(namespace.netns, counter);
                let place = context.namespace_name(namespace.netns);
                lines.push(Reconciliation::new(
                    counter,
                    &place,
                    kernel,
                    seen,
                    Relation::Equal,
                ));
            }
        }
        lines
    }
}

/// Datagrams freed in net/ipv6/udp.c because a receive buffer was full.
fn refused_by_udpv6(named: &BTreeMap<Named, Count>, netns: u32) -> u64 {
    let there = named.iter().filter(|((at, _, _, reason, place), _)| {
        let place = place.as_deref().unwrap_or_default().trim_start_matches('_');
        *at == netns && reason == "SOCKET_RCVBUFF" && place.starts_with("udpv6_")
    });
    there.map(|(_, count)| count.units).sum()
}

/// Namespace, device, stage, reason, place.
type Named = (u32, Option<String>, String, String, Option<String>);

fn row(((netns, device, stage, reason, place), count): (Named, Count)) -> DropCount {
    DropCount {
        stage,
        device,
        netns,
        reason,
        place,
        units: count.units,
        segments: count.segments,
        bytes: count.bytes,
    }
}

/// Where on the path a drop happened, from the device's role, the reason and the function.
fn stage(device_role: u32, reason: &str, place: Option<&str>) -> &'static str {
    let tunnel = device_role == role::TUNNEL;
    match (reason, place) {
        ("QUEUE_PURGE", _) => "socket-close",
        (_, Some(place)) if PURGES.contains(&place) => "socket-close",
        ("FULL_RING", _) | (_, Some("tun_net_xmit")) if tunnel => "tun-queue",
        (reason, _) if reason.starts_with("QDISC_") && tunnel => "tun-qdisc",
        (reason, _) if reason.starts_with("QDISC_") => "outer-qdisc",
        ("SOCKET_RCVBUFF" | "PROTO_MEM" | "UDP_CSUM", _) => "socket",
        (reason, _) if reason.starts_with("TCP_") => "tcp",
        _ if tunnel => "tunnel-device",
        _ if device_role == role::OUTER => "outer-device",
        _ => "host",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_follow_device_reason_and_place() {
        assert_eq!(
            stage(role::TUNNEL, "FULL_RING", Some("tun_net_xmit")),
            "tun-queue"
        );
        assert_eq!(
            stage(role::TUNNEL, "DEV_READY", Some("tun_net_xmit")),
            "tun-queue"
        );
        assert_eq!(stage(role::OUTER, "QDISC_DROP", None), "outer-qdisc");
        assert_eq!(stage(role::NONE, "SOCKET_RCVBUFF", None), "socket");
        assert_eq!(
            stage(role::TUNNEL, "TCP_OLD_DATA", Some("tcp_data_queue")),
            "tcp"
        );
        assert_eq!(stage(role::NONE, "NOT_SPECIFIED", None), "host");
        for place in ["skb_rbtree_purge", "udp_destruct_common"] {
            let found = stage(role::OUTER, "NOT_SPECIFIED", Some(place));
            assert_eq!(found, "socket-close", "{place}");
        }
        assert_eq!(stage(role::NONE, "QUEUE_PURGE", None), "socket-close");
    }
}
