//! Carries the faults out. Pure: time arrives as an argument, packets go in and come out.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::account::{Cause, Copied};
use super::faults::{DirectionFaults, Reorder, Select, StartPolicy};
use super::packet::Packet;

/// Decides which packets a fault hits.
#[derive(Debug)]
pub(super) struct Selector {
    select: Option<Select>,
    seen: u64,
    random: StdRng,
}

impl Selector {
    /// `number` tells the faults of one end apart, so that each has random choices of its own.
    pub(super) fn new(select: Option<Select>, seed: u64, number: u64) -> Selector {
        // splitmix64's increment: neighbouring seeds and numbers do not meet.
        let seed = seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Selector {
            select,
            seen: 0,
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// Whether the next packet is hit.
    pub(super) fn hits(&mut self) -> bool {
        let Some(select) = self.select else {
            return false;
        };
        self.seen += 1;
        match (select.every, select.probability) {
            (Some(every), _) => self.seen.is_multiple_of(every),
            (None, Some(probability)) => self.random.random_bool(probability),
            (None, None) => false,
        }
    }
}

/// Faults before encryption (decryption).
#[derive(Debug)]
pub(super) struct Entry {
    opens_at: u64,
    policy: StartPolicy,
    size_limit: Option<u32>,
    drop: Selector,
}

impl Entry {
    /// For one direction (0 transmit, 1 receive) that starts at `now`.
    pub(super) fn new(faults: &DirectionFaults, seed: u64, direction: u64, now: u64) -> Entry {
        let delay = faults.start_delay.map_or(0, |delay| delay.nanoseconds());
        Entry {
            opens_at: now.saturating_add(delay),
            policy: faults.start_policy,
            size_limit: faults.size_limit,
            drop: Selector::new(faults.drop_entry, seed, direction * 16 + 1),
        }
    }

    /// Time until anything may be read at all.
    pub(super) fn wait(&self, now: u64) -> u64 {
        match self.policy {
            StartPolicy::Wait => self.opens_at.saturating_sub(now),
            StartPolicy::Drop => 0,
        }
    }

    /// Why a packet with `length` inner bytes does not get in.
    pub(super) fn refuses(&mut self, length: u32, now: u64) -> Option<Cause> {
        if now < self.opens_at {
            return Some(Cause::StartDelay);
        }
        if self.size_limit.is_some_and(|limit| length > limit) {
            return Some(Cause::SizeLimit);
        }
        self.drop.hits().then_some(Cause::DropEntry)
    }
}

/// Faults after encryption (decryption), and the packets that wait in them.
#[derive(Debug)]
pub(super) struct Exit {
    drop: Selector,
    duplicate: Selector,
    retransmit: Selector,
    retransmit_after: u64,
    reorder: Option<Reorder>,
    delay: u64,
    ack_delay: Option<(u64, u32)>,
    /// Packets that came to the reorder fault.
    passed: u64,
    /// Held by the reorder fault.
    held: VecDeque<Held>,
    /// Waiting for their time.
    waiting: BinaryHeap<Reverse<Waiting>>,
    /// Keeps packets with the same due time in order.
    ticket: u64,
    effects: Effects,
}

/// What the exit did, besides losing and copying.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Effects {
    /// Packets held back by the reorder fault.
    pub(super) reordered: u64,
    /// Of these, those that left because of the time limit instead of the packets behind them.
    pub(super) reorder_timeouts: u64,
    /// Packets that waited for `delay`.
    pub(super) delayed: u64,
    /// Packets that waited for `ack_delay`.
    pub(super) acks_delayed: u64,
}

#[derive(Debug)]
struct Held {
    packet: Packet,
    leaves_after: u64,
    limit: u64,
}

#[derive(Debug)]
struct Waiting {
    due: u64,
    ticket: u64,
    packet: Packet,
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Waiting) -> bool {
        (self.due, self.ticket) == (other.due, other.ticket)
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Waiting) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Waiting) -> std::cmp::Ordering {
        (self.due, self.ticket).cmp(&(other.due, other.ticket))
    }
}

impl Exit {
    /// For one direction (0 transmit, 1 receive).
    pub(super) fn new(faults: &DirectionFaults, seed: u64, direction: u64) -> Exit {
        let selector = |select, number| Selector::new(select, seed, direction * 16 + number);
        let retransmit = faults.retransmit;
        Exit {
            drop: selector(faults.drop_exit, 2),
            duplicate: selector(faults.duplicate, 3),
            retransmit: selector(retransmit.map(|retransmit| retransmit.select), 4),
            retransmit_after: retransmit.map_or(0, |retransmit| retransmit.after.nanoseconds()),
            reorder: faults.reorder,
            delay: faults.delay.map_or(0, |delay| delay.nanoseconds()),
            ack_delay: faults
                .ack_delay
                .map(|ack| (ack.delay.nanoseconds(), ack.max_bytes)),
            passed: 0,
            held: VecDeque::new(),
            waiting: BinaryHeap::new(),
            ticket: 0,
            effects: Effects::default(),
        }
    }

    /// Takes a packet; what may leave now is appended to `out`. Returns it if it is lost.
    pub(super) fn push(
        &mut self,
        packet: Packet,
        now: u64,
        out: &mut Vec<Packet>,
    ) -> Option<Packet> {
        if self.drop.hits() {
            return Some(packet);
        }
        let duplicate = self
            .duplicate
            .hits()
            .then(|| packet.copy(Copied::Duplicate));
        if self.retransmit.hits() {
            let copy = packet.copy(Copied::Retransmit);
            self.wait(copy, now.saturating_add(self.retransmit_after));
        }
        self.reorder(packet, now, out);
        if let Some(copy) = duplicate {
            self.leave(copy, now, out);
        }
        None
    }

    /// Holds a packet back, or lets it go and then those that waited for it.
    fn reorder(&mut self, mut packet: Packet, now: u64, out: &mut Vec<Packet>) {
        let Some(reorder) = self.reorder else {
            return self.leave(packet, now, out);
        };
        self.passed += 1;
        if self.passed.is_multiple_of(reorder.every) {
            self.effects.reordered += 1;
            packet.held = true;
            self.held.push_back(Held {
                packet,
                leaves_after: self.passed + reorder.by,
                limit: now.saturating_add(reorder.at_most.nanoseconds()),
            });
        } else {
            self.leave(packet, now, out);
        }
        while self
            .held
            .front()
            .is_some_and(|held| held.leaves_after <= self.passed)
        {
            if let Some(held) = self.held.pop_front() {
                self.leave(held.packet, now, out);
            }
        }
    }

    fn leave(&mut self, packet: Packet, now: u64, out: &mut Vec<Packet>) {
        let ack = self.ack_delay.filter(|(_, size)| {
            let bare = packet
                .inner
                .as_ref()
                .is_some_and(|inner| inner.is_bare_tcp());
            bare && packet.length <= *size
        });
        if let Some((delay, _)) = ack {
            self.effects.acks_delayed += 1;
            self.wait(packet, now.saturating_add(self.delay).saturating_add(delay));
        } else if self.delay > 0 {
            self.effects.delayed += 1;
            self.wait(packet, now.saturating_add(self.delay));
        } else {
            out.push(packet);
        }
    }

    fn wait(&mut self, packet: Packet, due: u64) {
        self.ticket += 1;
        self.waiting.push(Reverse(Waiting {
            due,
            ticket: self.ticket,
            packet,
        }));
    }

    /// Appends what has become due.
    pub(super) fn due(&mut self, now: u64, out: &mut Vec<Packet>) {
        while self.held.front().is_some_and(|held| held.limit <= now) {
            if let Some(held) = self.held.pop_front() {
                self.effects.reorder_timeouts += 1;
                self.leave(held.packet, now, out);
            }
        }
        while self
            .waiting
            .peek()
            .is_some_and(|Reverse(waiting)| waiting.due <= now)
        {
            if let Some(Reverse(waiting)) = self.waiting.pop() {
                out.push(waiting.packet);
            }
        }
    }

    /// When the next packet becomes due.
    pub(super) fn next_due(&self) -> Option<u64> {
        let waiting = self.waiting.peek().map(|Reverse(waiting)| waiting.due);
        let held = self.held.front().map(|held| held.limit);
        waiting.into_iter().chain(held).min()
    }

    /// Everything still inside, at the end.
    pub(super) fn drain(&mut self) -> Vec<Packet> {
        let held = self.held.drain(..).map(|held| held.packet);
        held.chain(self.waiting.drain().map(|Reverse(waiting)| waiting.packet))
            .collect()
    }

    /// Whether inner headers are needed.
    pub(super) fn needs_inner(faults: &DirectionFaults) -> bool {
        faults.ack_delay.is_some()
    }

    /// What it did so far.
    pub(super) fn effects(&self) -> Effects {
        self.effects
    }
}

#[cfg(test)]
mod tests {
    use super::super::faults::{AckDelay, Retransmit};
    use super::super::inner::Inner;
    use super::super::span::Span;
    use super::*;

    fn packet(number: u64) -> Packet {
        Packet {
            sequence: number,
            ..Packet::new(vec![0; 60], 44, 0)
        }
    }

    fn run(faults: &DirectionFaults, count: u64) -> (Vec<u64>, u64, Exit) {
        let mut exit = Exit::new(faults, 7, 0);
        let (mut out, mut lost) = (Vec::new(), 0);
        for number in 1..=count {
            lost += u64::from(exit.push(packet(number), number, &mut out).is_some());
        }
        (
            out.iter().map(|packet| packet.sequence).collect(),
            lost,
            exit,
        )
    }

    #[test]
    fn without_faults_nothing_happens() {
        let (out, lost, exit) = run(&DirectionFaults::default(), 5);
        assert_eq!((out, lost, exit.next_due()), (vec![1, 2, 3, 4, 5], 0, None));
    }

    #[test]
    fn every_nth_packet_is_lost() {
        let drop_exit = Some(Select::every(3));
        let (out, lost, _) = run(
            &DirectionFaults {
                drop_exit,
                ..Default::default()
            },
            10,
        );
        assert_eq!((out, lost), (vec![1, 2, 4, 5, 7, 8, 10], 3));
    }

    #[test]
    fn random_choices_repeat_with_the_seed_and_have_the_rate() {
        let picks = |seed| -> Vec<bool> {
            let mut selector = Selector::new(Some(Select::probability(0.25)), seed, 1);
            (0..20_000).map(|_| selector.hits()).collect()
        };
        assert_eq!(picks(1), picks(1));
        assert_ne!(picks(1), picks(2));
        let hits = picks(1).iter().filter(|hit| **hit).count();
        // Six standard deviations of the binomial distribution around 5000.
        assert!((4633..=5367).contains(&hits), "{hits}");
    }

    #[test]
    fn a_held_packet_leaves_after_those_behind_it() {
        let reorder = Some(Reorder {
            every: 4,
            by: 2,
            at_most: Span::from_millis(1),
        });
        let (out, _, mut exit) = run(
            &DirectionFaults {
                reorder,
                ..Default::default()
            },
            8,
        );
        assert_eq!(out, [1, 2, 3, 5, 6, 4, 7]);
        assert_eq!(exit.next_due(), Some(8 + 1_000_000));
        let mut late = Vec::new();
        exit.due(1_000_008, &mut late);
        assert_eq!(late.len(), 1);
        let effects = exit.effects();
        assert_eq!((effects.reordered, effects.reorder_timeouts), (2, 1));
    }

    #[test]
    fn copies_are_marked_and_retransmits_come_later() {
        let faults = DirectionFaults {
            duplicate: Some(Select::every(2)),
            retransmit: Some(Retransmit {
                select: Select::every(3),
                after: Span::from_millis(1),
            }),
            ..Default::default()
        };
        let (out, _, mut exit) = run(&faults, 3);
        assert_eq!(out, [1, 2, 2, 3]);
        assert_eq!(exit.next_due(), Some(1_000_003));
        let mut late = Vec::new();
        exit.due(1_000_003, &mut late);
        assert_eq!(
            late.first().and_then(|packet| packet.copied),
            Some(Copied::Retransmit)
        );
    }

    #[test]
    fn only_bare_tcp_waits_for_the_ack_delay() {
        let ack_delay = Some(AckDelay {
            delay: Span::from_millis(2),
            max_bytes: 100,
        });
        let mut exit = Exit::new(
            &DirectionFaults {
                ack_delay,
                ..Default::default()
            },
            1,
            0,
        );
        let mut bytes = Vec::new();
        let builder = etherparse::PacketBuilder::ipv4([1; 4], [2; 4], 9).tcp(1, 2, 3, 4);
        assert!(builder.write(&mut bytes, &[]).is_ok());
        let mut ack = packet(1);
        ack.inner = Inner::parse(&bytes).map(Box::new);
        let mut out = Vec::new();
        assert!(exit.push(ack, 0, &mut out).is_none());
        assert!(exit.push(packet(2), 0, &mut out).is_none());
        assert_eq!(out.len(), 1);
        assert_eq!(exit.next_due(), Some(2_000_000));
        assert_eq!(exit.drain().len(), 1);
    }

    #[test]
    fn the_entry_refuses_by_time_then_size_then_choice() {
        let faults = DirectionFaults {
            start_delay: Some(Span::from_millis(1)),
            size_limit: Some(1000),
            drop_entry: Some(Select::every(2)),
            ..Default::default()
        };
        let mut entry = Entry::new(&faults, 1, 0, 0);
        assert_eq!(entry.refuses(2000, 999_999), Some(Cause::StartDelay));
        assert_eq!(entry.refuses(1001, 1_000_000), Some(Cause::SizeLimit));
        assert_eq!(entry.refuses(1000, 1_000_000), None);
        assert_eq!(entry.refuses(1000, 1_000_000), Some(Cause::DropEntry));
        assert_eq!(entry.wait(0), 0, "they are read and lost");
    }
}
