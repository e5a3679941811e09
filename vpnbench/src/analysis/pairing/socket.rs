//! Receive queues of outer sockets: first in, first out per local port.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;
use vpnbench_common::event;

use super::amount::Amount;
use super::transit::inside_limit;
use super::units::Shape;
use crate::analysis::ledger::Account;
use crate::analysis::stages::{Backlog, Delays};

/// Datagram units kept per socket.
const UNITS_MAX: usize = 1 << 16;
/// Ports kept.
const PORTS_MAX: usize = 1024;
/// Units at the front looked at for one that fits.
const WINDOW: usize = 64;
/// Messages found by their address from which one that is not was never seen coming.
const KNOWN_LEAST: u64 = 64;

#[derive(Debug, Clone, Copy)]
struct Datagrams {
    skb: u64,
    unit: u64,
    time_ns: u64,
    shape: Shape,
    left: u32,
    bytes: u32,
}

#[derive(Debug, Clone, Default)]
struct Port {
    queue: VecDeque<Datagrams>,
    taken: bool,
    /// Messages that were found by their address, and those that had one and were not.
    known: u64,
    strange: u64,
}

impl Port {
    /// Whether the packet that comes in has the address of the message that is taken out. A packet that
    /// something else looks at, too, or that is put together from fragments has another one.
    fn keeps_addresses(&self) -> bool {
        self.known >= KNOWN_LEAST && self.strange * 20 < self.known
    }
}

/// What a process took out of a socket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TakenOut {
    /// The unit at `outer.rx`.
    pub(crate) unit: u64,
    /// Segments taken at once.
    pub(crate) segments: u32,
}

/// All sockets of a host.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sockets {
    ports: FxHashMap<u16, Port>,
    slowest_ns: u64,
    pub(crate) by_address: u64,
    pub(crate) by_order: u64,
    pub(crate) delays: Delays,
    pub(crate) account: Account,
    pub(crate) backlog: Backlog,
    vanished: Amount,
}

impl Sockets {
    /// A unit enters the network stack for a local port.
    pub(crate) fn come(&mut self, packet: &event::Packet, unit: u64) {
        if self.ports.len() >= PORTS_MAX && !self.ports.contains_key(&packet.dport) {
            self.account.evicted.add(packet.segments(), packet.len);
            return;
        }
        let shape = super::outer_shape(packet);
        let datagrams = Datagrams {
            skb: packet.skb,
            unit,
            time_ns: packet.header.time_ns,
            shape,
            left: packet.segments(),
            bytes: packet.len,
        };
        self.account.entered.add(packet.segments(), packet.len);
        self.backlog
            .come(packet.header.time_ns, packet.segments(), packet.len);
        let port = self.ports.entry(packet.dport).or_default();
        port.queue.push_back(datagrams);
        if port.queue.len() > UNITS_MAX
            && let Some(one) = port.queue.pop_front()
        {
            self.account.evicted.add(one.left, one.bytes_left());
            self.backlog.go(one.left, one.bytes_left());
        }
    }

    /// A process took one message.
    pub(crate) fn take(&mut self, taken: &event::Taken) -> Option<TakenOut> {
        let now = taken.header.time_ns;
        let port = self.ports.get_mut(&taken.port)?;
        port.taken = true;
        let by_address = if taken.skb == 0 {
            None
        } else {
            port.queue
                .iter()
                .take(WINDOW)
                .position(|one| one.skb == taken.skb && one.left == one.shape.segments)
        };
        // What is known by its address is not another one's.
        let strict = taken.skb != 0 && port.keeps_addresses();
        let found = by_address.or_else(|| {
            port.queue
                .iter()
                .take(WINDOW)
                .position(|one| one.fits(taken.len) && !(strict && one.shape.segments == 1))
        });
        if taken.skb != 0 {
            *match by_address {
                Some(_) => &mut port.known,
                None => &mut port.strange,
            } += 1;
        }
        let Some(at) = found else {
            if strict {
                let segments = u32::from(taken.gso_segs.max(1));
                self.account.appeared.add(segments, taken.len);
            }
            return None;
        };
        let one = port.queue.get_mut(at)?;
        let segments = if by_address.is_some() || one.shape.bytes() == taken.len {
            one.left
        } else {
            1
        };
        let bytes = one.share(segments);
        one.left -= segments;
        let (unit, came) = (one.unit, one.time_ns);
        if one.left == 0 {
            port.queue.remove(at);
        }
        self.slowest_ns = self.slowest_ns.max(now.saturating_sub(came));
        *if by_address.is_some() {
            &mut self.by_address
        } else {
            &mut self.by_order
        } += u64::from(segments);
        self.delays.record(came, now, segments);
        self.account.left.add(segments, bytes);
        self.backlog.go(segments, bytes);
        Some(TakenOut { unit, segments })
    }

    /// Port and place in its queue of the whole unit at an address.
    fn at_address(&self, skb: u64) -> Option<(u16, usize)> {
        self.ports.iter().find_map(|(port, one)| {
            // A datagram that does not fit is dropped as it comes: it is among the last.
            let first = one.queue.len().saturating_sub(WINDOW);
            let at = one
                .queue
                .range(first..)
                .rposition(|one| one.skb == skb && one.left == one.shape.segments)?;
            Some((*port, first + at))
        })
    }

    /// When the whole unit at an address came, ns.
    pub(crate) fn since(&self, skb: u64) -> Option<u64> {
        let (port, at) = self.at_address(skb)?;
        Some(self.ports.get(&port)?.queue.get(at)?.time_ns)
    }

    /// A packet that had entered the stack was dropped: the unit at its address, or, if the kernel had
    /// split a unit on its way into the socket, a part of the last one for its port.
    pub(crate) fn dropped(&mut self, skb: u64, packet: &event::Packet) -> bool {
        let at_address = self.at_address(skb);
        let found = at_address.or_else(|| {
            let queue = &self
                .ports
                .get(&packet.dport)
                .filter(|_| packet.ip_proto == 17)?
                .queue;
            let at = queue.len().checked_sub(1)?;
            let last = &queue[at];
            (last.shape.segments > 1 && packet.segments() == 1).then_some((packet.dport, at))
        });
        let Some((port, at)) = found else {
            return false;
        };
        let Some(port) = self.ports.get_mut(&port) else {
            return false;
        };
        let Some(one) = port.queue.get_mut(at) else {
            return false;
        };
        let segments = if at_address.is_some() { one.left } else { 1 };
        let bytes = one.share(segments);
        one.left -= segments;
        if one.left == 0 {
            port.queue.remove(at);
        }
        self.account.dropped.add(segments, bytes);
        self.backlog.go(segments, bytes);
        true
    }

    /// Closes the queues. Datagrams for ports that nobody was seen to read take no part.
    pub(crate) fn finish(&mut self, now: u64) {
        let limit = inside_limit(self.slowest_ns);
        for port in self.ports.values_mut() {
            for one in port.queue.drain(..) {
                let bytes = one.bytes_left();
                if !port.taken {
                    self.account
                        .entered
                        .take_parts(1, one.left, u64::from(bytes));
                } else if now.saturating_sub(one.time_ns) <= limit {
                    self.account.inside.add(one.left, bytes);
                } else {
                    self.vanished.add(one.left, bytes);
                }
            }
        }
    }
}

impl Datagrams {
    fn share(&self, segments: u32) -> u32 {
        self.bytes / self.shape.segments.max(1) * segments
    }

    fn bytes_left(&self) -> u32 {
        self.share(self.left)
    }

    fn fits(&self, len: u32) -> bool {
        let next = if self.left > 1 {
            self.shape.segment
        } else {
            self.shape.last
        };
        next == len || self.left == self.shape.segments && self.shape.bytes() == len
    }
}
