//! What other settings would have done: a replay of the recorded acknowledgements through a model
//! of the kernel's loss detection (net/ipv4/tcp_input.c, tcp_recovery.c, tcp_timer.c).
//!
//! Two steps. [`replay`] predicts each step of what did happen from the recorded state before it;
//! the share that it gets right is printed with each prediction. [`simulation`] runs free: for the
//! settings as they were and for each change, on the same fates of the same segments ([`fate`]); it
//! says how many are sent again for the same data ([`summary`]). [`closed`] simulates whole runs in which
//! the window decides when data leaves; many of them ([`ensemble`]) say what happens to throughput.
//!
//! It speaks of the same path. What a changed window does to queues, and so to loss and reordering, it
//! does not know.

pub mod board;
pub mod closed;
pub mod ensemble;
pub mod fate;
pub mod path;
pub mod rack;
pub mod replay;
pub mod rules;
pub mod sender;
pub mod simulation;
pub mod summary;
pub mod throughput;
pub mod window;

use board::Transmission;
use closed::{Course, LOST};
use ensemble::{Base, Budget, FEWEST, Ratio, Setting};
use fate::{Fate, Measured, Waiting};
use path::{Changer, Path};
use replay::{Arrived, Replay, Reproduced};
use rules::Rules;
use sender::Outcome;
use simulation::Simulation;
use throughput::Control;

use super::connections::state::State;
use super::spurious::Spurious;

/// A change of settings or of the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// As it was.
    None,
    /// `tcp_reordering=10`
    Reordering,
    /// `tcp_recovery=0`
    Recovery,
    /// `tcp_early_retrans=0`
    EarlyRetrans,
    /// All three.
    All,
    /// No reordering between the sender's device and the receiver's TCP.
    InOrder,
    /// No loss there.
    Lossless,
}

impl Change {
    /// All changes, the unchanged first.
    pub const ALL: [Change; 7] = [
        Change::None,
        Change::Reordering,
        Change::Recovery,
        Change::EarlyRetrans,
        Change::All,
        Change::InOrder,
        Change::Lossless,
    ];

    /// The settings after the change.
    #[must_use]
    pub fn rules(self, rules: &Rules) -> Rules {
        let mut changed = *rules;
        if matches!(self, Change::Reordering | Change::All) {
            changed.reordering = 10;
        }
        if matches!(self, Change::Recovery | Change::All) {
            changed.recovery = 0;
        }
        if matches!(self, Change::EarlyRetrans | Change::All) {
            changed.early_retrans = 0;
        }
        changed
    }

    fn path(self) -> Path {
        match self {
            Change::InOrder => Path::InOrder,
            Change::Lossless => Path::Lossless,
            _ => Path::AsItWas,
        }
    }
}

/// `TCP_CA_Recovery`.
const RECOVERY: u32 = 3;
/// Packets of a sender whose delays are kept, from its first on.
const DELAYS_MAX: usize = 1 << 14;

/// `TCP_INFINITE_SSTHRESH`.
const INFINITE: u32 = 0x7fff_ffff;

/// What the simulated runs came to.
#[derive(Debug, Clone, Default)]
struct Throughput {
    ratios: [Option<Ratio>; Change::ALL.len()],
    simulated_rate: Option<f64>,
}

/// What decides what a simulation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Case {
    reordering: u32,
    rfc6675: bool,
    static_window: bool,
    no_threshold: bool,
    path: Path,
}

#[derive(Debug, Clone)]
struct Run {
    case: Case,
    path: Changer,
    simulation: Simulation,
}

/// One sender: what happened, and what would have happened.
#[derive(Debug, Clone, Default)]
pub struct WhatIf {
    replay: Replay,
    waiting: Waiting,
    runs: Vec<Run>,
    /// Segments before anything was out of order: the same in all cases.
    plain: u64,
    measured: Measured,
    /// The sender's own state is not known: round trips are measured, and that is all.
    times_only: bool,
    /// What the path did to the originals, in us ([`LOST`]), in the order in which they left.
    delays: Vec<u32>,
    /// As the socket's first entry into recovery shows it.
    control: Option<Control>,
    /// Window and threshold at the first of them.
    began: Option<(u32, u32)>,
    /// Where slow start ended without a loss.
    slow_start_ended: Option<u32>,
    /// First transmission and last answer, ns.
    span: Option<(u64, u64)>,
    delivered: u64,
}

/// One sender, ended.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Output {
    /// How well the model reproduces what happened.
    pub reproduced: Reproduced,
    /// By [`Change::ALL`].
    pub outcomes: [Outcome; Change::ALL.len()],
    /// The sender's settings.
    pub rules: Rules,
    /// The socket began with another `reordering` than the sysctl's: `tcp_metrics` had one.
    pub cached_metrics: Option<u32>,
    /// Anything was out of order, SACKed or sent again.
    pub simulated: bool,
    /// Throughput over that as it was, by [`Change::ALL`]; `None` if it was not simulated.
    pub ratios: [Option<Ratio>; Change::ALL.len()],
    /// Throughput of the simulated runs as it was, over what was measured.
    pub simulated_rate: Option<f64>,
}

impl WhatIf {
    /// The sender's settings.
    pub fn set_rules(&mut self, rules: Rules) {
        self.replay.set_rules(rules);
    }

    /// A sender known from foreign captures: the model would have nothing to begin with, and its outcome is
    /// left out of the report.
    pub fn measure_times_only(&mut self) {
        self.times_only = true;
        self.replay.board.times_only = true;
    }

    /// A segment that reached the sender was discarded for its old timestamp.
    pub fn discarded(&mut self, tsecr: Option<u32>) {
        if !self.times_only {
            self.replay.discarded(tsecr);
        }
    }

    /// New data leaves.
    pub fn transmitted(&mut self, unit: &Transmission) {
        self.replay.transmitted(unit);
    }

    /// An acknowledgement with the state before it. Returns an RTT sample in ns.
    pub fn acknowledged(
        &mut self,
        arrived: &Arrived<'_>,
        state: &State,
        verdicts: &Spurious,
    ) -> Option<u64> {
        if self.times_only {
            let board = &mut self.replay.board;
            return board.acknowledged(arrived.now, arrived.ack, arrived.blocks);
        }
        let rtt = self.replay.acknowledged(arrived, state);
        let tick = self.replay.rules().tick_ns;
        self.measured = Measured {
            min_rtt: u64::from(state.min_rtt_us) * 1000,
            srtt: u64::from(state.srtt_8us) * 1000 / 8,
            rto: u64::from(state.rto_jiffies) * tick,
            mss: state.mss,
            cwnd: state.snd_cwnd,
            threshold: (state.total_retrans == 0).then_some(state.ssthresh),
        };
        for segment in self.replay.board.gone() {
            self.waiting.push(*segment, self.measured);
        }
        self.release(arrived.now, verdicts);
        rtt
    }

    /// The congestion state changes.
    pub fn congestion(&mut self, now: u64, new: u32, state: &State) {
        if self.times_only {
            return;
        }
        if new == RECOVERY && self.control.is_none() {
            self.control = Control::at_entry(state.prior_cwnd, state.ssthresh);
        }
        self.replay.congestion(now, new, state);
    }

    /// The kernel sends a range again.
    pub fn resent(&mut self, now: u64, start: u64, end: u64, state: &State) {
        if self.times_only {
            self.replay.board.resent(now, start, end);
        } else {
            self.replay.resent(now, start, end, state);
        }
    }

    fn release(&mut self, now: u64, verdicts: &Spurious) {
        while let Some(fate) = self.waiting.pop(now, verdicts) {
            self.remember(&fate);
            if self.runs.is_empty() {
                if !fate.disordered {
                    self.plain += 1;
                    continue;
                }
                self.begin();
            }
            for run in &mut self.runs {
                run.push(fate);
            }
        }
    }

    fn remember(&mut self, fate: &Fate) {
        let measured = &fate.measured;
        let threshold = measured.threshold.unwrap_or(measured.cwnd);
        self.began.get_or_insert((measured.cwnd, threshold));
        if let Some(threshold) = measured.threshold.filter(|one| *one < INFINITE) {
            self.slow_start_ended.get_or_insert(threshold);
        }
        let answered = fate.original.unwrap_or(fate.sent + fate.delay);
        let span = self.span.get_or_insert((fate.sent, answered));
        span.1 = span.1.max(answered);
        self.delivered += 1;
        if self.delays.len() < DELAYS_MAX {
            let took = |at: u64| u32::try_from(at.saturating_sub(fate.sent) / 1000);
            let delay = fate
                .original
                .map(|at| took(at).map_or(LOST - 1, |one| one.min(LOST - 1)));
            self.delays.push(delay.unwrap_or(LOST));
        }
    }

    /// Whole runs, as it was and with each change that changes anything.
    fn runs_of(&self, cases: &[Case; Change::ALL.len()], budget: &mut Budget) -> Throughput {
        let mut result = Throughput::default();
        let (Some((from, to)), Some((cwnd, threshold))) = (self.span, self.began) else {
            return result;
        };
        let rules = self.rules();
        if self.runs.is_empty() || rules.control == Control::Other {
            return result;
        }
        let course = Course {
            cwnd,
            threshold: self.slow_start_ended.unwrap_or(threshold),
            duration: to.saturating_sub(from),
            segments: u64::MAX,
        };
        let setting = |change: Change, case: &Case| Setting {
            rules: change.rules(&rules),
            reordering: case.reordering,
            path: case.path,
        };
        let differs = |at: &usize| {
            let probes = Change::ALL[*at].rules(&rules).probes() != rules.probes();
            cases[*at] != cases[0] || probes
        };
        let changed: Vec<usize> = (1..cases.len()).filter(differs).collect();
        if self.delays.len() < FEWEST {
            // Nothing of so few packets changes a rate.
            result.ratios = [Some(Ratio::SAME); Change::ALL.len()];
            return result;
        }
        let first = setting(Change::None, &cases[0]);
        let settings = changed.len() + 1;
        let Some(base) = Base::new(&self.delays, course, first, settings, budget) else {
            return result;
        };
        result.ratios = [Some(Ratio::SAME); Change::ALL.len()];
        for at in changed {
            let runs = base.with(setting(Change::ALL[at], &cases[at]));
            result.ratios[at] = runs.over(&base.runs);
        }
        let actual = self.delivered as f64 * 1e9 / course.duration.max(1) as f64;
        result.simulated_rate = Some(base.runs.rate() / actual);
        result
    }

    fn begin(&mut self) {
        for change in Change::ALL {
            let case = self.case(change);
            if self.runs.iter().any(|run| run.case == case) {
                continue;
            }
            let rules = change.rules(&self.rules());
            self.runs.push(Run {
                case,
                path: Changer::new(case.path),
                simulation: Simulation::new(rules, case.reordering),
            });
        }
    }

    /// The settings, with the congestion control that the socket shows.
    fn rules(&self) -> Rules {
        let rules = self.replay.rules();
        Rules {
            control: self.control.unwrap_or(rules.control),
            ..*rules
        }
    }

    fn cached_metrics(&self) -> Option<u32> {
        let first = self.replay.first_reordering();
        first.filter(|first| *first != self.replay.rules().reordering)
    }

    fn case(&self, change: Change) -> Case {
        let rules = change.rules(self.replay.rules());
        Case {
            reordering: self.cached_metrics().unwrap_or(rules.reordering),
            rfc6675: rules.rfc6675(),
            static_window: rules.static_window(),
            no_threshold: rules.no_threshold(),
            path: change.path(),
        }
    }

    /// Ends all cases. `verdicts` must still hold all that is open.
    #[must_use]
    pub fn finish(mut self, verdicts: &Spurious, budget: &mut Budget) -> Output {
        self.release(u64::MAX, verdicts);
        let simulated = !self.runs.is_empty();
        let cases = Change::ALL.map(|change| self.case(change));
        let Throughput {
            ratios,
            simulated_rate,
        } = self.runs_of(&cases, budget);
        let mut result = Output {
            ratios,
            simulated_rate,
            reproduced: self.replay.reproduced(),
            rules: self.rules(),
            cached_metrics: self.cached_metrics(),
            simulated,
            ..Output::default()
        };
        let runs: Vec<(Case, Outcome)> = self
            .runs
            .into_iter()
            .map(|run| (run.case, run.finish()))
            .collect();
        for (outcome, case) in result.outcomes.iter_mut().zip(cases) {
            if let Some((_, found)) = runs.iter().find(|(one, _)| *one == case) {
                *outcome = *found;
            }
            outcome.segments += self.plain;
        }
        result
    }
}

impl Run {
    fn push(&mut self, fate: Fate) {
        if let Some(fate) = self.path.next(fate) {
            self.simulation.push(fate);
        }
    }

    fn finish(mut self) -> Outcome {
        while let Some(fate) = self.path.rest() {
            self.simulation.push(fate);
        }
        self.simulation.finish()
    }
}
