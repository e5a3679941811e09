//! Batches of UDP_SEGMENT between two hosts. The kernel takes one IP identification for the whole
//! batch (`__ip_make_skb`, net/ipv4/ip_output.c), and whatever cuts it counts up from there
//! (`inet_gso_segment`), so that the identifications of successive batches overlap. A batch that
//! arrives whole shows itself by its bounds. A datagram that was cut out of one belongs to the first
//! batch, from the one on that the last arrival came from, that still waits for one of its size at that place: which
//! of two was lost cannot always be told where they overlap, how many were lost can. Batches of an unconnected socket all overlap: each begins at 0.

use vpnbench_common::event;

use super::{Departure, Flow, Hit};
use crate::analysis::pairing::identity::{Identity, Numbering};

/// Most datagrams of a batch (`UDP_MAX_SEGMENTS`, include/linux/udp.h).
const BATCH_MAX: u32 = 128;

/// Payload bytes of the datagrams in a unit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sizes {
    each: u32,
    /// The last one may be shorter.
    last: u32,
}

impl Sizes {
    pub(super) fn of(packet: &event::Packet) -> Sizes {
        let (size, segments) = (u32::from(packet.gso_size), packet.segments());
        match packet.payload_len.checked_sub(size * (segments - 1)) {
            Some(last) if segments > 1 => Sizes { each: size, last },
            _ => Sizes {
                each: packet.payload_len,
                last: packet.payload_len,
            },
        }
    }

    /// That of the datagram at a place of so many.
    fn at(self, place: u32, segments: u32) -> u32 {
        match place + 1 == segments {
            true => self.last,
            false => self.each,
        }
    }
}

impl Flow {
    /// Whether a unit leaves in a flow that has batches: this one may be the first.
    pub(super) fn departs_in_batches(&mut self, id: &Identity, segments: u32) -> bool {
        let batch = (2..=BATCH_MAX).contains(&segments) || self.all_alike && !self.first.is_empty();
        if id.numbering == Numbering::IpId && batch && !self.batched {
            self.batched = true;
            for one in &mut self.first {
                one.places = if one.missing == 0 { u128::MAX } else { 0 };
            }
        }
        self.batched
    }

    /// Batches may overlap: they are in the order of their first numbers.
    pub(super) fn insert_batch(&mut self, departure: Departure) {
        let at = self
            .first
            .partition_point(|one| one.start <= departure.start);
        self.first.insert(at, departure);
    }

    /// A unit arrives in a flow that has batches. Returns the segments that nothing left for.
    pub(super) fn arrive_in_batches(
        &mut self,
        start: i64,
        segments: u32,
        sizes: Sizes,
        hits: &mut Vec<Hit>,
    ) -> u32 {
        let from = self.first_in_reach(start);
        let whole =
            |one: &Departure| one.start == start && one.segments == segments && one.sizes == sizes;
        let since = self.last_hit_ns;
        let near = self.first.range_mut(from..);
        let near = near.take_while(|one| one.start <= start);
        let (mut again, mut passed) = (None, None);
        for one in near.filter(|one| whole(one)) {
            if one.places != 0 || one.missing != one.segments {
                again = Some(one.hit(segments, segments));
            } else if one.time_ns >= since {
                passed = Some(one);
                break;
            } else if passed.is_none() {
                passed = Some(one);
            }
        }
        if let Some(one) = passed {
            hits.push(one.take_some(segments));
            one.places = u128::MAX;
            return 0;
        }
        if segments > 1 && again.is_some() {
            hits.extend(again);
            return 0;
        }
        let mut left = 0;
        for place in 0..segments {
            let found = self.take_place(start + i64::from(place), sizes.at(place, segments));
            match (found, hits.last_mut()) {
                (Some(hit), Some(last)) if last.unit == hit.unit => {
                    last.segments += hit.segments;
                    last.duplicates += hit.duplicates;
                    last.bytes += hit.bytes;
                }
                (Some(hit), _) => hits.push(hit),
                (None, _) => left += 1,
            }
        }
        if self.all_alike && segments > 1 && start == 0 {
            // Datagrams that left one by one and were put together on the way: each has the number 0.
            left = self.take_singles(left, sizes, hits);
        }
        left
    }

    /// Takes up to `wanted` datagrams of these sizes that left alone; how many are left.
    fn take_singles(&mut self, mut wanted: u32, sizes: Sizes, hits: &mut Vec<Hit>) -> u32 {
        for one in &mut self.first {
            let size = if wanted == 1 { sizes.last } else { sizes.each };
            let fits = one.segments == 1 && one.sizes.last == size;
            if wanted > 0 && one.missing > 0 && fits {
                hits.push(one.take_some(1));
                one.places = u128::MAX;
                wanted -= 1;
            }
        }
        wanted
    }

    /// Index of the first departure that may reach up to a number.
    fn first_in_reach(&self, number: i64) -> usize {
        let reach = i64::from(BATCH_MAX);
        self.first
            .partition_point(|one| one.start + reach <= number)
    }

    /// One datagram arrives: it belongs to the first that waits for it and left no earlier than what arrived
    /// last, else to the first that waits, else it came before.
    fn take_place(&mut self, number: i64, size: u32) -> Option<Hit> {
        let from = self.first_in_reach(number);
        let since = self.last_hit_ns;
        let (mut known, mut passed) = (None, None);
        for one in self.first.range_mut(from..) {
            let Ok(place) = u32::try_from(number - one.start) else {
                break;
            };
            if place >= one.segments || one.sizes.at(place, one.segments) != size {
                continue;
            }
            let bit = 1u128 << place.min(BATCH_MAX - 1);
            if one.places & bit != 0 || one.missing == 0 {
                known = Some(one.hit(1, 1));
            } else if one.time_ns >= since {
                passed = Some((bit, one));
                break;
            } else if passed.is_none() {
                passed = Some((bit, one));
            }
        }
        let Some((bit, one)) = passed else {
            return known;
        };
        one.places |= bit;
        Some(one.take_some(1))
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;
    use vpnbench_common::event::packet_flags;

    use super::super::{Closed, Transit};
    use super::*;
    use crate::analysis::pairing::identity::{between_hosts, identity};

    fn datagram(ip_id: u32, segments: u16, size: u16) -> event::Packet {
        let mut packet = event::Packet::zeroed();
        (packet.ip_version, packet.ip_proto, packet.ip_id) = (4, 17, ip_id);
        packet.payload_len = u32::from(size) * u32::from(segments);
        packet.len = packet.payload_len + 28;
        if segments > 1 {
            (packet.gso_segs, packet.gso_size) = (segments, size);
        }
        packet
    }

    /// Batches of 4, 1, 4 and 2 datagrams of 1000 bytes leave with identifications 7 to 10.
    fn batches() -> (Transit, Vec<Closed>) {
        let (mut transit, mut closed) = (Transit::default(), Vec::new());
        for (id, segments) in [(7, 4), (8, 1), (9, 4), (10, 2)] {
            let packet = datagram(id, segments, 1000);
            let id = identity(&packet).unwrap();
            transit.depart(1, &packet, &id, u64::from(packet.ip_id), &mut closed);
        }
        (transit, closed)
    }

    fn sums(mut transit: Transit, arrivals: &[(u32, u16)]) -> (u64, u64, u64, u64) {
        for &(id, segments) in arrivals {
            let packet = datagram(id, segments, 1000);
            transit.arrive(2, &packet, &identity(&packet).unwrap(), &mut Vec::new());
        }
        let flows = transit.finish(60_000_000_000, &mut Vec::new());
        let sums = &flows[0].1.sums;
        let all = [sums.arrived, sums.duplicated, sums.missing, sums.unknown];
        let [arrived, duplicated, missing, unknown] = all.map(|one| one.segments);
        (arrived, duplicated, missing, unknown)
    }

    #[test]
    fn batches_that_arrive_whole_are_known_by_their_bounds() {
        assert_eq!(sums(batches().0, &[(7, 4), (8, 1), (10, 2)]), (7, 0, 4, 0));
        assert_eq!(
            sums(batches().0, &[(7, 4), (7, 4), (8, 1), (9, 4), (10, 2)]),
            (11, 4, 0, 0)
        );
    }

    /// An unconnected socket: the identification of all it sends is 0, and what is cut counts up from there.
    #[test]
    fn batches_without_an_identification_are_told_by_place_and_size() {
        let depart = |sizes: &[(u16, u16)]| {
            let mut transit = Transit::default();
            for (at, &(segments, size)) in sizes.iter().enumerate() {
                let packet = datagram(0, segments, size);
                let id = between_hosts(&packet, identity(&packet).unwrap());
                transit.depart(1, &packet, &id, at as u64, &mut Vec::new());
            }
            transit
        };
        let arrive = |mut transit: Transit, arrivals: &[(u32, u16, u16)]| {
            for &(ip_id, segments, size) in arrivals {
                let packet = datagram(ip_id, segments, size);
                let id = between_hosts(&packet, identity(&packet).unwrap());
                transit.arrive(2, &packet, &id, &mut Vec::new());
            }
            let flows = transit.finish(60_000_000_000, &mut Vec::new());
            assert_eq!(flows.len(), 1);
            let sums = &flows[0].1.sums;
            [sums.arrived, sums.missing, sums.unknown].map(|one| one.segments)
        };
        let sent = [(3, 1000), (1, 1000), (2, 1000), (1, 300), (3, 1000)];
        let cut = [0, 1, 2, 0, 0, 1, 0, 0, 1, 2];
        let mut all: Vec<(u32, u16, u16)> = cut.map(|id| (id, 1, 1000)).into();
        all[6].2 = 300;
        assert_eq!(arrive(depart(&sent), &all), [10, 0, 0]);
        // The last of a batch is lost on the way, and the short one.
        let some: Vec<_> = (0..all.len())
            .filter(|at| ![2, 6].contains(at))
            .map(|at| all[at])
            .collect();
        assert_eq!(arrive(depart(&sent), &some), [8, 2, 0]);
        // As they left.
        let whole: Vec<_> = sent.map(|(segments, size)| (0, segments, size)).into();
        assert_eq!(arrive(depart(&sent), &whole), [10, 0, 0]);
        // Alone when they left, put together on the way.
        let alone = [(1, 1000); 5];
        assert_eq!(arrive(depart(&alone), &[(0, 4, 1000)]), [4, 1, 0]);
    }

    /// WireGuard: no counter can be read in a batch, and one in each datagram that was cut out of it.
    #[test]
    fn counters_that_show_only_behind_the_cut() {
        let (mut transit, mut left) = (Transit::default(), Vec::new());
        let counted = |ip_id: u32, counter: u32| {
            let mut packet = datagram(ip_id, 1, 1000);
            (packet.flags, packet.marker) = (packet_flags::WIREGUARD, counter);
            packet
        };
        // Counters 40, 41 to 43, 44.
        for packet in [counted(7, 40), datagram(8, 3, 1000), counted(9, 44)] {
            let id = identity(&packet).unwrap();
            transit.depart(1, &packet, &id, 0, &mut left);
        }
        let mut unknown = 0;
        for (ip_id, counter) in [(7, 40), (8, 41), (10, 43), (9, 44)] {
            let packet = counted(ip_id, counter);
            let id = identity(&packet).unwrap();
            unknown += transit
                .arrive(2, &packet, &id, &mut Vec::new())
                .unwrap_or(1);
        }
        let flows = transit.finish(60_000_000_000, &mut Vec::new());
        let sum = |of: fn(&Flow) -> u64| -> u64 { flows.iter().map(|(_, flow)| of(flow)).sum() };
        assert_eq!(unknown, 0);
        assert_eq!(sum(|flow| flow.sums.arrived.segments), 4);
        assert_eq!(sum(|flow| flow.sums.missing.segments), 1);
    }

    /// Ten datagrams of one size without an identification, 1 ms apart, take 2 ms; the fifth is lost.
    #[test]
    fn what_is_left_over_is_not_on_its_way_once_the_last_has_arrived() {
        let ms = 1_000_000;
        let run = |arrivals: u64, end: u64| {
            let mut transit = Transit::default();
            let at = |time: u64| {
                let mut packet = datagram(0, 1, 1000);
                packet.header.time_ns = time;
                (packet, between_hosts(&packet, identity(&packet).unwrap()))
            };
            for number in 1..=10 {
                let (packet, id) = at(number * ms);
                transit.depart(1, &packet, &id, number, &mut Vec::new());
                if number > 2 && number <= arrivals + 2 && number != 7 {
                    transit.arrive(2, &packet, &id, &mut Vec::new());
                }
            }
            for number in [11, 12].into_iter().filter(|number| number - 2 <= arrivals) {
                let (packet, id) = at(number * ms);
                transit.arrive(2, &packet, &id, &mut Vec::new());
            }
            let flows = transit.finish(end * ms, &mut Vec::new());
            let sums = &flows[0].1.sums;
            [sums.arrived, sums.missing, sums.inside].map(|one| one.segments)
        };
        assert_eq!(run(10, 13), [9, 1, 0]);
        // The recording ends while the last two are on their way: the lost one cannot be told from them.
        assert_eq!(run(8, 10), [7, 0, 3]);
    }

    #[test]
    fn datagrams_that_were_cut_out_of_batches_are_counted() {
        let all: Vec<(u32, u16)> = [7, 8, 9, 10, 8, 9, 10, 11, 12, 10, 11]
            .map(|id| (id, 1))
            .into();
        assert_eq!(sums(batches().0, &all), (11, 0, 0, 0));
        for lost in 0..all.len() {
            let mut some = all.clone();
            some.remove(lost);
            let (arrived, duplicated, missing, unknown) = sums(batches().0, &some);
            assert_eq!(
                (arrived + duplicated + unknown, missing),
                (10, 11 - arrived),
                "{lost}"
            );
            assert_eq!((arrived, missing), (10, 1), "{lost}");
        }
    }
}
