//! What did happen, predicted step by step: before each acknowledgement the recorded state of the
//! socket, then the model's own processing of it, then what the kernel really sent again.
//!
//! This is how the model earns belief: [`Reproduced`] stands beside each prediction.

use super::board::{Board, LOST, RETRANS, Segment, Transmission};
use super::rack::{Inputs, Rack};
use super::rules::Rules;
use crate::analysis::connections::state::State;

/// `TCP_CA_Recovery`, `TCP_CA_Loss`.
const RECOVERY: u8 = 3;
const LOSS: u32 = 4;

/// How much of what happened the model predicted from the state before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reproduced {
    /// Segments the kernel sent again in fast recovery.
    pub fast: u64,
    /// Of those, the model had given up.
    pub predicted: u64,
    /// Entries into fast recovery.
    pub entries: u64,
    /// Of those, the model had given something up at that moment.
    pub entries_predicted: u64,
    /// Segments the kernel counted as lost (`tp->lost`), timeouts included.
    pub lost: u64,
    /// Segments the model gave up.
    pub given_up: u64,
}

impl Reproduced {
    pub(super) fn add(&mut self, other: &Reproduced) {
        self.fast += other.fast;
        self.predicted += other.predicted;
        self.entries += other.entries;
        self.entries_predicted += other.entries_predicted;
        self.lost += other.lost;
        self.given_up += other.given_up;
    }
}

/// An acknowledgement that reaches the sender.
#[derive(Debug, Clone, Copy)]
pub struct Arrived<'a> {
    /// ns.
    pub now: u64,
    /// Place it acknowledges.
    pub ack: u64,
    /// SACK blocks without DSACK.
    pub blocks: &'a [(u64, u64)],
    /// Whether it had a DSACK block, and the end of it.
    pub dsack: Option<u64>,
    /// Timestamp echo as on the wire.
    pub tsecr: Option<u32>,
    /// Whether the segment carries data.
    pub data: bool,
    /// `high_seq` and `tlp_high_seq` on the line.
    pub high_seq: u64,
    /// `tlp_high_seq` on the line; `None` without a probe.
    pub tlp_high_seq: Option<u64>,
}

/// The model beside the kernel.
#[derive(Debug, Clone)]
pub struct Replay {
    /// The scoreboard.
    pub board: Board,
    rack: Rack,
    rules: Rules,
    last_ack: u64,
    last_tsecr: Option<u32>,
    /// `tp->lost` at the first event and now.
    lost: Option<(u32, u32)>,
    steps: u32,
    /// Something was given up by the last acknowledgement.
    proven: bool,
    found: Reproduced,
    /// `reordering` before anything happened.
    first_reordering: Option<u32>,
}

impl Default for Replay {
    fn default() -> Replay {
        Replay {
            board: Board::default(),
            rack: Rack::new(3),
            rules: Rules::default(),
            last_ack: 0,
            last_tsecr: None,
            lost: None,
            steps: 1,
            proven: false,
            found: Reproduced::default(),
            first_reordering: None,
        }
    }
}

impl Replay {
    /// The sender's settings.
    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// The sender's settings.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// `reordering` at the first event of the socket: the sysctl, or what `tcp_metrics` cached for
    /// the destination.
    #[must_use]
    pub fn first_reordering(&self) -> Option<u32> {
        self.first_reordering
    }

    /// A segment was discarded (PAWS); its options were read before that.
    pub fn discarded(&mut self, tsecr: Option<u32>) {
        self.last_tsecr = tsecr.or(self.last_tsecr);
    }

    /// New data leaves.
    pub fn transmitted(&mut self, unit: &Transmission) {
        self.board.transmitted(unit);
    }

    fn synchronise(&mut self, state: &State) {
        let first = self.lost.map_or(state.lost, |(first, _)| first);
        self.lost = Some((first, state.lost));
        self.first_reordering.get_or_insert(state.reordering);
        if state.lost_out == 0 {
            self.board.nothing_lost();
        }
        let steps = u32::from(state.reo_wnd_steps);
        if steps > self.steps {
            self.rack.adjusted = self.last_ack;
        }
        self.steps = steps;
        self.rack.steps = steps.max(1);
        self.rack.persist = state.rack_bits & 0x1f;
        self.rack.dsack_seen = state.rack_bits & 0x20 != 0;
        self.rack.reord_seen = state.reord_seen;
        self.rack.reordering = state.reordering;
    }

    /// An acknowledgement with the state before it. Returns an RTT sample in ns.
    pub fn acknowledged(&mut self, arrived: &Arrived<'_>, state: &State) -> Option<u64> {
        self.synchronise(state);
        let before = self.board.highest_sacked;
        let una = self.board.una;
        // tcp_sacktag_write_queue walks the blocks in the order of their numbers.
        let mut blocks = arrived.blocks.to_vec();
        blocks.sort_unstable();
        let rtt = self.board.acknowledged(arrived.now, arrived.ack, &blocks);
        let advanced = arrived.ack > una;
        let over = state.ca_state >= 2 && arrived.ack >= arrived.high_seq;
        let mut inputs = Inputs {
            recovering: state.ca_state >= RECOVERY && !over,
            echo_ms: self.echo(arrived, state),
            ..inputs(arrived.now, state)
        };
        let probe = arrived
            .tlp_high_seq
            .is_some_and(|end| arrived.dsack == Some(end));
        let dsack = arrived.dsack.is_some() && !probe;
        let rules = self.rules;
        self.rack
            .delivered(&self.board, before, dsack, &rules, inputs);
        self.proven = false;
        let delivered = !self.board.delivered().is_empty();
        if delivered {
            self.rack.timer = None;
        }
        let newly_sacked = self.board.delivered().iter().any(|one| one.by_sack);
        let plain = arrived.data || advanced;
        // tcp_ack_is_dubious: by the state before anything is undone.
        let dubious = !plain || newly_sacked || arrived.dsack.is_some() || state.ca_state != 0;
        if state.sack_ok & 1 == 0 {
            self.newreno(arrived, state, advanced, inputs.recovering);
        } else if dubious {
            let undo = self.undone_early(una, state, advanced, inputs);
            if undo == Some(true) {
                self.board.nothing_lost();
                inputs.recovering = false;
            }
            // tcp_undo_cwnd_reduction has RACK look again.
            let again = undo == Some(true) || self.undone(arrived, state, over, inputs);
            if again {
                self.rack.look_again();
            }
            if undo != Some(false) {
                let lost = self.rack.mark(&mut self.board, &rules, inputs);
                self.proven = !lost.is_empty();
                self.found.given_up += lost.len() as u64;
            }
        }
        self.last_ack = arrived.now;
        if arrived.tsecr.is_some() {
            self.last_tsecr = arrived.tsecr;
        }
        rtt
    }

    /// The timestamp echo in the socket's own clock: its offset is in what the socket had last.
    fn echo(&self, arrived: &Arrived<'_>, state: &State) -> Option<u32> {
        let (now, last) = arrived.tsecr.zip(self.last_tsecr)?;
        Some(now.wrapping_sub(last.wrapping_sub(state.rcv_tsecr)))
    }

    /// `tcp_try_undo_partial`: the original was acknowledged. True if the window was given back; false
    /// if copies are still on their way, and so nothing more is given up; `None` if it was no original.
    fn undone_early(
        &mut self,
        una: u64,
        state: &State,
        advanced: bool,
        inputs: Inputs,
    ) -> Option<bool> {
        let candidate =
            inputs.recovering && state.ca_state == RECOVERY && advanced && state.undo_marker != 0;
        if !candidate || !delayed(state, inputs) {
            return None;
        }
        self.rack.delayed(&self.board, una, &self.rules, inputs.mss);
        let arrived = self.board.delivered().iter();
        let copies = arrived.filter(|one| one.segment.is(RETRANS)).count() as u32;
        Some(state.retrans_out <= copies)
    }

    /// `tcp_try_undo_recovery` at the end of a recovery, and `tcp_try_undo_dsack` elsewhere.
    fn undone(&self, arrived: &Arrived<'_>, state: &State, over: bool, inputs: Inputs) -> bool {
        let reported = i32::from(arrived.dsack.is_some());
        let all_needless = [0, reported].contains(&state.undo_retrans);
        let ended = over && state.ca_state == RECOVERY && delayed(state, inputs);
        state.undo_marker != 0 && (all_needless || ended)
    }

    /// `tcp_newreno_mark_lost`: without SACK.
    fn newreno(&mut self, arrived: &Arrived<'_>, state: &State, advanced: bool, recovering: bool) {
        let duplicate = !advanced && !arrived.data;
        let counted = state.sacked_out + u32::from(duplicate);
        let threshold = !recovering && counted >= state.reordering;
        if !(threshold || recovering && advanced) {
            return;
        }
        let head = self
            .board
            .first()
            .map(|one| (one.start, one.end, one.is(LOST)));
        if let Some((start, end, false)) = head {
            self.board.give_up(start, end);
            self.proven = true;
            self.found.given_up += 1;
        }
    }

    /// The congestion state changes.
    pub fn congestion(&mut self, now: u64, new: u32, state: &State) {
        if new == u32::from(RECOVERY) {
            self.found.entries += 1;
            if self.board.lost_out == 0 {
                self.expired(now, state);
            }
            // tcp_time_to_recover: anything given up is reason enough, also from before an undo.
            let reason = self.proven || self.board.lost_out > 0;
            self.found.entries_predicted += u64::from(reason);
        } else if new == LOSS {
            let before = self.board.lost_out;
            let rules = self.rules;
            self.rack.timed_out(&mut self.board, &rules, now);
            self.found.given_up += u64::from(self.board.lost_out.saturating_sub(before));
        }
    }

    /// The reordering timer, where it is due.
    fn expired(&mut self, now: u64, state: &State) {
        let slack = 2 * self.rules.tick_ns;
        if self.rack.timer.is_none_or(|at| at > now + slack) {
            return;
        }
        self.rack.timer = None;
        let inputs = Inputs {
            recovering: state.ca_state >= RECOVERY,
            ..inputs(now, state)
        };
        let rules = self.rules;
        let lost = self.rack.detect(&mut self.board, &rules, inputs);
        self.proven |= !lost.is_empty();
        self.found.given_up += lost.len() as u64;
    }

    /// The kernel sends a range again.
    pub fn resent(&mut self, now: u64, start: u64, end: u64, state: &State) {
        if state.ca_state == RECOVERY {
            let open = |segment: &Segment| !segment.is(LOST);
            if self.board.range_mut(start, end).any(|one| open(one)) {
                self.expired(now, state);
            }
            for segment in self.board.range_mut(start, end) {
                self.found.fast += 1;
                self.found.predicted += u64::from(segment.is(LOST));
            }
            // The kernel knows better.
            self.board.give_up(start, end);
        }
        self.board.resent(now, start, end);
    }

    /// How well the model did.
    #[must_use]
    pub fn reproduced(&self) -> Reproduced {
        let lost = self
            .lost
            .map_or(0, |(first, last)| last.wrapping_sub(first));
        Reproduced {
            lost: u64::from(lost),
            ..self.found
        }
    }
}

/// `tcp_packet_delayed`: answered before the first retransmission; a stamp of 0 says that there was none.
fn delayed(state: &State, inputs: Inputs) -> bool {
    let early = |echo: u32| (echo.wrapping_sub(state.retrans_stamp) as i32) < 0;
    state.retrans_stamp == 0 || inputs.echo_ms.is_some_and(early)
}

fn inputs(now: u64, state: &State) -> Inputs {
    Inputs {
        now,
        min_rtt: u64::from(state.min_rtt_us) * 1000,
        srtt: u64::from(state.srtt_8us) * 1000 / 8,
        recovering: false,
        echo_ms: None,
        mss: state.mss,
    }
}
