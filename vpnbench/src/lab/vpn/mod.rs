//! Tunnels between the hosts, one file per daemon.
//!
//! A VPN is a row in `sources` (which programs, where from), a variant of [`Vpn`], an adapter with
//! its settings, and its arm in `adapter`. Tests hold them together.

mod adapter;
mod boringtun;
mod carry;
mod easytier;
mod gotatun;
mod headscale;
mod hyprspace;
mod job;
pub mod listing;
mod mycelium;
mod nebula;
mod none;
mod openvpn;
pub mod programs;
mod quincy;
mod reference;
pub mod sources;
mod tailscale;
mod tailscaled;
mod tinc;
mod vpncloud;
mod wireguard;
mod wireguard_go;
mod wireguard_keys;
mod yggdrasil;
mod zerotier;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::error::{LabError, Result};
use super::hosts::{Host, Hosts};
use super::process::Process;
use super::undo::Undo;
use job::Job;

/// The tunnels the lab can set up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Vpn {
    /// The bare wire.
    #[default]
    None,
    /// The lab's own reference tunnel.
    Reference,
    /// WireGuard in the kernel.
    Wireguard,
    /// wireguard-go.
    WireguardGo,
    /// BoringTun.
    Boringtun,
    /// GotaTun.
    Gotatun,
    /// ZeroTier One.
    Zerotier,
    /// tailscaled with headscale.
    Headscale,
    /// tailscaled with the test server of its own module.
    Tailscale,
    /// Yggdrasil.
    Yggdrasil,
    /// Nebula.
    Nebula,
    /// EasyTier.
    Easytier,
    /// VpnCloud.
    Vpncloud,
    /// Hyprspace.
    Hyprspace,
    /// tinc.
    Tinc,
    /// Mycelium.
    Mycelium,
    /// OpenVPN.
    Openvpn,
    /// Quincy.
    Quincy,
}

impl Vpn {
    /// All of them.
    pub const ALL: [Vpn; 18] = [
        Vpn::None,
        Vpn::Reference,
        Vpn::Wireguard,
        Vpn::WireguardGo,
        Vpn::Boringtun,
        Vpn::Gotatun,
        Vpn::Zerotier,
        Vpn::Headscale,
        Vpn::Tailscale,
        Vpn::Yggdrasil,
        Vpn::Nebula,
        Vpn::Easytier,
        Vpn::Vpncloud,
        Vpn::Hyprspace,
        Vpn::Tinc,
        Vpn::Mycelium,
        Vpn::Openvpn,
        Vpn::Quincy,
    ];

    /// Name on the command line, in scenario files and in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Vpn::None => "none",
            Vpn::Reference => "reference",
            Vpn::Wireguard => "wireguard",
            Vpn::WireguardGo => "wireguard-go",
            Vpn::Boringtun => "boringtun",
            Vpn::Gotatun => "gotatun",
            Vpn::Zerotier => "zerotier",
            Vpn::Headscale => "headscale",
            Vpn::Tailscale => "tailscale",
            Vpn::Yggdrasil => "yggdrasil",
            Vpn::Nebula => "nebula",
            Vpn::Easytier => "easytier",
            Vpn::Vpncloud => "vpncloud",
            Vpn::Hyprspace => "hyprspace",
            Vpn::Tinc => "tinc",
            Vpn::Mycelium => "mycelium",
            Vpn::Openvpn => "openvpn",
            Vpn::Quincy => "quincy",
        }
    }
}

impl FromStr for Vpn {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Vpn, String> {
        let found = Vpn::ALL.into_iter().find(|vpn| vpn.name() == text);
        let names = Vpn::ALL.map(Vpn::name).join(", ");
        found.ok_or_else(|| format!("no VPN {text:?}; there are: {names}"))
    }
}

/// Which of several installed builds of a VPN to take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Build {
    /// The one in PATH, else the one in the lab's cache; the other way round where what
    /// distributions ship is too old for the study's configuration.
    #[default]
    Any,
    /// Only from PATH.
    System,
    /// Only from the lab's cache, where `cargo xtask vpns` puts them.
    Cached,
}

/// The section `[vpn]` of a scenario.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "snake_case")]
pub struct Spec {
    /// Which.
    pub name: Vpn,
    /// Which build of it.
    pub build: Build,
    /// The adapter's own keys; `vpnbench lab vpn list` and docs/lab-vpns.md have them.
    pub settings: Map<String, Value>,
}

impl From<Vpn> for Spec {
    fn from(name: Vpn) -> Spec {
        Spec {
            name,
            ..Spec::default()
        }
    }
}

impl Spec {
    /// Whether the settings are ones the adapter understands; the error names the key.
    pub fn check(&self) -> std::result::Result<(), String> {
        (adapter::row(self.name).check)(&self.settings)
    }

    /// The same with every setting that is not given at its default. Settings that are unset by
    /// default stay away: TOML has no word for them.
    #[must_use]
    pub fn complete(&self) -> Spec {
        let mut settings = match (adapter::row(self.name).defaults)() {
            Value::Object(defaults) => defaults,
            _ => Map::new(),
        };
        lay_over(&mut settings, &self.settings);
        remove_nulls(&mut settings);
        Spec {
            settings,
            ..self.clone()
        }
    }
}

fn lay_over(below: &mut Map<String, Value>, above: &Map<String, Value>) {
    for (key, value) in above {
        match (below.get_mut(key), value) {
            (Some(Value::Object(below)), Value::Object(above)) => lay_over(below, above),
            _ => drop(below.insert(key.clone(), value.clone())),
        }
    }
}

fn remove_nulls(map: &mut Map<String, Value>) {
    map.retain(|_, value| !value.is_null());
    for value in map.values_mut() {
        if let Value::Object(inner) = value {
            remove_nulls(inner);
        }
    }
}

/// One end of a tunnel.
#[derive(Debug, Clone)]
pub struct End {
    /// The tunnel device, or the wire's where there is no tunnel.
    pub device: String,
    /// Address inside the tunnel; Yggdrasil and Mycelium have none.
    pub ipv4: Option<Ipv4Addr>,
    /// Address inside the tunnel, where kernel and VPN have IPv6.
    pub ipv6: Option<Ipv6Addr>,
    /// The daemon, where there is one.
    pub daemon: Option<Process>,
}

impl End {
    /// The address a benchmark talks to: IPv4 where there is one.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        let ipv4 = self.ipv4.map(IpAddr::V4);
        ipv4.or(self.ipv6.map(IpAddr::V6))
            .unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    }
}

/// A tunnel that carries packets.
#[derive(Debug, Clone)]
pub struct Tunnel {
    /// Which.
    pub vpn: Vpn,
    /// The daemon's version, as far as it tells.
    pub version: Option<String>,
    /// The client's end.
    pub a: End,
    /// The server's end.
    pub b: End,
    /// Ends on further hosts.
    pub others: Vec<End>,
}

impl Tunnel {
    /// All ends, in the order of the hosts.
    pub fn ends(&self) -> impl Iterator<Item = &End> {
        [&self.a, &self.b].into_iter().chain(&self.others)
    }
}

/// What an adapter gets.
pub(crate) struct Setup<'a> {
    pub(crate) id: &'a str,
    pub(crate) hosts: &'a Hosts,
    pub(crate) undo: &'a mut Undo,
    /// Where daemons write their logs.
    pub(crate) logs: PathBuf,
    /// What has to be the same when the daemons are started again.
    pub(crate) kept: &'a mut Kept,
}

/// Identities that decide about addresses, by name.
pub(crate) type Kept = BTreeMap<String, String>;

/// Brings a tunnel up and waits until it carries packets both ways.
pub(crate) fn start(spec: &Spec, mut setup: Setup<'_>) -> Result<Tunnel> {
    let row = adapter::row(spec.name);
    let programs = programs::locate_all(row.source, spec.build)?;
    if row.needs_tun && !Path::new("/dev/net/tun").exists() {
        let what = "/dev/net/tun not found (modprobe tun)";
        return Err(LabError::Skipped(what.to_owned()));
    }
    let hosts = setup.hosts;
    let mut job = Job::new(&mut setup, row.source, programs);
    if job.places.len() > row.most_hosts {
        return Err(LabError::failed("setting up", spec.name.name())(format!(
            "it connects at most {} hosts here, not {}",
            row.most_hosts,
            job.places.len()
        )));
    }
    let mut ends = (row.start)(&mut job, &spec.settings)?.into_iter();
    let (Some(a), Some(b)) = (ends.next(), ends.next()) else {
        return Err(LabError::failed("setting up", spec.name.name())(
            "the adapter made fewer than two ends",
        ));
    };
    let mut tunnel = Tunnel {
        vpn: spec.name,
        version: None,
        a,
        b,
        others: ends.collect(),
    };
    let hosts: Vec<&Host> = hosts.iter().collect();
    carry::wait(&hosts, &tunnel, row.carry_limit)?;
    (row.settle)(&mut job, &spec.settings, &tunnel)?;
    tunnel.version = match spec.name {
        // It is part of this program.
        Vpn::Reference => Some(env!("CARGO_PKG_VERSION").to_owned()),
        _ => job.version(),
    };
    Ok(tunnel)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_vpn_has_a_row_and_its_name_is_the_serialised_one() {
        for vpn in Vpn::ALL {
            assert_eq!(adapter::row(vpn).source.name, vpn.name());
            assert_eq!(vpn.name().parse(), Ok(vpn));
            let written = serde_json::to_value(vpn).map_err(|error| error.to_string());
            assert_eq!(written, Ok(Value::from(vpn.name())));
        }
        assert_eq!(Vpn::ALL.len(), sources::SOURCES.len());
    }

    #[test]
    fn an_unknown_setting_is_named() {
        for vpn in Vpn::ALL {
            let mut spec = Spec::from(vpn);
            assert_eq!(spec.check(), Ok(()), "{}", vpn.name());
            spec.settings.insert("no_such_key".into(), Value::from(1));
            let error = spec.check().expect_err("it is unknown");
            assert!(error.contains("no_such_key"), "{error}");
        }
    }
}
