//! Holds the tables of docs/lab-tunnel.md and the types together. `UPDATE_DOCS=1` rewrites them.

use std::fmt::Write;
use std::path::Path;

use serde_json::Value;

use super::faults::{AckDelay, DirectionFaults, Reorder, Retransmit, Select, Stall};
use super::settings::Settings;

/// A table of an object's keys, from its schema.
fn table(schema: &schemars::Schema, defaults: &Value) -> String {
    let schema = schema.as_value();
    let mut text = String::from("| key | default | meaning |\n| --- | --- | --- |\n");
    let properties = schema["properties"].as_object().into_iter().flatten();
    for (key, property) in properties {
        let default = match &defaults[key] {
            Value::Null => "-".to_owned(),
            Value::Object(_) => "see below".to_owned(),
            Value::String(text) => format!("`{text}`"),
            other => format!("`{other}`"),
        };
        let meaning = property["description"]
            .as_str()
            .unwrap_or("?")
            .replace('\n', " ");
        let values = values(schema, property);
        let _ = writeln!(text, "| `{key}` | {default} | {meaning}{values} |");
    }
    text
}

/// The values of an enumeration and their meaning.
fn values(schema: &Value, property: &Value) -> String {
    let Some(name) = property["$ref"]
        .as_str()
        .and_then(|path| path.rsplit('/').next())
    else {
        return String::new();
    };
    let variants = schema["$defs"][name]["oneOf"]
        .as_array()
        .into_iter()
        .flatten();
    let mut text = String::new();
    for variant in variants {
        let value = variant["const"].as_str().unwrap_or("?");
        let meaning = variant["description"]
            .as_str()
            .unwrap_or("?")
            .replace('\n', " ");
        let _ = write!(text, " `{value}`: {meaning}");
    }
    text
}

fn tables() -> String {
    let null = Value::Null;
    let json = |settings: Result<Value, serde_json::Error>| settings.unwrap_or_default();
    let settings = json(serde_json::to_value(Settings::default()));
    let faults = json(serde_json::to_value(DirectionFaults::default()));
    let mut text = String::new();
    for (title, table) in [
        (
            "Switches",
            table(&schemars::schema_for!(Settings), &settings),
        ),
        (
            "Faults: `faults.transmit` and `faults.receive`",
            table(&schemars::schema_for!(DirectionFaults), &faults),
        ),
        (
            "`drop_entry`, `drop_exit`, `duplicate`",
            table(&schemars::schema_for!(Select), &null),
        ),
        (
            "`retransmit`",
            table(&schemars::schema_for!(Retransmit), &null),
        ),
        ("`reorder`", table(&schemars::schema_for!(Reorder), &null)),
        (
            "`ack_delay`",
            table(&schemars::schema_for!(AckDelay), &null),
        ),
        ("`stall`", table(&schemars::schema_for!(Stall), &null)),
    ] {
        let _ = write!(text, "### {title}\n\n{table}\n");
    }
    text
}

#[test]
fn the_manual_lists_what_there_is() {
    const START: &str = "<!-- tables: made from the types by a test -->\n\n";
    const END: &str = "<!-- end of the tables -->";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/lab-tunnel.md");
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let parts = text.split_once(START).and_then(|(before, rest)| {
        let (middle, after) = rest.split_once(END)?;
        Some((before, middle, after))
    });
    let Some((before, middle, after)) = parts else {
        panic!("{} has no place for the tables", path.display())
    };
    let tables = tables();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let text = format!("{before}{START}{tables}{END}{after}");
        assert!(std::fs::write(&path, text).is_ok());
        return;
    }
    assert!(
        middle == tables,
        "outdated; UPDATE_DOCS=1 cargo test writes:\n{tables}"
    );
}
