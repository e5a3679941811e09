//! Any bytes: reading them as a capture neither panics nor takes memory without bound, and as many events are
//! handed out as are counted.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use vpnbench::import::Import;

fuzz_target!(|bytes: &[u8]| {
    let Ok(import) = Import::of_unknown(Cursor::new(bytes.to_vec()), Vec::new()) else {
        return;
    };
    let mut events = 0;
    let summary = import.for_each(|event| events += u64::from(!event.bytes().is_empty()));
    assert_eq!(summary.expect("no filter").events, events);
});
