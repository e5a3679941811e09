//! Files of other versions, and files that are no traces.

use super::*;

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
pub(super) fn with_layouts(
    file: &[u8],
    change: impl FnOnce(&mut Vec<model::KindLayout>),
) -> Vec<u8> {
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
    let (mut expected, _) = read(&small_file()).expect("reads");
    expected.retain(|event| event[14] != Kind::Packet as u8);
    assert_eq!(events, expected);
    assert_eq!(codes(&summary), [Code::EventsLost, Code::UnknownKind]);
}
