//! What of a departure has arrived.

use super::{Closed, Departure, Hit};

impl Departure {
    /// Takes the part in `[start, end)` as arrived.
    pub(super) fn take(&mut self, start: i64, end: i64) -> Hit {
        let covered = end.min(self.start + self.length) - start.max(self.start);
        let segments = (covered + self.step - 1) / self.step;
        let segments = u32::try_from(segments).unwrap_or(0).min(self.segments);
        let fresh = segments.min(self.missing);
        self.missing -= fresh;
        self.hit(segments, segments - fresh)
    }

    /// Takes up to `wanted` segments as arrived.
    pub(super) fn take_some(&mut self, wanted: u32) -> Hit {
        let fresh = wanted.min(self.missing);
        self.missing -= fresh;
        self.hit(fresh, 0)
    }

    pub(super) fn hit(&self, segments: u32, duplicates: u32) -> Hit {
        Hit {
            unit: self.unit,
            departed_ns: self.time_ns,
            segments,
            duplicates,
            bytes: self.share(segments),
        }
    }

    pub(super) fn share(&self, segments: u32) -> u32 {
        let bytes = u64::from(self.bytes) * u64::from(segments) / u64::from(self.segments.max(1));
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }

    pub(super) fn closed(&self) -> Closed {
        Closed {
            departed_ns: self.time_ns,
            segments: self.segments,
            missing: self.missing,
            segment_bytes: self.bytes / self.segments.max(1),
        }
    }
}
