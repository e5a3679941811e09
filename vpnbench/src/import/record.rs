//! What all formats of captures come down to.

use std::net::IpAddr;
use std::ops::Range;

/// Where packets were captured, as the file describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Interface {
    /// `LINKTYPE_*`.
    pub(super) link: u32,
    /// Bytes kept per packet, 0 for no limit.
    pub(super) snap_length: u32,
    /// Name of the device, where the file has it.
    pub(super) name: Option<String>,
    /// Its addresses, where the file has them.
    pub(super) addresses: Vec<IpAddr>,
    /// Ticks of the clock per second; 0 for 10^6.
    pub(super) ticks_per_s: u64,
    /// Added to each time, s.
    pub(super) offset_s: i64,
}

/// A packet's place in the window and what the file says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    /// Unix time in ns; `None` where the file has none.
    pub(super) time_ns: Option<u64>,
    /// Which interface.
    pub(super) interface: u32,
    /// Bytes on the wire, link-layer header included.
    pub(super) original: u32,
    /// Its bytes in the window.
    pub(super) data: Range<usize>,
    /// Bytes of the whole record.
    pub(super) size: usize,
    /// Whether the host sent it; `None` where the file does not tell.
    pub(super) outgoing: Option<bool>,
}

/// What is at a place of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// A packet.
    Packet(Head),
    /// Something else of this many bytes.
    Other(usize),
    /// Something else of this many bytes that cannot be read.
    Unreadable(usize, &'static str),
    /// Nothing that makes sense.
    Damaged(&'static str),
    /// The file ends inside of a record.
    Cut,
    /// The file ends.
    End,
}
