//! iperf3's JSON (`iperf3 --json`, 3.1 and later): TCP and UDP, one direction or both.
//!
//! RTTs in iperf3's JSON are microseconds (`tcpi_rtt`, iperf_tcp.c), `snd_cwnd` is bytes,
//! `reorder` is the kernel's `tcpi_reord_seen`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Flow, Sink};
use crate::study::model::Direction;

/// Whether a document is iperf3's.
#[must_use]
pub fn is(document: &Value) -> bool {
    document
        .pointer("/start/version")
        .and_then(Value::as_str)
        .is_some_and(|version| version.starts_with("iperf"))
        && document.get("end").is_some()
}

/// The tool's own error message, if it failed.
#[must_use]
pub fn error(document: &Value) -> Option<&str> {
    document.get("error").and_then(Value::as_str)
}

/// Whether the test used UDP.
#[must_use]
pub fn is_udp(document: &Value) -> bool {
    document
        .pointer("/start/test_start/protocol")
        .and_then(Value::as_str)
        == Some("UDP")
}

/// Reads the measurements; `false` if there are none.
pub fn read(sink: &mut Sink<'_>) -> bool {
    let udp = sink
        .get("/start/test_start/protocol")
        .and_then(Value::as_str)
        == Some("UDP");
    let mut any = false;
    for (flow, suffix) in [(Flow::default(), ""), (Flow::REVERSE, "_bidir_reverse")] {
        any |= side(sink, udp, flow, suffix);
    }
    sink.take(
        "mss_bytes",
        "bytes",
        "/start/tcp_mss_default",
        1.0,
        Flow::default(),
    );
    sink.take(
        "block_bytes",
        "bytes",
        "/start/test_start/blksize",
        1.0,
        Flow::default(),
    );
    for (metric, key) in [
        ("cpu_client_percent_of_core", "host_total"),
        ("cpu_server_percent_of_core", "remote_total"),
    ] {
        sink.take(
            metric,
            "% of a core",
            &format!("/end/cpu_utilization_percent/{key}"),
            1.0,
            Flow::default(),
        );
    }
    streams(sink);
    intervals(sink);
    any
}

/// The sums of one direction.
fn side(sink: &mut Sink<'_>, udp: bool, flow: Flow, suffix: &str) -> bool {
    let sent = format!("/end/sum_sent{suffix}");
    let received = format!("/end/sum_received{suffix}");
    let mut any = sink.take(
        "sent_bps",
        "bit/s",
        &format!("{sent}/bits_per_second"),
        1.0,
        flow,
    );
    any |= sink.take(
        "received_bps",
        "bit/s",
        &format!("{received}/bits_per_second"),
        1.0,
        flow,
    );
    sink.take("sent_bytes", "bytes", &format!("{sent}/bytes"), 1.0, flow);
    sink.take(
        "received_bytes",
        "bytes",
        &format!("{received}/bytes"),
        1.0,
        flow,
    );
    sink.take("seconds", "s", &format!("{sent}/seconds"), 1.0, flow);
    if udp {
        sink.take(
            "lost_percent",
            "%",
            &format!("{received}/lost_percent"),
            1.0,
            flow,
        );
        sink.take(
            "lost_packets",
            "1",
            &format!("{received}/lost_packets"),
            1.0,
            flow,
        );
        sink.take("packets", "1", &format!("{received}/packets"), 1.0, flow);
        sink.take("sent_packets", "1", &format!("{sent}/packets"), 1.0, flow);
        sink.take(
            "jitter_ms",
            "ms",
            &format!("{received}/jitter_ms"),
            1.0,
            flow,
        );
    } else {
        sink.take(
            "retransmits",
            "1",
            &format!("{sent}/retransmits"),
            1.0,
            flow,
        );
    }
    any
}

/// What the sender's TCP says of each stream at the end.
fn streams(sink: &mut Sink<'_>) {
    let count = sink
        .get("/end/streams")
        .and_then(Value::as_array)
        .map_or(0, Vec::len);
    let mut seen: BTreeMap<Direction, u32> = BTreeMap::new();
    for index in 0..count {
        let at = format!("/end/streams/{index}/sender");
        let forward = sink
            .get(&format!("{at}/sender"))
            .and_then(Value::as_bool)
            .unwrap_or(true);
        let direction = if forward {
            Direction::Forward
        } else {
            Direction::Reverse
        };
        let number = seen.entry(direction).or_default();
        let flow = Flow {
            direction,
            flow: *number,
            run: None,
        };
        *number += 1;
        // The remote sender's values reach the client as a single final sample: not a distribution.
        if forward {
            for (metric, key) in [
                ("rtt_min_us", "min_rtt"),
                ("rtt_mean_us", "mean_rtt"),
                ("rtt_max_us", "max_rtt"),
            ] {
                sink.take(metric, "us", &format!("{at}/{key}"), 1.0, flow);
            }
            sink.take("reord_seen", "1", &format!("{at}/reorder"), 1.0, flow);
            sink.take(
                "cwnd_max_bytes",
                "bytes",
                &format!("{at}/max_snd_cwnd"),
                1.0,
                flow,
            );
        }
    }
}

/// Intervals in which a direction moved nothing.
fn intervals(sink: &mut Sink<'_>) {
    let Some(intervals) = sink.get("/intervals").and_then(Value::as_array) else {
        return;
    };
    for (flow, key) in [
        (Flow::default(), "sum"),
        (Flow::REVERSE, "sum_bidir_reverse"),
    ] {
        let bytes: Vec<u64> = intervals
            .iter()
            .filter_map(|interval| interval.get(key)?.get("bytes")?.as_u64())
            .collect();
        if bytes.is_empty() {
            continue;
        }
        let idle = bytes.iter().filter(|bytes| **bytes == 0).count();
        sink.derive("intervals", "1", "/intervals", bytes.len() as f64, flow);
        sink.derive("idle_intervals", "1", "/intervals", idle as f64, flow);
    }
}

/// What should be equal between runs that are compared.
#[must_use]
pub fn conditions(document: &Value) -> BTreeMap<String, String> {
    let mut conditions = BTreeMap::new();
    let mut put = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            conditions.insert(name.to_owned(), value);
        }
    };
    let text = |pointer: &str| {
        document
            .pointer(pointer)
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let number = |pointer: &str| {
        document
            .pointer(pointer)
            .and_then(Value::as_u64)
            .map(|n| n.to_string())
    };
    put("tool", text("/start/version"));
    // "Linux host release ...": the release is the third word.
    put(
        "kernel",
        text("/start/system_info").and_then(|info| info.split(' ').nth(2).map(str::to_owned)),
    );
    put("protocol", text("/start/test_start/protocol"));
    put("streams", number("/start/test_start/num_streams"));
    put("duration_s", number("/start/test_start/duration"));
    put("bidirectional", number("/start/test_start/bidir"));
    put("congestion_control", text("/end/sender_tcp_congestion"));
    put("mss_bytes", number("/start/tcp_mss_default"));
    put("started_at", text("/start/timestamp/time"));
    conditions
}
