//! What an adapter is, and the table of all of them.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::job::Job;
use super::sources::{self, Source};
use super::{End, Tunnel, Vpn};
use super::{
    boringtun, easytier, gotatun, headscale, hyprspace, mycelium, nebula, none, openvpn, quincy,
    reference, tailscale, tinc, vpncloud, wireguard, wireguard_go, yggdrasil, zerotier,
};
use crate::lab::error::{LabError, Result};

/// Starts one VPN.
pub(super) trait Adapter {
    /// Its keys under `[vpn.settings]`; their defaults are the study's configuration as far as the
    /// study's were not odd.
    type Settings: Default + Serialize + DeserializeOwned + schemars::JsonSchema;

    /// The most hosts it can connect.
    const MOST_HOSTS: usize = 3;
    /// Whether its device is a TUN or TAP device.
    const NEEDS_TUN: bool = true;
    /// How long it has from its start until it carries packets.
    const CARRY_LIMIT: Duration = Duration::from_secs(15);

    /// Whether the values make sense; the error begins with the key.
    fn check(_settings: &Self::Settings) -> std::result::Result<(), String> {
        Ok(())
    }

    /// Starts and configures the daemons, one end per place. The ends need not carry packets yet,
    /// but have their device and addresses.
    fn start(job: &mut Job<'_, '_>, settings: &Self::Settings) -> Result<Vec<End>>;

    /// Waits, once packets pass, for what else has to settle before a measurement is fair.
    fn settle(_job: &mut Job<'_, '_>, _settings: &Self::Settings, _tunnel: &Tunnel) -> Result<()> {
        Ok(())
    }
}

type Start = fn(&mut Job<'_, '_>, &Map<String, Value>) -> Result<Vec<End>>;
type Settle = fn(&mut Job<'_, '_>, &Map<String, Value>, &Tunnel) -> Result<()>;

/// An adapter without its type.
pub(super) struct Row {
    pub(super) source: &'static Source,
    pub(super) most_hosts: usize,
    pub(super) needs_tun: bool,
    pub(super) carry_limit: Duration,
    pub(super) check: fn(&Map<String, Value>) -> std::result::Result<(), String>,
    pub(super) defaults: fn() -> Value,
    pub(super) schema: fn() -> schemars::Schema,
    pub(super) start: Start,
    pub(super) settle: Settle,
}

/// The adapter of a VPN.
pub(super) fn row(vpn: Vpn) -> Row {
    let make = match vpn {
        Vpn::None => row_of::<none::None>,
        Vpn::Reference => row_of::<reference::Reference>,
        Vpn::Wireguard => row_of::<wireguard::Wireguard>,
        Vpn::WireguardGo => row_of::<wireguard_go::WireguardGo>,
        Vpn::Boringtun => row_of::<boringtun::Boringtun>,
        Vpn::Gotatun => row_of::<gotatun::Gotatun>,
        Vpn::Zerotier => row_of::<zerotier::Zerotier>,
        Vpn::Headscale => row_of::<headscale::Headscale>,
        Vpn::Tailscale => row_of::<tailscale::Tailscale>,
        Vpn::Yggdrasil => row_of::<yggdrasil::Yggdrasil>,
        Vpn::Nebula => row_of::<nebula::Nebula>,
        Vpn::Easytier => row_of::<easytier::Easytier>,
        Vpn::Vpncloud => row_of::<vpncloud::Vpncloud>,
        Vpn::Hyprspace => row_of::<hyprspace::Hyprspace>,
        Vpn::Tinc => row_of::<tinc::Tinc>,
        Vpn::Mycelium => row_of::<mycelium::Mycelium>,
        Vpn::Openvpn => row_of::<openvpn::Openvpn>,
        Vpn::Quincy => row_of::<quincy::Quincy>,
    };
    make(vpn)
}

fn row_of<A: Adapter>(vpn: Vpn) -> Row {
    Row {
        source: sources::find(vpn.name()).unwrap_or(&sources::SOURCES[0]),
        most_hosts: A::MOST_HOSTS,
        needs_tun: A::NEEDS_TUN,
        carry_limit: A::CARRY_LIMIT,
        check: |settings| parse::<A>(settings).map(drop),
        defaults: || serde_json::to_value(A::Settings::default()).unwrap_or_default(),
        schema: || schemars::schema_for!(A::Settings),
        start: |job, settings| A::start(job, &parsed::<A>(settings)?),
        settle: |job, settings, tunnel| A::settle(job, &parsed::<A>(settings)?, tunnel),
    }
}

fn parse<A: Adapter>(settings: &Map<String, Value>) -> std::result::Result<A::Settings, String> {
    let value = Value::Object(settings.clone());
    let settings = serde_json::from_value(value).map_err(|error| error.to_string())?;
    A::check(&settings)?;
    Ok(settings)
}

fn parsed<A: Adapter>(settings: &Map<String, Value>) -> Result<A::Settings> {
    parse::<A>(settings).map_err(LabError::failed("reading", "vpn.settings"))
}
