//! Writer and reader together: what goes in comes out, and damage costs no more than it must.

use std::ops::ControlFlow;

use proptest::prelude::*;
use vpnbench_common::catalog::{KINDS, Kind, KindRow, kind_row};

use super::frames::Frames;
use super::model::{Change, End, FieldLayout, Start, Symbols};
use super::problem::Problems;
use super::*;

mod corpus;
mod damage;
mod versions;

use versions::with_layouts;

/// A record of a kind: header and words from a seed, some of them 0 as in real ones.
fn record(kind: Kind, time_ns: u64, probe: u8, seed: u64) -> Vec<u8> {
    let size = kind_row(kind as u8).map_or(16, |row| row.size);
    let mut bytes: Vec<u8> = (0..size as u64)
        .map(|index| {
            let value = (seed ^ (index / 3)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            if value >> 62 == 0 {
                (value >> 40) as u8
            } else {
                0
            }
        })
        .collect();
    bytes[..8].copy_from_slice(&time_ns.to_le_bytes());
    bytes[14] = kind as u8;
    bytes[15] = probe;
    bytes
}

fn start() -> Start {
    Start {
        run_id: "r".to_owned(),
        ..Start::default()
    }
}

/// One record of each kind on two rings in three epochs, with losses, a change and symbols.
fn small_file() -> Vec<u8> {
    file_of(KINDS)
}

/// As [`small_file`], with some kinds only: the tests that try every byte read it thousands of times.
fn file_of(kinds: &[KindRow]) -> Vec<u8> {
    let mut writer = Writer::create(Vec::new(), &start()).expect("creates");
    for epoch in 1..=3u64 {
        for (index, row) in kinds.iter().enumerate() {
            let time = epoch * 2_000_000_000 + index as u64 * 1000;
            writer
                .push((index % 2) as u16, &record(row.kind, time, 1, time))
                .expect("pushes");
        }
        writer
            .end_epoch(epoch * 2_000_000_000 + 500_000_000, &[(3, epoch)])
            .expect("ends");
    }
    let change = Change {
        time_ns: 1,
        what: "restart".to_owned(),
        tunnels: vec![],
        devices: vec![],
    };
    writer.change(&change).expect("stores");
    writer
        .symbols(&Symbols {
            kernel: [(1, "a+0x1".to_owned())].into(),
            ..Symbols::default()
        })
        .expect("stores");
    writer
        .finish(&End {
            reason: "command".to_owned(),
            ..End::default()
        })
        .expect("finishes")
        .0
}

fn read(bytes: &[u8]) -> Result<(Vec<Vec<u8>>, Summary), TraceError> {
    let mut events = Vec::new();
    let summary = Reader::new(bytes)?.for_each(|event| events.push(event.bytes().to_vec()))?;
    assert_eq!(summary.events, events.len() as u64);
    Ok((events, summary))
}

fn codes(summary: &Summary) -> Vec<Code> {
    summary
        .problems
        .iter()
        .map(|problem| problem.code)
        .collect()
}

#[test]
fn an_intact_file_reads_back_in_order() {
    let (events, summary) = read(&small_file()).expect("reads");
    let mut expected = Vec::new();
    for epoch in 1..=3u64 {
        for (index, row) in KINDS.iter().enumerate() {
            let time = epoch * 2_000_000_000 + index as u64 * 1000;
            expected.push(record(row.kind, time, 1, time));
        }
    }
    assert_eq!(events, expected);
    assert_eq!(codes(&summary), [Code::EventsLost]);
    assert_eq!(summary.lost, [(3, 6)].into());
    assert_eq!(
        summary.end.map(|end| end.reason).as_deref(),
        Some("command")
    );
    assert_eq!(
        (
            summary.changes.len(),
            summary.symbols.kernel.len(),
            summary.blocks
        ),
        (1, 1, 6)
    );
}

#[test]
fn the_start_frame_describes_the_records() {
    let file = small_file();
    let reader = Reader::new(file.as_slice()).expect("opens");
    assert_eq!(reader.start().format_version, FORMAT_VERSION);
    assert_eq!(reader.start().kinds, own_layouts());
    assert_eq!(reader.start().run_id, "r");
}

#[test]
fn losses_without_records_are_stored() {
    let mut writer = Writer::create(Vec::new(), &start()).expect("creates");
    writer.end_epoch(1, &[(5, 2)]).expect("ends");
    writer
        .end_epoch(5_000_000_000, &[(5, 3), (6, 1)])
        .expect("ends");
    let (file, totals) = writer.finish(&End::default()).expect("finishes");
    assert_eq!((totals.lost, totals.lost_by_probe[5]), (6, 5));
    let (_, summary) = read(&file).expect("reads");
    assert_eq!(summary.lost, [(5, 5), (6, 1)].into());
}

#[test]
fn records_of_a_wrong_size_are_refused() {
    let mut writer = Writer::create(Vec::new(), &start()).expect("creates");
    let good = record(Kind::Wakeup, 1, 1, 1);
    for bad in [&good[..31], &good[..15], &[]] {
        assert!(matches!(
            writer.push(0, bad),
            Err(TraceError::BadRecord { .. })
        ));
    }
    let mut unknown = good;
    unknown[14] = 200;
    assert!(writer.push(0, &unknown).is_err());
    assert_eq!(writer.totals().events, 0);
}

#[test]
fn a_receiver_can_stop_early() {
    let file = small_file();
    let mut count = 0;
    let summary = Reader::new(file.as_slice()).expect("opens").for_each(|_| {
        count += 1;
        if count == 5 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    let summary = summary.expect("reads");
    assert_eq!((count, summary.events, summary.stopped), (5, 5, true));
    assert_eq!(codes(&summary), [Code::EventsLost]);
}

#[test]
fn the_index_is_stored_and_can_be_rebuilt() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("run.vbt");
    let file = small_file();
    std::fs::write(&path, &file).expect("writes");
    let stored = Index::open(&path).expect("opens");
    assert!(stored.stored);
    assert_eq!(
        (stored.records(), stored.entries.len()),
        (KINDS.len() as u64 * 3, 6)
    );
    assert_eq!(
        stored.span_ns(),
        Some((
            2_000_000_000,
            6_000_000_000 + (KINDS.len() as u64 - 1) * 1000
        ))
    );
    std::fs::write(&path, &file[..file.len() - 1]).expect("writes");
    let rebuilt = Index::open(&path).expect("opens");
    assert!(!rebuilt.stored);
    assert_eq!(rebuilt.entries, stored.entries);
}

/// Four rings that are drained one after the other every 50 ms; their events overlap in time.
fn four_rings(watermark_ahead_ns: u64) -> Vec<u8> {
    let mut writer = Writer::create(Vec::new(), &start()).expect("creates");
    for epoch in 1..=60u64 {
        for ring in 0..4u64 {
            for step in 0..700u64 {
                let time = epoch * 50_000_000 + step * 71_000 + ring * 3;
                // Every tenth was under way for 30 ms when its time was taken.
                let late = if step % 10 == 0 { 30_000_000 } else { 0 };
                writer
                    .push(ring as u16, &record(Kind::Packet, time - late, 1, step))
                    .expect("pushes");
            }
        }
        writer
            .end_epoch((epoch + 1) * 50_000_000 + watermark_ahead_ns, &[])
            .expect("ends");
    }
    writer.finish(&End::default()).expect("finishes").0
}

/// Counts the bytes that were read.
struct Counted<'a> {
    bytes: &'a [u8],
    read: &'a std::cell::Cell<usize>,
}

impl std::io::Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        // Short reads, as from a pipe.
        let limit = buffer.len().min(5000);
        let count = self.bytes.read(&mut buffer[..limit])?;
        self.read.set(self.read.get() + count);
        Ok(count)
    }
}

#[test]
fn events_come_in_order_before_the_whole_file_is_read() {
    let file = four_rings(0);
    let read = std::cell::Cell::new(0);
    let (mut newest, mut first_after) = (0, None);
    let reader = Reader::new(Counted {
        bytes: &file,
        read: &read,
    })
    .expect("opens");
    let summary = reader.for_each(|event| {
        first_after.get_or_insert(read.get());
        assert!(event.time_ns() >= newest);
        newest = event.time_ns();
    });
    let summary = summary.expect("reads");
    assert_eq!((summary.events, summary.problems), (60 * 4 * 700, vec![]));
    assert!(
        first_after < Some(file.len() / 2),
        "{first_after:?} of {}",
        file.len()
    );
}

#[test]
fn events_behind_a_wrong_watermark_are_delivered_and_counted() {
    let (events, summary) = read(&four_rings(400_000_000)).expect("reads");
    assert_eq!(events.len(), 60 * 4 * 700);
    assert_eq!(codes(&summary), [Code::Late]);
}

/// A record: ring, kind, time step, probe and seed.
type Step = (u16, usize, i64, u8, u64);

fn steps() -> impl Strategy<Value = Vec<Vec<Step>>> {
    let step = (
        0..4u16,
        0..KINDS.len(),
        -1000..1_000_000i64,
        0..26u8,
        any::<u64>().prop_map(|seed| seed % 7 * (seed >> 60)),
    );
    prop::collection::vec(prop::collection::vec(step, 0..40), 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_records_round_trip_in_order_of_time(epochs in steps()) {
        let mut writer = Writer::create(Vec::new(), &start()).expect("creates");
        let (mut time, mut pushed, mut lost) = (5_000_000_000u64, Vec::new(), 0);
        for epoch in &epochs {
            for &(ring, kind, step, probe, seed) in epoch {
                time = time.wrapping_add_signed(step);
                let record = record(KINDS[kind].kind, time, probe, seed);
                writer.push(ring, &record).expect("pushes");
                pushed.push(record);
            }
            time += 300_000_000;
            lost += epoch.len() as u64;
            writer.end_epoch(time, &[(1, epoch.len() as u64)]).expect("ends");
        }
        let (file, totals) = writer.finish(&End::default()).expect("finishes");
        prop_assert_eq!((totals.events, totals.lost, totals.bytes), (pushed.len() as u64, lost, file.len() as u64));
        let (events, summary) = read(&file).expect("reads");
        let time = |record: &Vec<u8>| u64::from_le_bytes(record[..8].try_into().expect("8 bytes"));
        prop_assert!(events.is_sorted_by_key(time));
        let sorted = |mut records: Vec<Vec<u8>>| { records.sort(); records };
        prop_assert_eq!(sorted(events), sorted(pushed));
        prop_assert_eq!(summary.lost.values().sum::<u64>(), lost);
    }
}
