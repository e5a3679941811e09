//! What a scenario says about the wire, and what it means per direction.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::impairment::{Distribution, Impairment};
use super::values::{Percent, Rate, Time, unless_empty};

/// The study's four settings of `tc netem`, applied to each host's egress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// Nothing.
    #[default]
    Baseline,
    /// delay 2ms 2ms, loss 0.25%, reorder 0.5% 25%.
    Low,
    /// delay 4ms 7ms, loss 1%, reorder 2.5% 50%.
    Medium,
    /// delay 6ms 15ms, loss 2.5%, reorder 5% 50%.
    High,
}

/// What carries the packets and impairs them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// Nothing to impair: none. Otherwise netem where the kernel has it, else embedded.
    #[default]
    Auto,
    /// A veth pair with the kernel's sch_netem.
    Netem,
    /// A process of the lab's own between TAP devices.
    Embedded,
    /// A bare veth pair.
    None,
}

/// Where the impairment sits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// On the sending host's wire device. netem there keeps packets in the sender's books, as in the
    /// study; the embedded wire's device takes them out of those at once.
    #[default]
    Egress,
    /// In the sending host: what waits stays in the sender's books with either backend.
    Host,
    /// On a host of its own between them.
    Middle,
}

/// What the impairment acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// What the kernel handles as one object: with GSO a whole super-packet.
    #[default]
    Skb,
    /// Each packet as it would be on a real wire.
    Packet,
}

/// How correlation is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Model {
    /// As the kernel's netem does, which makes rare events with correlation all but impossible.
    #[default]
    Netem,
    /// Keeps the stated probability and distribution, and has the stated correlation.
    Exact,
}

/// A wire setting that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct InvalidKey {
    /// Path of the key in the scenario, such as `wire.forward.loss`.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

macro_rules! with_impairment_keys {
    ($(#[$meta:meta])* pub struct $name:ident { $($body:tt)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
        #[serde(default, deny_unknown_fields, rename_all = "snake_case")]
        pub struct $name {
            $($body)*
            /// Mean delay.
            #[serde(deserialize_with = "unless_empty", skip_serializing_if = "Option::is_none")]
            pub delay: Option<Time>,
            /// Spread of the delay: half the width of the uniform distribution, the standard
            /// deviation of the others.
            #[serde(deserialize_with = "unless_empty", skip_serializing_if = "Option::is_none")]
            pub jitter: Option<Time>,
            /// Correlation of successive delays.
            #[serde(deserialize_with = "unless_empty", skip_serializing_if = "Option::is_none")]
            pub delay_correlation: Option<Percent>,
            /// Distribution of the delay.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub distribution: Option<Distribution>,
            /// Share of units lost.
            #[serde(deserialize_with = "unless_empty", skip_serializing_if = "Option::is_none")]
            pub loss: Option<Percent>,
            /// Correlation of successive losses.
            #[serde(deserialize_with = "unless_empty", skip_serializing_if = "Option::is_none")]
            pub loss_correlation: Option<Percent>,
            /// Share of units sent twice.
            #[serde(deserialize_with = "unless_empty", skip_serializing_if = "Option::is_none")]
            pub duplicate: Option<Percent>,
            /// Correlation of successive duplications.
            #[serde(deserialize_with = "unless_empty", skip_serializing_if = "Option::is_none")]
            pub duplicate_correlation: Option<Percent>,
            /// Share of units sent at once, past those that wait.
            #[serde(deserialize_with = "unless_empty", skip_serializing_if = "Option::is_none")]
            pub reorder: Option<Percent>,
            /// Correlation of successive reorderings.
            #[serde(deserialize_with = "unless_empty", skip_serializing_if = "Option::is_none")]
            pub reorder_correlation: Option<Percent>,
            /// After a reordering, `gap - 1` units are never reordered.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub gap: Option<u32>,
            /// Rate of the link.
            #[serde(deserialize_with = "unless_empty", skip_serializing_if = "Option::is_none")]
            pub rate: Option<Rate>,
            /// Most units that may wait at a time; 1000 as with tc.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub limit: Option<u32>,
            /// Longest IP packet in bytes that gets through; longer ones vanish without a word, as on a path
            /// that has a smaller MTU and no ICMP (RFC 2923, section 2.1). Embedded backend with `unit =
            /// "packet"` only.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub size_limit: Option<u32>,
        }

        impl $name {
            /// Lays the keys that are set over `base`.
            fn lay_over(&self, base: &mut Impairment) {
                let share = |percent: Option<Percent>| percent.map(|percent| percent.share);
                if self.reorder.is_some_and(|reorder| reorder.share == 0.0) {
                    // Switching a profile's reordering off takes what goes with it along.
                    (base.reorder_correlation, base.gap) = (0.0, 0);
                }
                set(&mut base.delay_ns, self.delay.map(|time| time.nanos));
                set(&mut base.jitter_ns, self.jitter.map(|time| time.nanos));
                set(&mut base.delay_correlation, share(self.delay_correlation));
                set(&mut base.distribution, self.distribution);
                set(&mut base.loss, share(self.loss));
                set(&mut base.loss_correlation, share(self.loss_correlation));
                set(&mut base.duplicate, share(self.duplicate));
                set(&mut base.duplicate_correlation, share(self.duplicate_correlation));
                set(&mut base.reorder, share(self.reorder));
                set(&mut base.reorder_correlation, share(self.reorder_correlation));
                set(&mut base.gap, self.gap);
                set(&mut base.rate_bps, self.rate.map(|rate| rate.bits_per_second));
                set(&mut base.limit, self.limit);
                set(&mut base.size_limit, self.size_limit);
            }
        }
    };
}

fn set<T>(target: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *target = value;
    }
}

with_impairment_keys! {
    /// Keys of one direction, laid over those of the wire.
    pub struct DirectionSpec {}
}

with_impairment_keys! {
    /// The `[wire]` section of a scenario. The names and meanings of the impairments are those of
    /// `tc netem` (man tc-netem).
    pub struct WireSpec {
        /// One of the study's settings; keys given beside it take precedence.
        pub profile: Profile,
        /// What carries and impairs the packets.
        pub backend: Backend,
        /// Where the impairment sits.
        pub place: Place,
        /// What it acts on.
        pub unit: Unit,
        /// How correlation is made.
        pub model: Model,
        /// Whether the hosts' wire devices take super-packets and leave checksums to be filled
        /// in, as network cards do. Default true.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub offload: Option<bool>,
        /// Name of a file among the run's logs for what became of each unit (embedded backend
        /// only; docs/lab-wire.md). Off by default: it grows by 96 bytes a unit.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub truth: Option<String>,
        /// Only for what leaves the first host (a, lom).
        #[serde(skip_serializing_if = "Option::is_none")]
        pub forward: Option<DirectionSpec>,
        /// Only for what leaves the second host (b, yuki).
        #[serde(skip_serializing_if = "Option::is_none")]
        pub reverse: Option<DirectionSpec>,
    }
}

impl WireSpec {
    /// The impairment of what leaves host `number` (1 is the first), with profile and overrides
    /// applied.
    #[must_use]
    pub fn impairment(&self, number: u8) -> Impairment {
        let mut impairment = profile(self.profile);
        self.lay_over(&mut impairment);
        let over = match number {
            1 => &self.forward,
            2 => &self.reverse,
            _ => &None,
        };
        if let Some(over) = over {
            over.lay_over(&mut impairment);
        }
        // As tc does: a probability without a gap means every unit may be reordered.
        if impairment.reorder > 0.0 && impairment.gap == 0 {
            impairment.gap = 1;
        }
        impairment
    }

    /// Whether super-packets reach the wire.
    #[must_use]
    pub fn offload(&self) -> bool {
        self.offload.unwrap_or(true)
    }

    /// Whether the wire does anything that a bare veth pair does not.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        (1..=3).all(|number| self.impairment(number).is_none())
            && self.unit == Unit::Skb
            && self.place != Place::Middle
            && self.offload()
    }

    /// Whether packets of some sizes do not get through.
    #[must_use]
    pub fn limits_size(&self) -> bool {
        (1..=3).any(|number| self.impairment(number).size_limit > 0)
    }

    /// Checks what no single value shows; the key is the full path below `wire`.
    pub fn validate(&self) -> Result<(), InvalidKey> {
        let sections = [
            (3, false, "wire"),
            (1, self.forward.is_some(), "wire.forward"),
            (2, self.reverse.is_some(), "wire.reverse"),
        ];
        for (number, own, section) in sections {
            let section = if own { section } else { "wire" };
            self.impairment(number)
                .check()
                .map_err(|(key, reason)| InvalidKey {
                    key: format!("{section}.{key}"),
                    reason,
                })?;
        }
        let invalid = |key: &str, reason: &str| InvalidKey {
            key: key.to_owned(),
            reason: reason.to_owned(),
        };
        match self.backend {
            Backend::None if !self.is_plain() => Err(invalid(
                "wire.backend",
                "none is a bare veth pair: it can neither impair, nor act on packets, nor sit in the middle, nor switch offloads off",
            )),
            Backend::Netem if self.limits_size() => Err(invalid(
                "wire.size_limit",
                "the kernel's netem does not look at sizes: backend = \"embedded\"",
            )),
            _ if self.limits_size() && self.unit == Unit::Skb => Err(invalid(
                "wire.size_limit",
                "a super-packet has no size on a wire: unit = \"packet\"",
            )),
            Backend::Netem if self.model == Model::Exact => Err(invalid(
                "wire.model",
                "the kernel's netem has its own generator only: model = \"netem\", or backend = \"embedded\"",
            )),
            Backend::Auto | Backend::Embedded
                if self.place == Place::Host
                    && (1..=3).any(|number| self.impairment(number).duplicate > 0.0) =>
            {
                Err(invalid(
                    "wire.duplicate",
                    "what waits in the host can be copied by netem only: backend = \"netem\", or place = \"egress\"",
                ))
            }
            Backend::Netem | Backend::None if self.truth.is_some() => Err(invalid(
                "wire.truth",
                "only the embedded wire sees each unit",
            )),
            _ if self.truth.as_ref().is_some_and(|name| !is_file_name(name)) => Err(invalid(
                "wire.truth",
                "a plain file name, such as \"truth.bin\": it goes where the run's logs go",
            )),
            _ => Ok(()),
        }
    }
}

fn is_file_name(name: &str) -> bool {
    std::path::Path::new(name)
        .file_name()
        .is_some_and(|file| file == name)
}

/// The study's settings (its rig applied the same line on every host).
fn profile(profile: Profile) -> Impairment {
    let of = |delay: u64, jitter: u64, loss, reorder, reorder_correlation| Impairment {
        delay_ns: delay * 1_000_000,
        jitter_ns: jitter * 1_000_000,
        loss,
        reorder,
        reorder_correlation,
        gap: 1,
        ..Impairment::default()
    };
    match profile {
        Profile::Baseline => Impairment::default(),
        Profile::Low => of(2, 2, 0.0025, 0.005, 0.25),
        Profile::Medium => of(4, 7, 0.01, 0.025, 0.5),
        Profile::High => of(6, 15, 0.025, 0.05, 0.5),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(text: &str) -> WireSpec {
        toml::from_str(text).unwrap()
    }

    fn refusal(text: &str) -> String {
        match toml::from_str::<WireSpec>(text) {
            Ok(spec) => spec.validate().unwrap_err().to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_profile_is_the_studys_tc_line_and_keys_override_it() {
        let spec = wire("profile = 'medium'\nloss = '3%'\n[reverse]\ndelay = '1ms'\njitter = ''");
        let forward = spec.impairment(1);
        assert_eq!(
            (forward.delay_ns, forward.jitter_ns),
            (4_000_000, 7_000_000)
        );
        assert_eq!((forward.loss, forward.reorder), (0.03, 0.025));
        assert_eq!((forward.reorder_correlation, forward.gap), (0.5, 1));
        let reverse = spec.impairment(2);
        assert_eq!(
            (reverse.delay_ns, reverse.jitter_ns),
            (1_000_000, 7_000_000)
        );
        assert_eq!(spec.validate(), Ok(()));
        let still = wire("profile = 'medium'\nreorder = '0%'");
        assert_eq!(still.validate(), Ok(()));
        assert_eq!(still.impairment(3).gap, 0);
    }

    #[test]
    fn nothing_set_is_a_plain_wire() {
        assert!(wire("").is_plain());
        assert!(wire("backend = 'none'").validate().is_ok());
        for text in [
            "delay = '1ms'",
            "unit = 'packet'",
            "place = 'middle'",
            "offload = false",
        ] {
            assert!(!wire(text).is_plain(), "{text}");
        }
    }

    #[test]
    fn refusals_name_the_key() {
        for (text, key) in [
            ("backend = 'none'\nloss = '1%'", "wire.backend"),
            ("backend = 'netem'\nmodel = 'exact'", "wire.model"),
            ("reorder = '1%'", "wire.reorder"),
            ("[forward]\nreorder = '1%'", "wire.forward.reorder"),
            ("delay = '1ms'\ngap = 5", "wire.gap"),
            (
                "delay = '1ms'\ndistribution = 'normal'",
                "wire.distribution",
            ),
            ("loss_correlation = '25%'", "wire.loss_correlation"),
            ("limit = 0", "wire.limit"),
            ("truth = '../x'", "wire.truth"),
            ("backend = 'netem'\ntruth = 'x'", "wire.truth"),
            ("delay = '1ms'\njitter = '3s'", "wire.jitter"),
            ("lost = '1%'", "lost"),
            ("loss = '1'", "loss"),
            ("profile = 'awful'", "awful"),
        ] {
            let refusal = refusal(text);
            assert!(refusal.contains(key), "{text}: {refusal}");
        }
    }

    #[test]
    fn a_spec_survives_toml() {
        let spec = wire("profile = 'high'\nunit = 'packet'\nrate = '100mbit'\n[forward]\ngap = 3");
        let text = toml::to_string(&spec).unwrap();
        assert_eq!(wire(&text), spec);
    }
}
