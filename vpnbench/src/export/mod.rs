//! A trace in the formats of other tools: pcapng for Wireshark, Parquet for DuckDB, Polars, Spark and
//! ClickHouse, Perfetto's timeline, folded stacks for flame graphs, lines of JSON for everything else. docs/fleet.md has columns, units and queries.

pub mod folded;
pub mod lines;
pub mod packets;
pub mod perfetto;
pub mod tables;

use std::collections::BTreeMap;

use vpnbench_common::catalog::{KindRow, Tap};
use vpnbench_common::event;
use vpnbench_common::layout::Field;

use crate::analysis::{Context, address, devices::Devices};
use crate::trace::model::Start;

/// Why an export cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Writing failed.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The library for Parquet refused.
    #[error("cannot write {path}: {source}")]
    Parquet {
        /// The file.
        path: String,
        /// Its reason.
        source: parquet::errors::ParquetError,
    },
}

/// Names that records have numbers for.
#[derive(Debug)]
pub struct Names {
    namespaces: BTreeMap<u32, String>,
    captured: Vec<u32>,
    devices: Devices,
    /// Added to the clock of records to get Unix time, ns.
    utc: i64,
}

impl Names {
    /// Names of a trace.
    #[must_use]
    pub fn new(context: &Context<'_>) -> Names {
        let start = context.start;
        let all = start.environment.namespaces.iter();
        Names {
            namespaces: all
                .map(|one| (one.netns, context.namespace_name(one.netns)))
                .collect(),
            captured: start
                .environment
                .namespaces
                .iter()
                .filter(|one| one.captured)
                .map(|one| one.netns)
                .collect(),
            devices: Devices::new(context),
            utc: utc(start),
        }
    }

    /// Unix time in ns.
    #[must_use]
    pub fn utc_ns(&self, time_ns: u64) -> i64 {
        (time_ns as i64).wrapping_add(self.utc)
    }

    /// Name of a namespace.
    #[must_use]
    pub fn namespace(&self, netns: u32) -> Option<&str> {
        self.namespaces.get(&netns).map(String::as_str)
    }

    /// Whether a namespace is known from foreign captures only.
    #[must_use]
    pub fn is_captured(&self, netns: u32) -> bool {
        self.captured.contains(&netns)
    }

    /// Name of a device.
    #[must_use]
    pub fn device(&self, netns: u32, ifindex: u32) -> Option<String> {
        self.devices.name(netns, ifindex)
    }
}

/// In which state TCP sends something again, in words.
pub(super) fn state_of(again: &event::Retransmit) -> &'static str {
    match (again.ca_state, again.pending) {
        (4, _) => "in Loss",
        (3, _) => "in Recovery",
        (_, 5) => "as a tail loss probe",
        _ => "outside of recovery",
    }
}

fn utc(start: &Start) -> i64 {
    (start.clock.realtime_ns as i64).wrapping_sub(start.clock.monotonic_ns as i64)
}

/// A field's value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Unsigned(u64),
    Signed(i64),
    /// Addresses and names.
    Text(Option<String>),
    /// Everything else.
    List(Vec<u64>),
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Unsigned,
    Signed,
    Text,
    List,
}

/// Whether a field is of use outside.
pub(super) fn is_exported(field: &Field) -> bool {
    !field.name.starts_with("reserved") && field.name != "kind"
}

/// What the values of a field are.
pub(super) fn shape(field: &Field) -> Shape {
    let array = field.kind.starts_with('[');
    match field.name {
        "saddr" | "daddr" | "laddr" | "raddr" | "comm" => Shape::Text,
        _ if array => Shape::List,
        _ if field.kind.starts_with('i') => Shape::Signed,
        _ => Shape::Unsigned,
    }
}

fn number(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    let length = bytes.len().min(8);
    word[..length].copy_from_slice(&bytes[..length]);
    u64::from_le_bytes(word)
}

/// The number in a field of a record, by the field's name.
pub(super) fn field(row: &KindRow, record: &[u8], name: &str) -> Option<u64> {
    let field = row.fields.iter().find(|field| field.name == name)?;
    Some(number(record.get(field.offset..field.offset + field.size)?))
}

/// A field's value in a record.
pub(super) fn value(row: &KindRow, of: &Field, record: &[u8]) -> Value {
    let bytes = record
        .get(of.offset..of.offset + of.size)
        .unwrap_or_default();
    match shape(of) {
        Shape::Text if of.name == "comm" => {
            let end = bytes
                .iter()
                .position(|byte| *byte == 0)
                .unwrap_or(bytes.len());
            Value::Text(Some(String::from_utf8_lossy(&bytes[..end]).into_owned()))
        }
        Shape::Text => {
            let version = field(row, record, "ip_version").unwrap_or(0) as u8;
            let bytes: Option<&[u8; 16]> = bytes.try_into().ok();
            let ip = bytes.and_then(|bytes| address::ip(version, bytes));
            Value::Text(ip.map(|ip| ip.to_string()))
        }
        Shape::List => {
            let size = if of.kind.contains("u64") {
                8
            } else if of.kind.contains("u32") {
                4
            } else {
                1
            };
            Value::List(bytes.chunks(size).map(number).collect())
        }
        Shape::Signed => {
            let shift = 64 - 8 * of.size.min(8) as u32;
            Value::Signed((number(bytes) << shift) as i64 >> shift)
        }
        Shape::Unsigned => Value::Unsigned(number(bytes)),
    }
}

/// Name of the tap in a record, if it has one.
pub(super) fn tap(row: &KindRow, record: &[u8]) -> Option<&'static str> {
    let number = field(row, record, "tap")?;
    Tap::from_number(number as u8).map(Tap::name)
}
