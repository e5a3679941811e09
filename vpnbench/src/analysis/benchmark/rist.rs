//! librist's receiver statistics (`ristreceiver -S 1000`), summed up as the study's
//! `rist_stream.json` does.
//!
//! Each statistics line covers the time since the one before. `quality` is
//! `received * 100 / (received + missing)` per line (librist `rist-common.c`); the whole is
//! computed here from the sums.

use serde_json::Value;

use super::model::{Benchmark, Interval, Packets, Quantiles, Realtime};

/// Reads a receiver's log. Times are seconds of `CLOCK_REALTIME`.
pub fn receiver(text: &str) -> Result<Benchmark, String> {
    let lines: Vec<(f64, Value)> = statistics(text, "receiver-stats").collect();
    let Some((first_s, _)) = lines.first() else {
        return Err("ristreceiver wrote no statistics: no stream arrived".to_owned());
    };
    let mut stream = Realtime::default();
    let mut rtts = Vec::new();
    let (mut intervals, mut before_s) = (Vec::new(), *first_s);
    let mut received = 0;
    for (at_s, value) in &lines {
        let flow = &value["receiver-stats"]["flowinstant"];
        let count = |name: &str| flow["stats"][name].as_u64().unwrap_or(0);
        received += count("received");
        stream.recovered += count("recovered_total");
        stream.lost += count("lost");
        stream.late += count("dropped_late");
        stream.duplicates += count("duplicates");
        stream.reordered += count("reordered");
        stream.requested += count("retries");
        let peers = flow["peers"].as_array().into_iter().flatten();
        let rtt = peers
            .filter_map(|peer| peer["stats"]["rtt"].as_f64())
            .next();
        rtts.extend(rtt.map(|ms| ms * 1e3));
        if *at_s > before_s {
            intervals.push(Interval {
                start_s: before_s - first_s,
                end_s: at_s - first_s,
                throughput_bps: flow["stats"]["bitrate"].as_f64(),
                way: super::model::Way::Received,
                rtt_us: rtt.map(|ms| ms * 1e3),
                ..Interval::default()
            });
        }
        before_s = *at_s;
    }
    stream.in_time = received.saturating_sub(stream.late);
    stream.sent = received + stream.lost;
    let sent = stream.sent.max(1) as f64;
    stream.quality_ratio = (stream.sent > 0).then_some(stream.in_time as f64 / sent);
    Ok(Benchmark {
        tool: "librist".to_owned(),
        kind: "stream".to_owned(),
        complete: stream.sent > 0,
        loss_ratio: (stream.sent > 0).then_some(stream.lost as f64 / sent),
        rtt_us: Quantiles::of(rtts),
        duration_s: Some(before_s - first_s),
        packets: Some(Packets {
            sent: Some(stream.sent),
            received: Some(received),
            lost: Some(stream.lost),
            duplicates: Some(stream.duplicates),
            reordered: Some(stream.reordered),
            errors: None,
        }),
        intervals,
        realtime: Some(stream),
        version: version(text),
        ..Benchmark::default()
    })
}

/// Packets sent again, from a sender's log.
#[must_use]
pub fn retransmitted(text: &str) -> Option<u64> {
    let counts = statistics(text, "sender-stats")
        .filter_map(|(_, value)| value["sender-stats"]["peer"]["stats"]["retransmitted"].as_u64());
    counts.fold(None, |sum, count| Some(sum.unwrap_or(0) + count))
}

/// Lines `1795614080.462074|0.0|[INFO] {..}` with a key.
fn statistics<'a>(text: &'a str, key: &'a str) -> impl Iterator<Item = (f64, Value)> + 'a {
    text.lines().filter_map(move |line| {
        let (time, rest) = line.split_once('|')?;
        let json = &rest[rest.find('{')?..];
        let value: Value = serde_json::from_str(json).ok()?;
        (!value[key].is_null()).then_some((time.parse().ok()?, value))
    })
}

fn version(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("libRIST library: ")?;
    let version = rest.split_whitespace().next()?;
    Some(format!("librist {version}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_of_a_clean_stream() {
        let text = include_str!("fixtures/ristreceiver.txt");
        let result = receiver(text).expect("statistics");
        let stream = result.realtime.expect("a stream");
        // The log's own running total is the independent count.
        let total = text.rsplit_once("\"received\":").map(|(_, rest)| rest);
        assert!(total.is_some_and(|rest| rest.starts_with(&stream.in_time.to_string())));
        assert_eq!((stream.lost, stream.quality_ratio), (0, Some(1.0)));
        assert!(result.intervals.len() >= 3);
        assert_eq!(
            retransmitted(include_str!("fixtures/ristsender.txt")),
            Some(0)
        );
        assert!(receiver("nothing").is_err());
        assert_eq!(retransmitted(""), None);
    }
}
