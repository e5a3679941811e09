//! `[sysctls]`: settings of the hosts' network namespaces, never of the machine.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::error::Invalid;
use crate::lab::error::{LabError, Result};
use crate::lab::netns;

/// First part of the names that belong to network namespaces.
pub(super) const ROOT: &str = "net";

/// Values by sysctl name, for all hosts and for single ones. In TOML:
///
/// ```toml
/// [sysctls]
/// "net.ipv4.tcp_reordering" = 10      # all hosts
/// [sysctls.a]
/// net.ipv4.tcp_sack = 0               # host a; quotes are optional
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, JsonSchema)]
#[schemars(with = "BTreeMap<String, serde_json::Value>")]
pub struct Sysctls {
    /// For every host.
    pub all: BTreeMap<String, String>,
    /// By name of the host; these override those for all.
    pub hosts: BTreeMap<String, BTreeMap<String, String>>,
}

impl Sysctls {
    pub(super) fn check(&self) -> std::result::Result<(), Invalid> {
        let hosts = self.hosts.iter().flat_map(|(host, entries)| {
            let names = entries.keys();
            names.map(move |name| (format!("sysctls.{host}.{name}"), name))
        });
        let all = self
            .all
            .keys()
            .map(|name| (format!("sysctls.{name}"), name));
        for (key, name) in all.chain(hosts) {
            if path(name).is_none() {
                let message = "only sysctls of network namespaces can be set, such as \
                               net.ipv4.tcp_reordering; the machine's own stay as they are";
                return Err(Invalid::new(key, message));
            }
        }
        Ok(())
    }

    /// Hosts that are named.
    pub fn named_hosts(&self) -> impl Iterator<Item = &str> {
        self.hosts.keys().map(String::as_str)
    }

    /// Writes those of one host into its namespace, and reads each back.
    pub(crate) fn write(&self, host: &str, namespace: &Path) -> Result<()> {
        let mut values = self.all.clone();
        values.extend(self.hosts.get(host).cloned().unwrap_or_default());
        if values.is_empty() {
            return Ok(());
        }
        netns::run_in(namespace, || {
            values.iter().try_for_each(|(name, value)| set(name, value))
        })
    }
}

/// The file of a sysctl of the calling thread's namespace.
fn path(name: &str) -> Option<PathBuf> {
    let parts: Vec<&str> = name.split('.').collect();
    let in_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let is_fine = |part: &&str| !part.is_empty() && part.chars().all(in_name);
    let fits = parts.len() > 1 && parts[0] == ROOT && parts.iter().all(is_fine);
    fits.then(|| Path::new("/proc/sys").join(parts.join("/")))
}

/// Sets a sysctl of the calling thread's network namespace, and reads it back.
pub(crate) fn set(name: &str, value: &str) -> Result<()> {
    let failed = |why: String| LabError::failed("setting", format!("sysctl {name} = {value}"))(why);
    let path = path(name).ok_or_else(|| failed("not one of a network namespace".to_owned()))?;
    fs::write(&path, value).map_err(|error| {
        match error.kind() {
        io::ErrorKind::NotFound => failed(
            "this kernel has it for the whole machine only, or not at all; a scenario can leave it \
             out of its [sysctls]"
                .to_owned(),
        ),
        _ => failed(error.to_string()),
    }
    })?;
    let now = fs::read_to_string(&path).map_err(|error| failed(error.to_string()))?;
    if now.split_whitespace().eq(value.split_whitespace()) {
        Ok(())
    } else {
        Err(failed(format!("the kernel made it {}", now.trim())))
    }
}

impl Serialize for Sysctls {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap as _;
        let mut map = serializer.serialize_map(Some(self.all.len() + self.hosts.len()))?;
        for (name, value) in &self.all {
            map.serialize_entry(name, value)?;
        }
        for (host, entries) in &self.hosts {
            map.serialize_entry(host, entries)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Sysctls {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let Entry::Section(entries) = Entry::deserialize(deserializer)? else {
            return Err(de::Error::custom("sysctls is a section"));
        };
        let mut sysctls = Sysctls::default();
        for (name, value) in entries {
            // Either a full name, or `net` with tables below it, or a host's name.
            let is_sysctl = name.split('.').next() == Some(ROOT);
            let target = if is_sysctl {
                flatten(&name, value, &mut sysctls.all);
                continue;
            } else {
                sysctls.hosts.entry(name.clone()).or_default()
            };
            match value {
                Entry::Section(inner) => {
                    for (name, value) in inner {
                        flatten(&name, value, target);
                    }
                }
                Entry::Value(_) => {
                    return Err(de::Error::custom(format!(
                        "{name} is neither a sysctl of a network namespace (net.*) nor a \
                         section with the name of a host"
                    )));
                }
            }
        }
        Ok(sysctls)
    }
}

/// Turns `net { ipv4 { tcp_sack = 1 } }` into `net.ipv4.tcp_sack = 1`.
fn flatten(name: &str, value: Entry, into: &mut BTreeMap<String, String>) {
    match value {
        Entry::Value(value) => {
            into.insert(name.to_owned(), value);
        }
        Entry::Section(inner) => {
            for (part, value) in inner {
                flatten(&format!("{name}.{part}"), value, into);
            }
        }
    }
}

/// What TOML may hold here.
enum Entry {
    Value(String),
    Section(BTreeMap<String, Entry>),
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(EntryVisitor)
    }
}

struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = Entry;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a number, a text, true or false")
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> std::result::Result<Entry, E> {
        Ok(Entry::Value(value.to_string()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> std::result::Result<Entry, E> {
        Ok(Entry::Value(value.to_string()))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> std::result::Result<Entry, E> {
        Ok(Entry::Value(u8::from(value).to_string()))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> std::result::Result<Entry, E> {
        Ok(Entry::Value(value.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Entry, A::Error> {
        let mut section = BTreeMap::new();
        while let Some((name, value)) = map.next_entry()? {
            section.insert(name, value);
        }
        Ok(Entry::Section(section))
    }
}
