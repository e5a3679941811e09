//! How files of other versions become readable. The version of the format changes only when old
//! readers would misread a file; records that gained or lost fields do not count, because each
//! file describes its records and fields are carried over by name.

use std::collections::BTreeMap;

use vpnbench_common::catalog::{KINDS, KindRow, kind_row};

use super::codec::{KindShape, Shapes};
use super::model::{FieldLayout, KindLayout};
use super::problem::{Code, Problem};

/// The version of the format that this program writes.
pub const FORMAT_VERSION: u32 = 1;

/// One version of the format.
#[derive(Debug, Clone, Copy)]
pub struct Version {
    /// Its number in the file header.
    pub number: u32,
    /// What it changed.
    pub changes: &'static str,
}

/// All versions this program reads, oldest first. A new version adds a row here and a branch
/// where the old layout is read, and never edits one.
pub const VERSIONS: &[Version] = &[Version {
    number: 1,
    changes: "first version: framed blocks of records as columns, zstd",
}];

/// Largest record a file may describe.
const RECORD_BYTES_MAX: u32 = 2048;

/// The layouts that this program writes.
#[must_use]
pub fn own_layouts() -> Vec<KindLayout> {
    let field = |field: &vpnbench_common::layout::Field| FieldLayout {
        name: field.name.to_owned(),
        offset: field.offset as u32,
        size: field.size as u32,
        kind: field.kind.to_owned(),
    };
    let layout = |row: &KindRow| KindLayout {
        kind: row.kind as u8,
        name: row.name.to_owned(),
        size: row.size as u32,
        fields: row.fields.iter().map(field).collect(),
    };
    KINDS.iter().map(layout).collect()
}

/// Carries records of one kind from the layout of a file into ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FieldMap {
    words: usize,
    /// `None`: the layouts are the same.
    copies: Option<Vec<Copy>>,
}

/// One field that both layouts have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Copy {
    from: usize,
    from_size: usize,
    to: usize,
    to_size: usize,
    rule: Rule,
}

/// How a value changes its width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Unsigned,
    Signed,
    /// Elements that both have; the rest is 0.
    Array,
}

impl FieldMap {
    /// Size of our record in 8-byte words.
    #[inline]
    pub(super) fn words(&self) -> usize {
        self.words
    }

    fn new(file: &KindLayout, ours: &KindRow) -> Self {
        let same = file.size as usize == ours.size
            && file.fields.len() == ours.fields.len()
            && file.fields.iter().zip(ours.fields).all(|(theirs, our)| {
                theirs.name == our.name
                    && theirs.offset as usize == our.offset
                    && theirs.size as usize == our.size
                    && theirs.kind == our.kind
            });
        let by_name: BTreeMap<&str, &FieldLayout> = file
            .fields
            .iter()
            .map(|field| (field.name.as_str(), field))
            .collect();
        let copies = ours.fields.iter().filter_map(|our| {
            let theirs = by_name.get(our.name)?;
            let rule = rule(theirs, our.kind)?;
            let (from, from_size) = (theirs.offset as usize, theirs.size as usize);
            Some(Copy {
                from,
                from_size,
                to: our.offset,
                to_size: our.size,
                rule,
            })
        });
        FieldMap {
            words: ours.size / 8,
            copies: (!same).then(|| copies.collect()),
        }
    }

    /// Appends the record in our layout.
    #[inline]
    pub(super) fn append(&self, record: &[u64], kind: u8, out: &mut Vec<u64>) {
        match &self.copies {
            None => out.extend_from_slice(record),
            Some(copies) => {
                let start = out.len();
                out.resize(start + self.words, 0);
                let to: &mut [u8] = bytemuck::cast_slice_mut(&mut out[start..]);
                let from: &[u8] = bytemuck::cast_slice(record);
                copies.iter().for_each(|copy| copy.apply(from, to));
                // The header is the same in all versions; a file must not mislead about the kind.
                to[..16].copy_from_slice(&from[..16]);
            }
        }
        // The number under which the record was stored decides, not the byte in it.
        let second = out.len() - self.words + 1;
        out[second] = out[second] & !(0xff << 48) | u64::from(kind) << 48;
    }
}

/// Element type of `[T; N]`.
fn element(kind: &str) -> Option<&str> {
    kind.strip_prefix('[')?.split(';').next().map(str::trim)
}

/// How a field of the file becomes ours; `None` if it cannot and counts as missing.
fn rule(theirs: &FieldLayout, ours: &str) -> Option<Rule> {
    let is_integer = matches!(theirs.size, 1 | 2 | 4 | 8);
    match (element(&theirs.kind), element(ours)) {
        (Some(their_element), Some(our_element)) => {
            (their_element == our_element).then_some(Rule::Array)
        }
        (None, None) if !is_integer => None,
        (None, None) if theirs.kind.starts_with('i') && ours.starts_with('i') => Some(Rule::Signed),
        (None, None) => Some(Rule::Unsigned),
        _ => None,
    }
}

impl Copy {
    fn apply(&self, from: &[u8], to: &mut [u8]) {
        let (Some(from), Some(to)) = (
            from.get(self.from..self.from + self.from_size),
            to.get_mut(self.to..self.to + self.to_size),
        ) else {
            return;
        };
        if self.rule == Rule::Array || from.len() == to.len() {
            let common = from.len().min(to.len());
            to[..common].copy_from_slice(&from[..common]);
            return;
        }
        let mut wide = [0u8; 8];
        wide[..from.len().min(8)].copy_from_slice(&from[..from.len().min(8)]);
        let unused = 64 - 8 * from.len().min(8) as u32;
        let bits = 8 * to.len().min(8) as u32;
        let value = u64::from_le_bytes(wide);
        let fitted = if self.rule == Rule::Signed {
            let value = (value << unused) as i64 >> unused;
            value.clamp(i64::MIN >> (64 - bits), i64::MAX >> (64 - bits)) as u64
        } else if unused > 0 && value == u64::MAX >> unused {
            // All ones mean "not available" in both widths.
            u64::MAX
        } else {
            value.min(u64::MAX >> (64 - bits))
        };
        let common = to.len().min(8);
        to[..common].copy_from_slice(&fitted.to_le_bytes()[..common]);
    }
}

/// Shapes of all kinds of a file, and what is odd about them.
pub(super) fn shapes(layouts: &[KindLayout]) -> (Box<Shapes>, Vec<Problem>) {
    let mut problems = Vec::new();
    let mut shapes: Box<Shapes> = Box::new(std::array::from_fn(|_| KindShape {
        words: 0,
        map: None,
    }));
    for layout in layouts {
        if let Some(fault) = fault(layout) {
            let what = format!(
                "record kind {} ({}): {fault}; its records are left out",
                layout.kind, layout.name
            );
            problems.push(Problem::error(Code::BadLayout, what));
            continue;
        }
        let map = kind_row(layout.kind).map(|row| FieldMap::new(layout, row));
        if map.as_ref().is_some_and(|map| map.copies.is_some()) {
            let what = format!(
                "record kind {} ({}) has another layout than in this version; its fields are carried over by name",
                layout.kind, layout.name
            );
            problems.push(Problem::info(Code::LayoutMapped, what));
        }
        shapes[layout.kind as usize] = KindShape {
            words: layout.size as usize / 4,
            map,
        };
    }
    (shapes, problems)
}

/// What makes a layout unusable.
fn fault(layout: &KindLayout) -> Option<&'static str> {
    let size = layout.size;
    if !(16..=RECORD_BYTES_MAX).contains(&size) || !size.is_multiple_of(8) {
        return Some("impossible record size");
    }
    let outside = |field: &FieldLayout| {
        field
            .offset
            .checked_add(field.size)
            .is_none_or(|end| end > size)
    };
    layout
        .fields
        .iter()
        .any(outside)
        .then_some("a field lies outside of the record")
}

#[cfg(test)]
mod tests {
    use super::*;
    use vpnbench_common::catalog::Kind;

    fn field(name: &str, offset: u32, size: u32, kind: &str) -> FieldLayout {
        FieldLayout {
            name: name.to_owned(),
            offset,
            size,
            kind: kind.to_owned(),
        }
    }

    fn map(kind: Kind, size: u32, fields: Vec<FieldLayout>) -> FieldMap {
        let layout = KindLayout {
            kind: kind as u8,
            name: "x".to_owned(),
            size,
            fields,
        };
        FieldMap::new(&layout, kind_row(kind as u8).expect("exists"))
    }

    #[test]
    fn the_last_version_is_ours() {
        assert_eq!(
            VERSIONS.last().map(|version| version.number),
            Some(FORMAT_VERSION)
        );
        assert!(VERSIONS.is_sorted_by_key(|version| version.number));
    }

    #[test]
    fn fields_change_their_place_and_width() {
        // SockDrop as an older version might have had it: error narrower, ports wider, no rcvbuf.
        let fields = vec![
            field("time_ns", 0, 8, "u64"),
            field("tid", 8, 4, "u32"),
            field("error", 16, 2, "i16"),
            field("rport", 20, 4, "u32"),
            field("lport", 24, 4, "u32"),
            field("rmem", 28, 2, "u16"),
            field("laddr", 32, 8, "[u8; 8]"),
            field("netns", 40, 8, "[u8; 8]"),
        ];
        let map = map(Kind::SockDrop, 48, fields);
        let mut old = [0u64; 6];
        {
            let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut old);
            bytes[..8].copy_from_slice(&77u64.to_le_bytes());
            bytes[16..18].copy_from_slice(&(-12i16).to_le_bytes());
            bytes[20..24].copy_from_slice(&70_000u32.to_le_bytes());
            bytes[24..28].copy_from_slice(&5201u32.to_le_bytes());
            bytes[28..30].copy_from_slice(&u16::MAX.to_le_bytes());
            bytes[32..].fill(7);
        }
        let mut out = Vec::new();
        map.append(&old, Kind::SockDrop as u8, &mut out);
        let drop: &vpnbench_common::event::SockDrop =
            bytemuck::from_bytes(bytemuck::cast_slice(&out));
        assert_eq!(
            (drop.header.time_ns, drop.header.kind),
            (77, Kind::SockDrop as u8)
        );
        assert_eq!((drop.error, drop.lport, drop.rport), (-12, 5201, u16::MAX));
        assert_eq!(
            (drop.rmem, drop.rcvbuf, drop.netns),
            (u32::MAX, 0, 0),
            "all ones stay all ones"
        );
        assert_eq!(
            (&drop.laddr[..8], &drop.laddr[8..]),
            (&[7u8; 8][..], &[0u8; 8][..])
        );
    }

    #[test]
    fn integers_of_impossible_sizes_count_as_missing() {
        for size in [0, 3, 16] {
            let fields = vec![
                field("tgid", 16, size, "u32"),
                field("duration_ns", 16, size, "i64"),
            ];
            let mut out = Vec::new();
            map(Kind::Softirq, 40, fields).append(&[u64::MAX; 5], Kind::Softirq as u8, &mut out);
            assert_eq!(out[2..], [0; 3], "{size}");
        }
    }

    #[test]
    fn impossible_layouts_are_refused() {
        let layout = |kind, size, offset| KindLayout {
            kind,
            name: "x".to_owned(),
            size,
            fields: vec![field("f", offset, 8, "u64")],
        };
        let layouts = [
            layout(1, 0, 0),
            layout(2, 1 << 20, 0),
            layout(3, 64, 60),
            layout(4, 64, u32::MAX),
            layout(99, 64, 0),
        ];
        let (shapes, problems) = shapes(&layouts);
        assert_eq!(problems.len(), 4);
        assert!(
            shapes[1..5]
                .iter()
                .all(|shape| shape.map.is_none() && shape.words == 0)
        );
        assert_eq!((shapes[99].words, shapes[99].map.is_none()), (16, true));
    }
}
