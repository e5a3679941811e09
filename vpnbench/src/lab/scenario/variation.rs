//! `[matrix]` and `[ablation]`: what is varied around a scenario.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::Value;

use super::error::Invalid;
use super::setting::Setting;

/// Axes that have names of their own, in the order in which they nest in a matrix's directories.
const SHORT: [(&str, &str); 3] = [
    ("vpn", "vpn.name"),
    ("profile", "wire.profile"),
    ("benchmark", "benchmark.name"),
];

/// `[matrix]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "snake_case")]
pub struct MatrixSection {
    /// Values by key: `vpn`, `profile`, `benchmark` or any dotted key of a scenario.
    #[schemars(with = "BTreeMap<String, serde_json::Value>")]
    pub axes: BTreeMap<String, Value>,
}

/// One key and the values it takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Axis {
    /// Dotted key of the scenario.
    pub key: String,
    /// Values as `--set` takes them.
    pub values: Vec<String>,
}

impl Axis {
    /// An axis; the short names stand for their keys.
    #[must_use]
    pub fn new(name: &str, values: Vec<String>) -> Axis {
        let key = SHORT.iter().find(|(short, _)| *short == name);
        Axis {
            key: key.map_or(name, |(_, key)| key).to_owned(),
            values,
        }
    }

    /// Heading and label: the short name where there is one.
    #[must_use]
    pub fn name(&self) -> &str {
        let short = SHORT.iter().find(|(_, key)| *key == self.key);
        short.map_or(&self.key, |(name, _)| name)
    }

    /// Place among the axes: those with short names first.
    #[must_use]
    pub fn rank(&self) -> usize {
        let at = SHORT.iter().position(|(_, key)| *key == self.key);
        at.unwrap_or(SHORT.len())
    }
}

impl FromStr for Axis {
    type Err = String;

    fn from_str(text: &str) -> Result<Axis, String> {
        let wrong = || format!("\"{text}\" is not KEY=VALUE,VALUE.. such as wire.unit=skb,packet");
        let (key, values) = text.split_once('=').ok_or_else(wrong)?;
        let values: Vec<String> = values
            .split(',')
            .map(|value| value.trim().to_owned())
            .collect();
        if key.trim().is_empty() || values.iter().any(String::is_empty) {
            return Err(wrong());
        }
        Ok(Axis::new(key.trim(), values))
    }
}

impl MatrixSection {
    /// The axes, those with short names first.
    ///
    /// # Errors
    /// When one is not a list of values.
    pub fn axes(&self) -> Result<Vec<Axis>, Invalid> {
        let mut axes = Vec::new();
        for (name, value) in &self.axes {
            add(name, value, &mut axes)?;
        }
        axes.sort_by_key(Axis::rank);
        Ok(axes)
    }
}

/// Adds an axis, or those in a table: `wire.unit = [..]` is a table with `unit` in it.
fn add(name: &str, value: &Value, axes: &mut Vec<Axis>) -> Result<(), Invalid> {
    match value {
        Value::Table(inner) => inner
            .iter()
            .try_for_each(|(part, value)| add(&format!("{name}.{part}"), value, axes)),
        Value::Array(values) if !values.is_empty() => {
            axes.push(Axis::new(name, values.iter().map(text).collect()));
            Ok(())
        }
        _ => {
            let message = "an axis is a list of values such as [\"low\", \"medium\"]";
            Err(Invalid::new(format!("matrix.axes.{name}"), message))
        }
    }
}

/// A value as `--set` takes it.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// `[ablation]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "snake_case")]
pub struct AblationSection {
    /// What is switched, one at a time: "vpn.settings.tun_gso=false".
    pub switches: Vec<String>,
    /// Names of the figures in the table, as in outcome.json; empty: the benchmark's main figure
    /// and the retransmissions.
    pub figures: Vec<String>,
}

impl AblationSection {
    /// The switches.
    ///
    /// # Errors
    /// When one is not KEY=VALUE.
    pub fn switches(&self) -> Result<Vec<Switch>, Invalid> {
        let parse = |text: &String| {
            let wrong = |message| Invalid::new("ablation.switches", message);
            text.parse().map_err(wrong)
        };
        self.switches.iter().map(parse).collect()
    }
}

/// What is changed at once against the base: usually one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switch {
    /// The changes.
    pub settings: Vec<Setting>,
}

impl fmt::Display for Switch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, setting) in self.settings.iter().enumerate() {
            let separator = if number > 0 { "; " } else { "" };
            write!(formatter, "{separator}{setting}")?;
        }
        Ok(())
    }
}

impl FromStr for Switch {
    type Err = String;

    fn from_str(text: &str) -> Result<Switch, String> {
        let parts = text.split(';').map(str::parse);
        let settings: Result<Vec<Setting>, String> = parts.collect();
        Ok(Switch {
            settings: settings?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_may_be_short_quoted_or_nested() {
        let text = "[axes]\nprofile = [\"low\"]\nwire.unit = [\"skb\", \"packet\"]\n\
                    \"run.stacks\" = [true, false]\nvpn = [\"none\"]\n";
        let section: MatrixSection = toml::from_str(text).expect("fits");
        let axes = section.axes().expect("lists");
        let keys: Vec<&str> = axes.iter().map(|axis| axis.key.as_str()).collect();
        assert_eq!(
            keys,
            ["vpn.name", "wire.profile", "run.stacks", "wire.unit"]
        );
        assert_eq!(axes[2].values, ["true", "false"]);
        assert_eq!((axes[0].name(), axes[3].name()), ("vpn", "wire.unit"));
        let wrong: MatrixSection = toml::from_str("[axes]\nvpn = \"none\"\n").expect("fits");
        assert_eq!(
            wrong.axes().map_err(|invalid| invalid.key),
            Err("matrix.axes.vpn".to_owned())
        );
    }

    #[test]
    fn a_switch_may_change_several_keys() {
        let switch: Switch = "wire.unit=packet; wire.model=exact".parse().expect("two");
        assert_eq!(switch.settings.len(), 2);
        assert_eq!(switch.to_string(), "wire.unit=packet; wire.model=exact");
        assert!("wire.unit".parse::<Switch>().is_err());
        assert!("wire.unit=".parse::<Axis>().is_err());
    }
}
