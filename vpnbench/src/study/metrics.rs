//! The figures a study prints: how each is made from measurements, and how it should be made.
//!
//! The plain figure averages or sums whatever results there are. The sound figure leaves out dead
//! flows, and where the plain figure sums, it takes the mean per link times the links of the
//! design, so that a missing link does not make the sum smaller.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::audit::dead_flows::is_dead;
use super::model::{Direction, Row, Study};
use super::statistics::{mean, mean_interval};

/// How rows become a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aggregate {
    /// Mean over results.
    Mean,
    /// Sum over links.
    Sum,
}

/// A figure.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Name in tables and claims.
    pub id: &'static str,
    /// What it is.
    pub title: &'static str,
    /// Benchmark and metric of its rows.
    pub rows: (&'static str, &'static str),
    /// Direction of its rows.
    pub direction: Direction,
    /// How rows become it.
    pub aggregate: Aggregate,
    /// Unit of the figure.
    pub unit: &'static str,
    /// Factor from the rows' unit.
    pub scale: f64,
    /// Whether more is better.
    pub more_is_better: bool,
}

const fn metric(
    id: &'static str,
    title: &'static str,
    rows: (&'static str, &'static str),
    unit: &'static str,
    scale: f64,
    more_is_better: bool,
) -> Metric {
    Metric {
        id,
        title,
        rows,
        direction: Direction::Forward,
        aggregate: Aggregate::Mean,
        unit,
        scale,
        more_is_better,
    }
}

/// All figures.
pub const METRICS: &[Metric] = &[
    metric(
        "tcp.throughput",
        "single TCP stream, forward, by the sender",
        ("tcp", "sent_bps"),
        "Mbit/s",
        1e-6,
        true,
    ),
    metric(
        "tcp.received",
        "single TCP stream, forward, by the receiver",
        ("tcp", "received_bps"),
        "Mbit/s",
        1e-6,
        true,
    ),
    Metric {
        direction: Direction::Reverse,
        ..metric(
            "tcp.received_reverse",
            "single TCP stream, reverse, by the receiver",
            ("tcp", "received_bps"),
            "Mbit/s",
            1e-6,
            true,
        )
    },
    metric(
        "tcp.retransmits",
        "retransmissions of the forward flow",
        ("tcp", "retransmits"),
        "count",
        1.0,
        false,
    ),
    metric(
        "tcp.cwnd_max",
        "largest congestion window of the forward flow",
        ("tcp", "cwnd_max_bytes"),
        "kB",
        1e-3,
        true,
    ),
    metric(
        "tcp.rtt_loaded",
        "mean RTT of the forward flow under its own load",
        ("tcp", "rtt_mean_us"),
        "ms",
        1e-3,
        false,
    ),
    Metric {
        aggregate: Aggregate::Sum,
        ..metric(
            "parallel.throughput",
            "TCP on all links at once, forward flows",
            ("parallel", "sent_bps"),
            "Mbit/s",
            1e-6,
            true,
        )
    },
    Metric {
        aggregate: Aggregate::Sum,
        ..metric(
            "parallel.retransmits",
            "retransmissions, all links at once, forward flows",
            ("parallel", "retransmits"),
            "count",
            1.0,
            false,
        )
    },
    metric(
        "udp.throughput",
        "UDP flood, forward, by the receiver",
        ("udp", "received_bps"),
        "Mbit/s",
        1e-6,
        true,
    ),
    metric(
        "udp.offered",
        "UDP flood, forward, by the sender",
        ("udp", "sent_bps"),
        "Mbit/s",
        1e-6,
        true,
    ),
    metric(
        "udp.loss",
        "UDP flood, forward: packets lost",
        ("udp", "lost_percent"),
        "%",
        1.0,
        false,
    ),
    metric(
        "ping.rtt",
        "ping, mean RTT",
        ("ping", "rtt_avg_ms"),
        "ms",
        1.0,
        false,
    ),
    metric(
        "ping.rtt_max",
        "ping, largest RTT",
        ("ping", "rtt_max_ms_max"),
        "ms",
        1.0,
        false,
    ),
    metric(
        "ping.loss",
        "ping, packets lost",
        ("ping", "loss_percent"),
        "%",
        1.0,
        false,
    ),
    metric(
        "quic.throughput",
        "QUIC, server to client",
        ("quic", "bandwidth_bps"),
        "Mbit/s",
        1e-6,
        true,
    ),
    metric(
        "quic.cpu",
        "CPU during QUIC, as reported",
        ("quic", "cpu_percent"),
        "%",
        1.0,
        false,
    ),
    metric(
        "quic.ttfb",
        "QUIC, time to first byte",
        ("quic", "ttfb_ms"),
        "ms",
        1.0,
        false,
    ),
    metric(
        "quic.connect",
        "QUIC, connection set-up",
        ("quic", "connect_ms"),
        "ms",
        1.0,
        false,
    ),
    metric(
        "stream.quality",
        "real-time stream, packets in time",
        ("stream", "quality_percent"),
        "%",
        1.0,
        true,
    ),
    metric(
        "download.time",
        "many-file download",
        ("download", "mean_s"),
        "s",
        1.0,
        false,
    ),
    metric(
        "connect.time",
        "first answer through the tunnel after a start",
        ("connect", "vpn_s"),
        "s",
        1.0,
        false,
    ),
    metric(
        "reconnect.time",
        "first answer through the tunnel after a reboot",
        ("reconnect", "vpn_s"),
        "s",
        1.0,
        false,
    ),
];

/// The metric of a name.
#[must_use]
pub fn find(id: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| metric.id == id)
}

/// A figure with what it rests on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Figure {
    /// Made the way the study makes it; null without a result.
    pub plain: Option<f64>,
    /// Without dead flows, and scaled to all links where it is a sum.
    pub sound: Option<f64>,
    /// 95 % confidence interval of the sound figure over its results (Student's t); null with fewer
    /// than two.
    pub interval: Option<(f64, f64)>,
    /// Results it rests on.
    pub samples: usize,
    /// Results the design has.
    pub expected: usize,
    /// Dead flows among the results.
    pub dead: usize,
}

impl Metric {
    /// The rows of a cell, in the order of links.
    pub fn rows_in<'a>(&self, study: &'a Study, system: &'a str, profile: &'a str) -> Vec<&'a Row> {
        let direction = self.direction;
        study
            .rows_of(system, profile, self.rows.0, self.rows.1)
            .filter(|row| row.direction == direction)
            .collect()
    }

    /// The samples of a cell in the figure's unit; `live` leaves out dead flows.
    #[must_use]
    pub fn samples(&self, study: &Study, system: &str, profile: &str, live: bool) -> Vec<f64> {
        let rows = self.rows_in(study, system, profile);
        let rows = rows.into_iter().filter(|row| !live || !is_dead(study, row));
        rows.map(|row| row.value * self.scale).collect()
    }

    /// The figure of a cell.
    #[must_use]
    pub fn figure(&self, study: &Study, system: &str, profile: &str) -> Figure {
        let all = self.samples(study, system, profile, false);
        let live = self.samples(study, system, profile, true);
        let expected = study.tests_of(system, profile, self.rows.0).count();
        let links = match self.aggregate {
            Aggregate::Mean => 1.0,
            Aggregate::Sum => expected as f64,
        };
        let interval = mean_interval(&live).map(|(low, high)| (low * links, high * links));
        let (plain, sound) = match self.aggregate {
            Aggregate::Mean => (mean(&all), mean(&live)),
            Aggregate::Sum => (
                (!all.is_empty()).then(|| all.iter().sum()),
                mean(&live).map(|mean| mean * expected as f64),
            ),
        };
        Figure {
            plain,
            sound,
            interval,
            samples: all.len(),
            expected,
            dead: all.len() - live.len(),
        }
    }

    /// How the plain figure is made.
    #[must_use]
    pub fn formula(&self) -> String {
        let aggregate = match self.aggregate {
            Aggregate::Mean => "mean over links of",
            Aggregate::Sum => "sum over links of",
        };
        let direction = match self.direction {
            Direction::Forward => "",
            Direction::Reverse => " (reverse)",
        };
        let scale = if (self.scale - 1.0).abs() < f64::EPSILON {
            String::new()
        } else {
            format!(" x {:e}", self.scale)
        };
        format!(
            "{aggregate} {}.{}{direction}{scale}",
            self.rows.0, self.rows.1
        )
    }
}
