//! What a socket's own state tells and no event does.
//!
//! A kernel may decline to run a probe's program: it does not run one inside another of the same kind
//! on one processor, and some kernels run none on top of certain tasks, so that what a softirq does
//! there leaves no event and no count of lost ones. But every later event of the socket carries
//! `total_retrans`, the state and `reord_seen`, and so the number of what is missing.

use super::state::State;

/// `TCP_CA_Recovery`.
const RECOVERY: u8 = 3;

/// What is compared with the next event.
#[derive(Debug, Clone, Copy)]
struct Last {
    total_retrans: u32,
    reord_seen: u32,
    packets_out: u32,
}

/// Follows one socket.
#[derive(Debug, Clone, Default)]
pub(super) struct Unseen {
    last: Option<Last>,
    /// Congestion state after the last event.
    ca_state: u8,
    /// Segments sent again without an event.
    pub(super) retransmits: u64,
    /// Entries into fast recovery without an event.
    pub(super) entries: u64,
    /// Growth of `reord_seen`: times that TCP saw reordering.
    pub(super) reordered: u64,
}

impl Unseen {
    /// A state of the socket. `own` segments of `total_retrans` belong to the event itself.
    pub(super) fn state(&mut self, state: &State, own: u32) {
        let now = Last {
            total_retrans: state.total_retrans,
            reord_seen: state.reord_seen,
            packets_out: state.packets_out,
        };
        if let Some(last) = self.last.replace(now) {
            let grown = state.total_retrans.wrapping_sub(last.total_retrans);
            self.retransmits += u64::from(grown.saturating_sub(own));
            let seen = state.reord_seen.wrapping_sub(last.reord_seen);
            self.reordered += u64::from(seen);
            let entered = state.ca_state == RECOVERY && self.ca_state != RECOVERY;
            self.entries += u64::from(entered);
        }
        self.ca_state = state.ca_state;
    }

    /// Segments on their way at the last event.
    pub(super) fn open(&self) -> u64 {
        self.last.map_or(0, |last| last.packets_out.into())
    }

    /// The congestion state changes; `state` is from before that.
    pub(super) fn change(&mut self, new: u32, state: &State) {
        self.state(state, 0);
        self.ca_state = u8::try_from(new).unwrap_or(u8::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(total_retrans: u32, ca_state: u8) -> State {
        State {
            total_retrans,
            ca_state,
            ..State::default()
        }
    }

    #[test]
    fn what_the_totals_have_and_the_events_have_not_is_missing() {
        let mut unseen = Unseen::default();
        unseen.state(&state(7, 0), 0);
        unseen.change(3, &state(7, 0));
        unseen.state(&state(9, 3), 2);
        unseen.state(&state(12, 3), 1);
        assert_eq!((unseen.retransmits, unseen.entries), (2, 0));
        unseen.change(0, &state(12, 3));
        unseen.state(&state(13, 3), 0);
        assert_eq!((unseen.retransmits, unseen.entries), (3, 1));
    }
}
