//! Timing breakdowns of the rig: how long each phase of a campaign took, and which of its
//! operations failed.

use serde_json::Value;

use super::{Flow, Sink};

/// Reads `{total_duration_seconds, phases: [{phase, duration_seconds, operations}]}`; `false` if
/// there are none. The flow number is the phase's position.
pub fn read(sink: &mut Sink<'_>) -> bool {
    let mut any = sink.take(
        "total_s",
        "s",
        "/total_duration_seconds",
        1.0,
        Flow::default(),
    );
    let phases = sink
        .get("/phases")
        .and_then(Value::as_array)
        .map_or(0, Vec::len);
    for index in 0..phases {
        let at = format!("/phases/{index}");
        let flow = Flow {
            flow: u32::try_from(index).unwrap_or(u32::MAX),
            ..Flow::default()
        };
        let name = sink
            .get(&format!("{at}/phase"))
            .and_then(Value::as_str)
            .unwrap_or("unnamed");
        any |= sink.take(
            &format!("phase {name} s"),
            "s",
            &format!("{at}/duration_seconds"),
            1.0,
            flow,
        );
        let operations = sink
            .get(&format!("{at}/operations"))
            .and_then(Value::as_array);
        for (number, operation) in operations.into_iter().flatten().enumerate() {
            if operation.get("success").and_then(Value::as_bool) == Some(false) {
                let name = operation
                    .get("name")
                    .and_then(Value::as_str)
                    .unwrap_or("unnamed");
                sink.refuse(
                    &format!("{at}/operations/{number}"),
                    &format!("the harness's operation {name} failed"),
                );
            }
        }
    }
    any
}
