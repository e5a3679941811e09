//! Batches of UDP_SEGMENT between two hosts. The kernel takes one IP identification for the whole
//! batch (`__ip_make_skb`, net/ipv4/ip_output.c), and whatever cuts it counts up from there
//! (`inet_gso_segment`), so that the identifications of successive batches overlap. A batch that
//! arrives whole shows itself by its bounds. A datagram that was cut out of one belongs to the first
//! batch that still waits for one of its size at that place: which of two was lost cannot be told where
//! they overlap, how many were lost can.

use vpnbench_common::event;

use super::{Departure, Flow, Hit};
use crate::analysis::pairing::identity::{Identity, Numbering};

/// Most datagrams of a batch (`UDP_MAX_SEGMENTS`, include/linux/udp.h).
const BATCH_MAX: u32 = 128;

/// Payload bytes of a segment.
pub(super) fn segment_size(packet: &event::Packet) -> u32 {
    match packet.gso_segs {
        0 | 1 => packet.payload_len,
        _ => u32::from(packet.gso_size),
    }
}

impl Flow {
    /// Whether a unit leaves in a flow that has batches: this one may be the first.
    pub(super) fn departs_in_batches(&mut self, id: &Identity, segments: u32) -> bool {
        if id.numbering == Numbering::IpId && (2..=BATCH_MAX).contains(&segments) && !self.batched {
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

    /// A unit arrives in a flow that has batches. `size` is the payload of a datagram. Returns the segments
    /// that nothing left for.
    pub(super) fn arrive_in_batches(
        &mut self,
        start: i64,
        segments: u32,
        size: u32,
        hits: &mut Vec<Hit>,
    ) -> u32 {
        let from = self.first_in_reach(start);
        let whole = |one: &Departure| {
            one.start == start && one.segments == segments && one.segment_size == size
        };
        let near = self.first.range_mut(from..);
        let near = near.take_while(|one| one.start <= start);
        let mut again = None;
        for one in near.filter(|one| whole(one)) {
            if one.places == 0 && one.missing == one.segments {
                hits.push(one.take_some(segments));
                one.places = u128::MAX;
                return 0;
            }
            again = Some(one.hit(segments, segments));
        }
        if segments > 1 && again.is_some() {
            hits.extend(again);
            return 0;
        }
        let mut left = 0;
        for place in 0..segments {
            // The last of an arrival may be shorter than its others.
            let exact = segments == 1 || place + 1 < segments;
            let found = self.take_place(start + i64::from(place), exact.then_some(size));
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
        left
    }

    /// Index of the first departure that may reach up to a number.
    fn first_in_reach(&self, number: i64) -> usize {
        let reach = i64::from(BATCH_MAX);
        self.first
            .partition_point(|one| one.start + reach <= number)
    }

    /// One datagram arrives: it belongs to the first that waits for it, else it came before.
    fn take_place(&mut self, number: i64, size: Option<u32>) -> Option<Hit> {
        let from = self.first_in_reach(number);
        let mut known = None;
        for one in self.first.range_mut(from..) {
            let Ok(place) = u32::try_from(number - one.start) else {
                break;
            };
            let last = place + 1 == one.segments;
            let fits =
                size.is_none_or(|size| size == one.segment_size || last && size < one.segment_size);
            if place >= one.segments || !fits {
                continue;
            }
            let bit = 1u128 << place.min(BATCH_MAX - 1);
            if one.places & bit == 0 && one.missing > 0 {
                one.places |= bit;
                return Some(one.take_some(1));
            }
            known = Some(one.hit(1, 1));
        }
        known
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;

    use super::super::{Closed, Transit};
    use super::*;
    use crate::analysis::pairing::identity::identity;

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
