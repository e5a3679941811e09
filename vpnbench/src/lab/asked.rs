//! What was asked of the wire beside what acted, for the audit of impairments that do not act.

use super::wire::{EgressAccount, HostAccount, WireAccount};
use crate::explain::facts::{Effect, Wire};

/// Effects that were configured, each with how many units it hit. Only the embedded wire counts them
/// all; the kernel's netem is left out.
#[must_use]
pub(super) fn of(account: &WireAccount) -> Wire {
    let counted = account
        .hosts
        .iter()
        .filter_map(|host| Some((host, host.embedded.as_ref()?)));
    Wire {
        effects: counted
            .flat_map(|(host, account)| effects(host, account))
            .collect(),
    }
}

fn effects(host: &HostAccount, account: &EgressAccount) -> Vec<Effect> {
    let asked = &host.configured;
    let all = [
        ("loss", asked.loss, account.lost.units),
        ("duplication", asked.duplicate, account.copies.units),
        ("reordering", asked.reorder, account.jumped.units),
    ];
    let effect = |(name, configured, hit): (&str, f64, u64)| Effect {
        name: format!("{name} on {}", host.host),
        configured,
        hit,
        of: account.entered.units,
    };
    all.into_iter()
        .filter(|one| one.1 > 0.0)
        .map(effect)
        .collect()
}
