//! Why a trace cannot be written or read at all.

use std::io;

/// An error with what was attempted, where, and what to do next.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file cannot be opened or created.
    #[error("cannot {operation} {path}: {source}")]
    Open {
        /// "open" or "create".
        operation: &'static str,
        /// The file.
        path: String,
        /// The system's reason.
        source: io::Error,
    },
    /// Reading failed before the start frame was complete.
    #[error("cannot read {path} at byte {offset}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Where reading stopped.
        offset: u64,
        /// The system's reason.
        source: io::Error,
    },
    /// Writing failed. Everything up to `kept` reads back.
    #[error(
        "cannot write to {path} behind byte {kept}: {source}; the {kept} bytes before are complete and readable \
         with `vpnbench report`, {records} events were not stored"
    )]
    Write {
        /// The file.
        path: String,
        /// Bytes of complete frames in the file.
        kept: u64,
        /// Events of the frame that could not be written.
        records: u64,
        /// The system's reason.
        source: io::Error,
    },
    /// The file is something else.
    #[error(
        "{path} is not a vpnbench trace (it does not begin with the trace signature); captures are read with `vpnbench analyze`"
    )]
    NotATrace {
        /// The file.
        path: String,
    },
    /// The file was written by a newer vpnbench in a format that this one does not know.
    #[error(
        "{path} has trace format {found}; this vpnbench reads formats up to {supported}: upgrade vpnbench"
    )]
    NewerVersion {
        /// The file.
        path: String,
        /// Version of the file.
        found: u32,
        /// Newest version this program reads.
        supported: u32,
    },
    /// The file ends before it says what was recorded.
    #[error(
        "{path} ends at byte {bytes}, before its start frame is complete: the recording stopped before its \
         first event; record again"
    )]
    TruncatedStart {
        /// The file.
        path: String,
        /// Bytes in the file.
        bytes: u64,
    },
    /// The start frame cannot be read.
    #[error(
        "{path}: the start frame at byte {offset} is damaged ({reason}): without it the records have no meaning; use a copy of the file"
    )]
    DamagedStart {
        /// The file.
        path: String,
        /// Where the frame was expected.
        offset: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// A record whose size is not that of its kind.
    #[error(
        "record of kind {kind} has {size} bytes, expected {expected}: eBPF object and vpnbench differ; rebuild both"
    )]
    BadRecord {
        /// Kind number in the record.
        kind: u8,
        /// Bytes given.
        size: usize,
        /// Bytes of that kind, 0 if there is no such kind.
        expected: usize,
    },
    /// Metadata that does not fit into a frame.
    #[error("cannot store {what} in {path}: {reason}")]
    Metadata {
        /// The file.
        path: String,
        /// Which metadata.
        what: &'static str,
        /// Why not.
        reason: String,
    },
}

impl TraceError {
    /// Whether the disk (or the quota) is full.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        let full = [
            io::ErrorKind::StorageFull,
            io::ErrorKind::QuotaExceeded,
            io::ErrorKind::FileTooLarge,
        ];
        matches!(self, TraceError::Write { source, .. } if full.contains(&source.kind()))
    }

    /// Whether the reader of a pipe went away.
    #[must_use]
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, TraceError::Write { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
    }
}
