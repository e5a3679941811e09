//! Any bytes: the trace reader neither panics nor takes memory without bound, and it hands out
//! as many events as it says. Checksums are made right first, or nothing would get past them;
//! bytes with wrong ones are read as well.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vpnbench::trace::Reader;

const FILE_HEADER: usize = 16;
const FRAME_HEADER: usize = 32;

fuzz_target!(|bytes: &[u8]| {
    read(bytes);
    read(&with_right_checksums(bytes));
});

fn read(bytes: &[u8]) {
    let Ok(reader) = Reader::new(bytes) else { return };
    let mut events = 0;
    let summary = reader.for_each(|event| events += u64::from(!event.bytes().is_empty()));
    assert_eq!(summary.expect("problems are no errors").events, events);
}

/// Walks the frames by their lengths and puts checksums and signatures right.
fn with_right_checksums(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if let Some(header) = bytes.get_mut(..FILE_HEADER) {
        let crc = crc32fast::hash(&header[..12]);
        header[12..].copy_from_slice(&crc.to_le_bytes());
    }
    let mut at = FILE_HEADER;
    while at + FRAME_HEADER <= bytes.len() {
        let (header, rest) = bytes[at..].split_at_mut(FRAME_HEADER);
        header[..8].copy_from_slice(b"\xf7VBframe");
        let length = u32::from_le_bytes([header[16], header[17], header[18], header[19]]) as usize;
        let payload = &rest[..length.min(rest.len())];
        let crc = crc32fast::hash(payload);
        header[24..28].copy_from_slice(&crc.to_le_bytes());
        let crc = crc32fast::hash(&header[..28]);
        header[28..].copy_from_slice(&crc.to_le_bytes());
        at += FRAME_HEADER + length.next_multiple_of(8);
    }
    bytes
}
