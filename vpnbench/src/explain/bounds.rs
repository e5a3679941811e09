//! The bounds that judgements compare with. Each has a source or a derivation; docs/findings.md prints
//! them, so a bound without one is visible there.

/// A bound with the reason for its value.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    /// Name in docs.
    pub name: &'static str,
    /// Value in its unit.
    pub value: f64,
    /// Unit.
    pub unit: &'static str,
    /// Where the value comes from.
    pub source: &'static str,
}

/// Probability from which a claim counts as supported, and below 1 minus which as refuted.
pub const SURE: f64 = 0.95;
/// Share of the problem below which a cause is not material.
pub const MATERIAL: f64 = 0.05;
/// Most of something: a cause that accounts for less of a consequence leaves the larger part of it to something else.
pub const MOST: f64 = 0.5;
/// Share of packets lost from which a path of datagrams has a problem.
pub const DATAGRAM_LOSS: f64 = 1e-3;
/// Time in queues of a tunnel, in us, from which it has a problem.
pub const QUEUEING_US: f64 = 50_000.0;
/// Share of arrivals that are reordered from which a path reorders.
pub const REORDERED: f64 = 1e-3;
/// Larger numbers that must have arrived before a packet for TCP to take it for lost.
pub const DUPTHRESH: usize = 3;
/// Bytes of a data flow below which it did not work.
pub const DEAD_FLOW_BYTES: u64 = 64 * 1024;
/// Longest time in seconds for which a silence before the first packet is the network's own.
pub const SILENCE_S: f64 = 1.0;

/// All of them, for docs.
pub const BOUNDS: [Bound; 8] = [
    Bound {
        name: "sure",
        value: SURE,
        unit: "probability",
        source: "the level of all intervals of this project; usual since R. A. Fisher, Statistical Methods for Research Workers, 1925",
    },
    Bound {
        name: "material",
        value: MATERIAL,
        unit: "of the problem",
        source: "removing a cause must be visible in a rerun: with runs that vary by 4 % (coefficient of variation) and eight repetitions of each, Welch's interval of the difference has half a width of t(14) x 4 % x sqrt(2/8) = 4.3 %; less than 5 % cannot be shown to matter",
    },
    Bound {
        name: "datagram-loss",
        value: DATAGRAM_LOSS,
        unit: "of the packets",
        source: "ITU-T Y.1541, table 1: IP packet loss ratio of classes 0 to 4",
    },
    Bound {
        name: "queueing",
        value: QUEUEING_US,
        unit: "us",
        source: "ITU-T Y.1541, table 1: IP packet delay variation of classes 0 and 1 is at most 50 ms",
    },
    Bound {
        name: "reordered",
        value: REORDERED,
        unit: "of the arrivals",
        source: "the same share as for loss: to a receiver with a deadline a late packet is a lost one (ITU-T Y.1541, table 1)",
    },
    Bound {
        name: "dupthresh",
        value: DUPTHRESH as f64,
        unit: "packets",
        source: "RFC 5681, section 3.2; RFC 4737, section 5.4",
    },
    Bound {
        name: "dead-flow",
        value: DEAD_FLOW_BYTES as f64,
        unit: "bytes",
        source: "the largest window without window scaling (RFC 7323, section 2.2): a data flow that moved less never needed the path",
    },
    Bound {
        name: "silence",
        value: SILENCE_S,
        unit: "s",
        source: "RFC 6298, section 2.1: the initial retransmission timeout is 1 s, so a set-up without a timer of its own ends earlier",
    },
];
