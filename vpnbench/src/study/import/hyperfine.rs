//! hyperfine's JSON (`--export-json`): times of repeated commands.

use serde_json::Value;

use super::{Flow, Sink};

/// Whether a document is hyperfine's.
#[must_use]
pub fn is(document: &Value) -> bool {
    let first = document.pointer("/results/0");
    first.is_some_and(|result| result.get("command").is_some() && result.get("mean").is_some())
}

/// Reads the measurements; `false` if there are none.
pub fn read(sink: &mut Sink<'_>) -> bool {
    let mut any = sink.take("mean_s", "s", "/results/0/mean", 1.0, Flow::default());
    let times = sink
        .get("/results/0/times")
        .and_then(Value::as_array)
        .map_or(0, Vec::len);
    for index in 0..times {
        let flow = Flow {
            run: u32::try_from(index).ok(),
            ..Flow::default()
        };
        any |= sink.take(
            "time_s",
            "s",
            &format!("/results/0/times/{index}"),
            1.0,
            flow,
        );
    }
    for key in ["user", "system"] {
        sink.take(
            &format!("cpu_{key}_s"),
            "s",
            &format!("/results/0/{key}"),
            1.0,
            Flow::default(),
        );
    }
    any
}
