//! Payload bytes per flow over time at the taps that benchmarks can be compared with.
//!
//! Memory is bounded: at most [`FLOWS_MAX`] flows and [`BINS_MAX`] bins each; when a run lasts
//! longer, bins become twice as wide and neighbours are joined.

use vpnbench_common::catalog::Tap;
use vpnbench_common::event::Packet;

use crate::analysis::address;
use crate::rows::Rows;
use crate::trace::Event;
use crate::trace::model::Start;

/// Flows kept; benchmarks have few, and theirs are among the first.
pub const FLOWS_MAX: usize = 1024;
/// Bins per flow.
pub const BINS_MAX: usize = 4096;
/// Width of a bin at first, ns.
pub const BIN_NS: u64 = 50_000_000;
/// A segment with more payload than any of a benchmark's greetings (iperf3's cookie: 37 bytes).
const BULK_BYTES: u32 = 64;

/// A flow at a tap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowKey {
    /// Inode number of the namespace.
    pub netns: u32,
    /// `Tap` number.
    pub tap: u8,
    /// IP protocol.
    pub protocol: u8,
    /// Sender's port.
    pub sport: u16,
    /// Receiver's port.
    pub dport: u16,
}

/// Payload of a flow at a tap over time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flow {
    /// `CLOCK_MONOTONIC` ns of the first bin's start.
    pub origin_ns: u64,
    /// Width of a bin, ns.
    pub bin_ns: u64,
    /// Payload bytes per bin.
    pub bins: Vec<u64>,
    /// First packet that carried more than a greeting.
    pub first_bulk_ns: Option<u64>,
    /// All payload bytes.
    pub payload_bytes: u64,
}

impl Flow {
    fn add(&mut self, time_ns: u64, bytes: u32) {
        if self.bin_ns == 0 {
            (self.origin_ns, self.bin_ns) = (time_ns, BIN_NS);
        }
        let after = time_ns.saturating_sub(self.origin_ns);
        while after / self.bin_ns >= BINS_MAX as u64 {
            self.widen();
        }
        let bin = (after / self.bin_ns) as usize;
        if bin >= self.bins.len() {
            self.bins.resize(bin + 1, 0);
        }
        self.bins[bin] += u64::from(bytes);
        self.payload_bytes += u64::from(bytes);
        if bytes > BULK_BYTES {
            self.first_bulk_ns.get_or_insert(time_ns);
        }
    }

    fn widen(&mut self) {
        self.bin_ns *= 2;
        let pairs = self.bins.chunks(2).map(|pair| pair.iter().sum());
        self.bins = pairs.collect();
    }

    /// Payload bytes between two moments; bins at the edges count by the part that lies inside.
    #[must_use]
    pub fn between(&self, from_ns: u64, to_ns: u64) -> f64 {
        let mut sum = 0.0;
        for (index, bytes) in self.bins.iter().enumerate() {
            let start = self.origin_ns + index as u64 * self.bin_ns;
            let inside = to_ns
                .min(start + self.bin_ns)
                .saturating_sub(from_ns.max(start));
            sum += *bytes as f64 * inside as f64 / self.bin_ns as f64;
        }
        sum
    }
}

/// Collects the flows.
#[derive(Debug, Clone, Default)]
pub struct Series {
    /// All hosts are known from foreign captures, which have no queues: there the device is what comes next.
    pub(super) captured: bool,
    flows: Rows<FlowKey, Flow>,
    /// Packets of flows beyond [`FLOWS_MAX`].
    left_out: u64,
}

impl Series {
    /// The flows of a recording.
    #[must_use]
    pub fn of(start: &Start) -> Series {
        let mut namespaces = start.environment.namespaces.iter();
        Series {
            captured: namespaces.len() > 0 && namespaces.all(|one| one.captured),
            ..Series::default()
        }
    }

    /// Takes one event.
    #[inline]
    pub fn observe(&mut self, event: &Event<'_>) {
        let Event::Packet(packet) = event else { return };
        if packet.payload_len > 0 && (self.captured || is_compared(packet.tap)) {
            self.packet(packet);
        }
    }

    fn packet(&mut self, packet: &Packet) {
        if !address::has_ports(packet.ip_proto) || packet.is_later_fragment() {
            return;
        }
        let key = FlowKey {
            netns: packet.netns,
            tap: packet.tap,
            protocol: packet.ip_proto,
            sport: packet.sport,
            dport: packet.dport,
        };
        let hint = u32::from(key.sport ^ key.dport.rotate_left(5)) ^ u32::from(key.tap);
        match self.flows.get_or_add(key, hint, FLOWS_MAX, Flow::default) {
            Some(flow) => flow.add(packet.header.time_ns, packet.payload_len),
            None => self.left_out += 1,
        }
    }

    /// The flows in order of their keys, and the packets that belong to none of them.
    #[must_use]
    pub fn finish(self) -> (Vec<(FlowKey, Flow)>, u64) {
        let mut flows: Vec<(FlowKey, Flow)> = self.flows.into_rows();
        flows.sort_unstable_by_key(|(key, _)| *key);
        (flows, self.left_out)
    }
}

/// Where inner packets enter and leave.
fn is_compared(tap: u8) -> bool {
    [Tap::TunQueue, Tap::TunWrite, Tap::TcpRx]
        .iter()
        .any(|one| *one as u8 == tap)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_hold_every_byte_however_long_it_takes() {
        let mut flow = Flow::default();
        for second in 0..2000_u64 {
            flow.add(5_000_000_000 + second * 1_000_000_000, 1000);
        }
        assert!(flow.bins.len() <= BINS_MAX);
        assert_eq!(flow.bins.iter().sum::<u64>(), 2_000_000);
        assert!((flow.between(0, u64::MAX / 2) - 2e6).abs() < 1e-6);
        assert_eq!(flow.between(0, 5_000_000_000), 0.0);
        assert_eq!(flow.first_bulk_ns, Some(5_000_000_000));
    }

    #[test]
    fn edges_count_by_their_part() {
        let mut flow = Flow::default();
        flow.add(0, 40);
        flow.add(BIN_NS, 100);
        assert_eq!(flow.first_bulk_ns, Some(BIN_NS), "a greeting is no data");
        assert_eq!(flow.between(0, BIN_NS + BIN_NS / 2), 90.0);
    }
}
