//! The corpus of the fuzzer, tests/fuzz/corpus/trace_reader, is what today's writer writes. After
//! a change of the format write it anew: `VPNBENCH_WRITE_CORPUS=1 cargo test -p vpnbench corpus`.

use super::super::format::{BLOCK_HEADER, FILE_HEADER, FrameHeader, LOSS_ENTRY, flag, frame_type};
use super::*;

/// The same file without compression, so that a fuzzer reaches the columns.
fn plain(file: &[u8]) -> Vec<u8> {
    let mut out = file[..FILE_HEADER].to_vec();
    let mut frames = Frames::new(&file[FILE_HEADER..]);
    while let Some(frame) = frames.next(&mut Problems::default()).expect("reads") {
        let payload = frames.payload(&frame);
        let kept = match frame.header.kind {
            frame_type::INDEX => payload.len(),
            frame_type::RECORDS => BLOCK_HEADER + LOSS_ENTRY * usize::from(payload[2]),
            _ => 0,
        };
        let mut new = payload[..kept].to_vec();
        if kept < payload.len() {
            new.extend(zstd::bulk::decompress(&payload[kept..], 1 << 20).expect("decompresses"));
        }
        let header = FrameHeader {
            flags: frame.header.flags & !flag::ZSTD,
            payload: new.len() as u32,
            raw: 0,
            payload_crc: crc32fast::hash(&new),
            ..frame.header
        };
        out.extend(header.encode());
        new.resize(header.padded(), 0);
        out.extend(new);
    }
    out
}

/// Few kinds in the start frame: files of the corpus are small.
fn tiny(kinds: &[KindRow]) -> Vec<u8> {
    let names: Vec<&str> = kinds.iter().map(|kind| kind.name).collect();
    with_layouts(&file_of(kinds), |layouts| {
        layouts.retain(|layout| names.contains(&layout.name.as_str()));
    })
}

#[test]
fn plain_frames_are_read_like_compressed_ones() {
    let (mut before, mut after) = (
        read(&small_file()).expect("reads"),
        read(&plain(&small_file())).expect("reads"),
    );
    (before.1.bytes, after.1.bytes) = (0, 0);
    assert_eq!(before, after);
}

/// The files by name.
fn files() -> Vec<(&'static str, Vec<u8>)> {
    let packets = tiny(&KINDS[..2]);
    let mut flipped = packets.clone();
    flipped[packets.len() / 2] ^= 4;
    let mut newer = packets.clone();
    newer[8] = 2;
    let crc = crc32fast::hash(&newer[..12]);
    newer[12..16].copy_from_slice(&crc.to_le_bytes());
    let mapped = with_layouts(&tiny(&KINDS[14..15]), |kinds| {
        kinds[0].fields[6].name = "tgid".to_owned();
    });
    let mut start_twice = packets.clone();
    start_twice.extend(&packets[FILE_HEADER..]);
    vec![
        ("valid.vbt", packets.clone()),
        ("valid-plain.vbt", plain(&packets)),
        ("taken-drop-plain.vbt", plain(&tiny(&KINDS[1..3]))),
        ("scheduling-plain.vbt", plain(&tiny(&KINDS[12..15]))),
        ("other-layout.vbt", mapped.clone()),
        ("other-layout-plain.vbt", plain(&mapped)),
        (
            "unknown-kind.vbt",
            with_layouts(&packets, |kinds| kinds.truncate(1)),
        ),
        ("truncated.vbt", packets[..packets.len() * 3 / 4].to_vec()),
        ("truncated-start.vbt", packets[..100].to_vec()),
        ("bit-flipped.vbt", flipped),
        ("newer-version.vbt", newer),
        ("joined.vbt", start_twice),
        ("not-a-trace", b"\xd4\xc3\xb2\xa1\x02\x00\x04\x00".to_vec()),
        ("empty", Vec::new()),
    ]
}

#[test]
fn the_fuzz_corpus_is_what_the_writer_writes() {
    let directory =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus/trace_reader");
    let write = std::env::var_os("VPNBENCH_WRITE_CORPUS").is_some();
    for (name, bytes) in files() {
        assert!(bytes.len() < 8192, "{name}: {} bytes", bytes.len());
        let path = directory.join(name);
        if write {
            std::fs::write(&path, &bytes).expect("writes");
        }
        let committed = std::fs::read(&path).expect("is committed");
        assert!(committed == bytes, "{name} is out of date");
    }
}
