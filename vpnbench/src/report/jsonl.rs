//! The report as lines of JSON, for tools that read streams: one object per line, each with `part` (the
//! field of the report that it belongs to) and `value`; a list is one line per element.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::model::Report;

/// Writes the report, one part per line; `schema` and `run` come first.
///
/// # Errors
/// When the writer fails.
pub fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let Value::Object(parts) = serde_json::to_value(report).map_err(io::Error::from)? else {
        return Err(io::Error::other("a report is an object"));
    };
    let first = ["schema", "run"];
    let (head, rest): (Vec<_>, Vec<_>) = parts
        .iter()
        .partition(|(name, _)| first.contains(&name.as_str()));
    let ordered = first
        .iter()
        .filter_map(|name| head.iter().find(|one| one.0 == name));
    for (name, value) in ordered.chain(rest.iter()) {
        match value {
            Value::Array(elements) => {
                for element in elements {
                    line(name, element, out)?;
                }
            }
            Value::Null => {}
            other => line(name, other, out)?,
        }
    }
    Ok(())
}

fn line(part: &str, value: &Value, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", json!({ "part": part, "value": value }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::model::Finding;

    #[test]
    fn every_line_is_an_object_and_findings_are_lines() {
        let report = Report {
            findings: vec![Finding::default(), Finding::default()],
            ..Report::default()
        };
        let mut out = Vec::new();
        write(&report, &mut out).expect("a vector takes everything");
        let text = String::from_utf8(out).expect("text");
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        assert_eq!(lines[0]["part"], "schema");
        assert_eq!(lines[1]["part"], "run");
        let findings = lines.iter().filter(|line| line["part"] == "findings");
        assert_eq!(findings.count(), 2);
    }
}
