//! Undos by the counter the kernel counts them in. An undo leaves no event of its own: it is read
//! from `undo_marker`, which becomes 0, and from the state in which that happens
//! (net/ipv4/tcp_input.c, `tcp_fastretrans_alert`):
//!
//! | in | left edge | counter | function |
//! | --- | --- | --- | --- |
//! | Recovery | at or above `high_seq` | `TCPFullUndo` | `tcp_try_undo_recovery` |
//! | Recovery | below it; moved, and the echo is older than the first retransmission | `TCPPartialUndo` | `tcp_try_undo_partial` |
//! | Recovery | below it otherwise | `TCPDSACKUndo` | `tcp_try_undo_dsack` |
//! | Open, Disorder | any | `TCPDSACKUndo` | `tcp_try_undo_dsack` |
//! | Loss | any | `TCPLossUndo` | `tcp_try_undo_loss`, `tcp_try_undo_recovery` |
//!
//! Of the last, those that `tcp_may_undo` would not allow are F-RTO's, `TCPSpuriousRTOs`: the left
//! edge did not move, or neither is every retransmission reported as a duplicate (`undo_retrans` is
//! 0) nor the echo older than the first one.
//!
//! The marker is cleared without an undo by `tcp_enter_cwr` (seen as a change to CWR),
//! `tcp_simple_retransmit` (a change to Loss) and, in the handshake, `tcp_try_undo_spurious_syn`.

use crate::analysis::connections::state::State;

/// `TCP_CA_Disorder`, `TCP_CA_CWR`, `TCP_CA_Recovery`, `TCP_CA_Loss`.
const DISORDER: u8 = 1;
const CWR: u8 = 2;
const RECOVERY: u8 = 3;
const LOSS: u8 = 4;
/// `TCP_SYN_SENT`, `TCP_SYN_RECV`, `TCP_NEW_SYN_RECV`.
const HANDSHAKE: [u8; 3] = [2, 3, 12];

/// Undos by the kernel's counter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Undos {
    /// `TCPFullUndo`
    pub full: u64,
    /// `TCPPartialUndo`
    pub partial: u64,
    /// `TCPDSACKUndo`
    pub dsack: u64,
    /// `TCPLossUndo`
    pub loss: u64,
    /// `TCPSpuriousRTOs`; each is in `loss`, too.
    pub frto: u64,
    /// The marker was cleared where none of the kernel's ways to do that fits: an event is missing.
    pub unclear: u64,
}

impl Undos {
    /// Adds others.
    pub fn add(&mut self, other: &Undos) {
        self.full += other.full;
        self.partial += other.partial;
        self.dsack += other.dsack;
        self.loss += other.loss;
        self.frto += other.frto;
        self.unclear += other.unclear;
    }
}

/// What was true at the last event of the socket.
#[derive(Debug, Clone, Copy, Default)]
struct Before {
    state: u8,
    ca_state: u8,
    marker: u32,
}

/// Watches the marker of one sender.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    before: Option<Before>,
    /// `snd_una` and `retrans_stamp` before the segment that is being processed.
    una: u32,
    stamp: u32,
    /// What was seen.
    pub undos: Undos,
}

impl Watch {
    /// A state between two changes; `arrival` if it is from before a segment is processed. True if
    /// there was an undo since the last event.
    pub fn state(&mut self, state: &State, arrival: bool) -> bool {
        let before = self.before.replace(Before {
            state: state.state,
            ca_state: state.ca_state,
            marker: state.undo_marker,
        });
        if arrival {
            (self.una, self.stamp) = (state.snd_una, state.retrans_stamp);
        }
        let Some(before) = before else {
            return false;
        };
        if before.marker == 0 || state.undo_marker != 0 || HANDSHAKE.contains(&before.state) {
            return false;
        }
        let sack = state.sack_ok & 1 != 0;
        match before.ca_state {
            0 | DISORDER => self.undos.dsack += 1,
            // Without SACK the state lasts until something above high_seq is acknowledged.
            RECOVERY if !sack => self.undos.full += 1,
            LOSS if !sack => self.undos.loss += 1,
            _ => {
                self.undos.unclear += 1;
                return false;
            }
        }
        true
    }

    /// A change of the congestion state, `state` from before it. True if it shows an undo.
    pub fn change(&mut self, new: u32, state: &State) -> bool {
        let new = u8::try_from(new).unwrap_or(u8::MAX);
        let before = self.before.replace(Before {
            state: state.state,
            ca_state: new,
            marker: state.undo_marker,
        });
        let had_marker = before.is_some_and(|before| before.marker != 0);
        let handshake = HANDSHAKE.contains(&state.state);
        if new >= CWR || state.undo_marker != 0 || handshake {
            return false;
        }
        let below = (state.snd_una.wrapping_sub(state.high_seq) as i32) < 0;
        let moved = state.snd_una != self.una;
        match state.ca_state {
            RECOVERY if had_marker && !below => self.undos.full += 1,
            RECOVERY if had_marker && moved && self.delayed(state) => self.undos.partial += 1,
            RECOVERY | 0 | DISORDER if had_marker => self.undos.dsack += 1,
            // Nothing else leaves Loss for Open below high_seq.
            LOSS if had_marker || below => {
                self.undos.loss += 1;
                let allowed = had_marker && moved;
                if !(allowed && (state.undo_retrans == 0 || self.delayed(state))) {
                    self.undos.frto += 1;
                }
            }
            _ => return false,
        }
        true
    }

    /// `tcp_packet_delayed`: the echo is older than the first retransmission of the episode, or
    /// nothing was sent again yet. The socket's own echo is that of the segment being processed.
    fn delayed(&self, state: &State) -> bool {
        let stamped = state.bits & 8 != 0;
        if self.stamp == 0 {
            return true;
        }
        stamped && (state.rcv_tsecr.wrapping_sub(self.stamp) as i32) < 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In Recovery or Loss from 1000 to 5000, first retransmission at tick 70.
    fn state(ca_state: u8, una: u32, marker: u32) -> State {
        State {
            state: 1,
            ca_state,
            snd_una: una,
            high_seq: 5000,
            undo_marker: marker,
            undo_retrans: 2,
            retrans_stamp: 70,
            bits: 8,
            sack_ok: 1,
            ..State::default()
        }
    }

    fn watch(ca_state: u8) -> Watch {
        let mut watch = Watch::default();
        watch.change(u32::from(ca_state), &state(0, 1000, 1000));
        watch.state(&state(ca_state, 1000, 1000), true);
        watch
    }

    #[test]
    fn the_left_edge_and_the_echo_tell_the_undos_of_recovery_apart() {
        for (una, echo, expected) in [
            (5000, 90, [1, 0, 0]),
            (3000, 60, [0, 1, 0]),
            (3000, 90, [0, 0, 1]),
            (1000, 60, [0, 0, 1]),
        ] {
            let mut watch = watch(RECOVERY);
            let exit = State {
                rcv_tsecr: echo,
                ..state(RECOVERY, una, 0)
            };
            assert!(watch.change(0, &exit));
            let found = watch.undos;
            assert_eq!([found.full, found.partial, found.dsack], expected, "{una}");
        }
    }

    #[test]
    fn a_spurious_timeout_is_what_may_not_be_undone_otherwise() {
        for (una, echo, undo_retrans, frto) in [
            (3000, 60, 2, 0),
            (3000, 90, 0, 0),
            (3000, 90, 2, 1),
            (1000, 60, 0, 1),
        ] {
            let mut watch = watch(LOSS);
            let exit = State {
                rcv_tsecr: echo,
                undo_retrans,
                ..state(LOSS, una, 0)
            };
            assert!(watch.change(0, &exit));
            assert_eq!((watch.undos.loss, watch.undos.frto), (1, frto));
        }
    }

    #[test]
    fn a_marker_can_be_cleared_without_an_undo() {
        let mut watch = watch(RECOVERY);
        assert!(!watch.change(0, &state(RECOVERY, 5000, 1000)), "not undone");
        // DSACK in Open, later.
        assert!(watch.state(&state(0, 6000, 0), true));
        watch.state(&state(0, 6000, 1000), true);
        assert!(!watch.change(2, &state(0, 6000, 0)), "tcp_enter_cwr");
        watch.change(4, &state(2, 6000, 0));
        assert!(
            !watch.change(0, &state(4, 7000, 0)),
            "tcp_simple_retransmit"
        );
        let handshake = State {
            state: 2,
            ..state(4, 1000, 1000)
        };
        watch.change(4, &handshake);
        let answered = State {
            undo_marker: 0,
            ..handshake
        };
        assert!(!watch.change(0, &answered), "tcp_try_undo_spurious_syn");
        assert_eq!(watch.undos.dsack, 1);
    }

    #[test]
    fn recovery_does_not_end_an_undo_in_silence() {
        let mut watch = watch(RECOVERY);
        assert!(!watch.state(&state(RECOVERY, 3000, 0), true));
        assert_eq!(watch.undos.unclear, 1);
    }
}
