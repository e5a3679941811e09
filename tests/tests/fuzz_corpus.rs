//! Reads the corpus of the fuzzer with the stable compiler, so that what it once found stays fixed.

use std::io::Cursor;
use std::path::Path;

use vpnbench::import::plan::File;
use vpnbench::import::{Import, ImportError};
use vpnbench::trace::{Code, Reader, TraceError};

fn corpus() -> Vec<(String, Vec<u8>)> {
    files_of("trace_reader")
}

fn files_of(target: &str) -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let entries = std::fs::read_dir(&directory).expect("the corpus is committed");
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.expect("readable").path();
        (
            path.file_name()
                .expect("a file")
                .to_string_lossy()
                .into_owned(),
            std::fs::read(&path).expect("readable"),
        )
    };
    entries.map(read).collect()
}

#[test]
fn no_file_of_the_corpus_upsets_the_reader() {
    let corpus = corpus();
    assert!(corpus.len() >= 10, "{} files", corpus.len());
    for (name, bytes) in &corpus {
        let Ok(reader) = Reader::named(bytes.as_slice(), name) else {
            continue;
        };
        let mut events = 0u64;
        let summary = reader
            .for_each(|_| events += 1)
            .expect("problems are no errors");
        assert_eq!(summary.events, events, "{name}");
    }
}

#[test]
fn the_files_are_what_their_names_say() {
    for (name, bytes) in corpus() {
        let read = || Reader::named(bytes.as_slice(), &name)?.for_each(|_| ());
        match name.as_str() {
            "valid.vbt" | "valid-plain.vbt" => {
                let summary = read().expect("reads");
                assert_eq!((summary.events, summary.end.is_some()), (6, true), "{name}");
            }
            "truncated.vbt" => assert!(read().expect("reads").truncated),
            "truncated-start.vbt" | "empty" => {
                assert!(matches!(read(), Err(TraceError::TruncatedStart { .. })));
            }
            "newer-version.vbt" => assert!(matches!(
                read(),
                Err(TraceError::NewerVersion { found: 2, .. })
            )),
            "not-a-trace" => assert!(matches!(read(), Err(TraceError::NotATrace { .. }))),
            "other-layout.vbt" => {
                let problems = read().expect("reads").problems;
                assert!(
                    problems
                        .iter()
                        .any(|problem| problem.code == Code::LayoutMapped)
                );
            }
            _ => {}
        }
    }
}

/// Packets of a capture and whether a problem names a place in it.
fn captured(bytes: Vec<u8>) -> Result<(usize, bool), ImportError> {
    let mut packets = 0;
    let import = Import::of_unknown(Cursor::new(bytes), Vec::new())?;
    let summary = import.for_each(|event| {
        packets += usize::from(matches!(event, vpnbench::trace::Event::Packet(_)));
    })?;
    let places = summary
        .problems
        .iter()
        .any(|one| one.message.contains("byte "));
    Ok((packets, places))
}

#[test]
fn captures_are_what_their_names_say() {
    let files = files_of("capture_reader");
    assert!(files.len() >= 10, "{} files", files.len());
    let whole = |name: &str| {
        let (_, bytes) = files.iter().find(|file| file.0 == name).expect(name);
        captured(bytes.clone()).expect(name)
    };
    let (all, _) = whole("ethernet.pcap");
    assert_eq!(whole("ethernet.pcapng"), (all, false));
    assert_eq!(whole("ethernet.pcap.gz"), (all, false));
    for (name, bytes) in files.clone() {
        match name.as_str() {
            "empty" | "no-capture" => {
                assert!(matches!(
                    captured(bytes),
                    Err(ImportError::NotACapture { .. })
                ));
            }
            "truncated.pcap" | "hole.pcap" | "lengths.pcapng" => {
                let (packets, places) = captured(bytes).expect("the rest is used");
                assert!(places && (1..all).contains(&packets), "{name}: {packets}");
            }
            _ => assert!(captured(bytes).expect("reads").0 > 0, "{name}"),
        }
    }
}

/// Files of other tools, beside a capture: whether they can be used, and whether a line of them cannot.
#[test]
fn files_beside_a_capture_are_what_their_names_say() {
    let captures = files_of("capture_reader");
    let (_, capture) = captures
        .iter()
        .find(|file| file.0 == "ethernet.pcap")
        .expect("a whole capture");
    let files = files_of("beside_reader");
    assert!(files.len() >= 10, "{} files", files.len());
    for (name, bytes) in files {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), bytes).expect("room");
        let beside = vec![File::at(file.path().to_owned())];
        let import = Import::of_unknown(Cursor::new(capture.clone()), beside);
        let read = import.and_then(|import| import.for_each(|_| ()));
        if let "nothing-known" | "empty" = name.as_str() {
            assert!(matches!(read, Err(ImportError::Beside { .. })), "{name}");
            continue;
        }
        let summary = read.expect(&name);
        assert!(summary.events > 0, "{name}");
        let mut messages = summary.problems.iter().map(|one| &one.message);
        let bad_line = messages.any(|message| message.contains(", line "));
        assert_eq!(bad_line, name.contains("-bad"), "{name}");
    }
}
