//! The function table of a Go program (`.gopclntab`), which stays when symbols are stripped.
//!
//! Layout: Go's `src/internal/abi/symtab.go` and `src/runtime/symtab.go` (`pcHeader`, `functab`, `_func`), as of Go
//! 1.18 (magic 0xfffffff0) and Go 1.20 (0xfffffff1). ELF: elf(5), 64 bits, little-endian.

use std::fs;
use std::path::Path;

/// Larger programs are not read.
const SIZE_MAX: u64 = 1 << 30;
const PT_LOAD: u32 = 1;

/// Functions of one program by file offset.
#[derive(Debug)]
pub(super) struct GoFunctions {
    bytes: Vec<u8>,
    /// Offsets of the parts of the table in the file.
    names: usize,
    functions: usize,
    count: usize,
    /// Address of the first function.
    text: u64,
    /// File offset, size and address of each loaded segment.
    segments: Vec<(u64, u64, u64)>,
}

impl GoFunctions {
    /// Reads a program; `None` if it is not one of Go's in a known layout.
    pub(super) fn read(path: &Path) -> Option<GoFunctions> {
        if fs::metadata(path).ok()?.len() > SIZE_MAX {
            return None;
        }
        GoFunctions::parse(fs::read(path).ok()?)
    }

    fn parse(bytes: Vec<u8>) -> Option<GoFunctions> {
        let at = |offset: usize| number::<8>(&bytes, offset);
        let at4 = |offset: usize| number::<4>(&bytes, offset);
        let at2 = |offset: usize| number::<2>(&bytes, offset);
        if bytes.get(..6)? != b"\x7fELF\x02\x01" {
            return None;
        }
        let (segments, sections) = (at(32)? as usize, at(40)? as usize);
        let (segment_count, section_count) = (at2(56)? as usize, at2(60)? as usize);
        let names_section = sections + 64 * at2(62)? as usize;
        let names = at(names_section + 24)? as usize;
        let section = |wanted: &[u8]| {
            (0..section_count).find_map(|number| {
                let header = sections + 64 * number;
                let name = bytes.get(names + at4(header)? as usize..)?;
                let found = name.starts_with(wanted) && name.get(wanted.len()) == Some(&0);
                found.then_some((at(header + 16)?, at(header + 24)? as usize))
            })
        };
        let (_, table) = section(b".gopclntab").or_else(|| section(b".data.rel.ro.gopclntab"))?;
        let (text_section, _) = section(b".text")?;
        if !matches!(at4(table)?, 0xffff_fff0 | 0xffff_fff1) || *bytes.get(table + 7)? != 8 {
            return None;
        }
        let header = |field: usize| at(table + 8 + 8 * field);
        let text = match header(2)? {
            // Filled in when the program is loaded, or not there any more.
            0 => text_section,
            text => text,
        };
        let segments = (0..segment_count).filter_map(|number| {
            let header = segments + 56 * number;
            let loaded = at4(header)? as u32 == PT_LOAD;
            loaded.then_some((at(header + 8)?, at(header + 32)?, at(header + 16)?))
        });
        let segments = segments.collect();
        Some(GoFunctions {
            names: table + header(3)? as usize,
            functions: table + header(7)? as usize,
            count: header(0)? as usize,
            text,
            segments,
            bytes,
        })
    }

    /// The function at an offset of the file, and how far in it.
    pub(super) fn at(&self, offset: u64) -> Option<(String, u64)> {
        let segment = self
            .segments
            .iter()
            .find(|(from, size, _)| (*from..from + size).contains(&offset))?;
        let address = offset - segment.0 + segment.2;
        let wanted = address.checked_sub(self.text)?;
        let start = |index: usize| {
            let entry = number::<4>(&self.bytes, self.functions + 8 * index);
            entry.unwrap_or(u64::MAX)
        };
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            if start(middle) <= wanted {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let found = low.checked_sub(1)?;
        let entry = self.functions + 8 * found + 4;
        let function = self.functions + number::<4>(&self.bytes, entry)? as usize;
        let name = self.names + number::<4>(&self.bytes, function + 4)? as usize;
        let rest = self.bytes.get(name..)?;
        let end = rest.iter().position(|byte| *byte == 0)?;
        let name = String::from_utf8_lossy(&rest[..end]).into_owned();
        Some((name, wanted - start(found)))
    }
}

fn number<const N: usize>(bytes: &[u8], offset: usize) -> Option<u64> {
    let part = bytes.get(offset..offset.checked_add(N)?)?;
    let mut whole = [0; 8];
    whole[..N].copy_from_slice(part);
    Some(u64::from_le_bytes(whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_programs_are_not_go() {
        assert!(GoFunctions::parse(b"\x7fELF\x02\x01".to_vec()).is_none());
        assert!(GoFunctions::parse(Vec::new()).is_none());
        let own = std::env::current_exe().expect("the test program has a path");
        assert!(GoFunctions::read(&own).is_none());
    }

    /// A table with two functions, the second at 0x40 of the text.
    #[test]
    fn functions_are_found_by_offset() {
        let go = GoFunctions {
            bytes: table(),
            names: 0,
            functions: 32,
            count: 2,
            text: 0x1000,
            segments: vec![(0x400, 0x800, 0x1000)],
        };
        let at = |offset| go.at(offset);
        assert_eq!(at(0x400), Some(("main.one".to_owned(), 0)));
        assert_eq!(at(0x43f), Some(("main.one".to_owned(), 0x3f)));
        assert_eq!(at(0x444), Some(("main.two".to_owned(), 4)));
        assert_eq!(at(0x3ff), None);
    }

    fn table() -> Vec<u8> {
        let mut bytes = b"main.one\0main.two\0".to_vec();
        bytes.resize(32, 0);
        // Entry and offset of its description, from the start of the functions.
        for word in [0_u32, 24, 0x40, 32, 0, 0] {
            bytes.extend(word.to_le_bytes());
        }
        // Descriptions: entry, name.
        for word in [0_u32, 0, 0x40, 9] {
            bytes.extend(word.to_le_bytes());
        }
        bytes
    }
}
