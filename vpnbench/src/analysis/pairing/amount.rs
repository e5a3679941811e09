//! Packets in the three measures of every book: units, segments, bytes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// So many packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Amount {
    /// Skb units: what the kernel handles as one object.
    pub units: u64,
    /// Wire segments: the sum of `max(1, gso_segs)`.
    pub segments: u64,
    /// Bytes as interface counters count them.
    pub bytes: u64,
}

impl Amount {
    /// One more unit.
    pub fn add(&mut self, segments: u32, bytes: u32) {
        self.add_parts(1, segments, u64::from(bytes));
    }

    /// So much more.
    pub fn add_parts(&mut self, units: u64, segments: u32, bytes: u64) {
        self.units += units;
        self.segments += u64::from(segments);
        self.bytes += bytes;
    }

    /// So much less.
    pub fn take_parts(&mut self, units: u64, segments: u32, bytes: u64) {
        self.units = self.units.saturating_sub(units);
        self.segments = self.segments.saturating_sub(u64::from(segments));
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// The sum.
    #[must_use]
    pub fn plus(self, other: Amount) -> Amount {
        Amount {
            units: self.units + other.units,
            segments: self.segments + other.segments,
            bytes: self.bytes + other.bytes,
        }
    }

    /// What is left of it without another.
    #[must_use]
    pub fn minus(self, other: Amount) -> Amount {
        Amount {
            units: self.units.saturating_sub(other.units),
            segments: self.segments.saturating_sub(other.segments),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }

    /// As much of it as another has.
    #[must_use]
    pub fn within(self, other: Amount) -> Amount {
        Amount {
            units: self.units.min(other.units),
            segments: self.segments.min(other.segments),
            bytes: self.bytes.min(other.bytes),
        }
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        *self == Amount::default()
    }
}
