//! One clock for several hosts, from the packets that crossed between them.
//!
//! A crossing is a packet that left one host and reached another: the tap it left at and the one it came to,
//! inner or outer, and the same flow and number ([`identity`]). Both hosts keep those whose hash ends in as many
//! zero bits as memory allows, so that they keep the same ones. Offset and drift come from
//! [`clock::estimate`]; what is left after both were taken out bounds the error: no delay is negative, so in
//! each part of the run the smallest apparent delay of either direction is as far as the clock can be off.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;
use vpnbench_common::catalog::Tap;
use vpnbench_common::event;

use crate::analysis::pairing::clock::{self, Crossing, LEAST};
use crate::analysis::pairing::identity::{Numbering, identity};

/// Packets kept to be matched.
const KEPT_MAX: usize = 1 << 19;
/// Parts of a run in which the error is bounded.
const PARTS: usize = 8;

/// A clock in terms of another one: t = base + (own - own_base) / (1 + drift).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mapping {
    own_base: i128,
    base: i128,
    drift: f64,
}

impl Mapping {
    /// The same clock.
    pub const SAME: Mapping = Mapping {
        own_base: 0,
        base: 0,
        drift: 0.0,
    };

    /// A clock that differs by a constant: `own` is `base` on the other one.
    #[must_use]
    pub fn shifted(own: u64, base: u64) -> Mapping {
        Mapping {
            own_base: own.into(),
            base: base.into(),
            drift: 0.0,
        }
    }

    /// A moment of this clock on the other one.
    #[must_use]
    pub fn of(&self, own_ns: u64) -> u64 {
        let since = i128::from(own_ns) - self.own_base;
        // Exact for months: the error of f64 is below a nanosecond up to 2^53 ns.
        let since = match self.drift == 0.0 {
            true => since,
            false => since - (since as f64 * self.drift / (1.0 + self.drift)).round() as i128,
        };
        u64::try_from(self.base + since).unwrap_or(if self.base + since < 0 { 0 } else { u64::MAX })
    }
}

/// What is known of a host's clock.
#[derive(Debug, Clone, PartialEq)]
pub struct Aligned {
    /// Into the first host's clock.
    pub mapping: Mapping,
    /// Own clock minus the first host's at the middle of the run, ns.
    pub offset_ns: i128,
    /// Change of that, parts per million.
    pub drift_ppm: f64,
    /// How far times may be off against the first host's, ns; `None` where no packets tell.
    pub uncertainty_ns: Option<f64>,
    /// Packets there and back.
    pub packets: (usize, usize),
}

#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    left: Option<(usize, u64)>,
    came: Option<(usize, u64)>,
    twice: bool,
}

/// Packets of all recordings.
#[derive(Debug, Default)]
pub struct Crossings {
    seen: FxHashMap<u64, Seen>,
    mask: u64,
    /// First moment of each recording.
    first: BTreeMap<usize, u64>,
}

impl Crossings {
    /// A packet of a recording.
    pub fn observe(&mut self, recording: usize, packet: &event::Packet) {
        let time = packet.header.time_ns;
        let first = self.first.entry(recording).or_insert(time);
        *first = time.min(*first);
        let (inner, leaves) = match Tap::from_number(packet.tap) {
            Some(Tap::TunTx) => (true, true),
            Some(Tap::TunWrite) => (true, false),
            Some(Tap::OuterTx) => (false, true),
            Some(Tap::OuterRx) => (false, false),
            _ => return,
        };
        let Some(id) = identity(packet).filter(|id| id.numbering != Numbering::Order) else {
            return;
        };
        let number = u64::from(id.start) << 32 | u64::from(id.salt);
        let key = (id.flow ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).rotate_left(23)
            ^ u64::from(inner);
        let key = key.wrapping_mul(0xff51_afd7_ed55_8ccd);
        if key & self.mask != 0 {
            return;
        }
        let seen = self.seen.entry(key).or_default();
        let side = if leaves {
            &mut seen.left
        } else {
            &mut seen.came
        };
        seen.twice |= side.is_some();
        *side = Some((recording, time));
        if self.seen.len() > KEPT_MAX {
            self.mask = self.mask << 1 | 1;
            let mask = self.mask;
            self.seen.retain(|key, _| key & mask == 0);
        }
    }

    /// Clocks of `count` recordings in terms of the first one's. Where packets do not tell, `otherwise` does.
    #[must_use]
    pub fn align(&self, otherwise: &[Mapping]) -> Vec<Aligned> {
        let between = self.between();
        let mut result: Vec<Option<Aligned>> = vec![None; otherwise.len()];
        if let Some(first) = result.first_mut() {
            *first = Some(Aligned {
                mapping: Mapping::SAME,
                offset_ns: 0,
                drift_ppm: 0.0,
                uncertainty_ns: Some(0.0),
                packets: (0, 0),
            });
        }
        // Against the first; the others through one that is known already.
        for _ in 0..otherwise.len() {
            for number in 1..otherwise.len() {
                if result[number].is_some() {
                    continue;
                }
                let known = (0..otherwise.len()).find_map(|other| {
                    let through = result[other].clone()?;
                    self.against(&between, other, number, &through)
                });
                result[number] = known;
            }
        }
        let rows = result.into_iter().zip(otherwise);
        rows.map(|(found, mapping)| {
            found.unwrap_or(Aligned {
                mapping: *mapping,
                offset_ns: mapping.own_base - mapping.base,
                drift_ppm: 0.0,
                uncertainty_ns: None,
                packets: (0, 0),
            })
        })
        .collect()
    }

    fn between(&self) -> BTreeMap<(usize, usize), Vec<Crossing>> {
        let mut between: BTreeMap<(usize, usize), Vec<Crossing>> = BTreeMap::new();
        for seen in self.seen.values().filter(|seen| !seen.twice) {
            if let (Some((from, left_ns)), Some((to, arrived_ns))) = (seen.left, seen.came)
                && from != to
            {
                let list = between.entry((from, to)).or_default();
                list.push(Crossing {
                    left_ns,
                    arrived_ns,
                });
            }
        }
        for list in between.values_mut() {
            list.sort_unstable_by_key(|one| (one.left_ns, one.arrived_ns));
        }
        between
    }

    /// A recording's clock through that of another one.
    fn against(
        &self,
        between: &BTreeMap<(usize, usize), Vec<Crossing>>,
        other: usize,
        number: usize,
        through: &Aligned,
    ) -> Option<Aligned> {
        let none = Vec::new();
        let of = |pair| between.get(&pair).unwrap_or(&none);
        let (there, back) = (of((other, number)), of((number, other)));
        let (other_first, own_first) = (*self.first.get(&other)?, *self.first.get(&number)?);
        // From the first moment of each on, so that no precision is lost to the height of the numbers.
        let since = |list: &[Crossing], left: u64, arrived: u64| -> Vec<Crossing> {
            let moved = list.iter().map(|one| Crossing {
                left_ns: one.left_ns.saturating_sub(left),
                arrived_ns: one.arrived_ns.saturating_sub(arrived),
            });
            moved.collect()
        };
        let forward = since(there, other_first, own_first);
        let reverse = since(back, own_first, other_first);
        let found = clock::estimate(&forward, &reverse)?;
        let offset = found.offset_ns.round() as i128;
        let drift = found.drift_ppm / 1e6;
        let at = i128::from(other_first) + i128::from(found.at_ns);
        let middle = i128::from(own_first) + i128::from(found.at_ns) + offset;
        let to_other = Mapping {
            own_base: middle,
            base: at,
            drift,
        };
        let moved = |list: &[Crossing], forward: bool| -> Vec<(u64, i64)> {
            let list = list.iter().map(|one| {
                let (left, arrived) = match forward {
                    true => (one.left_ns, to_other.of(one.arrived_ns)),
                    false => (to_other.of(one.left_ns), one.arrived_ns),
                };
                (left, arrived.wrapping_sub(left) as i64)
            });
            list.collect()
        };
        let error = floor(&moved(there, true)).max(floor(&moved(back, false)));
        let mut mapping = to_other;
        mapping.base = through.mapping.of(u64::try_from(at).ok()?).into();
        mapping.drift = (1.0 + drift) * (1.0 + through.mapping.drift) - 1.0;
        Some(Aligned {
            mapping,
            offset_ns: mapping.own_base - mapping.base,
            drift_ppm: mapping.drift * 1e6,
            uncertainty_ns: Some(error + through.uncertainty_ns?),
            packets: found.packets,
        })
    }
}

/// Largest of the smallest delays in parts of a run, with the sign left out: as far as the clock can be off.
fn floor(delays: &[(u64, i64)]) -> f64 {
    let (Some(first), Some(last)) = (delays.first(), delays.last()) else {
        return 0.0;
    };
    let width = (last.0.saturating_sub(first.0) / PARTS as u64).max(1);
    let mut parts: BTreeMap<u64, (usize, i64)> = BTreeMap::new();
    for &(left, delay) in delays {
        let part = parts
            .entry(left.saturating_sub(first.0) / width)
            .or_insert((0, i64::MAX));
        (part.0, part.1) = (part.0 + 1, part.1.min(delay));
    }
    let counted = parts.values().filter(|part| part.0 >= LEAST);
    let largest = counted.map(|part| part.1.unsigned_abs()).max();
    let all = delays.iter().map(|one| one.1).min().unwrap_or(0);
    largest.unwrap_or(all.unsigned_abs()) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable;

    fn packet(time_ns: u64, tap: Tap, from: u8, number: u32) -> event::Packet {
        let mut packet = event::Packet::zeroed();
        packet.header.time_ns = time_ns;
        (packet.ip_version, packet.ip_proto, packet.ip_id) = (4, 17, number & 0xffff);
        (packet.saddr[3], packet.daddr[3]) = (from, 3 - from);
        (packet.sport, packet.tap) = ((number >> 16) as u16, tap as u8);
        packet
    }

    /// The clock of the second host is 3 s ahead and gains 50 ppm; it counts from 1970.
    #[test]
    fn offset_and_drift_of_clocks_that_count_from_elsewhere() {
        let epoch = 1_700_000_000_000_000_000u64;
        let second = |time: u64| epoch + 3_000_000_000 + time + time / 20_000;
        let mut crossings = Crossings::default();
        for number in 0..20_000u32 {
            let time = u64::from(number) * 1_000_000;
            let queue = u64::from(number.wrapping_mul(2_654_435_761) >> 12);
            let there = packet(time + 500, Tap::OuterTx, 1, number);
            crossings.observe(0, &there);
            let there = packet(
                second(time + 500 + 2_000_000 + queue),
                Tap::OuterRx,
                1,
                number,
            );
            crossings.observe(1, &there);
            crossings.observe(1, &packet(second(time), Tap::OuterTx, 2, number));
            crossings.observe(
                0,
                &packet(time + 2_000_000 + queue, Tap::OuterRx, 2, number),
            );
        }
        let found = crossings.align(&[Mapping::SAME, Mapping::SAME]);
        let one = &found[1];
        assert!((one.drift_ppm - 50.0).abs() < 0.5, "{one:?}");
        let error = one.uncertainty_ns.expect("packets tell");
        assert!(error < 3_000_000.0, "{error}");
        for time in [0, 7_000_000_000, 19_999_000_000] {
            let mapped = one.mapping.of(second(time));
            assert!(mapped.abs_diff(time) as f64 <= error, "{mapped} {time}");
            assert!(mapped.abs_diff(time) < 50_000, "{mapped} {time}");
        }
    }

    #[test]
    fn without_packets_the_wall_clock_must_do() {
        let found = Crossings::default().align(&[Mapping::SAME, Mapping::shifted(1000, 10)]);
        assert_eq!(
            (found[1].mapping.of(1500), found[1].uncertainty_ns),
            (510, None)
        );
    }
}
