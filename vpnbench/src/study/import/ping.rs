//! Ping results: the rig's summaries over several runs of `ping`, each run's own figures lost.

use super::{Sink, summary};

/// Reads the measurements; `false` if there are none.
pub fn read(sink: &mut Sink<'_>) -> bool {
    let mut any = false;
    for (metric, key) in [
        ("rtt_min_ms", "rtt_min_ms"),
        ("rtt_avg_ms", "rtt_avg_ms"),
        ("rtt_max_ms", "rtt_max_ms"),
        ("rtt_mdev_ms", "rtt_mdev_ms"),
    ] {
        any |= summary(sink, metric, "ms", &format!("/{key}"), 1.0);
    }
    any | summary(sink, "loss_percent", "%", "/packet_loss_percent", 1.0)
}
