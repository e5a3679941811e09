//! Short histories that a person can read, and what they must come to (the language is in
//! `vpnbench_tests::timeline`); then the same histories in other orders, pieces and with holes.

#[path = "timelines/properties.rs"]
mod properties;

use vpnbench::report::Report;
use vpnbench::report::model::Reconciliation;
use vpnbench_tests::timeline::Timeline;

const FAST: &str = "stack=__tcp_retransmit_skb,tcp_xmit_retransmit_queue,tcp_ack";
const ENTRY: &str = "stack=tcp_enter_recovery,tcp_fastretrans_alert,tcp_ack";
const TIMER: &str = "stack=__tcp_retransmit_skb,tcp_retransmit_skb,tcp_retransmit_timer";

fn report(text: &str) -> Report {
    let text = text
        .replace("$FAST", FAST)
        .replace("$ENTRY", ENTRY)
        .replace("$TIMER", TIMER);
    Timeline::parse(&text).unwrap().report().unwrap()
}

fn line<'a>(report: &'a Report, counter: &str) -> &'a Reconciliation {
    let mut lines = report.books.iter();
    lines.find(|line| line.counter == counter).unwrap()
}

/// Spurious segments and those that could be judged.
fn spurious(report: &Report) -> (u64, u64) {
    let found = report.retransmits.spurious.as_ref();
    found.map_or((0, 0), |one| (one.count, one.judged))
}

/// Two flows of IPv4 and one of IPv6 at once: each has its own retransmissions.
#[test]
fn several_flows_of_both_ip_versions_are_kept_apart() {
    let found = report(
        "outer eth0
        0.001 packet tap=outer.tx dev=eth0 flow=10.0.0.1:1>10.0.0.2:9 len=1066 payload=1000 seq=1 ts=1
        0.001 packet tap=outer.tx dev=eth0 flow=10.0.0.1:2>10.0.0.2:9 len=1066 payload=1000 seq=1 ts=1
        0.001 packet tap=outer.tx dev=eth0 flow=[fd00::1]:1>[fd00::2]:9 len=1086 payload=1000 seq=1 ts=1
        0.010 retransmit sk=1 flow=10.0.0.1:1>10.0.0.2:9 seq=1 end=1001 segs=1 ca=3 una=1 $FAST
        0.011 retransmit sk=3 flow=[fd00::1]:1>[fd00::2]:9 seq=1 end=1001 segs=1 ca=4 una=1 $TIMER
        0.012 retransmit sk=3 flow=[fd00::1]:1>[fd00::2]:9 seq=1 end=1001 segs=1 ca=4 una=1 $TIMER
        # The original of the first flow was only late.
        0.020 data flow=10.0.0.2:9>10.0.0.1:1 seq=1 len=1000 rcv=1 tsval=1
        0.021 data flow=10.0.0.2:9>10.0.0.1:1 seq=1 len=1000 rcv=1001 tsval=10
        0.022 data flow=[fd00::2]:9>[fd00::1]:1 seq=1 len=1000 rcv=1 tsval=12",
    );
    let flows: Vec<(&str, u64, Option<u64>)> = found
        .retransmits
        .flows
        .iter()
        .map(|flow| (flow.local.as_str(), flow.segments, flow.spurious))
        .collect();
    assert_eq!(
        flows,
        [("[fd00::1]:1", 2, Some(0)), ("10.0.0.1:1", 1, Some(1))]
    );
    assert_eq!(found.retransmits.by_cause.unwrap().rto, 2);
}

/// Both ends send, and both send the same sequence numbers again: only one of them needlessly.
#[test]
fn the_directions_of_a_connection_are_kept_apart() {
    let found = report(
        "outer eth0
        0.001 packet tap=outer.tx dev=eth0 flow=10.0.0.1:1>10.0.0.2:9 len=1066 payload=1000 seq=1 ts=1
        0.001 packet tap=outer.tx dev=eth0 flow=10.0.0.2:9>10.0.0.1:1 len=1066 payload=1000 seq=1 ts=1
        0.010 packet tap=outer.tx dev=eth0 flow=10.0.0.1:1>10.0.0.2:9 len=1066 payload=1000 seq=1 ts=10
        0.010 retransmit sk=1 flow=10.0.0.1:1>10.0.0.2:9 seq=1 end=1001 segs=1 ca=3 una=1 $FAST
        0.010 packet tap=outer.tx dev=eth0 flow=10.0.0.2:9>10.0.0.1:1 len=1066 payload=1000 seq=1 ts=10
        0.010 retransmit sk=2 flow=10.0.0.2:9>10.0.0.1:1 seq=1 end=1001 segs=1 ca=3 una=1 $FAST
        0.020 data flow=10.0.0.1:1>10.0.0.2:9 seq=1 len=1000 rcv=1 tsval=1
        0.021 data flow=10.0.0.1:1>10.0.0.2:9 seq=1 len=1000 rcv=1001 tsval=10
        0.022 data flow=10.0.0.2:9>10.0.0.1:1 seq=1 len=1000 rcv=1 tsval=10",
    );
    let of = |local: &str| {
        let mut flows = found.retransmits.flows.iter();
        flows.find(|flow| flow.local == local).unwrap().spurious
    };
    assert_eq!(of("10.0.0.2:9"), Some(1), "its original was late");
    assert_eq!(of("10.0.0.1:1"), Some(0), "its original was lost");
}

/// The same ports again with other sequence numbers are another connection: what arrived in the
/// first proves nothing about the second.
#[test]
fn ports_that_are_used_again_are_another_connection() {
    let found = report(
        "outer eth0
        0.001 packet tap=outer.tx dev=eth0 flow=10.0.0.1:1>10.0.0.2:9 len=74 payload=0 syn=1 seq=0
        0.002 packet tap=outer.tx dev=eth0 flow=10.0.0.1:1>10.0.0.2:9 len=1066 payload=1000 seq=1 ts=2
        0.005 data flow=10.0.0.2:9>10.0.0.1:1 seq=1 len=1000 rcv=1 tsval=2
        0.006 ack flow=10.0.0.1:1>10.0.0.2:9 una=1 ack=1001 tsecr=2 cwnd=10 out=1 nxt=1001
        0.100 packet tap=outer.tx dev=eth0 flow=10.0.0.1:1>10.0.0.2:9 len=74 payload=0 syn=1 seq=500
        0.102 packet tap=outer.tx dev=eth0 flow=10.0.0.1:1>10.0.0.2:9 len=1066 payload=1000 seq=501 ts=102
        0.110 packet tap=outer.tx dev=eth0 flow=10.0.0.1:1>10.0.0.2:9 len=1066 payload=1000 seq=501 ts=110
        0.110 retransmit flow=10.0.0.1:1>10.0.0.2:9 seq=501 end=1501 segs=1 ca=4 una=501 $TIMER
        0.120 data flow=10.0.0.2:9>10.0.0.1:1 seq=501 len=1000 rcv=501 tsval=110",
    );
    assert_eq!(spurious(&found), (0, 1));
    assert_eq!(
        found
            .tcp_flows
            .iter()
            .map(|flow| flow.acked_bytes)
            .sum::<u64>(),
        1000
    );
}

/// A segment that crosses 2^32 is sent again needlessly.
#[test]
fn sequence_numbers_wrap() {
    let found = report(
        "outer eth0
        0.001 packet tap=outer.tx dev=eth0 flow=10.0.0.1:1>10.0.0.2:9 len=1066 payload=1000 seq=4294966796 ts=1
        0.002 packet tap=outer.tx dev=eth0 flow=10.0.0.1:1>10.0.0.2:9 len=1066 payload=1000 seq=500 ts=2
        0.010 packet tap=outer.tx dev=eth0 flow=10.0.0.1:1>10.0.0.2:9 len=1066 payload=1000 seq=4294966796 ts=10
        0.010 retransmit flow=10.0.0.1:1>10.0.0.2:9 seq=4294966796 end=500 segs=1 ca=3 una=4294966796 $FAST
        0.020 data flow=10.0.0.2:9>10.0.0.1:1 seq=4294966796 len=1000 rcv=4294966796 tsval=1
        0.021 data flow=10.0.0.2:9>10.0.0.1:1 seq=500 len=1000 rcv=500 tsval=2
        0.022 data flow=10.0.0.2:9>10.0.0.1:1 seq=4294966796 len=1000 rcv=1500 tsval=10
        0.030 ack flow=10.0.0.1:1>10.0.0.2:9 una=4294966796 ack=1500 tsecr=1 cwnd=10 out=2 nxt=1500",
    );
    assert_eq!(spurious(&found), (1, 1));
    assert_eq!(found.tcp_flows[0].acked_bytes, 2000);
}

/// Three duplicate acknowledgements without SACK: NewReno, and the kernel counts it as such.
#[test]
fn without_sack_duplicates_are_counted() {
    let found = report(
        "outer eth0
        counter TcpExtTCPRenoRecovery 1
        counter TcpExtTCPSackRecovery 0
        0.001 packet tap=outer.tx dev=eth0 flow=10.0.0.1:1>10.0.0.2:9 len=4066 payload=4000 gso=1000 segs=4 seq=1
        0.011 ack no_sack=1 flow=10.0.0.1:1>10.0.0.2:9 una=1 ack=1 out=4 reordering=3 mss=1000
        0.012 ack no_sack=1 flow=10.0.0.1:1>10.0.0.2:9 una=1 ack=1 out=4 sacked=1 ca=1 reordering=3 mss=1000
        0.013 ack no_sack=1 flow=10.0.0.1:1>10.0.0.2:9 una=1 ack=1 out=4 sacked=2 ca=1 reordering=3 mss=1000
        0.013 state no_sack=1 flow=10.0.0.1:1>10.0.0.2:9 new=3 una=1 undo=1 sacked=3 ca=1 reordering=3 $ENTRY
        0.013 retransmit no_sack=1 flow=10.0.0.1:1>10.0.0.2:9 seq=1 end=1001 segs=1 ca=3 una=1 $FAST
        0.025 ack no_sack=1 flow=10.0.0.1:1>10.0.0.2:9 una=1 ack=4001 out=4 sacked=3 ca=3 undo=1 nxt=4001 mss=1000",
    );
    assert_eq!(line(&found, "TcpExtTCPRenoRecovery").agrees, Some(true));
    assert_eq!(line(&found, "TcpExtTCPSackRecovery").agrees, Some(true));
    assert_eq!(found.retransmits.by_cause.unwrap().dupack, 1);
    let reproduced = found.what_if[0].reproduced.as_ref().unwrap();
    assert_eq!(reproduced.fast_retransmits, Some(1.0));
}

/// Without timestamps one copy says nothing about which it was; two copies do.
#[test]
fn without_timestamps_a_single_copy_proves_nothing() {
    let sent = "outer eth0
        0.001 packet tap=outer.tx dev=eth0 flow=10.0.0.1:1>10.0.0.2:9 len=1054 payload=1000 seq=1
        0.010 packet tap=outer.tx dev=eth0 flow=10.0.0.1:1>10.0.0.2:9 len=1054 payload=1000 seq=1
        0.010 retransmit flow=10.0.0.1:1>10.0.0.2:9 seq=1 end=1001 segs=1 ca=4 una=1 $TIMER
        0.020 data flow=10.0.0.2:9>10.0.0.1:1 seq=1 len=1000 rcv=1";
    let one = report(sent);
    let found = one.retransmits.spurious.as_ref().unwrap();
    assert_eq!((found.count, found.unknown), (0, 1));
    let two = report(&format!(
        "{sent}
        0.021 data flow=10.0.0.2:9>10.0.0.1:1 seq=1 len=1000 rcv=1001"
    ));
    assert_eq!(spurious(&two), (1, 1));
}

/// The receiver closes, and its socket is not seen taking segments any more: what comes to its device still
/// tells of the original, and without the device nothing does.
#[test]
fn a_receiver_that_closes_is_seen_at_its_device_only() {
    let history = |device: bool| {
        let came = "packet tap=outer.rx dev=eth0 flow=10.0.0.1:1>10.0.0.2:9 len=1066 payload=1000";
        let came = |at: &str, segment: &str| match device {
            true => format!("{at} {came} {segment}\n"),
            false => String::new(),
        };
        let [first, late, copy] = [
            came("0.005", "seq=1 ts=1"),
            came("0.013", "seq=1001 ts=1"),
            came("0.014", "seq=1001 ts=10"),
        ];
        report(&format!(
            "outer eth0
            0.001 packet tap=outer.tx dev=eth0 flow=10.0.0.1:1>10.0.0.2:9 len=1066 payload=1000 seq=1 ts=1
            0.001 packet tap=outer.tx dev=eth0 flow=10.0.0.1:1>10.0.0.2:9 len=1066 payload=1000 seq=1001 ts=1
            {first}
            0.005 data flow=10.0.0.2:9>10.0.0.1:1 seq=1 len=1000 rcv=1 tsval=1
            0.010 packet tap=outer.tx dev=eth0 flow=10.0.0.1:1>10.0.0.2:9 len=1066 payload=1000 seq=1001 ts=10
            0.010 retransmit flow=10.0.0.1:1>10.0.0.2:9 seq=1001 end=2001 segs=1 ca=3 una=1001 $FAST
            0.012 closes flow=10.0.0.2:9>10.0.0.1:1 new=7
            {late}{copy}
            0.050 ack flow=10.0.0.1:1>10.0.0.2:9 una=1001 ack=1001 cwnd=10 out=1 nxt=2001"
        ))
    };
    assert_eq!(spurious(&history(true)), (1, 1));
    let blind = history(false);
    let found = blind.retransmits.spurious.as_ref().unwrap();
    assert_eq!((found.count, found.judged, found.unknown), (0, 0, 1));
    assert_eq!(blind.tcp_flows[0].resent[0].original_arrived, None);
}

/// Nothing is known of what a copy that was on its way at the end came to.
#[test]
fn what_is_on_its_way_at_the_end_is_not_judged() {
    let found = report(
        "outer eth0
        # The recording ends at 1.000.
        0.981 packet tap=outer.tx dev=eth0 flow=10.0.0.1:1>10.0.0.2:9 len=1066 payload=1000 seq=1 ts=1
        0.982 packet tap=outer.tx dev=eth0 flow=10.0.0.1:1>10.0.0.2:9 len=1066 payload=1000 seq=1001 ts=2
        0.991 data flow=10.0.0.2:9>10.0.0.1:1 seq=1001 len=1000 rcv=1 tsval=2
        0.998 packet tap=outer.tx dev=eth0 flow=10.0.0.1:1>10.0.0.2:9 len=1066 payload=1000 seq=1 ts=20
        0.998 retransmit flow=10.0.0.1:1>10.0.0.2:9 seq=1 end=1001 segs=1 ca=3 una=1 $FAST
        0.999 data flow=10.0.0.2:9>10.0.0.1:1 seq=2001 len=1000 rcv=1 tsval=3",
    );
    let found = found.retransmits.spurious.unwrap();
    assert_eq!((found.count, found.judged, found.unknown), (0, 0, 1));
}

/// Two segments are sent again as one: their originals come one by one, the second behind the copy.
#[test]
fn segments_that_were_put_together_have_several_originals() {
    let history = |last: &str| {
        report(&format!(
            "outer eth0
            0.001 packet tap=outer.tx dev=eth0 flow=10.0.0.1:1>10.0.0.2:9 len=70 payload=4 seq=1 ts=1
            0.001 packet tap=outer.tx dev=eth0 flow=10.0.0.1:1>10.0.0.2:9 len=372 payload=306 seq=5 ts=1
            0.005 data flow=10.0.0.2:9>10.0.0.1:1 seq=1 len=4 rcv=1 tsval=1
            0.010 packet tap=outer.tx dev=eth0 flow=10.0.0.1:1>10.0.0.2:9 len=376 payload=310 seq=1 ts=10
            0.010 retransmit flow=10.0.0.1:1>10.0.0.2:9 seq=1 end=311 segs=1 ca=4 una=1 $TIMER
            0.015 data flow=10.0.0.2:9>10.0.0.1:1 seq=1 len=310 rcv=5 tsval=10
            {last}
            0.050 ack flow=10.0.0.1:1>10.0.0.2:9 una=1 ack=311 cwnd=10 out=1 nxt=311"
        ))
    };
    let late = "0.020 data flow=10.0.0.2:9>10.0.0.1:1 seq=5 len=306 rcv=311 tsval=1";
    assert_eq!(spurious(&history(late)), (1, 1));
    assert_eq!(spurious(&history("")), (0, 1));
}

/// ECN: the window is reduced (CWR) and nothing is sent again. The old marker goes with it, which
/// is no undo.
#[test]
fn congestion_that_is_marked_is_no_recovery_and_no_undo() {
    let found = report(
        "outer eth0
        counter TcpRetransSegs 0
        counter TcpExtTCPDSACKUndo 0
        counter TcpExtTCPFullUndo 0
        0.010 ack flow=10.0.0.1:1>10.0.0.2:9 una=1 ack=1001 undo=1 cwnd=20 out=10
        0.010 state flow=10.0.0.1:1>10.0.0.2:9 new=2 una=1001 undo=0 cwnd=20
        0.020 ack flow=10.0.0.1:1>10.0.0.2:9 una=1001 ack=9001 ca=2 cwnd=14 out=9
        0.020 state flow=10.0.0.1:1>10.0.0.2:9 new=0 una=9001 ca=2 cwnd=10",
    );
    assert_eq!(found.retransmits.total, Some(0));
    let flow = &found.tcp_flows[0];
    assert_eq!((flow.recovery.count, flow.recovery.undone), (0, 0));
    for counter in ["TcpRetransSegs", "TcpExtTCPDSACKUndo", "TcpExtTCPFullUndo"] {
        assert_eq!(line(&found, counter).agrees, Some(true), "{counter}");
    }
}

/// The same loss under CUBIC and BBR: what is sent again is the same, but only for CUBIC does a
/// path without loss promise more.
#[test]
fn only_loss_based_control_gains_from_fewer_losses() {
    // A segment every 10 ms, acknowledged 20 ms later; number 20 is lost and sent again at number 24.
    const FLOW: &str = "flow=10.0.0.1:1>10.0.0.2:9 cwnd=3 out=3 mss=1000 srtt_us=20000 \
                        min_rtt_us=20000 reordering=3 chrono=1 written=99000 nxt=99000";
    let edge = |number: u32| 1 + number * 1000;
    let history = |control: &str, threshold: u32| {
        let mut lines = vec![
            "outer eth0".to_owned(),
            format!("sysctl net.ipv4.tcp_congestion_control {control}"),
        ];
        for number in 0..60u32 {
            let at = 0.01 * f64::from(number);
            let seq = edge(number);
            lines.push(format!(
                "{at:.3} packet tap=outer.tx dev=eth0 flow=10.0.0.1:1>10.0.0.2:9 len=1066 \
                 payload=1000 seq={seq} ts={number}"
            ));
            let at = format!("{:.3}", at + 0.001);
            let arrived = number.saturating_sub(1);
            let next = edge(arrived);
            match arrived {
                0 | 21 => {}
                22..=26 => {
                    let ca = [0, 1, 1, 3, 3][arrived as usize - 22];
                    let sack = format!("una=20001 ack=20001 sack=21001-{next} ca={ca} undo=20001");
                    lines.push(format!("{at} ack {FLOW} {sack}"));
                }
                27 => lines.push(format!(
                    "{at} ack {FLOW} una=20001 ack=27001 ca=3 undo=20001"
                )),
                _ => lines.push(format!(
                    "{at} ack {FLOW} una={} ack={next}",
                    edge(arrived - 1)
                )),
            }
            if arrived == 24 {
                let entry = "new=3 una=20001 ca=1 undo=20001 sacked=3 prior_cwnd=10";
                lines.push(format!(
                    "{at} state {FLOW} {entry} ssthresh={threshold} $ENTRY"
                ));
                let again = "seq=20001 end=21001 segs=1 ca=3 una=20001";
                lines.push(format!("{at} retransmit {FLOW} {again} $FAST"));
            }
            if arrived == 27 {
                let exit = "new=0 una=27001 ca=3 undo=20001 ssthresh=7 high=24001";
                lines.push(format!("{at} state {FLOW} {exit}"));
            }
        }
        report(&lines.join("\n"))
    };
    // What the sysctl says is not what the socket does: BBR leaves the threshold alone.
    let (cubic, bbr) = (history("bbr", 7), history("cubic", 2_147_483_647));
    assert_eq!(cubic.retransmits.by_cause, bbr.retransmits.by_cause);
    assert_eq!(cubic.retransmits.total, Some(1));
    assert_eq!(cubic.tcp_flows[0].recovery.count, 1);
    let throughput = |report: &Report, change: &str| {
        let mut rows = report.what_if.iter();
        let row = rows.find(|row| row.change.starts_with(change)).unwrap();
        (
            row.predicted.retransmits,
            row.predicted.throughput_bps.unwrap(),
        )
    };
    let same = "tcp_early_retrans=0";
    let lossless = "no loss";
    assert_eq!(throughput(&cubic, lossless).0, Some(0));
    assert!(throughput(&cubic, lossless).1 > throughput(&cubic, same).1);
    let (before, after) = (throughput(&bbr, same).1, throughput(&bbr, lossless).1);
    assert!((before - after).abs() < 1.0, "{before} {after}");
}

/// Each way to take a reduction back goes to its own counter of the kernel.
#[test]
fn undos_go_to_their_counters() {
    let flow = "flow=10.0.0.1:1>10.0.0.2:9 high=9001";
    let found = report(&format!(
        "outer eth0
        counter TcpExtTCPFullUndo 1
        counter TcpExtTCPPartialUndo 1
        counter TcpExtTCPDSACKUndo 2
        counter TcpExtTCPLossUndo 2
        counter TcpExtTCPSpuriousRTOs 1
        # All that was outstanding at the entry is acknowledged.
        0.01 state {flow} new=3 una=1 undo=1 $ENTRY
        0.02 ack   {flow} ca=3 una=1 undo=1 undo_retrans=1 stamp=10 ack=9001
        0.02 state {flow} new=0 ca=3 una=9001 undo=0 echo=5
        # Some of it is, by an echo from before the first retransmission.
        0.03 state {flow} new=3 una=1 undo=1 $ENTRY
        0.04 ack   {flow} ca=3 una=1 undo=1 undo_retrans=1 stamp=10 ack=5001
        0.04 state {flow} new=1 ca=3 una=5001 undo=0 undo_retrans=1 echo=5
        # Nothing is, but a DSACK reports the only retransmission.
        0.05 state {flow} new=3 una=1 undo=1 $ENTRY
        0.06 ack   {flow} ca=3 una=1 undo=1 undo_retrans=1 stamp=10 ack=1
        0.06 state {flow} new=1 ca=3 una=1 undo=0 echo=12
        # A DSACK after the recovery is over.
        0.07 state {flow} new=3 una=1 undo=1 $ENTRY
        0.08 ack   {flow} ca=3 una=1 undo=1 undo_retrans=1 stamp=10 ack=9001
        0.08 state {flow} new=0 ca=3 una=9001 undo=1 undo_retrans=1 echo=12
        0.09 ack   {flow} ca=0 una=9001 undo=1 undo_retrans=1 ack=9001
        0.10 ack   {flow} ca=0 una=9001 undo=0 ack=9001
        # A timeout whose original is acknowledged, and one of which F-RTO says so.
        0.11 state {flow} new=4 una=1 undo=1
        0.12 ack   {flow} ca=4 una=1 undo=1 undo_retrans=1 stamp=10 ack=5001
        0.12 state {flow} new=0 ca=4 una=5001 undo=0 undo_retrans=1 echo=5
        0.13 state {flow} new=4 una=1 undo=1
        0.14 ack   {flow} ca=4 una=1 undo=1 undo_retrans=1 stamp=10 ack=1 sack=5001-6001
        0.14 state {flow} new=0 ca=4 una=1 undo=0 undo_retrans=1 echo=12"
    ));
    let undos = [
        "FullUndo",
        "PartialUndo",
        "DSACKUndo",
        "LossUndo",
        "SpuriousRTOs",
    ];
    for (name, expected) in undos.into_iter().zip([1, 1, 2, 2, 1]) {
        let line = line(&found, &format!("TcpExtTCP{name}"));
        assert_eq!(
            (line.vpnbench, line.agrees),
            (Some(expected), Some(true)),
            "{name}"
        );
    }
}

/// Where the kernel ran no program for a retransmission, the socket's own count says so.
#[test]
fn what_no_program_saw_is_explained_by_the_sockets_own_count() {
    let history = |counted: u64| {
        report(&format!(
            "outer eth0
            counter TcpRetransSegs {counted}
            0.01 ack flow=10.0.0.1:1>10.0.0.2:9 una=1 ack=1 total=0
            0.02 retransmit flow=10.0.0.1:1>10.0.0.2:9 seq=1 end=1001 segs=1 ca=3 una=1 total=1 $FAST
            0.03 ack flow=10.0.0.1:1>10.0.0.2:9 una=1 ack=5001 total=3"
        ))
    };
    let known = history(3);
    let known = line(&known, "TcpRetransSegs");
    assert_eq!(
        (known.difference, known.explained, known.agrees),
        (Some(2), Some(2), Some(true))
    );
    let more = history(4);
    let more = line(&more, "TcpRetransSegs");
    assert_eq!(
        (more.difference, more.explained, more.agrees),
        (Some(3), Some(2), Some(false))
    );
}

/// Fragments are counted at the outer taps, and what became of them by the kernel.
#[test]
fn fragments_stand_beside_what_became_of_them() {
    let found = report(
        "outer eth0
        counter IpReasmFails 3
        counter IpReasmTimeout 1
        counter IpReasmOKs 5
        counter IpFragFails 2
        0.001 packet tap=outer.queue dev=eth0 flow=10.0.0.1:1>10.0.0.2:9 udp len=1514 payload=1472 frag=8192 id=7 skb=1
        0.001 packet tap=outer.queue dev=eth0 flow=10.0.0.1:1>10.0.0.2:9 udp len=134 payload=100 frag=185 id=7 skb=2
        0.002 packet tap=outer.queue dev=eth0 flow=10.0.0.1:1>10.0.0.2:9 udp len=134 payload=100 id=8 skb=3
        0.003 packet tap=outer.rx dev=eth0 flow=10.0.0.2:9>10.0.0.1:1 udp len=1514 payload=1472 frag=8192 id=9 skb=4",
    );
    let ledger = found.ledger.as_ref().unwrap();
    let row = ledger.fragments.first().unwrap();
    assert_eq!((row.sent, row.received), (2, 1));
    assert_eq!(row.reassemblies_failed, Some(3));
    assert_eq!(row.reassemblies_timed_out, Some(1));
    assert_eq!(row.reassembled, Some(5));
    assert_eq!(row.fragmentation_failed, Some(2));
}

/// An IP identification of 0 is a number like others where a flow counts past it, and none elsewhere.
#[test]
fn ip_identifications_count_past_zero() {
    let packet = |millis: u32, port: u32, id: u32| {
        format!(
            "0.{millis:03} packet tap=outer.tx dev=eth0 flow=10.0.0.1:{port}>10.0.0.2:9 udp len=142 payload=100 id={id} skb={millis}\n"
        )
    };
    let mut text = String::from("outer eth0\n");
    let counted = [65534, 65535, 1, 0, 2].iter().zip(1..);
    text.extend(counted.map(|(id, millis)| packet(millis, 1, *id)));
    text.extend((10..13).map(|millis| packet(millis, 2, 0)));
    let found = report(&text);
    let sums = found.reordering.iter().fold((0, 0, 0), |sums, row| {
        (
            sums.0 + row.packets,
            sums.1 + row.reordered,
            sums.2 + row.unnumbered,
        )
    });
    assert_eq!(sums, (5, 1, 3));
}
