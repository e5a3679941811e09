//! iperf3's JSON: one document (`--json`) or one event per line (`--json-stream`).
//!
//! Field names are those of iperf3's `iperf_api.c` (3.12 to 3.20). In TCP tests `rtt` is in us, as
//! `tcpi_rtt`; `jitter_ms` is RFC 3550's. Duplicate keys occur (`sock_bufsize`), the last counts.

use serde_json::Value;

use super::model::{Benchmark, Connection, Direction, Interval, Packets, Quantiles, Way};

/// Reads a document. `Err` says why it is none, e.g. that it was cut off.
pub(super) fn document(text: &str) -> Result<Benchmark, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| {
        let bytes = text.len();
        format!("iperf3's JSON does not end as it should ({error}; {bytes} bytes)")
    })?;
    Ok(benchmark(&value))
}

/// Reads `--json-stream`: lines of `{"event": .., "data": ..}`.
pub(super) fn stream(text: &str) -> Result<Benchmark, String> {
    let mut whole = serde_json::json!({ "intervals": [] });
    let mut ended = false;
    for line in text.lines().filter(|line| line.starts_with('{')) {
        let Ok(mut event) = serde_json::from_str::<Value>(line) else {
            break; // the last line, cut off
        };
        let data = event["data"].take();
        match event["event"].as_str() {
            Some("interval") => {
                if let Some(list) = whole["intervals"].as_array_mut() {
                    list.push(data);
                }
            }
            Some("end") => {
                whole["end"] = data;
                ended = true;
            }
            Some(name @ ("start" | "error")) => whole[name] = data,
            _ => {}
        }
    }
    let mut result = benchmark(&whole);
    if !ended && result.error.is_none() {
        result.error = Some("iperf3's JSON stream has no end event".to_owned());
    }
    Ok(result)
}

fn benchmark(whole: &Value) -> Benchmark {
    let (start, end) = (&whole["start"], &whole["end"]);
    let test = &start["test_start"];
    let udp = test["protocol"].as_str() == Some("UDP");
    let intervals: Vec<Interval> = whole["intervals"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(interval)
        .collect();
    let both = !end["sum_sent_bidir_reverse"].is_null()
        || intervals.iter().any(|one| one.way != intervals[0].way);
    let reversed = test["reverse"].as_u64() == Some(1);
    let sums = if udp && end["sum_sent"].is_null() {
        (&end["sum"], &Value::Null) // before 3.10
    } else {
        (&end["sum_sent"], &end["sum_received"])
    };
    let error = whole["error"].as_str().map(str::to_owned);
    let forward = direction(sums.0, sums.1);
    let lost = udp.then(|| packets(sums.0, sums.1, end)).flatten();
    let mut result = Benchmark {
        tool: "iperf3".to_owned(),
        kind: kind(udp, both, reversed).to_owned(),
        version: start["version"].as_str().map(str::to_owned),
        complete: error.is_none() && !sums.0.is_null(),
        error,
        duration_s: sums.0["end"].as_f64(),
        throughput_bps_sent: forward.throughput_bps_sent,
        throughput_bps_received: forward.throughput_bps_received,
        retransmits: forward.retransmits,
        loss_ratio: forward.loss_ratio,
        bytes_sent: forward.bytes_sent,
        bytes_received: forward.bytes_received,
        jitter_us: sums.1["jitter_ms"].as_f64().map(|ms| ms * 1e3),
        streams: test["num_streams"]
            .as_u64()
            .and_then(|count| u32::try_from(count).ok()),
        connections: connections(start, udp),
        packets: lost,
        intervals,
        ..Benchmark::default()
    };
    if both {
        result.reverse = Some(direction(
            &end["sum_sent_bidir_reverse"],
            &end["sum_received_bidir_reverse"],
        ));
    }
    add_rtt(&mut result, end);
    result
}

fn kind(udp: bool, both: bool, reversed: bool) -> &'static str {
    match (udp, both, reversed) {
        (false, true, _) => "tcp-bidir",
        (false, _, true) => "tcp-reverse",
        (false, ..) => "tcp",
        (true, true, _) => "udp-bidir",
        (true, _, true) => "udp-reverse",
        (true, ..) => "udp",
    }
}

/// The sums of an interval: one, or one for each direction.
fn interval(value: &Value) -> Vec<Interval> {
    let streams = value["streams"].as_array();
    let sums = [&value["sum"], &value["sum_bidir_reverse"]];
    let sums = sums.into_iter().filter(|sum| sum["omitted"] != true);
    sums.filter_map(|sum| {
        let sender = sum["sender"].as_bool().unwrap_or(true);
        let mut streams = streams
            .into_iter()
            .flatten()
            .filter(|stream| stream["sender"].as_bool().unwrap_or(true) == sender);
        // Of several streams there is no one RTT.
        let stream = streams.next().filter(|_| streams.next().is_none());
        Some(Interval {
            start_s: sum["start"].as_f64()?,
            end_s: sum["end"].as_f64()?,
            throughput_bps: Some(sum["bits_per_second"].as_f64()?),
            retransmits: sum["retransmits"].as_u64(),
            way: if sender { Way::Sent } else { Way::Received },
            rtt_us: stream.and_then(|stream| stream["rtt"].as_f64()),
            cwnd_bytes: stream.and_then(|stream| stream["snd_cwnd"].as_u64()),
            loss_ratio: sum["lost_percent"].as_f64().map(|percent| percent / 100.0),
            jitter_us: sum["jitter_ms"].as_f64().map(|ms| ms * 1e3),
            packets: None,
            arrived_bps: None,
        })
    })
    .collect()
}

fn direction(sent: &Value, received: &Value) -> Direction {
    Direction {
        throughput_bps_sent: sent["bits_per_second"].as_f64(),
        throughput_bps_received: received["bits_per_second"].as_f64(),
        retransmits: sent["retransmits"].as_u64(),
        bytes_sent: sent["bytes"].as_u64(),
        bytes_received: received["bytes"].as_u64(),
        loss_ratio: received["lost_percent"]
            .as_f64()
            .map(|percent| percent / 100.0),
    }
}

/// iperf3's receiver counts the packets up to the last one that arrived (`packets` of
/// `sum_received`); what was sent behind it is not among its lost ones.
fn packets(sent: &Value, received: &Value, end: &Value) -> Option<Packets> {
    let lost = received["lost_packets"].as_u64();
    let streams = end["streams"].as_array().into_iter().flatten();
    let reordered = streams.filter_map(|stream| stream["udp"]["out_of_order"].as_u64());
    Some(Packets {
        sent: Some(sent["packets"].as_u64()?),
        received: received["packets"]
            .as_u64()
            .zip(lost)
            .map(|(seen, lost)| seen.saturating_sub(lost)),
        lost,
        duplicates: None,
        reordered: Some(reordered.sum()),
        errors: None,
    })
}

fn connections(start: &Value, udp: bool) -> Vec<Connection> {
    let port = |value: &Value| value.as_u64().and_then(|port| u16::try_from(port).ok());
    let list = start["connected"].as_array().into_iter().flatten();
    list.filter_map(|one| {
        Some(Connection {
            local_port: port(&one["local_port"])?,
            remote_port: port(&one["remote_port"])?,
            protocol: if udp { "udp" } else { "tcp" }.to_owned(),
        })
    })
    .collect()
}

/// Of a TCP sender iperf3 keeps least, mean and largest of the `tcpi_rtt` it read once per interval.
fn add_rtt(result: &mut Benchmark, end: &Value) {
    let streams = end["streams"].as_array().into_iter().flatten();
    let senders: Vec<&Value> = streams
        .map(|stream| &stream["sender"])
        .filter(|sender| sender["max_rtt"].as_f64().is_some_and(|rtt| rtt > 0.0))
        .collect();
    let all = |name: &'static str| senders.iter().filter_map(move |one| one[name].as_f64());
    let (Some(max), Some(min)) = (
        all("max_rtt").reduce(f64::max),
        all("min_rtt").reduce(f64::min),
    ) else {
        return;
    };
    let samples: Vec<f64> = result
        .intervals
        .iter()
        .filter_map(|one| one.rtt_us)
        .collect();
    let quantiles = Quantiles::of(samples).unwrap_or_default();
    result.rtt_us = Some(Quantiles {
        max: Some(max),
        min: Some(min),
        ..quantiles
    });
    let means: Vec<f64> = all("mean_rtt").collect();
    result.rtt_mean_us = Some(means.iter().sum::<f64>() / means.len().max(1) as f64);
}
