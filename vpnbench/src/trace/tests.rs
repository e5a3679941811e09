//! Writer and reader together: what goes in comes out, and damage costs no more than it must.

use std::io::{self, Write};
use std::ops::ControlFlow;

use proptest::prelude::*;
use vpnbench_common::catalog::{KINDS, Kind, KindRow, kind_row};

use super::model::{Change, End, FieldLayout, Start, Symbols};
use super::*;

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
fn every_truncation_yields_a_prefix_and_says_so() {
    let file = file_of(&KINDS[1..5]);
    let (all, _) = read(&file).expect("reads");
    let (mut opened, mut before) = (0, 0);
    for length in 0..file.len() {
        match read(&file[..length]) {
            Err(TraceError::TruncatedStart { bytes, .. }) => {
                assert_eq!((bytes, opened), (length as u64, 0));
            }
            Err(error) => panic!("{length}: {error}"),
            Ok((events, summary)) => {
                opened += 1;
                let mut rest = all.iter();
                assert!(
                    events.iter().all(|event| rest.any(|other| other == event)),
                    "{length}"
                );
                assert!(events.len() >= before, "{length}");
                before = events.len();
                let codes = codes(&summary);
                let stated = codes.contains(&Code::Truncated) || codes.contains(&Code::NoEnd);
                assert!(stated || summary.end.is_some(), "{length}: {codes:?}");
                assert_eq!(summary.truncated, codes.contains(&Code::Truncated));
            }
        }
    }
    assert!(opened > 500);
}

#[test]
fn a_flipped_bit_costs_at_most_its_frame() {
    let file = file_of(&KINDS[1..5]);
    let (all, _) = read(&file).expect("reads");
    for at in 0..file.len() {
        let mut damaged = file.clone();
        damaged[at] ^= 1 << (at % 8);
        let Ok((events, summary)) = read(&damaged) else {
            continue;
        };
        assert!(events.iter().all(|event| all.contains(event)), "byte {at}");
        assert!(
            events.len() >= all.len() - 2,
            "byte {at}: {} events",
            events.len()
        );
        assert!(
            events.len() == all.len() || summary.problems.len() > 1,
            "byte {at}"
        );
    }
}

#[test]
fn noise_between_frames_is_skipped() {
    let file = small_file();
    let frame = Frames::new(&file[16..])
        .next(&mut Problems::default())
        .expect("reads")
        .expect("a frame");
    let behind_start = 16 + 32 + frame.header.padded();
    let mut noisy = file.clone();
    noisy.splice(
        behind_start..behind_start,
        b"noise \xf7VBframe \xf7VBfra".repeat(50),
    );
    let (events, summary) = read(&noisy).expect("reads");
    assert_eq!(events.len(), KINDS.len() * 3);
    assert_eq!(codes(&summary), [Code::DamagedFrame, Code::EventsLost]);
    assert!(
        summary.problems[0]
            .message
            .contains(&behind_start.to_string()),
        "{}",
        summary.problems[0]
    );
}

/// Memory that others can look at, as a file after `kill -9`.
#[derive(Clone, Default)]
struct Shared {
    bytes: std::rc::Rc<std::cell::RefCell<Vec<u8>>>,
    /// Bytes that fit; a write that does not fit stores a part first, as a full disk does.
    room: Option<usize>,
    takes_back: bool,
}

impl Write for Shared {
    fn write(&mut self, new: &[u8]) -> io::Result<usize> {
        let mut bytes = self.bytes.borrow_mut();
        let room = self.room.map_or(usize::MAX, |room| room - bytes.len());
        if room == 0 || (new.len() > room && self.takes_back) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let stored = new.len().min(room);
        bytes.extend_from_slice(&new[..stored]);
        Ok(stored)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_killed_recorder_loses_only_what_waited() {
    let out = Shared::default();
    let mut writer = Writer::create(out.clone(), &start()).expect("creates");
    for second in 1..=10u64 {
        writer
            .push(0, &record(Kind::Packet, second * 1_000_000_000, 1, second))
            .expect("pushes");
        writer
            .end_epoch(second * 1_000_000_000 + 1, &[])
            .expect("ends");
    }
    writer
        .push(0, &record(Kind::Packet, 10_500_000_000, 1, 7))
        .expect("pushes");
    drop(writer);
    let (events, summary) = read(&out.bytes.borrow()).expect("reads");
    assert!(events.len() >= 9, "{}", events.len());
    assert_eq!(codes(&summary), [Code::NoEnd]);
    assert!(summary.problems[0].message.contains("did not end in order"));
}

#[test]
fn a_full_disk_keeps_what_was_complete() {
    for takes_back in [false, true] {
        let out = Shared {
            room: Some(300_000),
            takes_back,
            ..Shared::default()
        };
        let mut writer = Writer::create_named(out.clone(), "/run.vbt", &start()).expect("creates");
        let mut failures = Vec::new();
        for time in 0..30_000u64 {
            let seed = time.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            failures.extend(writer.push(0, &record(Kind::Packet, time, 2, seed)).err());
        }
        let kept = writer.totals().clone();
        failures.extend(writer.finish(&End::default()).err());
        assert!(failures[0].is_disk_full());
        let message = failures[0].to_string();
        assert!(
            message.contains("/run.vbt") && message.contains("not stored"),
            "{message}"
        );
        assert!(
            kept.lost > 0 && kept.lost + kept.events == 30_000,
            "{kept:?}"
        );
        let (events, summary) = read(&out.bytes.borrow()).expect("reads");
        assert!(events.len() > 1000 && events.len() < 30_000);
        assert_eq!(summary.truncated, !takes_back);
        // Where the output takes back what does not fit, there is room for the end.
        assert_eq!(codes(&summary).contains(&Code::NoEnd), !takes_back);
        assert_eq!(summary.lost.contains_key(&2), takes_back);
    }
}

#[test]
fn loss_after_a_full_disk_is_stated_once_there_is_room_again() {
    let out = Shared {
        room: Some(300_000),
        takes_back: true,
        ..Shared::default()
    };
    let mut writer = Writer::create(out, &start()).expect("creates");
    let noise = |time: u64| {
        record(
            Kind::Packet,
            time,
            2,
            time.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        )
    };
    let failed = (0..1_927 * 4)
        .filter(|&time| writer.push(0, &noise(time)).is_err())
        .count();
    assert!(failed > 0);
    writer.out_mut().room = None;
    let (out, totals) = writer.finish(&End::default()).expect("finishes");
    let (events, summary) = read(&out.bytes.borrow()).expect("reads");
    assert_eq!(summary.lost, [(2, totals.lost)].into());
    assert_eq!(events.len() as u64 + totals.lost, 1_927 * 4);
    assert_eq!(events.len() as u64, totals.events);
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
fn a_newer_version_is_refused_by_name() {
    let mut file = small_file();
    file[8] = 9;
    let crc = crc32fast::hash(&file[..12]);
    file[12..16].copy_from_slice(&crc.to_le_bytes());
    let error = Reader::named(file.as_slice(), "new.vbt")
        .map(|_| ())
        .expect_err("is newer");
    assert!(matches!(
        error,
        TraceError::NewerVersion {
            found: 9,
            supported: 1,
            ..
        }
    ));
    let message = error.to_string();
    assert!(
        message.contains("new.vbt") && message.contains("upgrade vpnbench"),
        "{message}"
    );
}

#[test]
fn other_files_are_not_traces() {
    for bytes in [
        &b"\xd4\xc3\xb2\xa1 a capture, not a trace"[..],
        &[0; 4096],
        b"x",
    ] {
        assert!(matches!(
            Reader::new(bytes).map(|_| ()),
            Err(TraceError::NotATrace { .. })
        ));
    }
    assert!(matches!(
        Reader::new(&b""[..]).map(|_| ()),
        Err(TraceError::TruncatedStart { bytes: 0, .. })
    ));
    let missing = Reader::open(std::path::Path::new("/nonexistent/x.vbt"))
        .map(|_| ())
        .expect_err("is missing");
    assert!(missing.to_string().contains("/nonexistent/x.vbt"));
}

/// The start frame of `file` replaced by one with other layouts.
fn with_layouts(file: &[u8], change: impl FnOnce(&mut Vec<model::KindLayout>)) -> Vec<u8> {
    let mut start = Reader::new(file).expect("opens").start().clone();
    change(&mut start.kinds);
    let frame = Frames::new(&file[16..])
        .next(&mut Problems::default())
        .expect("reads")
        .expect("a frame");
    let behind = 16 + 32 + frame.header.padded();
    let json = serde_json::to_vec(&start).expect("serializes");
    let payload = zstd::bulk::compress(&json, 1).expect("compresses");
    let header = format::FrameHeader {
        payload: payload.len() as u32,
        raw: json.len() as u32,
        payload_crc: crc32fast::hash(&payload),
        ..frame.header
    };
    let mut out = [&file[..16], &header.encode(), &payload].concat();
    out.resize(16 + 32 + header.padded(), 0);
    [out.as_slice(), &file[behind..]].concat()
}

#[test]
fn records_of_another_layout_are_carried_over_by_name() {
    // As if an older version had had `tgid` and `vector` swapped, and `duration_ns` by another name.
    let file = with_layouts(&small_file(), |kinds| {
        let softirq = kinds
            .iter_mut()
            .find(|kind| kind.name == "softirq")
            .expect("exists");
        softirq.fields[5].name = "vector".to_owned();
        softirq.fields[6].name = "tgid".to_owned();
        softirq.fields[7] = FieldLayout {
            name: "wait_ns".to_owned(),
            ..softirq.fields[7].clone()
        };
    });
    let (mut old, mut new) = (Vec::new(), Vec::new());
    let collect = |file: &[u8], into: &mut Vec<vpnbench_common::event::Softirq>| {
        let reader = Reader::new(file).expect("opens");
        reader
            .for_each(|event| {
                if let Event::Softirq(event) = event {
                    into.push(*event);
                }
            })
            .expect("reads")
    };
    collect(&small_file(), &mut old);
    let summary = collect(&file, &mut new);
    assert_eq!(new.len(), 3);
    for (old, new) in old.iter().zip(&new) {
        assert_eq!((new.header, new.reserved), (old.header, old.reserved));
        assert_eq!(
            (new.tgid, new.vector, new.duration_ns),
            (old.vector, old.tgid, 0)
        );
    }
    assert_eq!(codes(&summary), [Code::LayoutMapped, Code::EventsLost]);
}

#[test]
fn kinds_without_a_description_are_left_out_and_counted() {
    let file = with_layouts(&small_file(), |kinds| {
        kinds.retain(|kind| kind.name != "packet");
    });
    let (events, summary) = read(&file).expect("reads");
    assert_eq!(events.len(), KINDS.len() * 3 - 3);
    assert_eq!(codes(&summary), [Code::EventsLost, Code::UnknownKind]);
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

    #[test]
    fn damage_anywhere_is_survived(at in any::<prop::sample::Index>(), new in prop::collection::vec(any::<u8>(), 0..64), cut in 0..64usize) {
        let mut file = small_file();
        let at = at.index(file.len());
        let end = (at + cut).min(file.len());
        file.splice(at..end, new);
        if let Ok((events, _)) = read(&file) {
            prop_assert!(events.len() <= KINDS.len() * 3);
        }
    }
}
