//! What the wire really did, beside what it was told to do.

use hdrhistogram::Histogram;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::impairment::Impairment;
use super::spec::{Backend, Model, Place, Unit};

/// What happened on the wire of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WireAccount {
    /// What acted; never `auto`.
    pub backend: Backend,
    /// Where it acted.
    pub place: Place,
    /// What it acted on.
    pub unit: Unit,
    /// How correlation was made.
    pub model: Model,
    /// Where its random draws started.
    pub seed: u64,
    /// What left each host.
    pub hosts: Vec<HostAccount>,
    /// CPU time of the wire's own process in nanoseconds, kernel included: part of the hosts'
    /// receive path runs in it. `None` where the kernel's netem acts.
    pub cpu_ns: Option<u64>,
    /// What this wire cannot reproduce or count, in words.
    pub notes: Vec<String>,
}

/// What left one host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HostAccount {
    /// The host's short name.
    pub host: String,
    /// What the wire was told to do.
    pub configured: Impairment,
    /// What the embedded wire counted.
    pub embedded: Option<EgressAccount>,
    /// What the kernel's netem counted.
    pub netem: Option<NetemAccount>,
    /// Units the host's wire device dropped before they reached the wire: its queue was full.
    /// Not part of any impairment. `None` where the device's counter could not be read.
    pub dropped_before: Option<u64>,
}

/// A count in units and in the packets they stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Count {
    /// Units: super-packets count once.
    pub units: u64,
    /// Packets as they would be on a real wire.
    pub segments: u64,
}

impl Count {
    /// Counts one more unit.
    pub(super) fn add(&mut self, segments: u32) {
        self.units += 1;
        self.segments += u64::from(segments);
    }
}

/// The embedded wire's ledger for one host:
/// `entered + copies = lost + too_large + over_limit + sent + undeliverable + waiting`, in units and
/// in segments. With `unit = "packet"` a super-packet enters as its segments.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct EgressAccount {
    /// What came from the host.
    pub entered: Count,
    /// Its bytes, each packet with its headers from Ethernet's on.
    pub entered_bytes: u64,
    /// Copies made by `duplicate`, whatever became of them.
    pub copies: Count,
    /// Lost by `loss`.
    pub lost: Count,
    /// Longer than `size_limit`.
    pub too_large: Count,
    /// Dropped because `limit` units were waiting.
    pub over_limit: Count,
    /// Sent on at once by `reorder`; also in `sent`.
    pub jumped: Count,
    /// Handed to the receiving device.
    pub sent: Count,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Refused by the receiving device, for example because it was down.
    pub undeliverable: Count,
    /// Still waiting when the account was made.
    pub waiting: Count,
    /// Most units that waited at a time.
    pub backlog_max: u64,
    /// Units that left after one that had come later (RFC 4737, Type-P-Reordered, with the order
    /// of arrival at the wire as sequence number); copies are not counted.
    pub reordered: u64,
    /// Units sent that are not copies.
    pub originals_sent: u64,
    /// `reordered` as a share of the units sent that are not copies (RFC 4737 section 4.1.3).
    /// `None` when nothing was sent.
    pub reordered_ratio: Option<f64>,
    /// `lost.units` as a share of the units that entered, copies included. `None` when none did.
    pub lost_ratio: Option<f64>,
    /// From arrival at the wire to departure.
    pub delay: Option<Spread>,
    /// From the time a unit should have left, or arrived if that was later, to its departure:
    /// the wire's own error.
    pub lateness: Option<Spread>,
}

impl EgressAccount {
    /// What the ledger lacks or has too much of: 0 when it adds up.
    #[must_use]
    pub fn unexplained(&self) -> Difference {
        let sum = |of: fn(&Count) -> u64| {
            let left = [
                &self.lost,
                &self.too_large,
                &self.over_limit,
                &self.sent,
                &self.undeliverable,
                &self.waiting,
            ];
            let left: u64 = left.into_iter().map(of).sum();
            (of(&self.entered) + of(&self.copies)).cast_signed() - left.cast_signed()
        };
        Difference {
            units: sum(|count| count.units),
            segments: sum(|count| count.segments),
        }
    }
}

/// A difference of two [`Count`]s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Difference {
    /// Units.
    pub units: i64,
    /// Packets.
    pub segments: i64,
}

/// netem's own statistics (`tc -s qdisc`). They mix units: `sent` counts the segments of
/// super-packets, `dropped` counts super-packets, so that their ratio is not the loss.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NetemAccount {
    /// Segments that left.
    pub sent_segments: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Units lost or over the limit; netem does not tell them apart.
    pub dropped_units: u64,
    /// Units sent on at once by `reorder` (`requeues`).
    pub jumped_units: u64,
    /// Units that wait now.
    pub waiting_units: u64,
}

/// A distribution of times in nanoseconds. Quantiles are exact to three digits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Spread {
    /// How many.
    pub count: u64,
    /// Mean.
    pub mean_ns: f64,
    /// Standard deviation.
    pub deviation_ns: f64,
    /// Least.
    pub min_ns: u64,
    /// Half are below.
    pub p50_ns: u64,
    /// 90 % are below.
    pub p90_ns: u64,
    /// 99 % are below.
    pub p99_ns: u64,
    /// 99.9 % are below.
    pub p999_ns: u64,
    /// Most.
    pub max_ns: u64,
    /// Upper bound and count of each filled bucket, from the least on; all equally wide, a
    /// hundredth of the largest value.
    pub buckets: Vec<(u64, u64)>,
}

impl Spread {
    /// `None` when nothing was recorded.
    pub(super) fn of(histogram: &Histogram<u64>, sum_ns: f64) -> Option<Spread> {
        let count = histogram.len();
        (count > 0).then(|| Spread {
            count,
            mean_ns: sum_ns / count as f64,
            deviation_ns: histogram.stdev(),
            min_ns: histogram.min(),
            p50_ns: histogram.value_at_quantile(0.5),
            p90_ns: histogram.value_at_quantile(0.9),
            p99_ns: histogram.value_at_quantile(0.99),
            p999_ns: histogram.value_at_quantile(0.999),
            max_ns: histogram.max(),
            buckets: buckets(histogram),
        })
    }
}

fn buckets(histogram: &Histogram<u64>) -> Vec<(u64, u64)> {
    const MOST: u64 = 100;
    let step = (histogram.max() / MOST + 1).max(1);
    let linear = histogram.iter_linear(step);
    linear
        .map(|bucket| {
            (
                bucket.value_iterated_to(),
                bucket.count_since_last_iteration(),
            )
        })
        .filter(|(_, count)| *count > 0)
        .collect()
}
