//! `--set KEY=VALUE`: one key of a scenario changed on the command line or by a matrix.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize as _;
use toml::{Table, Value};

use super::Scenario;
use super::error::{Place, ScenarioError};

/// One key and its value. The value is read as TOML where it is TOML (`false`, `10`, `["a"]`) and
/// the key takes that type; everything else is text, so that `wire.delay=4ms` needs no quotes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Setting {
    key: String,
    value: String,
}

impl Setting {
    /// A key and its value.
    #[must_use]
    pub fn new(key: impl Into<String>, value: impl Into<String>) -> Setting {
        Setting {
            key: key.into(),
            value: value.into(),
        }
    }

    /// The dotted key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The value as it was written.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Whether this setting gives `key` its value, or a part of it.
    pub(super) fn covers(&self, key: &str) -> bool {
        let below = |part: &str, whole: &str| {
            let rest = part.strip_prefix(whole);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        below(key, &self.key) || below(&self.key, key)
    }

    /// Changes the table and returns the scenario it makes.
    pub(super) fn apply(&self, table: &mut Table) -> Result<Scenario, ScenarioError> {
        if self.key == "benchmark.duration" {
            return self.apply_duration(table);
        }
        let mut first = None;
        for value in self.readings() {
            let mut changed = table.clone();
            self.insert(&mut changed, value)?;
            match Scenario::deserialize(changed.clone()) {
                Ok(scenario) => {
                    *table = changed;
                    return Ok(scenario);
                }
                Err(error) => {
                    first.get_or_insert(error);
                }
            }
        }
        let message = first.map(|error| error.message().trim().replace('\n', ", "));
        Err(self.wrong(message.unwrap_or_default()))
    }

    /// How long a benchmark runs is a key of some and a count of others, so the benchmark decides.
    fn apply_duration(&self, table: &mut Table) -> Result<Scenario, ScenarioError> {
        let wrong = |error: toml::de::Error| self.wrong(error.message().trim().to_owned());
        let mut scenario = Scenario::deserialize(table.clone()).map_err(wrong)?;
        let duration = super::duration::parse(&self.value);
        let duration = duration.map_err(|message| self.wrong(message))?;
        if duration.is_zero() {
            return Err(self.wrong("it must be longer than nothing".to_owned()));
        }
        scenario.benchmark.set_duration(duration);
        let section = Table::try_from(&scenario.benchmark);
        let section = section.map_err(|error| self.wrong(error.to_string()))?;
        table.insert("benchmark".to_owned(), Value::Table(section));
        // What the benchmark makes of it may still not fit.
        Scenario::deserialize(table.clone()).map_err(wrong)
    }

    /// What the value may mean: TOML if it is that, else text.
    fn readings(&self) -> Vec<Value> {
        let parsed: Option<Table> = toml::from_str(&format!("value = {}", self.value)).ok();
        let parsed = parsed.filter(|table| table.len() == 1);
        let typed = parsed.and_then(|mut table| table.remove("value"));
        let text = Value::String(self.value.clone());
        typed.into_iter().chain([text]).collect()
    }

    fn insert(&self, table: &mut Table, value: Value) -> Result<(), ScenarioError> {
        let path = self.path();
        let Some((last, sections)) = path.split_last() else {
            return Err(self.wrong("the key is empty".to_owned()));
        };
        let mut target = &mut *table;
        for section in sections {
            let entry = target.entry(section.clone());
            let inner = entry.or_insert_with(|| Value::Table(Table::new()));
            target = inner
                .as_table_mut()
                .ok_or_else(|| self.wrong(format!("{section} is a value, not a section")))?;
        }
        let before = target.insert(last.clone(), value.clone());
        if before.as_ref() != Some(&value) {
            // Settings are a daemon's own, and parameters a benchmark's: they mean nothing to
            // another one.
            match self.key.as_str() {
                "vpn.name" => drop(target.remove("settings")),
                "benchmark.name" => target.retain(|key, _| key == "name" || key == "preset"),
                _ => {}
            }
        }
        Ok(())
    }

    /// The key in its parts. A sysctl's name is one part although it has dots.
    fn path(&self) -> Vec<String> {
        let mut parts = self.key.split('.');
        if parts.next() != Some("sysctls") {
            return self.key.split('.').map(str::to_owned).collect();
        }
        let name = self
            .key
            .trim_start_matches("sysctls")
            .trim_start_matches('.');
        let mut path = vec!["sysctls".to_owned()];
        match name.split_once('.') {
            Some((host, rest)) if host != super::sysctls::ROOT => {
                path.extend([host.to_owned(), rest.to_owned()]);
            }
            _ => path.push(name.to_owned()),
        }
        path
    }

    fn wrong(&self, message: String) -> ScenarioError {
        ScenarioError::Invalid {
            place: Place::Setting(self.to_string()),
            message,
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}={}", self.key, self.value)
    }
}

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Setting, String> {
        match text.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => {
                Ok(Setting::new(key.trim(), value.trim()))
            }
            _ => Err(format!(
                "\"{text}\" is not KEY=VALUE such as wire.unit=packet"
            )),
        }
    }
}
