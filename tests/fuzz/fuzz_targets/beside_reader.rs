//! Any bytes: reading them as what another tool said beside a capture neither panics nor takes memory without bound,
//! and the capture is used whatever they are.
#![no_main]

use std::io::Write as _;

use libfuzzer_sys::fuzz_target;
use vpnbench::import::Import;
use vpnbench::import::plan::File;

const CAPTURE: &[u8] = include_bytes!("../corpus/capture_reader/ethernet.pcap");

fuzz_target!(|bytes: &[u8]| {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(bytes).expect("room");
    let beside = vec![File::at(file.path().to_owned())];
    let Ok(import) = Import::of_unknown(CAPTURE, beside) else {
        return;
    };
    let mut events = 0;
    let summary = import.for_each(|event| events += u64::from(!event.bytes().is_empty()));
    assert!(events > 0);
    assert_eq!(summary.expect("no filter").events, events);
});
