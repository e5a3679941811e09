//! The queues and daemons of one host (network namespace).

use vpnbench_common::event::{self, packet_flags};

use super::amount::Amount;
use super::carried::Carried;
use super::daemon::Daemon;
use super::identity::Identity;
use super::socket::Sockets;
use super::units::Shape;
use super::waiting::{Entry, Waiting};
use super::{KEEPALIVE_BYTES, handshake, has_counter};
use crate::analysis::ledger::Account;
use crate::analysis::stages::{Delays, Stage};

/// Places of reads remembered; a kernel has one or two.
const READ_PLACES: usize = 8;

/// A queue between two taps, with its times and its account.
#[derive(Debug, Clone, Default)]
pub(crate) struct Queue {
    pub(crate) waiting: Waiting,
    pub(crate) delays: Delays,
    pub(crate) account: Account,
}

/// A unit, or a part of one, that left a queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gone {
    pub(crate) time_ns: u64,
    pub(crate) unit: u64,
    pub(crate) whole: bool,
    pub(crate) id: Option<Identity>,
}

impl Queue {
    pub(crate) fn come(&mut self, skb: u64, entry: Entry) {
        self.account.entered.add(entry.segments, entry.bytes);
        self.waiting.insert(skb, entry);
    }

    /// A packet leaves at a tap that sees its headers: by address, else as part of a super-packet.
    pub(crate) fn go(&mut self, packet: &event::Packet, id: Option<&Identity>) -> Option<Gone> {
        let now = packet.header.time_ns;
        if let Some(gone) = self.go_address(packet.skb, now) {
            return Some(gone);
        }
        let part = self.waiting.take_part(packet, id?)?;
        self.leave(&part, now);
        Some(Gone {
            time_ns: part.time_ns,
            unit: part.unit,
            whole: false,
            id: part.id,
        })
    }

    pub(crate) fn go_address(&mut self, skb: u64, now: u64) -> Option<Gone> {
        let entry = self.waiting.take(skb, now)?;
        self.leave(&entry, now);
        Some(Gone {
            time_ns: entry.time_ns,
            unit: entry.unit,
            whole: true,
            id: entry.id,
        })
    }

    fn leave(&mut self, entry: &Entry, now: u64) {
        self.delays.record(entry.time_ns, now, entry.segments);
        self.account.left.add(entry.segments, entry.bytes);
    }

    fn drop(&mut self, skb: u64, now: u64) -> Option<Gone> {
        let entry = self.waiting.take(skb, now)?;
        self.account.dropped.add(entry.segments, entry.bytes);
        Some(Gone {
            time_ns: entry.time_ns,
            unit: entry.unit,
            whole: true,
            id: entry.id,
        })
    }

    fn drop_part(&mut self, packet: &event::Packet, id: &Identity) -> bool {
        let Some(part) = self.waiting.take_part(packet, id) else {
            return false;
        };
        self.account.dropped.add(part.segments, part.bytes);
        true
    }

    /// Closes the queue and its account.
    pub(crate) fn finish(&mut self, now: u64) {
        self.account.inside = self.waiting.finish(now);
        self.account.evicted = self.waiting.evicted;
    }
}

/// Packets that arrived lately: what the kernel drops of them, it drops within a few.
const ARRIVED: usize = 64;

/// The last packets that came in by an outer device.
#[derive(Debug, Clone)]
pub(crate) struct Arrivals {
    last: [(u64, u64); ARRIVED],
    next: usize,
}

impl Arrivals {
    pub(crate) fn add(&mut self, skb: u64, now: u64) {
        self.last[self.next % ARRIVED] = (skb, now);
        self.next += 1;
    }

    /// When a packet at this address came in last; 0 if none did lately.
    pub(crate) fn time(&self, skb: u64) -> u64 {
        let same = self.last.iter().filter(|one| one.0 == skb);
        same.map(|one| one.1).max().unwrap_or(0)
    }
}

/// One host.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    pub(crate) netns: u32,
    /// Whether packets passed a tunnel device here.
    pub(crate) has_tunnel: bool,
    /// Whether the tunnel is in the kernel.
    pub(crate) in_kernel: bool,
    /// Whether `outer.recv` is not observed or does not exist.
    pub(crate) without_recv: bool,
    /// Whether it is known from foreign captures only: no queue is seen.
    pub(crate) captured: bool,
    /// Whether outer packets carry WireGuard counters.
    pub(crate) wireguard: bool,
    /// Places in the kernel where reads of this host release their packets.
    read_at: Vec<u64>,
    pub(crate) tun_qdisc: Queue,
    pub(crate) tun_queue: Queue,
    pub(crate) outer_qdisc: Queue,
    pub(crate) arrivals: Arrivals,
    pub(crate) to_tcp: Queue,
    pub(crate) socket: Sockets,
    pub(crate) send: Daemon,
    pub(crate) send_delays: [Delays; 2],
    pub(crate) receive: Daemon,
    pub(crate) receive_delays: [Delays; 2],
    /// What came in and is the peer's own: not an inner packet, so nothing comes out for it.
    pub(crate) receive_own: Amount,
    /// Fragments sent and received on outer devices.
    pub(crate) fragments: (u64, u64),
    /// Inner and outer bytes in sums, on the way out and on the way in.
    pub(crate) carried: [Carried; 2],
}

impl Host {
    pub(crate) fn new(netns: u32) -> Host {
        Host {
            netns,
            has_tunnel: false,
            in_kernel: false,
            without_recv: false,
            captured: false,
            wireguard: false,
            read_at: Vec::new(),
            tun_qdisc: Queue::default(),
            tun_queue: Queue::default(),
            arrivals: Arrivals {
                last: [(0, 0); ARRIVED],
                next: 0,
            },
            outer_qdisc: Queue::default(),
            to_tcp: Queue::default(),
            socket: Sockets::default(),
            send: Daemon::default(),
            send_delays: Default::default(),
            receive: Daemon::default(),
            receive_delays: Default::default(),
            receive_own: Amount::default(),
            fragments: (0, 0),
            carried: Default::default(),
        }
    }

    /// Whether an outer packet is WireGuard's own: a handshake or a keepalive, or what else the daemon sends from the
    /// same socket. Batches are data; their first bytes can often not be read, so no counter is seen in them.
    pub(crate) fn is_own(&mut self, packet: &event::Packet) -> bool {
        let counter = has_counter(packet);
        self.wireguard |= counter;
        if counter {
            return packet.payload_len == KEEPALIVE_BYTES;
        }
        let read = packet.flags & packet_flags::UDP_READ != 0 || handshake(packet.payload_len);
        self.wireguard && packet.ip_proto == 17 && packet.segments() == 1 && read
    }

    /// Sums of a daemon's stage.
    pub(crate) fn carried(&self, stage: Stage) -> &Carried {
        &self.carried[usize::from(stage == Stage::DaemonReceive)]
    }

    /// An inner packet is in the daemon's hands.
    pub(crate) fn enter_send(&mut self, now: u64, tid: u32, unit: u64, shape: Shape) {
        self.carried[0].inner(shape);
        self.send.enter(now, tid, unit, shape);
    }

    /// An outer packet is in the daemon's hands. WireGuard's own packets are known for sure and stay
    /// out; another daemon's may be data that was sent twice, and are only counted.
    pub(crate) fn enter_receive(&mut self, now: u64, tid: u32, unit: u64, shape: Shape, own: bool) {
        if own && self.wireguard {
            return;
        }
        if own {
            self.receive_own.add(shape.segments, shape.bytes());
        }
        self.receive.enter(now, tid, unit, shape);
    }

    /// A packet that waited in the TUN ring was released here: that is what a read looks like.
    pub(crate) fn learn_read(&mut self, location: u64) {
        if location != 0 && !self.read_at.contains(&location) && self.read_at.len() < READ_PLACES {
            self.read_at.push(location);
        }
    }

    /// Whether a release at this place is a read.
    pub(crate) fn is_read(&self, location: u64) -> bool {
        self.read_at.contains(&location)
    }

    /// A segment reached its TCP socket.
    pub(crate) fn reached_tcp(&mut self, segment: &event::TcpProbe) {
        self.to_tcp.go_address(segment.skb, segment.header.time_ns);
    }

    /// The kernel dropped a packet: the stage it was in, if it was in one.
    pub(crate) fn dropped(
        &mut self,
        skb: u64,
        packet: &event::Packet,
        id: Option<&Identity>,
        now: u64,
    ) -> Option<(Stage, Option<Gone>)> {
        let queues = [
            (Stage::TunQdisc, &mut self.tun_qdisc),
            (Stage::TunQueue, &mut self.tun_queue),
            (Stage::OuterQdisc, &mut self.outer_qdisc),
            (Stage::ToTcp, &mut self.to_tcp),
        ];
        // What left a queue unseen is still listed there, and its address may be another packet's by now:
        // the one that came last is meant.
        let waiting = queues
            .into_iter()
            .filter_map(|(stage, queue)| Some((queue.waiting.since(skb)?, stage, queue)));
        let newest = waiting.max_by_key(|(since, ..)| *since);
        let in_socket = self.socket.since(skb);
        if let Some((since, stage, queue)) = newest
            && in_socket.is_none_or(|other| other < since)
            && let Some(gone) = queue.drop(skb, now)
        {
            return Some((stage, Some(gone)));
        }
        if self.socket.dropped(skb, packet) {
            return Some((Stage::OuterSocket, None));
        }
        let id = id?;
        let split = [
            (Stage::TunQdisc, &mut self.tun_qdisc),
            (Stage::OuterQdisc, &mut self.outer_qdisc),
        ];
        for (stage, queue) in split {
            if queue.drop_part(packet, id) {
                return Some((stage, None));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;

    use super::*;

    #[test]
    fn a_drop_is_that_of_the_last_packet_at_its_address() {
        let mut host = Host::new(1);
        let mut packet = event::Packet::zeroed();
        (packet.header.time_ns, packet.skb, packet.len) = (1, 7, 60);
        // A segment that its socket took without `tcp_probe`.
        host.to_tcp.come(7, Entry::new(&packet, 1, None));
        (packet.header.time_ns, packet.ip_proto, packet.dport) = (2, 17, 4600);
        host.socket.come(&packet, 2);
        let dropped = host.dropped(7, &packet, None, 3);
        assert_eq!(dropped.map(|one| one.0), Some(Stage::OuterSocket));
        let dropped = host.dropped(7, &packet, None, 4);
        assert_eq!(dropped.map(|one| one.0), Some(Stage::ToTcp));
    }

    #[test]
    fn arrivals_are_remembered_for_a_while() {
        let mut host = Host::new(7);
        host.arrivals.add(3, 10);
        host.arrivals.add(4, 11);
        host.arrivals.add(3, 12);
        assert_eq!([3, 4, 5].map(|skb| host.arrivals.time(skb)), [12, 11, 0]);
        for number in 0..ARRIVED as u64 {
            host.arrivals.add(100 + number, 20 + number);
        }
        assert_eq!([3, 100].map(|skb| host.arrivals.time(skb)), [0, 20]);
    }
}
