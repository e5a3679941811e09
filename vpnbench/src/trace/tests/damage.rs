//! Killed recorders, full disks, damaged files.

use std::io::{self, Write};

use super::*;

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
fn a_file_on_disk_reads_back() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("run.vbt");
    let mut writer = Writer::create_file(&path, Existing::Refuse, &start()).expect("creates");
    writer
        .push(3, &record(Kind::Packet, 5, 1, 9))
        .expect("pushes");
    let (file, totals) = writer.finish(&End::default()).expect("finishes");
    file.sync().expect("syncs");
    assert_eq!(
        totals.bytes,
        std::fs::metadata(&path).expect("exists").len()
    );
    let reader = Reader::open(&path).expect("opens");
    assert_eq!(reader.path(), path.display().to_string());
    let summary = reader.for_each(|_| ()).expect("reads");
    assert_eq!(
        (summary.events, summary.bytes, summary.problems.len()),
        (1, totals.bytes, 0)
    );
    let refused = Writer::create_file(&path, Existing::Refuse, &start())
        .map(|_| ())
        .expect_err("exists");
    assert!(matches!(
        refused,
        TraceError::Open {
            operation: "create",
            ..
        }
    ));
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
    assert_eq!(summary.missing_frames, 0);
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
            room: Some(700_000),
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
        room: Some(700_000),
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
    let failed = (0..30_000)
        .filter(|&time| writer.push(0, &noise(time)).is_err())
        .count();
    assert!(failed > 0);
    writer.out_mut().room = None;
    let (out, totals) = writer.finish(&End::default()).expect("finishes");
    let (events, summary) = read(&out.bytes.borrow()).expect("reads");
    assert_eq!(summary.lost, [(2, totals.lost)].into());
    assert_eq!(events.len() as u64 + totals.lost, 30_000);
    assert_eq!(events.len() as u64, totals.events);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

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
