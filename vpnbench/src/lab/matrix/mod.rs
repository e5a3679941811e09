//! A table of many runs: every combination of the values of some keys of a scenario.
//!
//! Runs are in `VPN/PROFILE/BENCHMARK/NNN/` below the matrix's directory (levels that are not
//! varied are left out, other keys are levels named `KEY=VALUE`), with `matrix.json` and
//! `matrix.csv` beside them.

mod result;

use std::path::PathBuf;

pub use result::{MatrixResult, Row};

use super::campaign::{Campaign, Variant};
use super::scenario::{Axis, Scenario, ScenarioError, Setting, Source};

/// Every combination of the axes' values, each as a scenario of its own: the source's with the
/// combination, and `settings` on top of both (an axis decides its own key). The first axis varies
/// slowest.
///
/// # Errors
/// When a combination is no scenario.
pub fn plan(
    source: &Source,
    settings: &[Setting],
    axes: &[Axis],
) -> Result<Campaign, ScenarioError> {
    let mut variants = Vec::new();
    for combination in combinations(axes) {
        let varied = combination.iter();
        let varied = varied.map(|(axis, value)| Setting::new(&axis.key, *value));
        let is_varied = |setting: &&Setting| axes.iter().any(|axis| axis.key == setting.key());
        let fixed = settings
            .iter()
            .filter(|setting| !is_varied(setting))
            .cloned();
        let all: Vec<Setting> = varied.chain(fixed).collect();
        variants.push(Variant {
            labels: combination
                .iter()
                .map(|(axis, value)| (axis.name().to_owned(), (*value).to_owned()))
                .collect(),
            directory: combination
                .iter()
                .map(|(axis, value)| level(axis, value))
                .collect(),
            scenario: Scenario::parse(source, &all)?,
        });
    }
    Ok(Campaign::of(variants))
}

fn combinations(axes: &[Axis]) -> Vec<Vec<(&Axis, &str)>> {
    let mut combinations = vec![Vec::new()];
    for axis in axes {
        let mut longer = Vec::new();
        for combination in &combinations {
            for value in &axis.values {
                let mut combination: Vec<(&Axis, &str)> = combination.clone();
                combination.push((axis, value));
                longer.push(combination);
            }
        }
        combinations = longer;
    }
    combinations
}

/// One level of the directory: names stay readable, separators do not get in.
fn level(axis: &Axis, value: &str) -> PathBuf {
    let name = match axis.name() {
        short if short != axis.key => value.to_owned(),
        key => format!("{key}={value}"),
    };
    let safe = |c: char| match c {
        c if c.is_alphanumeric() || matches!(c, '.' | '-' | '=' | '%') => c,
        _ => '_',
    };
    let name: String = name.chars().map(safe).collect();
    // `.` and `..` are not names.
    PathBuf::from(if name.starts_with('.') {
        format!("_{name}")
    } else {
        name
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(text: &str) -> Axis {
        text.parse().expect("KEY=VALUES")
    }

    #[test]
    fn every_combination_is_a_variant_with_a_place_of_its_own() {
        let source = Source::new("x.toml", "[run]\nrepetitions = 3\n");
        let axes = [
            axis("vpn=none,wireguard-go"),
            axis("benchmark=tcp,ping"),
            axis("sysctls.net.ipv4.tcp_reordering=3,10"),
        ];
        let campaign = plan(&source, &[], &axes).expect("fits");
        assert_eq!((campaign.variants.len(), campaign.repetitions), (8, 3));
        let last = &campaign.variants[7];
        let place = "wireguard-go/ping/sysctls.net.ipv4.tcp_reordering=10";
        assert_eq!(last.directory, PathBuf::from(place));
        assert_eq!(last.scenario.vpn.name.name(), "wireguard-go");
        assert_eq!(last.scenario.sysctls.all["net.ipv4.tcp_reordering"], "10");
        let places: std::collections::BTreeSet<_> = campaign
            .variants
            .iter()
            .map(|variant| &variant.directory)
            .collect();
        assert_eq!(places.len(), 8);
    }

    #[test]
    fn a_value_that_does_not_fit_is_an_error_before_anything_runs() {
        let source = Source::new("x.toml", "");
        let error = plan(&source, &[], &[axis("vpn=none,vpnx")]).expect_err("no such VPN");
        assert!(error.to_string().contains("vpn.name=vpnx"), "{error}");
        assert_eq!(level(&axis("x=.."), ".."), PathBuf::from("x=.."));
        assert_eq!(level(&axis("vpn=.."), ".."), PathBuf::from("_.."));
        assert_eq!(level(&axis("vpn=a/b"), "a/b"), PathBuf::from("a_b"));
    }
}
