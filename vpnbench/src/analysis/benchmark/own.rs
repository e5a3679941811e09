//! The lab's own tools: one JSON document that already has the form of a result.

use serde::{Deserialize, Serialize};

use super::model::Benchmark;

/// Name of the document's form.
pub const SCHEMA: &str = "vpnbench.benchmark.v1";

/// What one of the lab's own tools writes, and what `benchmark.json` of a run holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Document {
    /// `vpnbench.benchmark.v1`.
    pub schema: String,
    /// The result.
    pub benchmark: Benchmark,
}

impl Document {
    /// Wraps a result.
    #[must_use]
    pub fn new(benchmark: Benchmark) -> Document {
        Document {
            schema: SCHEMA.to_owned(),
            benchmark,
        }
    }
}

/// Reads the last line that holds such a document.
pub fn read(text: &str) -> Result<Benchmark, String> {
    let line = text.lines().rev().find(|line| line.contains(SCHEMA));
    let line = line.ok_or_else(|| format!("no document of schema {SCHEMA} in the output"))?;
    let document: Document = serde_json::from_str(line)
        .map_err(|error| format!("the document of schema {SCHEMA} is damaged: {error}"))?;
    Ok(document.benchmark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_survives_the_way_and_a_cut_one_does_not() {
        let result = Benchmark {
            tool: "vpnbench".to_owned(),
            kind: "quic".to_owned(),
            throughput_bps_received: Some(1e8),
            ..Benchmark::default()
        };
        let json = serde_json::to_string(&Document::new(result.clone())).unwrap_or_default();
        assert_eq!(read(&format!("progress\n{json}\n")), Ok(result));
        assert!(read(&json[..json.len() - 2]).is_err());
        assert!(read("nothing").is_err());
    }
}
