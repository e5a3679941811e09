//! One line of JSON per event: `event` (the kind), `utc_ns`, names of tap, namespace and device, and every field
//! of the record under its own name.

use std::io::{self, Write};

use serde_json::{Map, Value as Json};
use vpnbench_common::catalog::kind_row;

use super::{Names, Value, field, is_exported, tap, value};
use crate::trace::Event;

/// Writes one event.
///
/// # Errors
///
/// What the writer refuses.
pub fn write(event: &Event<'_>, names: &Names, out: &mut dyn Write) -> io::Result<()> {
    let Some(row) = kind_row(event.kind() as u8) else {
        return Ok(());
    };
    let record = event.bytes();
    let mut line = Map::new();
    line.insert("event".to_owned(), row.name.into());
    line.insert("utc_ns".to_owned(), names.utc_ns(event.time_ns()).into());
    for of in row.fields.iter().filter(|of| is_exported(of)) {
        let json = match value(row, of, record) {
            Value::Unsigned(number) => number.into(),
            Value::Signed(number) => number.into(),
            Value::Text(text) => text.map_or(Json::Null, Json::from),
            Value::List(list) => list.into(),
        };
        line.insert(of.name.to_owned(), json);
    }
    if let Some(name) = tap(row, record) {
        line.insert("tap".to_owned(), name.into());
    }
    if let Some(netns) = field(row, record, "netns") {
        let name = names.namespace(netns as u32);
        line.insert("namespace".to_owned(), name.map_or(Json::Null, Json::from));
        if let Some(ifindex) = field(row, record, "ifindex") {
            let name = names.device(netns as u32, ifindex as u32);
            line.insert("device".to_owned(), name.map_or(Json::Null, Json::from));
        }
    }
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")
}
