//! Counters that do not agree with the packets.

use crate::analysis::books::Reconciliation;
use crate::explain::facts::Facts;
use crate::explain::model::Evidence;
use crate::explain::rule::{Judgement, Known, Rule};
use crate::explain::{bounds, confidence, units};

pub(in crate::explain::findings) const RULE: Rule = Rule {
    id: "audit-counter-artifact",
    claim: "a counter wrapped, was reset, or was sampled at another moment or of another core than claimed",
    judged: "the kernel's counters beside the packets seen at the taps, where both count the same; with lost events nothing is said",
    needs: &[],
    remedy: "do not use that counter: take the figure from the packets, and look for who else uses the device",
    refuted_by: "counters and packets agree",
    consequence_of: &[],
    lower_bound: false,
    judge,
};

fn judge(facts: &Facts<'_>) -> Judgement {
    if facts.context.lost.values().any(|lost| *lost > 0) {
        return Judgement::unseen("events were lost, so packets cannot check counters");
    }
    let outputs = facts.outputs;
    let books = outputs.interfaces.books.iter().chain(&outputs.drops.books);
    let checked: Vec<&Reconciliation> = books.filter(|book| book.agrees.is_some()).collect();
    if checked.is_empty() {
        return Judgement::unseen("no counter could be laid beside packets");
    }
    let off = |book: &Reconciliation| {
        let kernel = book.kernel.map_or(0.0, |count| count as f64);
        let difference = book
            .difference
            .map_or(0.0, |count| count.unsigned_abs() as f64);
        // Beside all that passed there: a device's few packets of another kind are no artifact.
        let there = checked.iter().filter(|other| other.place == book.place);
        let most = there.filter_map(|other| other.kernel).max().unwrap_or(0);
        (difference, kernel.max(difference).max(most as f64))
    };
    let wrong = |book: &Reconciliation| {
        let (difference, of) = off(book);
        if book.agrees != Some(false) {
            0.0
        } else {
            confidence::ratio_above(difference, of, bounds::MATERIAL)
        }
    };
    let Some(worst) = checked.iter().max_by(|a, b| wrong(a).total_cmp(&wrong(b))) else {
        return Judgement::unseen("no counter could be laid beside packets");
    };
    let (difference, of) = off(worst);
    Known {
        probability: wrong(worst),
        share: Some(if of > 0.0 { difference / of } else { 0.0 }),
        summary: format!(
            "{} counters checked; {} is off by {}",
            checked.len(),
            worst.counter,
            units::count(difference as u64)
        ),
        evidence: vec![
            Evidence::new(worst.counter.clone(), difference, "difference", "books").expected("0"),
        ],
        remedy: None,
    }
    .into()
}
