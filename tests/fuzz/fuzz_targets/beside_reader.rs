//! Any bytes: reading them as what another tool said beside a capture neither panics nor takes memory without bound,
//! and the capture is used whatever they are.
#![no_main]

use std::io::{Cursor, Write as _};

use libfuzzer_sys::fuzz_target;
use vpnbench::import::plan::{File, HOST};
use vpnbench::import::{Import, Place, Plan, Source};

const CAPTURE: &[u8] = include_bytes!("../corpus/capture_reader/ethernet.pcap");

fuzz_target!(|bytes: &[u8]| {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(bytes).expect("room");
    let plan = Plan {
        sources: vec![Source::at(Place::Unknown, "capture".into())],
        beside: vec![File {
            host: HOST.to_owned(),
            path: file.path().to_owned(),
        }],
        ..Plan::default()
    };
    let Ok(import) = Import::of(&plan, vec![Box::new(Cursor::new(CAPTURE))]) else {
        return;
    };
    let mut events = 0;
    let summary = import.for_each(|event| events += u64::from(!event.bytes().is_empty()));
    assert!(events > 0);
    assert_eq!(summary.expect("no filter").events, events);
});
