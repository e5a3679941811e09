//! Tests of `spurious`.

use super::*;

const MS: u64 = 1_000_000;

fn sent(time: u64, start: u64) -> Sent {
    Sent {
        offset: 0,
        time,
        start,
        end: start + 100,
        segments: 1,
        key: 0,
        episode: 1,
    }
}

fn arrival(time: u64, start: u64, tsval: Option<u32>, rcv_nxt: u64) -> Arrival {
    Arrival {
        start,
        end: start + 100,
        tsval,
        rcv_nxt,
        time,
        discarded: false,
    }
}

fn ack(time: u64, una: u64, ack: u64) -> Ack {
    Ack {
        time,
        una,
        ack,
        tsecr: None,
        dsack: None,
        sacked: [(0, 0); 4],
        tsval: None,
        min_rtt: MS,
        srtt: MS,
    }
}

fn verdict(spurious: Spurious) -> Tally {
    spurious.finish().remove(&0).unwrap_or_default()
}

#[test]
fn an_original_that_comes_late_is_told_by_its_timestamp() {
    for (tsval, spurious_count) in [(5, 1), (20, 0)] {
        let mut flow = Spurious::default();
        flow.arrived(arrival(0, 900, Some(5), 900));
        flow.repeated_at_device(1000, 1100, 20);
        flow.resent(sent(20 * MS, 1000));
        flow.arrived(arrival(25 * MS, 1000, Some(tsval), 1000));
        let tally = verdict(flow);
        assert_eq!((tally.spurious, tally.segments), (spurious_count, 1));
        assert_eq!(tally.certain, spurious_count);
    }
}

#[test]
fn bytes_queued_behind_a_gap_have_arrived() {
    let mut flow = Spurious::default();
    flow.arrived(arrival(0, 1200, None, 1000));
    flow.resent(sent(MS, 1200));
    flow.resent(sent(MS, 1100));
    assert_eq!(verdict(flow).spurious, 1);
}

#[test]
fn without_timestamps_the_second_copy_proves_it() {
    let mut flow = Spurious::default();
    flow.arrived(arrival(0, 900, None, 900));
    flow.resent(sent(20 * MS, 1000));
    flow.arrived(arrival(21 * MS, 1000, None, 1000));
    flow.arrived(arrival(25 * MS, 1000, None, 1100));
    let tally = verdict(flow);
    assert_eq!((tally.spurious, tally.certain, tally.undecided), (1, 0, 0));
    let mut flow = Spurious::default();
    flow.arrived(arrival(0, 900, None, 900));
    flow.resent(sent(20 * MS, 1000));
    flow.arrived(arrival(21 * MS, 1000, None, 1000));
    let tally = verdict(flow);
    assert_eq!((tally.spurious, tally.undecided), (0, 1));
}

#[test]
fn a_dsack_speaks_of_the_latest_copy_that_can_have_been_answered() {
    let mut flow = Spurious::default();
    flow.resent(Sent {
        key: 7,
        ..sent(0, 1000)
    });
    flow.resent(Sent {
        key: 8,
        ..sent(10 * MS, 1000)
    });
    let dsack = Some((1000, 1100));
    flow.acknowledged(Ack {
        dsack,
        ..ack(10 * MS + 1, 1100, 1100)
    });
    let tallies = flow.finish();
    assert_eq!((tallies[&7].spurious, tallies[&8].spurious), (1, 0));
}

#[test]
fn an_echo_older_than_the_retransmission_acknowledges_the_original() {
    let mut flow = Spurious::default();
    flow.resent(sent(20 * MS, 1000));
    flow.repeated_at_device(1000, 1100, 20);
    flow.acknowledged(Ack {
        tsecr: Some(19),
        ..ack(30 * MS, 1000, 1100)
    });
    let tally = verdict(flow);
    assert_eq!(
        (tally.spurious, tally.timestamps, tally.sender_only),
        (1, 1, 1)
    );
}

#[test]
fn of_an_undone_episode_only_the_left_edge_is_sure() {
    let mut flow = Spurious::default();
    flow.resent(sent(0, 1000));
    flow.resent(sent(0, 1100));
    flow.acknowledged(ack(MS, 1000, 1000));
    flow.undone(1, 1000);
    let tally = verdict(flow);
    assert_eq!((tally.spurious, tally.undo), (1, 2));
}

#[test]
fn what_neither_end_shows_is_not_judged() {
    let mut flow = Spurious::default();
    flow.resent(sent(0, 1000));
    let tally = verdict(flow);
    assert_eq!((tally.segments, tally.unseen), (0, 1));
}

#[test]
fn what_waits_already_is_repeated_wholly_or_in_part() {
    let mut flow = Spurious::default();
    let mut at = |start, discarded| {
        flow.arrived(Arrival {
            discarded,
            ..arrival(1, start, None, 0)
        })
    };
    assert_eq!(at(1000, true), None);
    assert_eq!(at(1000, false), None, "the first one was discarded");
    assert_eq!(at(1000, false), Some(Repeat::Whole));
    assert_eq!(at(1050, false), Some(Repeat::Partly));
    assert_eq!(at(950, false), Some(Repeat::Partly));
    assert_eq!(at(2000, false), None);
}

#[test]
fn what_is_acknowledged_sooner_than_any_round_trip_had_arrived() {
    for (later, spurious_count) in [(MS / 2, 1), (MS, 0)] {
        let mut flow = Spurious::default();
        flow.resent(sent(20 * MS, 1000));
        let mut sacked = [(0, 0); 4];
        sacked[0] = (900, 1300);
        flow.acknowledged(Ack {
            sacked,
            ..ack(20 * MS + later, 500, 500)
        });
        let tally = verdict(flow);
        assert_eq!(
            (tally.spurious, tally.early),
            (spurious_count, spurious_count)
        );
    }
}
