//! What each mechanism is worth: one is switched at a time against the same base, all of them in
//! random order within each repetition.

mod effects;
mod predicted;

use std::path::PathBuf;

pub use effects::{Ablation, Effect, SwitchEffects, Verdict};
pub use predicted::{Held, Predicted};

use super::campaign::{Campaign, Variant};
use super::scenario::{Scenario, ScenarioError, Setting, Source, Switch};

/// Label and directory of the base.
pub const BASE: &str = "base";

/// The mechanisms behind the study's question why a VPN with TUN offloads beats the bare link
/// under reordering (Q1 of the design): coalescing on the TUN device and on the outer socket, its
/// receive buffer, the unit and the place of the impairment, and the sender's loss detection.
pub const COALESCING: &[&str] = &[
    "vpn.settings.tun_gso=false",
    "vpn.settings.tun_gro=false",
    "vpn.settings.outer_gso=false",
    "vpn.settings.outer_gro=false",
    "vpn.settings.receive_buffer=4096",
    "wire.unit=packet",
    "wire.place=middle",
    "wire.place=middle;wire.offload=false",
    "sysctls.net.ipv4.tcp_reordering=10",
    "sysctls.net.ipv4.tcp_recovery=0",
    "sysctls.net.ipv4.tcp_early_retrans=0",
];

/// The base and, for each switch, the base with it.
///
/// # Errors
/// When a switch does not fit the scenario, or changes nothing in it.
pub fn plan(
    source: &Source,
    settings: &[Setting],
    switches: &[Switch],
) -> Result<Campaign, ScenarioError> {
    let base = Scenario::parse(source, settings)?;
    let mut variants = vec![Variant {
        labels: vec![("variant".to_owned(), BASE.to_owned())],
        directory: PathBuf::from(BASE),
        scenario: base.clone(),
    }];
    for (number, switch) in switches.iter().enumerate() {
        let mut all = settings.to_vec();
        all.extend(switch.settings.iter().cloned());
        let scenario = Scenario::parse(source, &all)?;
        if scenario == base {
            return Err(ScenarioError::Invalid {
                place: super::scenario::Place::Setting(switch.to_string()),
                message: "the base has this value already: the switch changes nothing".to_owned(),
            });
        }
        variants.push(Variant {
            labels: vec![("variant".to_owned(), switch.to_string())],
            directory: directory(number + 1, switch),
            scenario,
        });
    }
    Ok(Campaign::of(variants))
}

/// A number, since names of switches may be long or alike, and the key for people.
fn directory(number: usize, switch: &Switch) -> PathBuf {
    let last = |setting: &Setting| setting.key().rsplit('.').next().map(str::to_owned);
    let key = switch.settings.first().and_then(last).unwrap_or_default();
    let safe = |c: char| {
        if c.is_alphanumeric() || c == '_' {
            c
        } else {
            '-'
        }
    };
    PathBuf::from(format!(
        "{number:02}-{}",
        key.chars().map(safe).collect::<String>()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_that_changes_nothing_is_refused() {
        let source = Source::new("x.toml", "seed = 4\n");
        let switches: Vec<Switch> = ["seed=5", "run.stacks=true"]
            .map(|text| text.parse().expect("a switch"))
            .to_vec();
        let campaign = plan(&source, &[], &switches).expect("fits");
        assert_eq!(campaign.variants.len(), 3);
        assert_eq!(campaign.variants[2].directory, PathBuf::from("02-stacks"));
        let same = ["seed=4".parse().expect("a switch")];
        let error = plan(&source, &[], &same).expect_err("the same");
        assert!(error.to_string().contains("changes nothing"), "{error}");
    }
}
