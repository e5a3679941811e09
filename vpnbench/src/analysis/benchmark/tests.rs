//! Output on the clock of the events, beside packets: short made-up runs.

use std::collections::BTreeMap;

use vpnbench_common::catalog::Tap;

use super::correlate::{Timing, correlate};
use super::model::{Benchmark, Interval, Way};
use super::series::{Flow, FlowKey};
use super::{Tool, read};
use crate::analysis::{Context, Problem};
use crate::trace::model::{Clock, CommandOutput, End, Start, Symbols};

const START_NS: u64 = 10_000_000_000;

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

fn output(text: &str) -> CommandOutput {
    let mut output = CommandOutput::new(false);
    output.push(START_NS, text.as_bytes());
    output
}

/// Runs `correlate` on a start at 10 s, with or without lost events.
fn correlated(result: &mut Benchmark, flows: &[(FlowKey, Flow)], lost: u64) -> Vec<Problem> {
    let start = Start {
        clock: Clock {
            monotonic_ns: START_NS,
            ..Clock::default()
        },
        ..Start::default()
    };
    let (end, symbols) = (End::default(), Symbols::default());
    let lost = BTreeMap::from([(1, lost)]);
    let context = Context::new(&start, Some(&end), &[], &symbols, &lost);
    let timing = Timing {
        command_started_ns: Some(START_NS),
        arrival: None,
        ..Timing::default()
    };
    correlate(result, flows, &context, timing)
}

/// The client's flow: `bps` of payload for `seconds` from 1 s after the start on.
fn flow(bps: u64, seconds: u64) -> (FlowKey, Flow) {
    let key = FlowKey {
        netns: 7,
        tap: Tap::TunQueue as u8,
        protocol: 6,
        sport: 40_000,
        dport: 5201,
    };
    let begin = START_NS + 1_000_000_000;
    let flow = Flow {
        origin_ns: begin,
        bin_ns: 50_000_000,
        bins: vec![bps / 8 / 20; (seconds * 20) as usize],
        first_bulk_ns: Some(begin),
        payload_bytes: bps / 8 * seconds,
    };
    (key, flow)
}

/// A benchmark that says `bps` in each of two intervals.
fn claims(bps: f64) -> Benchmark {
    let interval = |start: f64| Interval {
        start_s: start,
        end_s: start + 1.0,
        throughput_bps: Some(bps),
        way: Way::Sent,
        cwnd_bytes: Some(100_000),
        retransmits: Some(0),
        ..Interval::default()
    };
    Benchmark {
        tool: "iperf3".to_owned(),
        streams: Some(1),
        connections: vec![super::model::Connection {
            local_port: 40_000,
            remote_port: 5201,
            protocol: "tcp".to_owned(),
        }],
        intervals: vec![interval(0.0), interval(1.0)],
        ..Benchmark::default()
    }
}

#[test]
fn figures_that_agree_are_set_beside_the_packets() {
    let mut result = claims(102e6);
    let problems = correlated(&mut result, &[flow(100_000_000, 3)], 0);
    assert_eq!(problems, []);
    let anchor = result.start.expect("the flow shows the start");
    assert_eq!((anchor.at_s, anchor.basis.as_str()), (1.0, "first-packet"));
    for interval in &result.intervals {
        let seen = interval.packets.as_ref().expect("compared");
        assert!((seen.payload_bps - 100e6).abs() < 1e3, "{seen:?}");
        assert_eq!((seen.tap.as_str(), seen.agrees), ("tun.queue", Some(true)));
        let difference = seen.difference_ratio.unwrap_or_default();
        assert!((difference - 0.02).abs() < 1e-4, "{difference}");
    }
}

#[test]
fn a_benchmark_that_claims_more_than_was_sent_is_reported() {
    let mut result = claims(200e6);
    let problems = correlated(&mut result, &[flow(100_000_000, 3)], 0);
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0].message.contains("2 of 2 intervals"),
        "{problems:?}"
    );
    assert!(problems[0].message.contains("200.0 Mbit/s"), "{problems:?}");
}

#[test]
fn with_lost_events_agreement_is_unknown() {
    let mut result = claims(200e6);
    let problems = correlated(&mut result, &[flow(100_000_000, 3)], 5);
    assert!(
        problems
            .iter()
            .all(|problem| problem.message.contains("unknown"))
    );
    let agrees = result.intervals[0].packets.as_ref().map(|seen| seen.agrees);
    assert_eq!(agrees, Some(None));
}

#[test]
fn without_a_start_nothing_is_compared() {
    let mut result = claims(200e6);
    let problems = correlated(&mut result, &[], 0);
    assert_eq!(problems.len(), 1);
    assert!(problems[0].message.contains("not known"), "{problems:?}");
    assert!(result.intervals.iter().all(|one| one.packets.is_none()));
}

#[test]
fn datagrams_that_arrived_are_counted_behind_the_tunnel() {
    let mut result = claims(100e6);
    result.connections[0].protocol = "udp".to_owned();
    let at = |tap: Tap, bps: u64| {
        let (mut key, flow) = flow(bps, 3);
        (key.protocol, key.tap) = (17, tap as u8);
        (key, flow)
    };
    let flows = [
        at(Tap::TunQueue, 100_000_000),
        at(Tap::TunWrite, 60_000_000),
    ];
    assert_eq!(correlated(&mut result, &flows, 0), []);
    for interval in &result.intervals {
        let arrived = interval.arrived_bps.expect("seen behind the tunnel");
        assert!((arrived - 60e6).abs() < 1e3, "{arrived}");
    }
    correlated(&mut result, &flows[..1], 0);
    assert_eq!(result.intervals[0].arrived_bps, None);
}

#[test]
fn other_flows_do_not_count() {
    let (mut key, other) = flow(900_000_000, 3);
    key.sport = 50_000;
    let mut result = claims(100e6);
    assert_eq!(
        correlated(&mut result, &[flow(100_000_000, 3), (key, other)], 0),
        []
    );
}

#[test]
fn tools_are_recognised_behind_others_and_by_what_they_write() {
    for (command, tool) in [
        ("iperf3 -c 10.2.0.2", Some(Tool::Iperf3)),
        ("timeout 30 /usr/bin/iperf3 -c x", Some(Tool::Iperf3)),
        ("ip netns exec a ping 10.2.0.2", Some(Tool::Ping)),
        ("/x/vpnbench lab part quic-client {}", Some(Tool::Own)),
        ("curl -o /dev/null http://x/", Some(Tool::Curl)),
        ("scp a b:", None),
    ] {
        assert_eq!(Tool::of_command(&words(command)), tool, "{command}");
    }
    let script = words("./measure.sh");
    let text = include_str!("fixtures/iperf3-tcp.txt");
    let found = read(&script, &output(text), None);
    assert!(found.is_some_and(|(result, _)| result.complete));
    assert!(read(&script, &output("hello\n"), None).is_none());
}

#[test]
fn damaged_output_is_a_problem_and_names_the_tool() {
    let text = &include_str!("fixtures/iperf3-tcp.json")[..2000];
    let (result, problems) = read(&words("iperf3 -c x -J"), &output(text), None).expect("iperf3");
    assert_eq!((result.tool.as_str(), result.complete), ("iperf3", false));
    assert_eq!(result.throughput_bps_sent, None);
    assert!(
        problems[0].message.contains("does not end as it should"),
        "{problems:?}"
    );
}

#[test]
fn pings_own_time_stamps_are_put_on_the_monotonic_clock() {
    let clock = Clock {
        monotonic_ns: START_NS,
        realtime_ns: 1_795_614_063_000_000_000,
        boottime_ns: 0,
    };
    let text = include_str!("fixtures/ping-timestamps.txt");
    let (result, _) = read(&words("ping -D x"), &output(text), Some(clock)).expect("ping");
    let after_ns = result.started_ns.unwrap_or_default() - START_NS;
    assert!(after_ns.abs_diff(984_931_000) < 1_000, "{after_ns}");
}
