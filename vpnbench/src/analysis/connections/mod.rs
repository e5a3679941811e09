//! TCP connections: brings each event to the direction of the connection it belongs to.
//!
//! A direction is what one end sends to the other. Its sender is seen at its device (packets), in
//! `tcp_probe` (acknowledgements that reach it), `tcp_retransmit_skb` and `tcp_cong_state_set`;
//! its receiver in `tcp_probe` (data that reaches it) and at its device (acknowledgements it
//! sends). Both ends are the same connection if their addresses and ports are, whatever their
//! namespaces: nothing on the way translates addresses.
//!
//! A new SYN, or the closing of all sockets that were seen, ends a connection: ports may be used
//! again.

mod direction;
pub mod sequence;
pub mod state;
mod unseen;
mod validation;

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;
use vpnbench_common::catalog::Tap;
use vpnbench_common::event;

use super::limits::Point;
use super::retransmits::{self, ByCause, Flow, Retransmits};
use super::what_if::ensemble::Budget;
use super::what_if::rules::Rules;
use super::what_if::sender::Copies;
use super::what_if::summary::{Actual, Prediction, Sender, summary};
use super::what_if::throughput;
use super::{Context, Problem, address};
use crate::rows::Rows;
use crate::trace::Event;
use crate::trace::model::Start;
use direction::{Data, Direction};
pub use direction::{SenderSums, TcpFlow};

/// Connections that are followed at a time.
const LIVE_MAX: usize = 4096;
/// Where there is no room, connections of which nothing was seen for so long are taken to be over, ns: the
/// time that a closed one waits for stragglers (`TCP_TIMEWAIT_LEN`).
const IDLE_NS: u64 = 60_000_000_000;
/// Both ends have closed, and nothing was seen for so long, ns.
const CLOSED_NS: u64 = 1_000_000_000;
/// How often room is looked for, ns.
const LOOK_NS: u64 = 100_000_000;
/// Directions of ended connections that are kept one by one.
const ENDED_MAX: usize = 1024;
/// `IPPROTO_TCP`.
const TCP: u8 = 6;
/// `TCP_CLOSE`.
const CLOSE: u8 = 7;
/// `TCP_ESTABLISHED`.
const ESTABLISHED: u8 = 1;
const FIN: u16 = 1;
const SYN: u16 = 2;
const ACK: u16 = 0x10;

/// Address and port.
pub(super) type End = ([u8; 16], u16);

/// What the TCP analyses came to.
#[derive(Debug, Clone, Default)]
pub struct Output {
    /// The retransmit ledger.
    pub retransmits: retransmits::Output,
    /// Directions that carried data or sent something again, most acknowledged bytes first.
    pub flows: Vec<TcpFlow>,
    /// What other settings would have done.
    pub what_if: Vec<Prediction>,
}

/// Both ends, the lower one first; addresses as numbers in the order of their bytes, which are hashed and
/// compared quickly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key {
    version: u8,
    low: u128,
    low_port: u16,
    high: u128,
    high_port: u16,
}

#[derive(Debug, Clone, Default)]
struct Connection {
    /// From the lower end to the higher, and back.
    directions: [Direction; 2],
    /// Sequence number of the last SYN without ACK.
    syn: Option<u32>,
    /// Last event, ns.
    last_ns: u64,
    /// Which ends have sent a FIN.
    finished: [bool; 2],
}

/// Follows all connections.
#[derive(Debug, Clone, Default)]
pub struct Connections {
    live: Rows<Key, Box<Connection>>,
    ended: Vec<TcpFlow>,
    retransmits: Retransmits,
    unfollowed: u64,
    /// When room was last looked for, ns.
    looked_ns: u64,
    unlisted: u64,
    hz: Option<u32>,
    /// All that is known comes from foreign captures.
    captured: bool,
    rules: FxHashMap<u32, Rules>,
    /// What may still be simulated.
    budget: Budget,
}

impl Key {
    fn hint(&self) -> u32 {
        u32::from(self.low_port) ^ u32::from(self.high_port) << 3
    }
}

#[inline]
fn key(version: u8, from: End, to: End) -> (Key, usize) {
    let (from_port, to_port) = (from.1, to.1);
    let (version, from, to) = native(version, from.0, to.0);
    let ordered = from < to || from == to && from_port <= to_port;
    let (low, high) = if ordered { (from, to) } else { (to, from) };
    let (low_port, high_port) = if ordered {
        (from_port, to_port)
    } else {
        (to_port, from_port)
    };
    let key = Key {
        version,
        low,
        low_port,
        high,
        high_port,
    };
    (key, usize::from(!ordered))
}

impl Connections {
    /// Takes one event.
    pub fn observe(&mut self, event: &Event<'_>) {
        match event {
            Event::Packet(packet) if packet.ip_proto == TCP => self.packet(packet),
            Event::TcpProbe(probe) => self.probe(probe),
            Event::Retransmit(event) => self.retransmit(event),
            Event::CongState(event) => self.congestion(event),
            Event::SockState(event) => {
                self.retransmits.closed(event);
                if event.ip_proto == TCP && event.old == ESTABLISHED {
                    self.leave(event);
                }
                if event.ip_proto == TCP && event.new == CLOSE {
                    self.close(event);
                }
            }
            Event::SynAckRetransmit(event) => self.retransmits.synack(event),
            _ => {}
        }
    }

    /// Follows the connections of a recording with the settings it began with.
    #[must_use]
    pub fn of(start: &Start) -> Connections {
        let namespaces = start.environment.namespaces.iter();
        let captured = namespaces.clone().all(|one| one.captured);
        Connections {
            captured: captured && namespaces.len() > 0,
            hz: start.host.hz,
            rules: namespaces
                .map(|one| (one.netns, Rules::of(start, one.netns)))
                .collect(),
            ..Connections::default()
        }
    }

    fn connection(
        &mut self,
        key: Key,
        now: u64,
    ) -> Option<(&mut Box<Connection>, &FxHashMap<u32, Rules>)> {
        let row = match self.live.find(&key, key.hint()) {
            Some(row) => row,
            None => {
                if self.live.len() >= LIVE_MAX && !self.make_room(now) {
                    self.unfollowed += 1;
                    return None;
                }
                let mut connection = Box::<Connection>::default();
                if self.captured {
                    connection.directions = [Direction::captured(), Direction::captured()];
                }
                self.live.add(key, connection)
            }
        };
        let connection = self.live.at(row)?;
        connection.last_ns = now;
        Some((connection, &self.rules))
    }

    /// Ends connections that are over, as far as packets tell; whether there were any.
    fn make_room(&mut self, now: u64) -> bool {
        if self.looked_ns != 0 && now < self.looked_ns + LOOK_NS {
            return false;
        }
        self.looked_ns = now;
        let over = |one: &Connection| {
            let silent = now.saturating_sub(one.last_ns);
            silent >= IDLE_NS || silent >= CLOSED_NS && one.finished == [true; 2]
        };
        let live = self.live.iter();
        let over = live.filter(|(_, one)| over(one)).map(|(key, _)| *key);
        let mut over: Vec<Key> = over.collect();
        over.sort_unstable();
        for key in &over {
            self.end(*key, now);
        }
        !over.is_empty()
    }

    fn packet(&mut self, packet: &event::Packet) {
        let unreadable = packet.flags & event::packet_flags::TRUNCATED != 0;
        if unreadable || packet.is_later_fragment() {
            return;
        }
        let tap = Tap::from_number(packet.tap);
        let from = (packet.saddr, packet.sport);
        let to = (packet.daddr, packet.dport);
        let (key, index) = key(packet.ip_version, from, to);
        let sends = matches!(
            tap,
            Some(Tap::TunQueue | Tap::TunTx | Tap::OuterQueue | Tap::OuterTx)
        );
        if !sends {
            let arrives = matches!(tap, Some(Tap::TunWrite | Tap::OuterRx));
            if arrives && let Some(connection) = self.live.get(&key, key.hint()) {
                let [ours, theirs] = connection.pair(index);
                theirs.answered(packet);
                ours.reached_device(packet, theirs);
            }
            return;
        }
        let opens = packet.tcp_flags & (SYN | ACK) == SYN;
        if opens {
            self.opened(key, packet.seq, packet.header.time_ns);
        }
        let now = packet.header.time_ns;
        let found = if packet.payload_len == 0 && !opens {
            self.live.get(&key, key.hint())
        } else {
            self.connection(key, now).map(|found| found.0)
        };
        let Some(connection) = found else {
            return;
        };
        connection.last_ns = now;
        connection.finished[index] |= packet.tcp_flags & FIN != 0;
        let [ours, theirs] = connection.pair(index);
        if !ours.at_tap(packet) {
            return;
        }
        if packet.tcp_flags & ACK != 0 {
            theirs.ack_sent(now, packet.ack, packet.payload_len == 0);
            ours.acknowledges(packet.ack);
        }
        ours.transmitted(packet);
    }

    /// A SYN: the same ports with another initial sequence number are another connection.
    fn opened(&mut self, key: Key, seq: u32, now: u64) {
        let known = self.live.get(&key, key.hint()).map(|one| one.syn);
        if known.is_some_and(|known| known != Some(seq)) {
            self.end(key, now);
        }
        if let Some((connection, _)) = self.connection(key, now) {
            connection.syn = Some(seq);
        }
    }

    fn probe(&mut self, probe: &event::TcpProbe) {
        let local = (probe.laddr, probe.lport);
        let remote = (probe.raddr, probe.rport);
        let (key, index) = key(probe.ip_version, local, remote);
        let time = probe.header.time_ns;
        let Some((connection, rules)) = self.connection(key, time) else {
            return;
        };
        let fin = u32::from(probe.tcp_flags & FIN != 0);
        connection.finished[1 - index] |= fin != 0;
        let [ours, theirs] = connection.pair(index);
        ours.sends_from(probe.netns, || {
            let end = flow(probe.netns, probe.ip_version, local, remote);
            (end, known(rules, probe.netns))
        });
        let discarded = ours.discards(probe);
        if probe.payload_len + fin > 0 {
            let repeats = theirs.arrived(&Data {
                time,
                seq: probe.seq,
                length: probe.payload_len + fin,
                tsval: (probe.options & 1 != 0).then_some(probe.tsval),
                rcv_nxt: probe.rcv_nxt,
                discarded,
            });
            if let Some(repeat) = repeats {
                ours.repeated_above(repeat, probe.gso_segs);
            }
        }
        let undone = ours.acknowledged(probe, discarded);
        if let Some(undone) = undone {
            ours.undone(undone);
        }
    }

    fn retransmit(&mut self, event: &event::Retransmit) {
        let cause = self.retransmits.retransmit(event);
        let local = (event.laddr, event.lport);
        let remote = (event.raddr, event.rport);
        let (key, index) = key(event.ip_version, local, remote);
        let Some((connection, rules)) = self.connection(key, event.header.time_ns) else {
            return;
        };
        let [ours, _] = connection.pair(index);
        ours.sends_from(event.netns, || {
            let end = flow(event.netns, event.ip_version, local, remote);
            (end, known(rules, event.netns))
        });
        ours.resent(event, cause);
    }

    fn congestion(&mut self, event: &event::CongState) {
        self.retransmits.congestion(event);
        let local = (event.laddr, event.lport);
        let remote = (event.raddr, event.rport);
        let (key, index) = key(event.ip_version, local, remote);
        if let Some(connection) = self.live.get(&key, key.hint()) {
            let [ours, _] = connection.pair(index);
            ours.congestion(event);
        }
    }

    /// An end begins to close.
    fn leave(&mut self, event: &event::SockState) {
        let local = (event.laddr, event.lport);
        let remote = (event.raddr, event.rport);
        let (key, index) = key(event.ip_version, local, remote);
        if let Some(connection) = self.live.get(&key, key.hint()) {
            let time = event.header.time_ns;
            let [ours, theirs] = connection.pair(index);
            ours.leaves(time);
            theirs.left_by_receiver(time);
        }
    }

    fn close(&mut self, event: &event::SockState) {
        let local = (event.laddr, event.lport);
        let remote = (event.raddr, event.rport);
        let (key, index) = key(event.ip_version, local, remote);
        let Some(connection) = self.live.get(&key, key.hint()) else {
            return;
        };
        connection.directions[index].closed = true;
        let open = |one: &Direction| one.flow.is_some() && !one.closed;
        if !connection.directions.iter().any(open) {
            self.end(key, event.header.time_ns);
        }
    }

    fn end(&mut self, key: Key, now: u64) {
        let Some(connection) = self.live.remove(&key) else {
            return;
        };
        for direction in connection.directions {
            let (row, verdicts) = direction.finish(now, self.hz, &mut self.budget);
            self.retransmits.verdicts(verdicts);
            let Some(row) = row else { continue };
            if self.ended.len() < ENDED_MAX {
                self.ended.push(row);
            } else {
                self.unlisted += 1;
            }
        }
    }

    /// Ends all connections.
    #[must_use]
    pub fn finish(mut self, context: &Context<'_>) -> (Output, Vec<Problem>) {
        self.hz = context.start.host.hz;
        let mut keys: Vec<Key> = self.live.iter().map(|(key, _)| *key).collect();
        keys.sort_unstable();
        let end = context.end.map(|end| end.clock.monotonic_ns);
        for key in keys {
            let last = self.live.get(&key, key.hint()).map_or(0, |one| one.last_ns);
            self.end(key, end.unwrap_or(last));
        }
        let mut flows = std::mem::take(&mut self.ended);
        flows.sort_by_key(|one| std::cmp::Reverse(one.limits.acked_bytes));
        let mut problems = Vec::new();
        if self.unfollowed > 0 {
            let message = format!(
                "more than {LIVE_MAX} TCP connections at a time: {} events of others are not followed",
                self.unfollowed
            );
            problems.push(Problem::data_loss("flows", message));
        }
        if self.unlisted > 0 {
            let message = format!(
                "more than {ENDED_MAX} TCP flows: {} are in the sums only",
                self.unlisted
            );
            problems.push(Problem::info("flows", message));
        }
        let episodes = sums(&flows);
        let (retransmits, found) = self.retransmits.finish(context, episodes);
        problems.extend(found);
        let what_if = predictions(&flows, &retransmits);
        let output = Output {
            retransmits,
            flows,
            what_if,
        };
        (output, problems)
    }
}

fn predictions(flows: &[TcpFlow], retransmits: &retransmits::Output) -> Vec<Prediction> {
    let senders: Vec<Sender<'_>> = flows
        .iter()
        .map(|flow| Sender {
            output: &flow.what_if,
            throughput_bps: flow.limits.throughput_bps,
            peak_bps: peak(&flow.limits.series),
            absorption: absorbed(&flow.limits.series),
            cwnd_share: flow.limits.limited_by.map_or(0.0, |shares| shares.cwnd),
        })
        .collect();
    let known = retransmits.spurious.segments > 0 && !retransmits.verdicts_incomplete;
    summary(&senders, actual(retransmits, known))
}

/// Highest rate, bit/s.
fn peak(series: &[Point]) -> f64 {
    let rates = series.iter().map(|point| point.throughput_bps);
    rates.fold(0.0, f64::max)
}

/// How far round trips grew with the window.
fn absorbed(series: &[Point]) -> Option<f64> {
    let moving = series.iter().filter(|point| point.throughput_bps > 0.0);
    let points = moving.filter_map(|point| Some((f64::from(point.cwnd), point.srtt_us?)));
    throughput::absorption(points)
}

/// The causes as the model of other settings has them.
fn actual(retransmits: &retransmits::Output, spurious_known: bool) -> Actual {
    let (all, spurious) = (&retransmits.by_cause, &retransmits.spurious_by_cause);
    let copies = |of: fn(&ByCause) -> u64| {
        let spurious = if spurious_known { of(spurious) } else { 0 };
        Copies {
            needed: of(all).saturating_sub(spurious),
            spurious: spurious.min(of(all)),
        }
    };
    Actual {
        spurious_known,
        fast: copies(|one| one.rack + one.dupack + one.rack_timer),
        slow: copies(|one| one.rto + one.after_rto),
        probes: copies(|one| one.tlp),
        other: copies(|one| one.syn + one.pmtu + one.other),
    }
}

fn sums(flows: &[TcpFlow]) -> BTreeMap<u32, SenderSums> {
    let mut result: BTreeMap<u32, SenderSums> = BTreeMap::new();
    for flow in flows {
        result.entry(flow.netns).or_default().add(&flow.sums);
    }
    result
}

/// Both addresses as numbers in the order of their bytes; those of IPv4 as they are, also on a socket of IPv6 (RFC 4291,
/// section 2.5.5.2).
#[inline]
fn native(version: u8, local: [u8; 16], remote: [u8; 16]) -> (u8, u128, u128) {
    let (local, remote) = (u128::from_be_bytes(local), u128::from_be_bytes(remote));
    let mapped = |ip: u128| ip >> 32 == 0xffff;
    match version == 6 && mapped(local) && mapped(remote) {
        true => (4, local << 96, remote << 96),
        false => (version, local, remote),
    }
}

/// The settings of a namespace, or the kernel's own.
fn known(rules: &FxHashMap<u32, Rules>, netns: u32) -> Rules {
    rules.get(&netns).copied().unwrap_or_default()
}

pub(super) fn flow(netns: u32, version: u8, local: End, remote: End) -> Flow {
    let (local_port, remote_port) = (local.1, remote.1);
    let (version, local, remote) = native(version, local.0, remote.0);
    Flow {
        netns,
        version,
        local: (local.to_be_bytes(), local_port),
        remote: (remote.to_be_bytes(), remote_port),
    }
}

impl Connection {
    fn pair(&mut self, index: usize) -> [&mut Direction; 2] {
        let [low, high] = &mut self.directions;
        if index == 0 { [low, high] } else { [high, low] }
    }
}

impl Flow {
    /// Both ends as text.
    #[must_use]
    pub(super) fn names(&self) -> (String, String) {
        let name = |(ip, port): &End| address::endpoint(self.version, ip, Some(*port));
        (name(&self.local), name(&self.remote))
    }
}
