//! Time between taps: a histogram per stage and direction, its course over the seconds of the run,
//! and how much waited.
//!
//! A stage is the interval between two taps ([`Stage`]). Each pair of the same packet at both taps
//! adds one value, weighted by its wire segments. Quantiles come from an HDR histogram with three
//! significant digits (hdrhistogram.org), so they are exact to 0.1 %. The backlog is what had come and
//! not left, by the same pairs.

use hdrhistogram::Histogram;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Longest time kept apart, ns; longer ones count as this.
const LONGEST_NS: u64 = 120_000_000_000;
/// Seconds of a run kept one by one.
const SECONDS_MAX: usize = 7200;
const SECOND_NS: u64 = 1_000_000_000;

/// The interval between two taps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Stage {
    /// Queueing discipline of the tunnel device.
    TunQdisc,
    /// Queue of the TUN device, up to the daemon's read.
    TunQueue,
    /// Inside the daemon on the way out (for tunnels in the kernel: inside the tunnel).
    DaemonSend,
    /// Queueing discipline of the outer device; netem sits here.
    OuterQdisc,
    /// From the sender's driver to the receiver's network stack.
    Wire,
    /// Receive queue of the daemon's outer socket.
    OuterSocket,
    /// Inside the daemon on the way in.
    DaemonReceive,
    /// From the tunnel device (or the outer device of a bare link) to the TCP socket.
    ToTcp,
}

impl Stage {
    /// All stages in the order a packet passes them.
    pub const ALL: [Stage; 8] = [
        Stage::TunQdisc,
        Stage::TunQueue,
        Stage::DaemonSend,
        Stage::OuterQdisc,
        Stage::Wire,
        Stage::OuterSocket,
        Stage::DaemonReceive,
        Stage::ToTcp,
    ];

    /// Name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Stage::TunQdisc => "tun-qdisc",
            Stage::TunQueue => "tun-queue",
            Stage::DaemonSend => "daemon-send",
            Stage::OuterQdisc => "outer-qdisc",
            Stage::Wire => "wire",
            Stage::OuterSocket => "outer-socket",
            Stage::DaemonReceive => "daemon-receive",
            Stage::ToTcp => "to-tcp",
        }
    }

    /// Taps it lies between, for a tunnel with a daemon.
    #[must_use]
    pub const fn taps(self) -> (&'static str, &'static str) {
        match self {
            Stage::TunQdisc => ("tun.queue", "tun.tx"),
            Stage::TunQueue => ("tun.tx", "tun.read"),
            Stage::DaemonSend => ("tun.read", "outer.queue"),
            Stage::OuterQdisc => ("outer.queue", "outer.tx"),
            Stage::Wire => ("outer.tx", "outer.rx"),
            Stage::OuterSocket => ("outer.rx", "outer.recv"),
            Stage::DaemonReceive => ("outer.recv", "tun.write"),
            Stage::ToTcp => ("tun.write", "tcp.rx"),
        }
    }
}

/// Packets and bytes that came and have not left, now and at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Segments now.
    pub packets: u64,
    /// Bytes now.
    pub bytes: u64,
    /// Most segments.
    pub max_packets: u64,
    /// Most bytes.
    pub max_bytes: u64,
    /// When there were most segments, ns.
    pub max_at_ns: u64,
}

impl Backlog {
    /// More came.
    pub fn come(&mut self, now_ns: u64, segments: u32, bytes: u32) {
        self.packets += u64::from(segments);
        self.bytes += u64::from(bytes);
        self.max_bytes = self.max_bytes.max(self.bytes);
        if self.packets > self.max_packets {
            self.max_packets = self.packets;
            self.max_at_ns = now_ns;
        }
    }

    /// Some left.
    pub fn go(&mut self, segments: u32, bytes: u32) {
        self.packets = self.packets.saturating_sub(u64::from(segments));
        self.bytes = self.bytes.saturating_sub(u64::from(bytes));
    }
}

/// One second of a stage.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StageSecond {
    /// Seconds of the monotonic clock after the one in which the recording began.
    pub second: u32,
    /// Segments that left the stage in this second.
    pub packets: u64,
    /// Their mean time in it.
    pub mean_us: f64,
    /// Their longest time in it.
    pub max_us: f64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Second {
    packets: u64,
    sum_ns: u64,
    max_ns: u64,
}

/// Times spent in one stage.
#[derive(Debug, Clone)]
pub struct Delays {
    histogram: Histogram<u64>,
    sum_ns: u128,
    max_ns: u64,
    seconds: Vec<Second>,
    first_second: Option<u64>,
    /// Pairs with negative time, left out: clocks that disagree, or wrong pairs.
    pub negative: u64,
}

impl Default for Delays {
    fn default() -> Self {
        // Constant bounds that the constructor accepts; the fallback is a growing histogram.
        let bounded = Histogram::new_with_bounds(1, LONGEST_NS, 3);
        let histogram = bounded.or_else(|_| Histogram::new(3));
        let histogram = histogram.expect("a histogram with three digits");
        Delays {
            histogram,
            sum_ns: 0,
            max_ns: 0,
            seconds: Vec::new(),
            first_second: None,
            negative: 0,
        }
    }
}

impl Delays {
    /// `segments` entered at `from_ns` and left at `to_ns`.
    pub fn record(&mut self, from_ns: u64, to_ns: u64, segments: u32) {
        let Some(delay) = to_ns.checked_sub(from_ns) else {
            self.negative += u64::from(segments);
            return;
        };
        let weight = u64::from(segments);
        self.histogram.saturating_record_n(delay, weight);
        self.sum_ns += u128::from(delay) * u128::from(weight);
        self.max_ns = self.max_ns.max(delay);
        let first = *self.first_second.get_or_insert(to_ns / SECOND_NS);
        let second =
            usize::try_from((to_ns / SECOND_NS).saturating_sub(first)).unwrap_or(usize::MAX);
        if second < SECONDS_MAX {
            if self.seconds.len() <= second {
                self.seconds.resize(second + 1, Second::default());
            }
            let one = &mut self.seconds[second];
            one.packets += weight;
            one.sum_ns += delay * weight;
            one.max_ns = one.max_ns.max(delay);
        }
    }

    /// Segments recorded.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.histogram.len()
    }

    /// A quantile in us; `None` without a value.
    #[must_use]
    pub fn quantile_us(&self, quantile: f64) -> Option<f64> {
        (!self.histogram.is_empty()).then(|| us(self.histogram.value_at_quantile(quantile)))
    }

    /// The row of a report.
    #[must_use]
    pub fn row(&self, stage: Stage, direction: &str, start_ns: u64) -> StageTime {
        let packets = self.packets();
        let (from, to) = stage.taps();
        let quantile = |quantile| self.quantile_us(quantile).unwrap_or(0.0);
        // Seconds of the monotonic clock, counted from the one in which the recording began.
        let first = self
            .first_second
            .unwrap_or(0)
            .saturating_sub(start_ns / SECOND_NS);
        let seconds = self
            .seconds
            .iter()
            .enumerate()
            .filter(|(_, one)| one.packets > 0);
        StageTime {
            name: stage.name().to_owned(),
            from: from.to_owned(),
            to: to.to_owned(),
            direction: direction.to_owned(),
            packets,
            p50_us: quantile(0.50),
            p90_us: quantile(0.90),
            p99_us: quantile(0.99),
            max_us: us(self.max_ns),
            mean_us: if packets == 0 {
                0.0
            } else {
                self.sum_ns as f64 / packets as f64 / 1000.0
            },
            seconds: seconds
                .map(|(second, one)| StageSecond {
                    second: u32::try_from(first).unwrap_or(u32::MAX) + second as u32,
                    packets: one.packets,
                    mean_us: one.sum_ns as f64 / one.packets as f64 / 1000.0,
                    max_us: us(one.max_ns),
                })
                .collect(),
            ..StageTime::default()
        }
    }
}

/// Nanoseconds as microseconds.
#[must_use]
pub fn us(ns: u64) -> f64 {
    ns as f64 / 1000.0
}

/// Time between two taps in one direction.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StageTime {
    /// Name: `tun-qdisc`, `tun-queue`, `daemon-send`, `outer-qdisc`, `wire`, `outer-socket`,
    /// `daemon-receive`, `to-tcp`.
    pub name: String,
    /// Tap in front.
    pub from: String,
    /// Tap behind.
    pub to: String,
    /// `SENDER > RECEIVER` by namespace; `>` with one side empty where it is not known.
    pub direction: String,
    /// Wire segments behind the figures.
    pub packets: u64,
    /// Median.
    pub p50_us: f64,
    /// 90th percentile.
    pub p90_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// Longest.
    pub max_us: f64,
    /// Mean.
    pub mean_us: f64,
    /// Most segments in the stage at once; null for the wire between hosts.
    pub backlog_max_packets: Option<u64>,
    /// Most bytes in the stage at once; null for the wire between hosts.
    pub backlog_max_bytes: Option<u64>,
    /// How packets at the two taps were recognised as the same: `address`, `numbers`, `thread`,
    /// `order`, `order-and-size`, `far-end`, `bytes`.
    pub method: String,
    /// Share of pairs believed right: 1 for addresses and numbers; measured against the far end where
    /// both ends were seen; null where nothing checks it.
    pub confidence: Option<f64>,
    /// How far each time may be off because the two ends have clocks of their own, us; null where one clock
    /// took both.
    #[serde(default)]
    pub uncertainty_us: Option<f64>,
    /// Of the segments that entered, those that could not be paired and are not known to be lost.
    pub unpaired_ratio: Option<f64>,
    /// Course over the run.
    pub seconds: Vec<StageSecond>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_weighted_by_segments() {
        let mut delays = Delays::default();
        delays.record(0, 1_000_000, 99);
        delays.record(0, 5_000_000, 1);
        delays.record(10, 5, 3);
        let row = delays.row(Stage::Wire, "a > b", 0);
        assert_eq!((row.packets, delays.negative), (100, 3));
        assert!((row.p50_us - 1000.0).abs() < 1.0, "{}", row.p50_us);
        assert!((row.max_us - 5000.0).abs() < f64::EPSILON);
        assert!((row.mean_us - 1040.0).abs() < 0.01);
        assert_eq!(row.seconds.len(), 1);
    }

    #[test]
    fn backlog_keeps_its_peak() {
        let mut backlog = Backlog::default();
        backlog.come(1, 3, 300);
        backlog.come(2, 1, 100);
        backlog.go(4, 400);
        backlog.come(3, 1, 50);
        assert_eq!(
            (backlog.max_packets, backlog.max_bytes, backlog.max_at_ns),
            (4, 400, 2)
        );
        assert_eq!((backlog.packets, backlog.bytes), (1, 50));
    }
}
