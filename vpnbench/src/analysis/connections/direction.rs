//! What one end of a connection sends to the other.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;
use vpnbench_common::event;

use super::sequence::Sequence;
use super::state::State;
use super::unseen::Unseen;
use super::validation::Validation;
use super::{FIN, Flow, SYN};
use crate::analysis::episodes::undo::Undos;
use crate::analysis::episodes::{EpisodeSums, Episodes, Undone};
use crate::analysis::limits::{self, Limits};
use crate::analysis::spurious::{Ack, Arrival, Mark, Repeat, Sent, Spurious, Tally};
use crate::analysis::what_if::board::Transmission;
use crate::analysis::what_if::ensemble::Budget;
use crate::analysis::what_if::replay::Arrived;
use crate::analysis::what_if::rules::Rules;
use crate::analysis::what_if::{self, WhatIf};

/// Segments between the receiver's device and its socket that are remembered.
const BELOW_SOCKET_MAX: usize = 256;
/// `TCP_CA_Loss`.
const LOSS: u8 = 4;

/// A direction, ended.
#[derive(Debug, Clone)]
pub struct TcpFlow {
    /// Inode number of the sender's namespace.
    pub netns: u32,
    /// Address and port of the sender.
    pub local: String,
    /// Address and port of the receiver.
    pub remote: String,
    /// What it did and what held it back.
    pub limits: limits::Output,
    /// Episodes, undos, DSACKs.
    pub sums: SenderSums,
    /// Segments sent again by what is known about them.
    pub spurious: Tally,
    /// Some of them, one by one.
    pub resent: Vec<Mark>,
    /// When its first event was, ns.
    pub began_ns: u64,
    /// What other settings would have done.
    pub what_if: what_if::Output,
}

/// What a sender's events add up to, beside the kernel's counters.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SenderSums {
    /// Fast recovery.
    pub recovery: EpisodeSums,
    /// After timeouts.
    pub loss: EpisodeSums,
    /// Undos.
    pub undos: Undos,
    /// Segments sent again without an event, by the socket's own count.
    pub unseen_retransmits: u64,
    /// Entries into fast recovery without an event, by the socket's own state.
    pub unseen_entries: u64,
    /// Segments that were on their way at the end of the recording.
    pub open_at_end: u64,
    /// Times that TCP saw reordering (`reord_seen`).
    pub reordered: u64,
    /// Acknowledgements with a DSACK block below the acknowledgement.
    pub dsacks_below: u64,
    /// Acknowledgements with a DSACK block above it.
    pub dsacks_above: u64,
    /// Units of data that reached this end and began below `rcv_nxt`.
    pub duplicates_received: u64,
    /// Units of data that reached this end and repeated some that waits above `rcv_nxt`.
    pub duplicates_above: u64,
    /// Of these, ones that repeated it in part only, or several segments at once.
    pub duplicates_joined: u64,
}

impl SenderSums {
    pub(super) fn add(&mut self, other: &SenderSums) {
        self.recovery.add(&other.recovery);
        self.loss.add(&other.loss);
        self.undos.add(&other.undos);
        self.unseen_retransmits += other.unseen_retransmits;
        self.unseen_entries += other.unseen_entries;
        self.open_at_end += other.open_at_end;
        self.reordered += other.reordered;
        self.dsacks_below += other.dsacks_below;
        self.dsacks_above += other.dsacks_above;
        self.duplicates_received += other.duplicates_received;
        self.duplicates_above += other.duplicates_above;
        self.duplicates_joined += other.duplicates_joined;
    }
}

/// Data that reaches the receiver.
#[derive(Debug, Clone, Copy)]
pub(super) struct Data {
    pub(super) time: u64,
    pub(super) seq: u32,
    pub(super) length: u32,
    pub(super) tsval: Option<u32>,
    pub(super) rcv_nxt: u32,
    /// TCP discards it.
    pub(super) discarded: bool,
}

/// One direction of a connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Direction {
    /// The sender's end, once an event of its socket was seen.
    pub(super) flow: Option<Flow>,
    pub(super) closed: bool,
    /// The sender's end has begun to close: nothing is seen reaching its socket any more.
    left: bool,
    /// Data that reached the receiver's device and was not yet seen to reach its socket.
    below_socket: VecDeque<Data>,
    /// Data was seen at the receiver's device.
    at_device: bool,
    sequence: Sequence,
    /// Where its packets are seen first.
    tap: Option<(u8, u32, u32)>,
    /// Where the receiver's segments reach the sender's host first.
    answers: Option<(u8, u32, u32)>,
    highest: u64,
    spurious: Spurious,
    episodes: Episodes,
    limits: Limits,
    what_if: WhatIf,
    validation: Validation,
    /// Nanoseconds of a jiffy of the sender's kernel.
    tick_ns: u64,
    dsacks: [u64; 2],
    duplicates: u64,
    /// Of the other direction: data that reached this end and repeated some above a gap.
    duplicates_above: u64,
    duplicates_joined: u64,
    unseen: Unseen,
}

impl Direction {
    /// A direction of which the sender is known from foreign captures.
    pub(super) fn captured() -> Direction {
        let mut direction = Direction::default();
        direction.what_if.measure_times_only();
        direction
    }

    /// Whether this tap is where this direction's packets are seen first.
    pub(super) fn at_tap(&mut self, packet: &event::Packet) -> bool {
        let here = (packet.tap, packet.netns, packet.ifindex);
        *self.tap.get_or_insert(here) == here
    }

    /// An event of the sender's socket says which end this is: it is the same with each of them, but for the
    /// namespace where the connection's packets were seen in several.
    #[inline]
    pub(super) fn sends_from(&mut self, netns: u32, flow: impl FnOnce() -> (Flow, Rules)) {
        if self.flow.is_none_or(|known| known.netns != netns) {
            let (flow, rules) = flow();
            self.tick_ns = rules.tick_ns;
            if self.flow.is_none() {
                self.what_if.set_rules(rules);
            }
            self.flow = Some(flow);
        }
    }

    /// The sender's device takes a segment or super-packet.
    pub(super) fn transmitted(&mut self, packet: &event::Packet) {
        let control =
            u32::from(packet.tcp_flags & SYN != 0) + u32::from(packet.tcp_flags & FIN != 0);
        let length = packet.payload_len + control;
        if length == 0 {
            return;
        }
        let start = self.sequence.place(packet.seq);
        let end = start + u64::from(length);
        if start < self.highest {
            if packet.flags & event::packet_flags::TIMESTAMPS != 0 {
                self.spurious.repeated_at_device(start, end, packet.tsval);
            }
            return;
        }
        self.highest = end;
        let segment = match packet.gso_size {
            0 => length,
            size => u32::from(size),
        };
        self.what_if.transmitted(&Transmission {
            time: packet.header.time_ns,
            start,
            end,
            segment,
        });
    }

    /// A segment of the receiver reaches the sender's device.
    pub(super) fn answered(&mut self, packet: &event::Packet) {
        let here = (packet.tap, packet.netns, packet.ifindex);
        if packet.ip_version == 4 && *self.answers.get_or_insert(here) == here {
            let time = packet.header.time_ns;
            self.spurious
                .answer_came(time, packet.ip_id, packet.segments());
        }
    }

    /// This end has begun to close.
    pub(super) fn leaves(&mut self, time: u64) {
        self.left = true;
        self.spurious.sender_left(time);
    }

    /// The other end has: what is still on its way is seen at its device at best.
    pub(super) fn left_by_receiver(&mut self, time: u64) {
        if !self.at_device {
            self.spurious.receiver_left(time);
        }
        for data in std::mem::take(&mut self.below_socket) {
            self.came_below_socket(&data);
        }
    }

    /// A segment reaches the device of the receiver, which `theirs` sends from.
    pub(super) fn reached_device(&mut self, packet: &event::Packet, theirs: &Direction) {
        let of_receiver = theirs.flow.is_some_and(|end| end.netns == packet.netns);
        let length = packet.payload_len + u32::from(packet.tcp_flags & FIN != 0);
        if !of_receiver || length == 0 || !self.spurious.receiver_seen() {
            return;
        }
        self.at_device = true;
        let timestamps = packet.flags & event::packet_flags::TIMESTAMPS != 0;
        let data = Data {
            time: packet.header.time_ns,
            seq: packet.seq,
            length,
            tsval: timestamps.then_some(packet.tsval),
            rcv_nxt: 0,
            discarded: true,
        };
        if theirs.left {
            self.came_below_socket(&data);
            return;
        }
        self.below_socket.push_back(data);
        if self.below_socket.len() > BELOW_SOCKET_MAX {
            self.below_socket.pop_front();
        }
    }

    fn came_below_socket(&mut self, data: &Data) {
        let start = self.sequence.place(data.seq);
        self.spurious.arrived(Arrival {
            start,
            end: start + u64::from(data.length),
            tsval: data.tsval,
            rcv_nxt: 0,
            time: data.time,
            discarded: true,
        });
    }

    /// What the socket takes is no longer below it: one segment, or several that were put together.
    fn reached_socket(&mut self, data: &Data) {
        let part = |one: &Data| one.seq.wrapping_sub(data.seq) < data.length;
        if let Some(at) = self.below_socket.iter().position(part) {
            self.below_socket.drain(..=at);
        }
        while self.below_socket.front().is_some_and(part) {
            self.below_socket.pop_front();
        }
    }

    /// Whether TCP discards a segment that reaches this end.
    pub(super) fn discards(&mut self, probe: &event::TcpProbe) -> bool {
        self.validation.discards(probe, self.tick_ns)
    }

    /// This end acknowledges what reached it.
    pub(super) fn acknowledges(&mut self, ack: u32) {
        self.validation.sent(ack);
    }

    /// An acknowledgement of this direction's data leaves the receiver's device.
    pub(super) fn ack_sent(&mut self, time: u64, ack: u32, pure: bool) {
        let ack = self.sequence.near(ack);
        self.limits.ack_sent(time, ack, pure);
    }

    /// Data of this direction reaches the receiver. Says whether some of it waits above a gap already.
    pub(super) fn arrived(&mut self, data: &Data) -> Option<Repeat> {
        let start = self.sequence.place(data.seq);
        let end = start + u64::from(data.length);
        let rcv_nxt = self.sequence.near(data.rcv_nxt);
        if !data.discarded {
            self.limits.data_arrived(data.time, start, end, rcv_nxt);
        }
        self.reached_socket(data);
        let repeats = self.spurious.arrived(Arrival {
            start,
            end,
            tsval: data.tsval,
            rcv_nxt,
            time: data.time,
            discarded: data.discarded,
        });
        repeats.filter(|_| start >= rcv_nxt)
    }

    /// Data of the other direction that reached this end repeated some above a gap.
    pub(super) fn repeated_above(&mut self, repeat: Repeat, segments: u16) {
        self.duplicates_above += 1;
        self.duplicates_joined += u64::from(repeat == Repeat::Partly || segments > 1);
    }

    /// A segment reaches this direction's sender: an acknowledgement. Returns the episode that was
    /// undone since the last event.
    pub(super) fn acknowledged(
        &mut self,
        probe: &event::TcpProbe,
        discarded: bool,
    ) -> Option<Undone> {
        let time = probe.header.time_ns;
        let state = State::from(probe);
        self.unseen.state(&state, 0);
        let undone = self.episodes.state(time, &state, true);
        self.limits.state(time, &state);
        let behind = probe.seq.wrapping_sub(probe.rcv_nxt) as i32;
        self.duplicates += u64::from(probe.payload_len > 0 && behind < 0);
        let una = self.sequence.place(state.snd_una);
        let ack = self.sequence.near(probe.ack);
        let (blocks, count) = blocks(probe, &self.sequence);
        let blocks = &blocks[..count];
        let dsack = dsack(blocks, ack);
        if let Some((start, _)) = dsack.filter(|_| !discarded) {
            self.dsacks[usize::from(start >= ack)] += 1;
        }
        let tsecr = (probe.options & 1 != 0).then_some(probe.tsecr);
        let tsval = tsecr.map(|_| probe.tsval);
        let mut sacked = [(0, 0); 4];
        let kept = blocks.iter().skip(usize::from(dsack.is_some()));
        for (slot, block) in sacked.iter_mut().zip(kept) {
            *slot = *block;
        }
        self.spurious.acknowledged(Ack {
            time,
            una,
            ack,
            tsecr,
            tsval,
            dsack,
            sacked,
            min_rtt: u64::from(state.min_rtt_us) * 1000,
            srtt: u64::from(state.srtt_8us) * 1000 / 8,
        });
        let pure = probe.payload_len == 0;
        if discarded {
            self.limits.acked(time, una, 0, pure, 0);
            self.what_if.discarded(tsecr);
            return undone;
        }
        let skip = usize::from(dsack.is_some());
        let arrived = Arrived {
            now: time,
            ack,
            blocks: &blocks[skip..],
            dsack: dsack.map(|one| one.1),
            tsecr,
            data: probe.payload_len > 0,
            high_seq: self.sequence.near(state.high_seq),
            tlp_high_seq: (state.tlp_high_seq != 0).then(|| self.sequence.near(state.tlp_high_seq)),
        };
        if let Some(rtt) = self.what_if.acknowledged(&arrived, &state, &self.spurious) {
            self.limits.rtt(rtt);
        }
        let sent = self.sequence.near(state.snd_nxt);
        let bytes = if ack <= sent {
            ack.saturating_sub(una)
        } else {
            0
        };
        self.limits.acked(time, ack, bytes, pure, state.srtt_8us);
        undone
    }

    /// The sender took back the window reduction of an episode.
    pub(super) fn undone(&mut self, undone: Undone) {
        let edge = self.sequence.near(undone.edge);
        self.spurious.undone(undone.episode, edge);
    }

    /// TCP sends a segment again. `cause` is what its cause depends on.
    pub(super) fn resent(&mut self, event: &event::Retransmit, cause: u32) {
        let time = event.header.time_ns;
        let state = State::from(event);
        self.unseen.state(&state, u32::from(event.segments.max(1)));
        let undone = self.episodes.state(time, &state, false);
        if let Some(undone) = undone {
            self.undone(undone);
        }
        if state.ca_state == LOSS && state.pending == 0 && state.retransmits > 0 {
            self.limits.timed_out(time);
        }
        self.limits.state(time, &state);
        if event.error != 0 {
            return;
        }
        let segments = u32::from(event.segments.max(1));
        self.episodes.resent(segments.into());
        self.limits.resent(time, segments.into());
        // The handshake is not seen at the receiver's `tcp_probe`.
        if event.tcp_flags & 2 != 0 {
            return;
        }
        let start = self.sequence.place(event.seq);
        let end = self.sequence.place(event.end_seq).max(start);
        self.what_if.resent(time, start, end, &state);
        self.spurious.resent(Sent {
            time,
            start,
            end,
            segments,
            key: cause,
            offset: self
                .limits
                .acked_bytes()
                .saturating_add(u64::from(event.seq.wrapping_sub(state.snd_una))),
            episode: self.episodes.current(),
        });
    }

    /// The sender's congestion state changes.
    pub(super) fn congestion(&mut self, event: &event::CongState) {
        let time = event.header.time_ns;
        let state = State::from(event);
        self.unseen.change(event.new, &state);
        let undone = self.episodes.change(time, event.new, &state);
        if let Some(undone) = undone {
            self.undone(undone);
        }
        self.what_if.congestion(time, event.new, &state);
        self.limits.state(time, &state);
    }

    /// The direction as a row, and the verdicts by cause. `now`: what happened later is not known.
    pub(super) fn finish(
        mut self,
        now: u64,
        hz: Option<u32>,
        budget: &mut Budget,
    ) -> (Option<TcpFlow>, FxHashMap<u32, Tally>) {
        if let Some(last) = self.limits.last() {
            self.episodes.finish(last);
        }
        self.spurious.ended(now);
        let what_if = self.what_if.finish(&self.spurious, budget);
        let resent = self.spurious.marks();
        let verdicts = self.spurious.finish();
        let Some(flow) = self.flow else {
            return (None, verdicts);
        };
        let mut spurious = Tally::default();
        for tally in verdicts.values() {
            spurious.add(tally);
        }
        let limits = self.limits.finish(hz);
        let (local, remote) = flow.names();
        let row = TcpFlow {
            netns: flow.netns,
            local,
            remote,
            limits,
            sums: SenderSums {
                recovery: self.episodes.recovery,
                loss: self.episodes.loss,
                undos: self.episodes.undos(),
                unseen_retransmits: self.unseen.retransmits,
                unseen_entries: self.unseen.entries,
                open_at_end: if self.closed { 0 } else { self.unseen.open() },
                reordered: self.unseen.reordered,
                dsacks_below: self.dsacks[0],
                dsacks_above: self.dsacks[1],
                duplicates_received: self.duplicates,
                duplicates_above: self.duplicates_above,
                duplicates_joined: self.duplicates_joined,
            },
            spurious,
            resent,
            began_ns: self.limits.began(),
            what_if,
        };
        (Some(row), verdicts)
    }
}

/// The SACK blocks and how many there are.
fn blocks(probe: &event::TcpProbe, sequence: &Sequence) -> ([(u64, u64); 4], usize) {
    let count = usize::from(probe.sack_count.min(4));
    let mut blocks = [(0, 0); 4];
    for (block, pair) in blocks[..count].iter_mut().zip(probe.sack.chunks_exact(2)) {
        let start = sequence.near(pair[0]);
        *block = (start, start + u64::from(pair[1].wrapping_sub(pair[0])));
    }
    (blocks, count)
}

/// The DSACK block (RFC 2883, section 4): the first one, below the acknowledgement or inside the
/// second.
fn dsack(blocks: &[(u64, u64)], ack: u64) -> Option<(u64, u64)> {
    let first = *blocks.first()?;
    let inside = blocks
        .get(1)
        .is_some_and(|second| first.0 >= second.0 && first.1 <= second.1);
    (first.0 < ack || inside).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dsack_is_below_the_ack_or_inside_the_second_block() {
        assert_eq!(dsack(&[(10, 20)], 15), Some((10, 20)));
        assert_eq!(dsack(&[(30, 40), (20, 50)], 15), Some((30, 40)));
        assert_eq!(dsack(&[(30, 40), (50, 60)], 15), None);
        assert_eq!(dsack(&[], 15), None);
    }
}
