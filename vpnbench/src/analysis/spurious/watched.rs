//! Until when what decides about a retransmission can be seen.
//!
//! `tcp_probe` fires for established sockets only (`tcp_rcv_established`), so an end that begins to close is
//! not seen any more, unless its packets are seen at its device. What had not arrived by then may have
//! arrived afterwards.

/// Moments from which an end, or anything, is no longer seen, ns; none while it is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Watched {
    pub(super) receiver: Option<u64>,
    pub(super) sender: Option<u64>,
    pub(super) all: Option<u64>,
}

impl Watched {
    /// Whether it was over before a moment for the end that decides.
    pub(super) fn ended_before(&self, moment: u64, receiver_seen: bool) -> bool {
        let end = if receiver_seen {
            self.receiver
        } else {
            self.sender
        };
        end.into_iter().chain(self.all).any(|end| end < moment)
    }
}
