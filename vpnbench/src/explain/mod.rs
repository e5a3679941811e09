//! From figures to answers: which of the claims of docs/findings.md the evidence supports, how sure
//! that is, how much of the problem each accounts for, and what to do.
//!
//! One claim per file in `findings/`; [`rule::Rule`] says what a claim consists of. Everything here is
//! pure: a finding reads outputs of analyses and nothing else. A missing probe, a lost event or a tap
//! that was not watched makes a finding unknown, never refuted.

pub mod bounds;
pub mod compare;
pub mod confidence;
pub mod facts;
pub mod findings;
pub mod loss;
pub mod model;
mod rank;
pub mod rule;
pub mod tcp;
pub mod text;
pub mod units;
mod way_back;

pub use facts::{Facts, Given};
pub use findings::RULES;
pub use model::{Evidence, Finding, Verdict};

use crate::analysis::{Context, Outputs};

/// Judges every claim, ranked: supported ones first, causes above their consequences, the larger share
/// of the problem above the smaller; then what could not be judged, then what is refuted.
#[must_use]
pub fn explain(context: &Context<'_>, outputs: &Outputs, given: &Given) -> Vec<Finding> {
    let facts = Facts::new(context, outputs, given);
    let judged = RULES.iter().map(|rule| rule.finding(&facts)).collect();
    let mut findings = rank::rank(judged);
    let healthy = findings::healthy::conclude(&facts, &findings);
    let place = match healthy.verdict {
        Verdict::Supported => 0,
        _ => findings.len(),
    };
    findings.insert(place, healthy);
    findings
}
