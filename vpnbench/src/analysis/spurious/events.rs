//! What happens to a direction of a connection, by places in its stream.

/// A copy of data that reaches the receiver.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// Place of the first byte.
    pub start: u64,
    /// Place after the last byte.
    pub end: u64,
    /// TCP timestamp, if the segment has one.
    pub tsval: Option<u32>,
    /// `rcv_nxt` before it is processed.
    pub rcv_nxt: u64,
    /// ns.
    pub time: u64,
    /// TCP discards it unread.
    pub discarded: bool,
}

/// An acknowledgement that reaches the sender.
#[derive(Debug, Clone, Copy)]
pub struct Ack {
    /// ns.
    pub time: u64,
    /// `snd_una` before it is processed.
    pub una: u64,
    /// Place it acknowledges.
    pub ack: u64,
    /// Timestamp echo, if it has one.
    pub tsecr: Option<u32>,
    /// Timestamp of the receiver, if it has one.
    pub tsval: Option<u32>,
    /// DSACK block.
    pub dsack: Option<(u64, u64)>,
    /// SACK blocks; those that are not there are empty.
    pub sacked: [(u64, u64); 4],
    /// `rtt_min` in ns.
    pub min_rtt: u64,
    /// Smoothed round trip in ns.
    pub srtt: u64,
}

/// A segment sent again.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    /// ns.
    pub time: u64,
    /// Place of the first byte.
    pub start: u64,
    /// Place after the last byte.
    pub end: u64,
    /// Segments the range holds.
    pub segments: u32,
    /// What its cause depends on, a number of the caller's.
    pub key: u32,
    /// Where it is in the stream, for plots: bytes after the first one of the recording.
    pub offset: u64,
    /// Number of the episode, 0 outside of one.
    pub episode: u32,
}
