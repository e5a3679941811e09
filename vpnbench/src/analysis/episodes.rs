//! Episodes of loss recovery and what each cost: from the entry into Recovery or Loss to the
//! return to Open (`tcp_cong_state_set`, net/ipv4/tcp_input.c).
//!
//! * Window before: `prior_cwnd`, which `tcp_init_cwnd_reduction` and `tcp_enter_loss` save.
//! * Window after: `snd_ssthresh`, to which the window is set at the end (`tcp_end_cwnd_reduction`),
//!   or `snd_cwnd` where the reduction was undone.
//! * Undone: `undo_marker` was set on entry and is 0 at the exit. `tcp_simple_retransmit` clears it
//!   on entry; such episodes cannot be undone.
//!
//! Which counter an undo goes to ([`undo`]) is told by the state it happens in.

pub mod undo;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::connections::state::State;
use undo::{Undos, Watch};

/// `TCP_CA_Recovery`.
const RECOVERY: u32 = 3;
/// `TCP_CA_Loss`.
const LOSS: u32 = 4;

/// What episodes of one kind came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EpisodeSums {
    /// Episodes that began.
    pub count: u64,
    /// Of those, taken back by the sender (undo).
    pub undone: u64,
    /// Seconds from entry to exit; those that had not ended count up to the last event.
    pub time_s: f64,
    /// Segments sent again in them.
    pub retransmits: u64,
    /// Segments of congestion window given up, those given back not counted.
    pub cwnd_lost: u64,
    /// Of `time_s`, what episodes took that were taken back. Older reports do not have it.
    #[serde(default)]
    pub undone_time_s: f64,
    /// Of `retransmits`, those of episodes that were taken back. Older reports do not have it.
    #[serde(default)]
    pub undone_retransmits: u64,
}

impl EpisodeSums {
    pub(crate) fn add(&mut self, other: &EpisodeSums) {
        self.count += other.count;
        self.undone += other.undone;
        self.time_s += other.time_s;
        self.retransmits += other.retransmits;
        self.cwnd_lost += other.cwnd_lost;
        self.undone_time_s += other.undone_time_s;
        self.undone_retransmits += other.undone_retransmits;
    }
}

#[derive(Debug, Clone, Copy)]
struct Running {
    number: u32,
    kind: u32,
    began: u64,
    edge: u32,
    cwnd: u32,
    can_undo: bool,
    /// Taken back while it goes on.
    undone: bool,
    retransmits: u64,
}

/// An episode that was taken back: its number and where it began (`snd_una`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Undone {
    /// Number of the episode.
    pub episode: u32,
    /// `snd_una` on entry.
    pub edge: u32,
}

/// The episodes of one sender.
#[derive(Debug, Clone, Default)]
pub struct Episodes {
    running: Option<Running>,
    number: u32,
    watch: Watch,
    last_ns: u64,
    /// Fast recovery.
    pub recovery: EpisodeSums,
    /// After a timeout.
    pub loss: EpisodeSums,
}

impl Episodes {
    /// Number of the episode that is running, 0 outside of one.
    #[must_use]
    pub fn current(&self) -> u32 {
        self.running.map_or(0, |one| one.number)
    }

    /// Segments were sent again.
    pub fn resent(&mut self, segments: u64) {
        if let Some(running) = &mut self.running {
            running.retransmits += segments;
        }
    }

    /// Undos by the kernel's counter.
    #[must_use]
    pub fn undos(&self) -> Undos {
        self.watch.undos
    }

    /// A state between two changes; `arrival` if it is from before a segment is processed. Returns
    /// the episode that was undone without a change.
    pub fn state(&mut self, time: u64, state: &State, arrival: bool) -> Option<Undone> {
        self.last_ns = time;
        if !self.watch.state(state, arrival) {
            return None;
        }
        let running = self.running.as_mut()?;
        running.can_undo = false;
        running.undone = true;
        let sums = if running.kind == LOSS {
            &mut self.loss
        } else {
            &mut self.recovery
        };
        sums.undone += 1;
        Some(Undone {
            episode: running.number,
            edge: running.edge,
        })
    }

    /// A change of the congestion state. Returns the episode that was undone by it.
    pub fn change(&mut self, time: u64, new: u32, state: &State) -> Option<Undone> {
        self.last_ns = time;
        let undone = self.watch.change(new, state);
        let undone = self.end(time, undone, state);
        if new == RECOVERY || new == LOSS {
            self.number = self.number.wrapping_add(1).max(1);
            self.running = Some(Running {
                number: self.number,
                kind: new,
                began: time,
                edge: state.snd_una,
                cwnd: state.prior_cwnd.max(state.snd_cwnd),
                can_undo: state.undo_marker != 0,
                undone: false,
                retransmits: 0,
            });
        }
        undone
    }

    fn end(&mut self, time: u64, undone: bool, state: &State) -> Option<Undone> {
        let running = self.running.take()?;
        self.account(&running, time, undone, state);
        if !undone {
            return None;
        }
        Some(Undone {
            episode: running.number,
            edge: running.edge,
        })
    }

    fn account(&mut self, running: &Running, time: u64, undone: bool, state: &State) {
        let sums = if running.kind == LOSS {
            &mut self.loss
        } else {
            &mut self.recovery
        };
        sums.count += 1;
        sums.undone += u64::from(undone);
        let time_s = super::seconds(time.saturating_sub(running.began));
        sums.time_s += time_s;
        sums.retransmits += running.retransmits;
        if undone || running.undone {
            sums.undone_time_s += time_s;
            sums.undone_retransmits += running.retransmits;
        }
        // `can_undo` is cleared by an undo without a change of state.
        let after = if undone || !running.can_undo {
            state.snd_cwnd.max(state.ssthresh.min(running.cwnd))
        } else {
            state.ssthresh
        };
        sums.cwnd_lost += u64::from(running.cwnd.saturating_sub(after));
    }

    /// Closes what has not ended.
    pub fn finish(&mut self, last: &State) {
        if let Some(running) = self.running.take() {
            self.account(&running, self.last_ns, false, last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(cwnd: u32, ssthresh: u32, marker: u32) -> State {
        State {
            ca_state: 3,
            snd_cwnd: cwnd,
            prior_cwnd: cwnd,
            ssthresh,
            undo_marker: marker,
            state: 1,
            sack_ok: 1,
            ..State::default()
        }
    }

    #[test]
    fn an_episode_costs_window_and_time_unless_it_is_undone() {
        let mut episodes = Episodes::default();
        assert_eq!(episodes.change(0, 3, &state(20, 14, 100)), None);
        episodes.resent(2);
        assert_eq!(episodes.change(50_000_000, 0, &state(15, 14, 100)), None);
        assert_eq!(episodes.recovery.cwnd_lost, 6);
        episodes.change(60_000_000, 3, &state(14, 9, 200));
        episodes.resent(3);
        let undone = episodes.change(70_000_000, 0, &state(14, 20, 0));
        assert_eq!(undone.map(|one| one.episode), Some(2));
        let found = episodes.recovery;
        assert_eq!((found.count, found.undone), (2, 1));
        assert_eq!((found.retransmits, found.cwnd_lost), (5, 6));
        assert!((found.time_s - 0.06).abs() < 1e-9);
        assert_eq!(found.undone_retransmits, 3);
        assert!((found.undone_time_s - 0.01).abs() < 1e-9);
    }

    #[test]
    fn sums_of_older_reports_are_read() {
        let text = r#"{"count": 2, "undone": 1, "time_s": 0.5, "retransmits": 3, "cwnd_lost": 6}"#;
        let sums: EpisodeSums = serde_json::from_str(text).expect("sums");
        assert_eq!((sums.count, sums.undone_retransmits), (2, 0));
    }

    #[test]
    fn an_episode_of_pmtu_is_never_undone() {
        let mut episodes = Episodes::default();
        episodes.change(0, 4, &state(20, 14, 0));
        assert_eq!(episodes.change(1, 0, &state(20, 14, 0)), None);
        assert_eq!(episodes.loss.undone, 0);
    }
}
