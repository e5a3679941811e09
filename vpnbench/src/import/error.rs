//! Why a capture cannot be read at all.

use std::io;

/// An error with the file and the next step.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file cannot be opened.
    #[error("cannot open {path}: {source}")]
    Open {
        /// The file.
        path: String,
        /// The system's reason.
        source: io::Error,
    },
    /// Nothing could be read.
    #[error("cannot read {path} at byte {offset}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Where reading stopped, in the unpacked stream.
        offset: u64,
        /// The system's reason.
        source: io::Error,
    },
    /// The file is something else.
    #[error(
        "{path} is neither pcap nor pcapng (it begins with {found}); recordings of vpnbench are read with `vpnbench report`"
    )]
    NotACapture {
        /// The file.
        path: String,
        /// Its first bytes in hex.
        found: String,
    },
    /// The file holds no packet that could be read.
    #[error("{path} holds no IP packet{reason}")]
    Empty {
        /// The file.
        path: String,
        /// What there is instead, beginning with a separator; empty if there is nothing.
        reason: String,
    },
    /// A file beside captures that cannot be used.
    #[error("{path} cannot be used beside the captures: {reason}")]
    Beside {
        /// The file.
        path: String,
        /// Why not.
        reason: String,
    },
    /// A filter that libpcap does not understand.
    #[error("the filter \"{filter}\" cannot be used on {path}: {reason}")]
    Filter {
        /// The expression.
        filter: String,
        /// The file.
        path: String,
        /// What libpcap says.
        reason: String,
    },
}
