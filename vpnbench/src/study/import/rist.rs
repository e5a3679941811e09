//! RIST stream results: the receiver's statistics per reporting interval, and the encoder's.

use super::{Sink, summary};

/// Reads the measurements; `false` if there are none.
pub fn read(sink: &mut Sink<'_>) -> bool {
    let mut any = summary(sink, "quality_percent", "%", "/network/quality", 1.0);
    any |= summary(
        sink,
        "dropped_per_interval",
        "1",
        "/network/packets_dropped",
        1.0,
    );
    any |= summary(
        sink,
        "recovered_per_interval",
        "1",
        "/network/packets_recovered",
        1.0,
    );
    any |= summary(sink, "rtt_ms", "ms", "/network/rtt_ms", 1.0);
    any |= summary(sink, "received_bps", "bit/s", "/network/bitrate_bps", 1.0);
    any |= summary(sink, "encoded_bps", "bit/s", "/encoding/bitrate_kbps", 1e3);
    any | summary(
        sink,
        "encoder_dropped_frames",
        "1",
        "/encoding/dropped_frames",
        1.0,
    )
}
