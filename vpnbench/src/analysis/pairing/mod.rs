//! The same packet at every tap it passes.
//!
//! | from | to | by |
//! | --- | --- | --- |
//! | `tun.queue` | `tun.tx` | address of the skb; parts of a super-packet that is segmented in between by flow and number |
//! | `tun.tx` | `tun.read` | address |
//! | `tun.read` | `outer.queue` | thread, order and size ([`daemon`]); through the far end where both ends are seen |
//! | `outer.queue` | `outer.tx` | address, parts as above |
//! | `outer.tx` | `outer.rx` of another host | flow and number ([`transit`]) |
//! | `outer.rx` | `outer.recv` | address, else first in first out per socket (drivers without `skb_consume_udp`, datagrams that the kernel split) |
//! | `outer.recv` | `tun.write` | thread, order and size |
//! | `tun.write` | `tcp.rx` | address |
//! | `tun.tx` | `tun.write` of another host | the inner packet's own flow and number |
//!
//! Tunnels in the kernel have no `tun.read` and no `outer.recv`: `tun.tx` and `outer.rx` take their
//! places. On a bare link the outer taps carry the traffic itself. Captures have no queues: `tun.tx` and
//! `outer.tx` take the places of `tun.read` and `outer.queue`.
//!
//! One pass, bounded memory: every table is limited by what is in flight, has a cap, and counts what it
//! gives up.

pub mod amount;
mod carried;
pub mod clock;
pub mod daemon;
mod finish;
mod host;
mod hosts;
pub mod identity;
pub mod journeys;
mod socket;
#[cfg(test)]
mod tests;
pub mod transit;
pub mod units;
mod waiting;

use rustc_hash::FxHashMap;
use vpnbench_common::catalog::Tap;
use vpnbench_common::event::{self, packet_flags};

use super::ledger::structure::Fates;
use super::stages::{Delays, Stage};
use crate::trace::Event;
pub use finish::Output;
use host::Host;
use identity::{Identity, between_hosts, identity};
use journeys::{Journey, Journeys};
use transit::{Closed, Hit, Transit};
use units::{Shape, Unit, Units};
use waiting::Entry;

/// Headers of an inner packet of which only the length is known: IPv4, TCP and its timestamps.
const HEADERS: u32 = 52;
/// Payload of a WireGuard keepalive: header and tag around nothing (whitepaper section 5.4.6).
const KEEPALIVE_BYTES: u32 = 32;

/// Follows packets through the taps.
#[derive(Debug, Clone, Default)]
pub struct Pairing {
    by_netns: FxHashMap<u32, u16>,
    /// The one that was asked for last.
    last_host: Option<(u32, u16)>,
    hosts: Vec<Host>,
    /// Namespaces with a tunnel.
    tunnels: Vec<u32>,
    /// Namespaces with a tunnel in the kernel, or of which no more is seen.
    kernel_tunnels: Vec<u32>,
    /// Namespaces known from foreign captures.
    captured: Vec<u32>,
    without_recv: bool,
    /// A capture of a single host: nothing that leaves it can be found elsewhere.
    alone: bool,
    inner: Units,
    outer: Units,
    /// Inner packets between tunnel devices.
    tunnel: Transit,
    /// Outer packets between hosts.
    wire: Transit,
    /// Delays and fates between hosts, by sender and receiver.
    between: FxHashMap<(u16, u16), Between>,
    fates: FxHashMap<u64, Fates>,
    journeys: Journeys,
    hits: Vec<Hit>,
    closed: Vec<Closed>,
    pairs: [Vec<daemon::Pair>; 2],
    elsewhere: amount::Amount,
    uncounted: u64,
    last_ns: u64,
}

/// What is known of one direction between two hosts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Between {
    /// `outer.tx` to `outer.rx`.
    pub(crate) wire: Delays,
    /// `tun.read` to `outer.queue`, through the far end.
    pub(crate) daemon_send: Delays,
    /// Pairs of the sender's daemon that the far end confirmed, and all it could check.
    pub(crate) confirmed: [u64; 2],
    pub(crate) checked: u64,
}

impl Pairing {
    /// Takes one event, in time order. Returns true for a `consume_skb` that is a TUN read.
    #[inline]
    pub fn observe(&mut self, event: &Event<'_>) -> bool {
        self.last_ns = self.last_ns.max(event.header().time_ns);
        match event {
            Event::Packet(packet) => {
                self.packet(packet);
                false
            }
            _ => self.other(event),
        }
    }

    fn other(&mut self, event: &Event<'_>) -> bool {
        match event {
            Event::Taken(taken) if taken.tap == Tap::TunRead as u8 => return self.read(taken),
            Event::Taken(taken) => self.received(taken),
            Event::TcpProbe(segment) => {
                if let Some(host) = self.host(segment.netns) {
                    self.hosts[host as usize].reached_tcp(segment);
                }
            }
            Event::Drop(drop) => self.drop(drop),
            _ => {}
        }
        false
    }

    #[inline]
    fn packet(&mut self, packet: &event::Packet) {
        let Some(tap) = Tap::from_number(packet.tap) else {
            return;
        };
        let Some(host) = self.host(packet.netns) else {
            return;
        };
        let one = &mut self.hosts[host as usize];
        if self.alone && !one.has_tunnel && matches!(tap, Tap::OuterTx | Tap::OuterRx) {
            // No queue, no daemon and no other host that anything could be looked for in.
            let fragment = u64::from(packet.frag & 0x3fff != 0);
            match tap {
                Tap::OuterTx => one.fragments.0 += fragment,
                _ => one.fragments.1 += fragment,
            }
            return;
        }
        self.at_tap(tap, host, packet);
    }

    fn at_tap(&mut self, tap: Tap, host: u16, packet: &event::Packet) {
        let id = identity(packet);
        match tap {
            Tap::TunQueue => self.tun_queue(host, packet, id),
            Tap::TunTx => self.tun_tx(host, packet, id),
            Tap::OuterQueue => self.outer_queue(host, packet, id),
            Tap::OuterTx => self.outer_tx(host, packet, id),
            Tap::OuterRx => self.outer_rx(host, packet, id),
            Tap::TunWrite => self.tun_write(host, packet, id),
            _ => {}
        }
    }

    fn tun_queue(&mut self, host: u16, packet: &event::Packet, id: Option<Identity>) {
        let unit = Unit {
            times: [packet.header.time_ns, 0, 0, 0],
            host,
            ..Unit::default()
        };
        let unit = self.inner.push(unit);
        let one = &mut self.hosts[host as usize];
        one.has_tunnel = true;
        one.tun_qdisc.come(packet.skb, Entry::new(packet, unit, id));
    }

    fn tun_tx(&mut self, host: u16, packet: &event::Packet, id: Option<Identity>) {
        let now = packet.header.time_ns;
        let one = &mut self.hosts[host as usize];
        one.has_tunnel = true;
        let entry = one.tun_qdisc.go(packet, id.as_ref());
        let queued = entry.map_or(0, |entry| entry.time_ns);
        let whole = entry.filter(|entry| entry.whole).map(|entry| entry.unit);
        let shape = inner_shape(packet);
        let fill = |unit: &mut Unit| {
            (unit.times[0], unit.times[1], unit.host, unit.shape) = (queued, now, host, shape);
        };
        let number = match whole.filter(|number| self.inner.get(*number).is_some()) {
            Some(number) => number,
            None => self.inner.push(Unit::default()),
        };
        if let Some(unit) = self.inner.get_mut(number) {
            fill(unit);
        }
        if let Some(id) = id.filter(|_| !self.alone) {
            let id = between_hosts(packet, id);
            self.tunnel
                .depart(host, packet, &id, number, &mut self.closed);
            self.note_fates(id.flow);
        }
        let one = &mut self.hosts[host as usize];
        if one.in_kernel {
            one.enter_send(now, 0, number, shape);
            if let Some(unit) = self.inner.get_mut(number) {
                unit.times[2] = now;
            }
        } else {
            one.tun_queue
                .come(packet.skb, Entry::new(packet, number, id));
        }
    }

    fn read(&mut self, taken: &event::Taken) -> bool {
        let Some(host) = self.host(taken.netns) else {
            return false;
        };
        let now = taken.header.time_ns;
        let one = &mut self.hosts[host as usize];
        let mut shape = taken_shape(taken);
        let number = if let Some(entry) = one.tun_queue.go_address(taken.skb, now) {
            one.learn_read(taken.location);
            if let Some(unit) = self.inner.get_mut(entry.unit) {
                unit.times[2] = now;
                shape = unit.shape;
            }
            entry.unit
        } else if one.is_read(taken.location) {
            // Read without having been seen on its way into the queue.
            one.tun_queue
                .account
                .appeared
                .add(shape.segments, taken.len);
            let unit = Unit {
                times: [0, 0, now, 0],
                host,
                shape,
                ..Unit::default()
            };
            self.inner.push(unit)
        } else {
            return false;
        };
        one.enter_send(now, taken.header.tid, number, shape);
        true
    }

    fn outer_queue(&mut self, host: u16, packet: &event::Packet, id: Option<Identity>) {
        let now = packet.header.time_ns;
        let shape = outer_shape(packet);
        let mut unit = Unit {
            times: [now, 0, 0, 0],
            host,
            shape,
            ..Unit::default()
        };
        self.leaves_daemon(host, packet, &mut unit);
        let one = &mut self.hosts[host as usize];
        one.carried[0].outer(packet, id.as_ref());
        let number = self.outer.push(unit);
        one.outer_qdisc
            .come(packet.skb, Entry::new(packet, number, id));
        one.fragments.0 += u64::from(packet.frag & 0x3fff != 0);
    }

    /// An outer packet comes out of the host's daemon: which inner packets it carries.
    fn leaves_daemon(&mut self, host: u16, packet: &event::Packet, unit: &mut Unit) {
        let now = packet.header.time_ns;
        let one = &mut self.hosts[host as usize];
        if !one.has_tunnel {
            return;
        }
        unit.own = one.is_own(packet);
        if unit.own {
            one.send.leave_own(packet.segments(), unit.shape.bytes());
            return;
        }
        let tid = packet.header.tid;
        let rest = one.send.leave(now, tid, unit.shape, &mut self.pairs);
        unit.own = rest == unit.shape.segments;
        for (rule, pairs) in self.pairs.iter().enumerate() {
            let ends = pairs.first().zip(pairs.last());
            unit.inner[rule] = ends.map_or((0, 0), |(first, last)| (first.unit, last.unit));
            for pair in pairs {
                one.send_delays[rule].record(pair.entered_ns, now, pair.segments);
            }
        }
    }

    fn outer_tx(&mut self, host: u16, packet: &event::Packet, id: Option<Identity>) {
        if self.hosts[host as usize].captured {
            return self.captured_tx(host, packet, id);
        }
        let now = packet.header.time_ns;
        let one = &mut self.hosts[host as usize];
        let entry = one.outer_qdisc.go(packet, id.as_ref());
        if let (None, Some(id)) = (&entry, &id)
            && self.wire.has_left(host, id)
        {
            one.outer_qdisc
                .account
                .duplicated
                .add(packet.segments(), packet.len);
        } else if entry.is_none() {
            one.outer_qdisc
                .account
                .originated
                .add(packet.segments(), packet.len);
        }
        let mut unit = entry
            .and_then(|entry| self.outer.get(entry.unit))
            .copied()
            .unwrap_or_default();
        (unit.times[1], unit.host, unit.shape) = (now, host, outer_shape(packet));
        let whole = entry.filter(|entry| entry.whole).map(|entry| entry.unit);
        let number = match whole.and_then(|number| Some((number, self.outer.get_mut(number)?))) {
            Some((number, place)) => {
                *place = unit;
                number
            }
            None => self.outer.push(unit),
        };
        if let Some(id) = id {
            let id = between_hosts(packet, id);
            self.wire
                .depart(host, packet, &id, number, &mut self.closed);
            self.note_fates(id.flow);
        }
    }

    /// Where no queue is seen, this is the first that is seen of an outer packet.
    fn captured_tx(&mut self, host: u16, packet: &event::Packet, id: Option<Identity>) {
        let now = packet.header.time_ns;
        let mut unit = Unit {
            times: [now, now, 0, 0],
            host,
            shape: outer_shape(packet),
            ..Unit::default()
        };
        self.leaves_daemon(host, packet, &mut unit);
        let number = self.outer.push(unit);
        let one = &mut self.hosts[host as usize];
        one.carried[0].outer(packet, id.as_ref());
        one.fragments.0 += u64::from(packet.frag & 0x3fff != 0);
        if let Some(id) = id.filter(|_| !self.alone) {
            let id = between_hosts(packet, id);
            self.wire
                .depart(host, packet, &id, number, &mut self.closed);
            self.note_fates(id.flow);
        }
    }

    fn outer_rx(&mut self, host: u16, packet: &event::Packet, id: Option<Identity>) {
        let now = packet.header.time_ns;
        self.hits.clear();
        self.hosts[host as usize].arrivals.add(packet.skb, now);
        if let Some(id) = id {
            let id = between_hosts(packet, id);
            self.wire.arrive(host, packet, &id, &mut self.hits);
        }
        for hit in &self.hits {
            let from = self.outer.get(hit.unit).map_or(host, |unit| unit.host);
            let fresh = hit.segments - hit.duplicates;
            if from != host && fresh > 0 {
                let between = self.between.entry((from, host)).or_default();
                between.wire.record(hit.departed_ns, now, fresh);
            }
        }
        let first = self.hits.first().and_then(|hit| self.outer.get(hit.unit));
        let mut unit = first.copied().unwrap_or_default();
        (unit.times[2], unit.shape) = (now, outer_shape(packet));
        let number = self.outer.push(unit);
        let one = &mut self.hosts[host as usize];
        one.carried[1].outer(packet, id.as_ref());
        one.fragments.1 += u64::from(packet.frag & 0x3fff != 0);
        let own = unit.own || one.is_own(packet);
        let established = packet.tcp_flags & 0x7 == 0;
        if !one.has_tunnel {
            if packet.ip_proto == 6 && established && !one.captured {
                one.to_tcp.come(packet.skb, Entry::new(packet, number, id));
            }
        } else if packet.is_later_fragment() || packet.ip_proto != 17 && !one.without_recv {
            // The first fragment stands for the datagram; streams have no datagrams.
        } else if one.without_recv {
            one.enter_receive(now, 0, number, unit.shape, own);
        } else {
            one.socket.come(packet, number);
        }
    }

    fn received(&mut self, taken: &event::Taken) {
        let Some(host) = self.host(taken.netns) else {
            return;
        };
        let one = &mut self.hosts[host as usize];
        let now = taken.header.time_ns;
        let taken_out = one.socket.take(taken);
        let mut shape = taken_shape(taken);
        let mut number = 0;
        let mut own = false;
        if let Some(found) = taken_out {
            number = found.unit;
            if let Some(unit) = self.outer.get_mut(number) {
                unit.times[3] = now;
                own = unit.own;
                if found.segments == unit.shape.segments {
                    shape = unit.shape;
                }
            }
        }
        let control = one.wireguard && (taken.len == KEEPALIVE_BYTES || handshake(taken.len));
        if one.has_tunnel && taken.ip_proto == 17 {
            one.enter_receive(now, taken.header.tid, number, shape, own || control);
        }
    }

    fn tun_write(&mut self, host: u16, packet: &event::Packet, id: Option<Identity>) {
        let now = packet.header.time_ns;
        let one = &mut self.hosts[host as usize];
        one.has_tunnel = true;
        let tid = if one.in_kernel { 0 } else { packet.header.tid };
        let shape = inner_shape(packet);
        one.carried[1].inner(shape);
        one.receive.leave(now, tid, shape, &mut self.pairs);
        for (delays, pairs) in one.receive_delays.iter_mut().zip(&self.pairs) {
            for pair in pairs {
                delays.record(pair.entered_ns, now, pair.segments);
            }
        }
        let rule = one.receive.better([0; 2], 0);
        if packet.ip_proto == 6 && packet.tcp_flags & 0x7 == 0 && !one.captured {
            one.to_tcp.come(packet.skb, Entry::new(packet, 0, id));
        }
        self.hits.clear();
        if let Some(id) = id {
            let id = between_hosts(packet, id);
            self.tunnel.arrive(host, packet, &id, &mut self.hits);
        }
        let outer = self.pairs[rule as usize]
            .first()
            .and_then(|pair| self.outer.get(pair.unit))
            .copied();
        if let Some(hit) = self.hits.first() {
            self.crossed(host, now, *hit, outer);
        }
    }

    /// An inner packet has come through: what is known of its way.
    fn crossed(&mut self, host: u16, now: u64, hit: Hit, outer: Option<Unit>) {
        let Some(inner) = self.inner.get_mut(hit.unit) else {
            return;
        };
        inner.arrived = true;
        let inner = *inner;
        let between = self.between.entry((inner.host, host)).or_default();
        let mut journey = Journey::new(inner.host, host, &inner, now);
        if let Some(outer) = outer.filter(|outer| outer.host == inner.host && outer.times[0] != 0) {
            let fresh = hit.segments - hit.duplicates;
            // Only an order that can be: read before sent.
            if inner.times[2] != 0 && outer.times[0] >= inner.times[2] && fresh > 0 {
                between
                    .daemon_send
                    .record(inner.times[2], outer.times[0], fresh);
            }
            if outer.inner != [(0, 0); 2] {
                between.checked += 1;
                for (confirmed, inner) in between.confirmed.iter_mut().zip(outer.inner) {
                    *confirmed += u64::from((inner.0..=inner.1).contains(&hit.unit));
                }
            }
            journey.add_outer(&inner, &outer, now);
        }
        if hit.duplicates == 0 {
            self.journeys.add(journey);
        }
    }

    fn note_fates(&mut self, flow: u64) {
        if self.closed.is_empty() {
            return;
        }
        let fates = self.fates.entry(flow).or_default();
        for one in self.closed.drain(..) {
            fates.add(&one);
        }
    }

    fn drop(&mut self, drop: &event::Drop) {
        let Some(host) = self.by_netns.get(&drop.netns).copied() else {
            return;
        };
        let now = drop.header.time_ns;
        let packet = as_packet(drop);
        let id = identity(&packet);
        let one = &mut self.hosts[host as usize];
        if let Some((stage, entry)) = one.dropped(drop.skb, &packet, id.as_ref(), now) {
            if stage == Stage::TunQueue
                && let Some(id) = entry.and_then(|entry| entry.id)
            {
                let id = between_hosts(&packet, id);
                self.tunnel.dropped(&packet, &id, 0);
            }
            return;
        }
        // What left before a packet at the same address came in here is another one.
        let since = one.arrivals.time(drop.skb);
        let on_wire = id.and_then(|id| {
            let id = between_hosts(&packet, id);
            self.wire.dropped(&packet, &id, since)
        });
        if on_wire.is_none() {
            self.elsewhere.add(packet.segments(), packet.len);
        }
    }
}

/// Sizes of the inner packets in a unit at the tunnel device: with headers, without a link layer.
fn inner_shape(packet: &event::Packet) -> Shape {
    let l3 = packet.len.saturating_sub(u32::from(packet.l2_len));
    let headers = l3.saturating_sub(packet.payload_len);
    let size = u32::from(packet.gso_size);
    Shape::cut(headers, packet.payload_len, size, packet.segments())
}

/// Sizes of the datagrams in a unit at the outer device: payload only.
fn outer_shape(packet: &event::Packet) -> Shape {
    let size = u32::from(packet.gso_size);
    Shape::cut(0, packet.payload_len, size, packet.segments())
}

/// Sizes of what a process took, as at the device in front of it: inner packets of a tunnel device with
/// headers, datagrams of a socket without.
fn taken_shape(taken: &event::Taken) -> Shape {
    let len = taken.len.saturating_sub(u32::from(taken.l2_len));
    let segments = u32::from(taken.gso_segs.max(1));
    let of_device = taken.tap == Tap::TunRead as u8;
    match (taken.gso_size, taken.header_len) {
        // Of a trace that does not have it, or of a packet whose headers could not be read.
        (0, _) | (_, 0) if of_device => Shape::of(len, segments, HEADERS),
        (0, _) => Shape::of(len, segments, 0),
        (size, headers) => {
            let headers = u32::from(headers);
            Shape::cut(headers, len.saturating_sub(headers), size.into(), segments)
        }
    }
}

/// Sizes of WireGuard's handshake messages: initiation, response, cookie (whitepaper section 5.4).
fn handshake(len: u32) -> bool {
    matches!(len, 148 | 92 | 64)
}

fn as_packet(drop: &event::Drop) -> event::Packet {
    let mut packet: event::Packet = bytemuck::Zeroable::zeroed();
    let from = &bytemuck::bytes_of(drop)[..size_of::<event::Packet>()];
    bytemuck::bytes_of_mut(&mut packet).copy_from_slice(from);
    packet
}

/// Whether a packet carries a WireGuard counter.
fn has_counter(packet: &event::Packet) -> bool {
    packet.flags & packet_flags::WIREGUARD != 0
}
