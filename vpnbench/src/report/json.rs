//! The report as one JSON document, and its schema.

use std::io::{self, Write};

use schemars::generate::SchemaSettings;

use super::model::{Report, SCHEMA};

/// Writes the report, indented, with a final newline.
///
/// # Errors
/// When the writer fails.
pub fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, report).map_err(io::Error::from)?;
    out.write_all(b"\n")
}

/// JSON Schema (2020-12) of the report.
#[must_use]
pub fn schema() -> serde_json::Value {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let mut schema = settings.into_generator().into_root_schema_for::<Report>();
    schema.insert("title".to_owned(), SCHEMA.into());
    if let Some(name) = schema.pointer_mut("/properties/schema") {
        *name = serde_json::json!({ "const": SCHEMA });
    }
    schema.to_value()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_names_every_part_of_the_contract() {
        let schema = schema();
        for part in [
            "schema",
            "run",
            "benchmark",
            "capture",
            "tunnel",
            "flows",
            "stages",
            "losses",
            "ledger",
            "reordering",
            "coalescing",
            "retransmits",
            "threads",
            "cpu",
            "what_if",
            "findings",
        ] {
            assert!(schema["properties"].get(part).is_some(), "{part}");
            let required = schema["required"].as_array().expect("a list");
            assert!(
                required.iter().any(|name| name == part),
                "{part} is always there"
            );
        }
        assert_eq!(
            schema["$schema"],
            "https://json-schema.org/draft/2020-12/schema"
        );
    }
}
