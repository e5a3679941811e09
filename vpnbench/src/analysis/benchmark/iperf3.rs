//! iperf3 as a client: which of its forms the output has.

use super::model::Benchmark;
use super::{iperf3_json, iperf3_text};

/// Reads whatever an iperf3 client wrote to its standard output. `Err` says what is wrong with it.
pub fn read(text: &str) -> Result<Benchmark, String> {
    let Some(at) = text.find('{') else {
        let result = iperf3_text::read(text);
        return match (
            &result.error,
            result.complete || !result.intervals.is_empty(),
        ) {
            (None, false) => Err("iperf3's output holds no interval and no summary".to_owned()),
            _ => Ok(result),
        };
    };
    if text[at..]
        .lines()
        .next()
        .is_some_and(|line| line.contains("\"event\""))
    {
        return iperf3_json::stream(&text[at..]);
    }
    // Before and after the document the server's or a wrapper's words may stand.
    let end = text.rfind('}').map_or(text.len(), |end| end + 1);
    iperf3_json::document(&text[at..end.max(at)])
}

#[cfg(test)]
mod tests {
    use super::super::model::{Packets, Way};
    use super::*;

    fn parse(text: &str) -> Benchmark {
        match read(text) {
            Ok(result) => result,
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn text_and_json_of_a_tcp_test_say_the_same() {
        let text = parse(include_str!("fixtures/iperf3-tcp.txt"));
        let json = parse(include_str!("fixtures/iperf3-tcp.json"));
        for result in [&text, &json] {
            assert_eq!((result.kind.as_str(), result.streams), ("tcp", Some(1)));
            assert!(result.complete && result.error.is_none());
            assert_eq!(result.intervals.len(), 2);
            assert_eq!(result.retransmits, Some(0));
            assert_eq!(result.connections[0].remote_port, 5201);
            assert!(result.intervals.iter().all(|one| one.way == Way::Sent));
            let rate = result.throughput_bps_received.unwrap_or_default();
            assert!((1.99e8..2.01e8).contains(&rate), "{rate}");
        }
        assert_eq!(text.connections[0].local_port, 55_860);
        assert_eq!(text.bytes_sent, Some((47.8 * 1_048_576.0) as u64));
        assert_eq!(text.intervals[0].cwnd_bytes, Some(895 << 10));
        assert_eq!(json.version.as_deref(), Some("iperf 3.12"));
        let rtt = json.rtt_us.expect("iperf3 reports RTT of TCP");
        assert!(rtt.min <= rtt.p50 && rtt.p50 <= rtt.max && rtt.min > Some(0.0));
    }

    #[test]
    fn both_directions_are_kept_apart() {
        for text in [
            include_str!("fixtures/iperf3-bidir.txt"),
            include_str!("fixtures/iperf3-bidir.json"),
        ] {
            let result = parse(text);
            assert_eq!(
                (result.kind.as_str(), result.streams),
                ("tcp-bidir", Some(1))
            );
            let ways: Vec<Way> = result.intervals.iter().map(|one| one.way).collect();
            assert_eq!(ways, [Way::Sent, Way::Received, Way::Sent, Way::Received]);
            let reverse = result.reverse.expect("a second direction");
            let rate = reverse.throughput_bps_received.unwrap_or_default();
            assert!((1.99e8..2.01e8).contains(&rate), "{rate}");
            assert!(result.throughput_bps_sent.is_some() && result.retransmits.is_some());
        }
        let json = parse(include_str!("fixtures/iperf3-bidir.json"));
        assert_eq!(json.intervals[2].retransmits, Some(2));
        assert_eq!(
            json.retransmits,
            Some(2),
            "the forward sender's, not the sum"
        );
    }

    #[test]
    fn the_sums_of_parallel_streams_count() {
        let text = parse(include_str!("fixtures/iperf3-parallel.txt"));
        assert_eq!((text.streams, text.intervals.len()), (Some(2), 2));
        assert_eq!(text.throughput_bps_received, Some(2e8));
        assert_eq!(text.intervals[0].throughput_bps, Some(2.01e8));
        let json = parse(include_str!("fixtures/iperf3-parallel-reverse.json"));
        assert_eq!((json.kind.as_str(), json.streams), ("tcp-reverse", Some(2)));
        assert!(json.intervals.iter().all(|one| one.way == Way::Received));
        assert_eq!(
            json.intervals[0].rtt_us, None,
            "two streams have no one RTT"
        );
    }

    #[test]
    fn udp_loss_is_the_receivers() {
        let json = parse(include_str!("fixtures/iperf3-udp.json"));
        assert_eq!(json.kind, "udp");
        let loss = json.loss_ratio.unwrap_or_default();
        assert!((loss - 0.570_532).abs() < 1e-5, "{loss}");
        let expected = Packets {
            sent: Some(287_330),
            received: Some(286_162 - 163_931),
            lost: Some(163_931),
            reordered: Some(0),
            ..Packets::default()
        };
        assert_eq!(json.packets, Some(expected));
        assert_eq!(json.bytes_received, Some(171_123_400));
        let text = parse(include_str!("fixtures/iperf3-udp.txt"));
        assert_eq!((text.kind.as_str(), text.loss_ratio), ("udp", Some(0.0)));
        assert_eq!(text.jitter_us, Some(10.0));
        assert_eq!(text.packets.and_then(|packets| packets.received), Some(382));
        assert!(text.intervals.iter().all(|one| one.way == Way::Sent));
    }

    #[test]
    fn failures_are_in_the_tools_words() {
        let refused = "unable to connect to server: Connection refused";
        for text in [
            include_str!("fixtures/iperf3-refused.txt"),
            include_str!("fixtures/iperf3-refused.json"),
        ] {
            let result = parse(text);
            assert_eq!(result.error.as_deref(), Some(refused));
            assert!(!result.complete);
            assert_eq!(result.throughput_bps_sent, None, "missing, not 0");
        }
    }

    #[test]
    fn every_cut_is_an_error_or_a_part_and_never_a_panic() {
        let json = include_str!("fixtures/iperf3-bidir.json");
        for end in 1..json.trim_end().len() {
            let Some(part) = json.get(..end) else {
                continue;
            };
            assert!(
                read(part).is_err() || !part.contains('{'),
                "a document cut at {end} passed for a whole one"
            );
        }
        let text = include_str!("fixtures/iperf3-bidir.txt");
        for end in 0..text.len() {
            let result = text.get(..end).map(read);
            let summary = text.find("receiver").unwrap_or_default();
            if let Some(Ok(result)) = result {
                assert!(!result.complete || end > summary, "{end}");
            }
        }
        assert!(read("").is_err());
    }

    #[test]
    fn a_stream_of_events_is_read_as_far_as_it_goes() {
        let lines = [
            r#"{"event":"start","data":{"version":"iperf 3.17","test_start":{"protocol":"TCP","num_streams":1}}}"#,
            r#"{"event":"interval","data":{"streams":[{"rtt":90,"sender":true}],"sum":{"start":0,"end":1,"bits_per_second":8e6,"retransmits":3,"sender":true}}}"#,
            r#"{"event":"end","data":{"sum_sent":{"end":1,"bytes":1000000,"bits_per_second":8e6,"retransmits":3},"sum_received":{"bits_per_second":7.9e6}}}"#,
        ];
        let whole = parse(&lines.join("\n"));
        assert!(whole.complete);
        assert_eq!(whole.intervals[0].rtt_us, Some(90.0));
        assert_eq!(whole.throughput_bps_received, Some(7.9e6));
        let part = parse(&lines[..2].join("\n"));
        assert!(!part.complete && part.intervals.len() == 1);
        assert!(part.error.is_some_and(|error| error.contains("no end")));
    }
}
