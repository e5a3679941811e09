//! Reads the corpus of the fuzzer with the stable compiler, so that what it once found stays fixed.

use std::path::Path;

use vpnbench::trace::{Code, Reader, TraceError};

fn corpus() -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/trace_reader");
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
