//! Yggdrasil: an IPv6 overlay whose addresses follow from the keys, so they are read, not chosen.

use std::path::Path;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::End;
use super::adapter::Adapter;
use super::job::{self, Job, Place, Transport};
use crate::lab::error::{LabError, Result};

const START_LIMIT: Duration = Duration::from_secs(10);

/// Yggdrasil on every host.
pub(super) struct Yggdrasil;

/// Its keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "snake_case")]
pub(super) struct Settings {
    /// How hosts reach each other: quic (the study's; needs 0.5), tls or tcp. Unset takes quic
    /// where the daemon has it and tls otherwise.
    pub(super) transport: Option<Link>,
    /// Port of that transport.
    pub(super) port: u16,
    /// MTU of the device, in bytes; 0.4 takes at most 53049 and lowers it by itself.
    pub(super) mtu: u32,
}

/// Yggdrasil's transports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Link {
    /// A QUIC stream.
    Quic,
    /// TLS over TCP.
    Tls,
    /// TCP; Yggdrasil encrypts what it carries all the same.
    Tcp,
}

impl Link {
    const fn scheme(self) -> &'static str {
        match self {
            Link::Quic => "quic",
            Link::Tls => "tls",
            Link::Tcp => "tcp",
        }
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            transport: None,
            port: 6384,
            mtu: 65535,
        }
    }
}

impl Adapter for Yggdrasil {
    type Settings = Settings;

    const CARRY_LIMIT: Duration = Duration::from_secs(30);

    fn start(job: &mut Job<'_, '_>, settings: &Settings) -> Result<Vec<End>> {
        let places = job.places.clone();
        if places.iter().any(|place| place.ipv6.is_none()) {
            let what = "IPv6 in the kernel not found; Yggdrasil carries nothing else";
            return Err(LabError::Skipped(what.to_owned()));
        }
        let link = link(job, settings)?;
        let folder = job.folder("yggdrasil")?;
        let mut ends = Vec::new();
        for place in &places {
            ends.push(launch(job, &places, place, &folder, link, settings)?);
        }
        Ok(ends)
    }
}

fn link(job: &mut Job<'_, '_>, settings: &Settings) -> Result<Link> {
    let is_old = job.is_version("0.4") || job.is_version("0.3");
    match settings.transport {
        Some(Link::Quic) if is_old => {
            let version = job.version().unwrap_or_default();
            Err(LabError::failed("configuring", "yggdrasil")(format!(
                "transport quic came with 0.5; this is {version} (cargo xtask vpns yggdrasil \
                 installs a newer one)"
            )))
        }
        Some(link) => Ok(link),
        None if is_old => Ok(Link::Tls),
        None => Ok(Link::Quic),
    }
}

fn launch(
    job: &mut Job<'_, '_>,
    places: &[Place<'_>],
    place: &Place<'_>,
    folder: &Path,
    link: Link,
    settings: &Settings,
) -> Result<End> {
    let device = job.device("ygg", place);
    let path = folder.join(format!("{}.conf", place.side));
    // Its key decides about the host's address.
    let fresh = job.once(&format!("yggdrasil-{}", place.side), |job| {
        job.tool(place, "yggdrasil", &["-genconf", "-json"], "")
    })?;
    let mut configuration: Value = serde_json::from_str(&fresh).map_err(LabError::failed(
        "reading",
        "yggdrasil's fresh configuration",
    ))?;
    let url = |address: String| format!("{}://{address}:{}", link.scheme(), settings.port);
    // Each connects to those before it.
    let peers: Vec<String> = places
        .iter()
        .filter(|other| other.number < place.number)
        .map(|other| url(other.host.ipv4.to_string()))
        .collect();
    configuration["IfName"] = json!(device);
    configuration["IfMTU"] = json!(settings.mtu);
    configuration["AdminListen"] = json!("none");
    configuration["MulticastInterfaces"] = json!([]);
    configuration["Listen"] = json!([url("0.0.0.0".to_owned())]);
    configuration["Peers"] = json!(peers);
    job::write_json(&path, &configuration)?;
    let path = path.to_string_lossy();
    let daemon = job.daemon(place, "yggdrasil", &["-useconffile", &path])?;
    let transport = match link {
        Link::Quic => Transport::Udp,
        Link::Tls | Link::Tcp => Transport::Tcp,
    };
    job::wait_for_port(&daemon, transport, settings.port, START_LIMIT)?;
    job::end_by_daemon(place, device, daemon, false, START_LIMIT)
}
