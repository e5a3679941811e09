//! Scenarios: one experiment as a TOML file, from the topology to what is expected to be found.
//!
//! Each section's type belongs to the part of the lab that implements it; this module holds them
//! together, reads them with errors that name file and line, and checks what only the whole can.

pub(crate) mod cpus;
mod duration;
mod embedded;
mod error;
mod expect;
mod setting;
mod source;
mod sysctls;
mod variation;

use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use cpus::Cpus;
pub use embedded::{EMBEDDED, Embedded};
pub use error::{Invalid, Place, ScenarioError};
pub use expect::Expect;
pub use setting::Setting;
pub use source::Source;
pub use sysctls::Sysctls;
pub(crate) use sysctls::set as set_sysctl;
pub use variation::{AblationSection, Axis, MatrixSection, Switch};

use super::{LabOptions, Topology, WireSpec, benchmark, vpn};

/// One experiment. Every key has a default, so that an empty file is the bare wire under TCP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "snake_case")]
pub struct Scenario {
    /// Name: lower case letters, digits and hyphens.
    pub name: String,
    /// What it shows, in one line.
    pub title: String,
    /// Seed of everything random in a run: impairment, faults, order of variants.
    pub seed: u64,
    /// The hosts.
    pub topology: Topology,
    /// What joins them, and the impairment on the way.
    pub wire: WireSpec,
    /// The tunnel.
    pub vpn: vpn::Spec,
    /// The benchmark.
    pub benchmark: benchmark::Spec,
    /// Sysctls of the hosts' namespaces.
    pub sysctls: Sysctls,
    /// Cores that daemons and benchmark are kept to.
    pub cpus: Cpus,
    /// How often it runs and what is recorded.
    pub run: RunSection,
    /// What the report must say.
    pub expect: Expect,
    /// What `lab matrix` varies.
    pub matrix: MatrixSection,
    /// What `lab ablate` switches.
    pub ablation: AblationSection,
}

/// In which order variants run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Shuffled with the scenario's seed, anew in each repetition.
    #[default]
    Random,
    /// As given.
    Given,
}

/// `[run]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "snake_case")]
pub struct RunSection {
    /// How often each variant runs.
    pub repetitions: u32,
    /// Runs made before, and thrown away.
    pub warm_up: u32,
    /// Order of the variants of a matrix or an ablation.
    pub order: Order,
    /// Whether the run is recorded. Without, only the benchmark's own figures are there, and the
    /// probes cost nothing.
    pub record: bool,
    /// Whether stacks of the watched threads are sampled.
    pub stacks: bool,
    /// Longest time from the client's start until it is ended, such as "90s"; empty: the
    /// benchmark's duration and a minute more, six minutes where it has none.
    pub limit: String,
}

impl Default for Scenario {
    fn default() -> Scenario {
        Scenario {
            name: "unnamed".to_owned(),
            title: String::new(),
            seed: 1,
            topology: Topology::default(),
            wire: WireSpec::default(),
            vpn: vpn::Spec::default(),
            benchmark: benchmark::Spec::default(),
            sysctls: Sysctls::default(),
            cpus: Cpus::default(),
            run: RunSection::default(),
            expect: Expect::default(),
            matrix: MatrixSection::default(),
            ablation: AblationSection::default(),
        }
    }
}

impl Default for RunSection {
    fn default() -> RunSection {
        RunSection {
            repetitions: 1,
            warm_up: 0,
            order: Order::default(),
            record: true,
            stacks: false,
            limit: String::new(),
        }
    }
}

/// How long a benchmark may take longer than it should before it is ended.
const SLACK: Duration = Duration::from_secs(60);

/// How long a benchmark may take that ends when its work is done.
const UNKNOWN: Duration = Duration::from_secs(300);

impl Scenario {
    /// Reads a scenario file, or the one of that name that the program carries, and applies
    /// settings on top.
    ///
    /// # Errors
    /// When there is none, when it does not parse (with file, line and column), when a setting
    /// does not fit, or when the whole makes no sense.
    pub fn open(name: &Path, settings: &[Setting]) -> Result<Scenario, ScenarioError> {
        let source = Source::open(name)?;
        Scenario::parse(&source, settings)
    }

    /// Parses a scenario's text and applies settings on top.
    ///
    /// # Errors
    /// As [`Scenario::open`].
    pub fn parse(source: &Source, settings: &[Setting]) -> Result<Scenario, ScenarioError> {
        let mut scenario: Scenario = source.parse()?;
        let mut table: toml::Table = source.parse()?;
        for setting in settings {
            scenario = setting.apply(&mut table)?;
        }
        scenario.check().map_err(|invalid| {
            let overriding = settings.iter().rev().find(|set| set.covers(&invalid.key));
            let place = match overriding {
                Some(setting) => Place::Setting(setting.to_string()),
                None => source.place_of(&invalid.key),
            };
            ScenarioError::Invalid {
                place,
                message: format!("{}: {}", invalid.key, invalid.message),
            }
        })?;
        Ok(scenario)
    }

    /// What only the whole can tell: that keys fit together.
    fn check(&self) -> Result<(), Invalid> {
        let in_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.name.is_empty() || !self.name.chars().all(in_name) {
            let message = "a name has lower case letters, digits and hyphens only";
            return Err(Invalid::new("name", message));
        }
        if self.run.repetitions == 0 {
            return Err(Invalid::new("run.repetitions", "at least 1"));
        }
        self.run.limit_given()?;
        let wire = self.wire.validate();
        wire.map_err(|invalid| Invalid::new(invalid.key, invalid.reason))?;
        let labels = self.topology.labels();
        if let Some(host) = self
            .sysctls
            .named_hosts()
            .find(|host| !labels.contains(host))
        {
            let message = format!("there is no such host; there are: {}", labels.join(", "));
            return Err(Invalid::new(format!("sysctls.{host}"), message));
        }
        let vpn = self.vpn.check();
        vpn.map_err(|message| {
            // The adapter's complaint begins with the key where it knows it.
            let key = message.split(": ").next().filter(|key| !key.contains(' '));
            let below = key.map_or(String::new(), |key| format!(".{key}"));
            Invalid::new(format!("vpn.settings{below}"), message.clone())
        })?;
        self.sysctls.check()?;
        self.cpus.check()?;
        self.expect.check()?;
        self.matrix.axes()?;
        self.ablation.switches()?;
        Ok(())
    }

    /// What this asks the lab to set up.
    #[must_use]
    pub fn options(&self, logs: Option<PathBuf>) -> LabOptions {
        LabOptions {
            vpn: self.vpn.clone(),
            benchmark: self.benchmark.clone(),
            topology: self.topology.clone(),
            wire: self.wire.clone(),
            seed: self.seed,
            sysctls: self.sysctls.clone(),
            cpus: self.cpus.clone(),
            logs,
        }
    }

    /// How long the benchmark's client may run.
    #[must_use]
    pub fn limit(&self) -> Duration {
        let given = self.run.limit_given().ok().flatten();
        given.unwrap_or(self.benchmark.duration().unwrap_or(UNKNOWN) + SLACK)
    }

    /// The same with every setting of the VPN's adapter that is not given at its default.
    #[must_use]
    pub fn complete(&self) -> Scenario {
        Scenario {
            vpn: self.vpn.complete(),
            ..self.clone()
        }
    }

    /// The whole scenario as TOML, defaults included.
    ///
    /// # Errors
    /// When a value cannot be written as TOML; a scenario that was read can.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string_pretty(&self.complete())
    }
}

impl RunSection {
    fn limit_given(&self) -> Result<Option<Duration>, Invalid> {
        if self.limit.is_empty() {
            return Ok(None);
        }
        let parsed = duration::parse(&self.limit);
        parsed
            .map(Some)
            .map_err(|message| Invalid::new("run.limit", message))
    }
}

#[cfg(test)]
mod tests;
