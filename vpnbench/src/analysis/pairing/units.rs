//! Moments of recent units, by unit number. Bounded: the oldest are forgotten.

use std::collections::VecDeque;

/// Units remembered on each level.
const UNITS_MAX: usize = 1 << 18;

/// When a unit passed its taps, ns; 0 where it did not or was not seen.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unit {
    /// Inner: `tun.queue`, `tun.tx`, `tun.read`. Outer: `outer.queue`, `outer.tx`, `outer.rx`, `outer.recv`.
    pub times: [u64; 4],
    /// Outer: the first and last inner unit the daemon is thought to have put into it, by rule; 0
    /// unknown.
    pub inner: [(u64, u64); 2],
    /// Host it left from.
    pub host: u16,
    /// Outer: made by the daemon itself (handshake, keepalive, control), not for an inner packet.
    pub own: bool,
    /// Inner: seen at the far end.
    pub arrived: bool,
    /// Sizes of its segments.
    pub shape: Shape,
}

/// Sizes of the segments of a unit: all but the last are equal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shape {
    /// Bytes of each segment but the last.
    pub segment: u32,
    /// Bytes of the last.
    pub last: u32,
    /// Segments.
    pub segments: u32,
}

impl Shape {
    /// One segment.
    #[must_use]
    pub const fn one(bytes: u32) -> Shape {
        Shape {
            segment: bytes,
            last: bytes,
            segments: 1,
        }
    }

    /// `payload` cut into `segments` of `size`, each with its own copy of the `headers`; the last has what
    /// remains.
    #[must_use]
    pub const fn cut(headers: u32, payload: u32, size: u32, segments: u32) -> Shape {
        if segments <= 1 || size == 0 {
            return Shape::one(headers + payload);
        }
        let last = payload.saturating_sub(size.saturating_mul(segments - 1));
        Shape {
            segment: headers + size,
            last: headers + if last < size { last } else { size },
            segments,
        }
    }

    /// `bytes` in `segments` of about equal size, each with its own copy of the `headers`, where no more
    /// is known.
    #[must_use]
    pub const fn of(bytes: u32, segments: u32, headers: u32) -> Shape {
        if segments <= 1 {
            return Shape::one(bytes);
        }
        let payload = bytes.saturating_sub(headers);
        let size = payload.div_ceil(segments);
        let last = payload.saturating_sub(size * (segments - 1));
        Shape {
            segment: headers + size,
            last: headers + last,
            segments,
        }
    }

    /// Size and number of the segments of full size, and of the last one if it has another.
    #[must_use]
    pub const fn parts(&self) -> [(u32, u32); 2] {
        if self.last == self.segment || self.segments == 0 {
            [(self.segment, self.segments), (self.last, 0)]
        } else {
            [(self.segment, self.segments - 1), (self.last, 1)]
        }
    }

    /// Bytes of all segments.
    #[must_use]
    pub const fn bytes(&self) -> u32 {
        self.bytes_of(self.segments)
    }

    /// Bytes of the last `segments`.
    #[must_use]
    pub const fn bytes_of(&self, segments: u32) -> u32 {
        if segments == 0 {
            0
        } else {
            self.segment
                .saturating_mul(segments - 1)
                .saturating_add(self.last)
        }
    }
}

/// A table of units, numbered from 1.
#[derive(Debug, Clone, Default)]
pub struct Units {
    base: u64,
    units: VecDeque<Unit>,
}

impl Units {
    /// Remembers a unit and numbers it.
    pub fn push(&mut self, unit: Unit) -> u64 {
        if self.units.len() >= UNITS_MAX {
            self.units.pop_front();
            self.base += 1;
        }
        self.units.push_back(unit);
        self.base + self.units.len() as u64
    }

    /// A unit, if it is not forgotten.
    #[must_use]
    pub fn get(&self, number: u64) -> Option<&Unit> {
        let at = number.checked_sub(self.base + 1)?;
        self.units.get(usize::try_from(at).ok()?)
    }

    /// A unit, if it is not forgotten.
    pub fn get_mut(&mut self, number: u64) -> Option<&mut Unit> {
        let at = number.checked_sub(self.base + 1)?;
        self.units.get_mut(usize::try_from(at).ok()?)
    }
}
