//! qperf (QUIC) results: summaries over the intervals and processes of one client.

use super::{Sink, summary};

/// Reads the measurements; `false` if there are none.
pub fn read(sink: &mut Sink<'_>) -> bool {
    let mut any = summary(sink, "bandwidth_bps", "bit/s", "/total_bandwidth_mbps", 1e6);
    // What share of which processors this is, the file does not say.
    any |= summary(
        sink,
        "cpu_percent",
        "% as reported",
        "/cpu_usage_percent",
        1.0,
    );
    any |= summary(sink, "ttfb_ms", "ms", "/ttfb_ms", 1.0);
    any | summary(sink, "connect_ms", "ms", "/conn_time_ms", 1.0)
}
