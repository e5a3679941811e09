//! The benchmarks' own clients and servers among the lab's parts.

use super::{connect, http, latency, parallel, quic, stream};
use crate::lab::part::Part;

/// Name and program of each.
pub(in crate::lab) const PARTS: &[Part] = &[
    Part {
        name: "http-server",
        run: http::serve,
    },
    Part {
        name: "http-client",
        run: http::fetch,
    },
    Part {
        name: "quic-server",
        run: quic::serve,
    },
    Part {
        name: "quic-client",
        run: quic::receive,
    },
    Part {
        name: "stream-receive",
        run: stream::receive,
    },
    Part {
        name: "stream-send",
        run: stream::send,
    },
    Part {
        name: "rist-feed",
        run: stream::feed,
    },
    Part {
        name: "latency-server",
        run: latency::serve,
    },
    Part {
        name: "latency-client",
        run: latency::measure,
    },
    Part {
        name: "echo-server",
        run: connect::echo,
    },
    Part {
        name: "connect-client",
        run: connect::measure,
    },
    Part {
        name: "parallel-tcp",
        run: parallel::run,
    },
];
