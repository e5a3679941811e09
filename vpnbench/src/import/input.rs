//! Bytes of a capture: a file, standard input or a named pipe; plain, gzip or zstd.

use std::io::{self, Cursor, Read};
use std::path::Path;

use super::error::ImportError;
use crate::trace;

/// Signature of gzip (RFC 1952, section 2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// Signature of a zstd frame (RFC 8878, section 3.1.1).
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The largest window a zstd frame may ask for, as a power of two: 128 MiB, what `zstd -19` and
/// `--long=27` write.
const ZSTD_WINDOW_LOG: u32 = 27;

/// Opens a capture, or standard input for `-`, and unpacks it by its first bytes.
pub(super) fn open(path: &Path) -> Result<Box<dyn Read + Send>, ImportError> {
    let failed = |source| ImportError::Open {
        path: trace::Input::name(path),
        source,
    };
    let input = trace::Input::open(path).map_err(failed)?;
    unpacked(input).map_err(failed)
}

/// Unpacks a stream by its first bytes.
pub(super) fn unpacked(mut input: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    let mut first = [0; 4];
    let mut length = 0;
    while length < first.len() {
        match input.read(&mut first[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let known = &first[..length];
    let packed = known.starts_with(&GZIP) || known == ZSTD;
    let whole = Cursor::new(known.to_vec()).chain(input);
    if !packed {
        return Ok(Box::new(whole));
    }
    if known.starts_with(&GZIP) {
        return Ok(Box::new(flate2::read::MultiGzDecoder::new(whole)));
    }
    let mut decoder = zstd::stream::read::Decoder::new(whole)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG)?;
    Ok(Box::new(decoder))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn read(bytes: Vec<u8>) -> Vec<u8> {
        let mut text = Vec::new();
        let mut input = unpacked(Cursor::new(bytes)).expect("opens");
        input.read_to_end(&mut text).expect("reads");
        text
    }

    #[test]
    fn packed_streams_are_told_by_their_first_bytes() {
        let text = b"a capture, more or less".to_vec();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&text).expect("writes");
        let mut twice = gzip.finish().expect("ends");
        twice.extend(twice.clone());
        assert_eq!(read(twice), [text.clone(), text.clone()].concat());
        let zstd = zstd::encode_all(text.as_slice(), 1).expect("packs");
        assert_eq!(read(zstd), text);
        assert_eq!(read(text.clone()), text);
        assert_eq!(read(b"ab".to_vec()), b"ab");
    }
}
