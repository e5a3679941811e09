//! Connection timings: an HTTP request per second to each peer, first by its public address, then
//! through the tunnel, until each has answered.

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Flow, Sink};

/// Reads `{started, public_results, vpn_results}`; `false` if there are none. The flow number is
/// the peer's position; metrics are seconds since `started` and the attempt that succeeded.
pub fn read(sink: &mut Sink<'_>) -> bool {
    let mut any = false;
    for (group, prefix) in [("vpn_results", "vpn"), ("public_results", "public")] {
        let Some(results) = sink.get(&format!("/{group}")).and_then(Value::as_object) else {
            continue;
        };
        for (index, (peer, result)) in results.iter().enumerate() {
            let at = format!("/{group}/{}", escape(peer));
            let flow = Flow {
                flow: u32::try_from(index).unwrap_or(u32::MAX),
                ..Flow::default()
            };
            let status = result.get("status").and_then(Value::as_str);
            if status.is_some_and(|status| status != "success") {
                sink.refuse(
                    &at,
                    &format!("{peer} did not answer: {}", status.unwrap_or_default()),
                );
                continue;
            }
            match result
                .get("time_took")
                .and_then(Value::as_str)
                .and_then(clock)
            {
                Some(seconds) => {
                    sink.derive(
                        &format!("{prefix}_s"),
                        "s",
                        &format!("{at}/time_took"),
                        seconds,
                        flow,
                    );
                    any = true;
                }
                None => sink.refuse(&at, "time_took is missing or not a time"),
            }
            sink.take(
                &format!("{prefix}_attempt"),
                "1",
                &format!("{at}/attempt"),
                1.0,
                flow,
            );
            if let Some(after) = ended_after(sink, &at) {
                sink.derive(
                    &format!("{prefix}_ended_s"),
                    "s",
                    &format!("{at}/ended"),
                    after,
                    flow,
                );
            }
        }
    }
    any
}

/// Seconds between `started` and `ended`.
fn ended_after(sink: &Sink<'_>, at: &str) -> Option<f64> {
    let moment = |pointer: &str| {
        let text = sink.get(pointer)?.as_str()?;
        OffsetDateTime::parse(text, &Rfc3339).ok()
    };
    let seconds = (moment(&format!("{at}/ended"))? - moment("/started")?).as_seconds_f64();
    (seconds >= 0.0).then_some(seconds)
}

/// `H:MM:SS.ffffff` as seconds.
fn clock(text: &str) -> Option<f64> {
    let mut parts = text.split(':').map(|part| part.trim().parse::<f64>().ok());
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    let total = hours * 3600.0 + minutes * 60.0 + seconds;
    (parts.next().is_none() && total.is_finite() && total >= 0.0).then_some(total)
}

/// A key as a token of a JSON pointer (RFC 6901).
fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks() {
        assert_eq!(clock("0:01:15.5"), Some(75.5));
        assert_eq!(clock("1:00:00"), Some(3600.0));
        assert_eq!(clock("75.5"), None);
        assert_eq!(clock("0:-1:00"), None);
        assert_eq!(escape("a/b~c"), "a~1b~0c");
    }
}
