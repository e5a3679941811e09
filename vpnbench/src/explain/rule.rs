//! What a claim consists of, and how its judgement becomes a finding.

use vpnbench_common::catalog::{ProbeId, probe_row};

use super::bounds;
use super::facts::{Facts, Load};
use super::model::{Evidence, Finding, Verdict};
use super::units;

/// How the summary of a claim begins that lacks something needed.
pub const UNJUDGED: &str = "not judged: ";

/// Claims that are refuted where what they cost a TCP sender is not material.
const COSTED: [&str; 10] = [
    "path-loss",
    "tunnel-loss",
    "outer-receive-overflow",
    "outer-send-drop",
    "tun-queue-overflow",
    "jumbo-overlay-amplification",
    "outer-fragmentation",
    "gso-batch-impairment",
    "path-reordering",
    "tunnel-reordering",
];

/// One claim about a run.
#[derive(Debug)]
pub struct Rule {
    /// Stable name, part of the public interface.
    pub id: &'static str,
    /// What is claimed.
    pub claim: &'static str,
    /// How it is judged, with the sources of its formulas.
    pub judged: &'static str,
    /// What must have been seen.
    pub needs: &'static [Need],
    /// What to do about it, in general.
    pub remedy: &'static str,
    /// The observation that would refute it.
    pub refuted_by: &'static str,
    /// Claims it follows from where they are supported too.
    pub consequence_of: &'static [&'static str],
    /// Whether it rests on counts that lost events can only lower, so that it still holds with them.
    pub lower_bound: bool,
    /// The judgement, asked only when everything needed is there.
    pub judge: fn(&Facts<'_>) -> Judgement,
}

/// What must have been seen for a claim to be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// A probe, or the one that stands in for it.
    Probe(ProbeId),
    /// Senders whose TCP moved data.
    Tcp,
    /// What the sender's socket knows and no packet tells: its windows and buffers.
    SocketState,
    /// Datagrams that carried the load.
    Datagrams,
    /// A tunnel.
    Tunnel,
    /// A tunnel with a daemon in user space.
    Daemon,
    /// Both ends of the path.
    BothEnds,
    /// Packets in a direction.
    Packets,
    /// The benchmark's own result.
    Benchmark,
}

/// Why something needed is not there.
pub(super) struct Lacking {
    reason: String,
    /// Whether there is nothing the claim could apply to.
    inapplicable: bool,
}

impl Need {
    /// In words, for docs.
    #[must_use]
    pub fn text(self) -> String {
        match self {
            Need::Probe(id) => {
                let row = probe_row(id as u8);
                row.map_or(String::new(), |row| format!("probe `{}`", row.name))
            }
            Need::Tcp => "a TCP sender that moved data".to_owned(),
            Need::SocketState => "the sender's own state, which no capture shows".to_owned(),
            Need::Datagrams => "a load of datagrams".to_owned(),
            Need::Tunnel => "a tunnel".to_owned(),
            Need::Daemon => "a tunnel with a daemon".to_owned(),
            Need::BothEnds => "both ends watched".to_owned(),
            Need::Packets => "packets".to_owned(),
            Need::Benchmark => "the benchmark's result".to_owned(),
        }
    }

    fn lacking(self, facts: &Facts<'_>, lower_bound: bool) -> Option<Lacking> {
        let missing = |reason: String| Lacking {
            reason,
            inapplicable: false,
        };
        let pointless = |reason: &str| Lacking {
            reason: reason.to_owned(),
            inapplicable: true,
        };
        match self {
            Need::Probe(id) => {
                let row = probe_row(id as u8)?;
                let fallback = row.fallback.filter(|other| facts.context.attached(*other));
                if !facts.context.attached(id) && fallback.is_none() {
                    let reason = match facts.only_captured() {
                        true => format!("a capture does not show it: {}", row.doc),
                        false => format!("probe {} was not attached", row.name),
                    };
                    return Some(missing(reason));
                }
                let lost = facts.lost_events(id);
                (lost > 0 && !lower_bound).then(|| {
                    let lost = units::count(lost);
                    missing(format!("{lost} events of {} were lost", row.name))
                })
            }
            Need::Tcp => (facts.tcp.is_none() || facts.load != Load::Tcp)
                .then(|| pointless("no TCP sender carried the load")),
            Need::SocketState => facts.sender_captured().then(|| {
                let reason = "a capture does not show the sender's windows and buffers";
                missing(reason.to_owned())
            }),
            Need::Datagrams => (facts.load != Load::Datagrams)
                .then(|| pointless("the load was not carried by datagrams")),
            Need::Tunnel => (facts.context.start.tunnels.is_empty())
                .then(|| pointless("there is no tunnel on the path")),
            Need::Daemon => {
                let tunnels = &facts.context.start.tunnels;
                let any = tunnels.iter().any(|tunnel| tunnel.daemon.is_some());
                (!any).then(|| pointless("no daemon in user space is on the path"))
            }
            Need::BothEnds => (!facts.both_ends()).then(|| {
                let hint = match facts.only_captured() {
                    true => "only one end was captured: add the other end's capture (--at HOST:TAP=FILE)",
                    false => {
                        "only one end was watched: give both with --netns, or join the traces of both"
                    }
                };
                missing(hint.to_owned())
            }),
            Need::Packets => facts
                .way
                .is_none()
                .then(|| missing("no packet passed a tap".to_owned())),
            Need::Benchmark => facts
                .outputs
                .benchmark
                .is_none()
                .then(|| pointless("the benchmark's own result is not known")),
        }
    }
}

/// What the evidence says about a claim.
#[derive(Debug, Clone)]
pub enum Judgement {
    /// It can be judged.
    Known(Known),
    /// It can, and what the rule says it may follow from has no part in it here.
    Alone(Known),
    /// It cannot, and why; `applicable` says whether it could apply here at all.
    Unknown {
        /// Why.
        reason: String,
        /// Whether there was anything the claim could apply to.
        applicable: bool,
    },
}

/// A judgement with its evidence.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Probability that the claim is true.
    pub probability: f64,
    /// Share of the problem, where the claim is true.
    pub share: Option<f64>,
    /// One sentence with the main figures.
    pub summary: String,
    /// The figures.
    pub evidence: Vec<Evidence>,
    /// What to do here; the rule's own words if this is empty.
    pub remedy: Option<String>,
}

impl Judgement {
    /// Something could be there and was not seen.
    #[must_use]
    pub fn unseen(reason: impl Into<String>) -> Judgement {
        Judgement::Unknown {
            reason: reason.into(),
            applicable: true,
        }
    }

    /// There is nothing the claim could apply to.
    #[must_use]
    pub fn inapplicable(reason: impl Into<String>) -> Judgement {
        Judgement::Unknown {
            reason: reason.into(),
            applicable: false,
        }
    }
}

impl From<Known> for Judgement {
    fn from(known: Known) -> Judgement {
        Judgement::Known(known)
    }
}

impl Rule {
    /// Judges the claim.
    #[must_use]
    pub fn finding(&self, facts: &Facts<'_>) -> Finding {
        let lacking = self
            .needs
            .iter()
            .find_map(|need| need.lacking(facts, self.lower_bound));
        let judgement = match lacking {
            Some(lacking) => Judgement::Unknown {
                reason: lacking.reason,
                applicable: !lacking.inapplicable,
            },
            None => (self.judge)(facts),
        };
        let finding = Finding {
            id: self.id.to_owned(),
            refuted_by: Some(self.refuted_by.to_owned()),
            ..Finding::default()
        };
        match judgement {
            Judgement::Unknown { reason, applicable } => Finding {
                summary: format!("{UNJUDGED}{reason}"),
                reason: Some(reason),
                applicable,
                ..finding
            },
            Judgement::Known(known) => self.known(finding, known, facts),
            Judgement::Alone(known) => Finding {
                stands_alone: true,
                ..self.known(finding, known, facts)
            },
        }
    }

    fn known(&self, finding: Finding, known: Known, facts: &Facts<'_>) -> Finding {
        let finding = Finding {
            summary: known.summary,
            evidence: known.evidence,
            applicable: true,
            ..finding
        };
        let lossy = self.lower_bound && facts.lost_any(self.needs);
        if known.probability >= bounds::SURE {
            let remedy = known.remedy.unwrap_or_else(|| self.remedy.to_owned());
            return Finding {
                verdict: Verdict::Supported,
                confidence: Some(known.probability),
                share: known.share.map(|share| share.clamp(0.0, 1.0)),
                remedy: Some(remedy),
                ..finding
            };
        }
        let refutes = known.probability <= 1.0 - bounds::SURE;
        if refutes && COSTED.contains(&self.id) && facts.cost_unknown() {
            let reason =
                "what it cost is not known: a capture does not show the sender's congestion window";
            return Finding {
                reason: Some(reason.to_owned()),
                ..finding
            };
        }
        if refutes && !lossy {
            return Finding {
                verdict: Verdict::Refuted,
                confidence: Some(1.0 - known.probability),
                ..finding
            };
        }
        let reason = if lossy {
            "events were lost that could show it".to_owned()
        } else {
            let percent = units::percent(known.probability);
            format!("too little data to tell: the counts give it {percent}")
        };
        Finding {
            reason: Some(reason),
            ..finding
        }
    }
}
