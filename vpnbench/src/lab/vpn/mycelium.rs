//! Mycelium: an IPv6 overlay whose addresses follow from the keys. Peers are direct; the study's
//! hosts had met through public nodes.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::End;
use super::adapter::Adapter;
use super::job::{self, Job, Place, Transport};
use crate::lab::error::{LabError, Result};

const START_LIMIT: Duration = Duration::from_secs(15);

/// Mycelium on every host.
pub(super) struct Mycelium;

/// Its keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "snake_case")]
pub(super) struct Settings {
    /// How hosts reach each other: tcp or quic.
    pub(super) transport: Link,
    /// TCP and UDP port.
    pub(super) port: u16,
}

/// Mycelium's transports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Link {
    /// A TCP connection.
    Tcp,
    /// A QUIC stream.
    Quic,
}

impl Link {
    const fn scheme(self) -> &'static str {
        match self {
            Link::Tcp => "tcp",
            Link::Quic => "quic",
        }
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            transport: Link::Tcp,
            port: 9651,
        }
    }
}

impl Adapter for Mycelium {
    type Settings = Settings;

    const CARRY_LIMIT: Duration = Duration::from_secs(60);

    fn start(job: &mut Job<'_, '_>, settings: &Settings) -> Result<Vec<End>> {
        let places = job.places.clone();
        if places.iter().any(|place| place.ipv6.is_none()) {
            let what = "IPv6 in the kernel not found; Mycelium carries nothing else";
            return Err(LabError::Skipped(what.to_owned()));
        }
        job.each(|job, place| launch(job, &places, place, settings))
    }
}

fn launch(
    job: &mut Job<'_, '_>,
    places: &[Place<'_>],
    place: &Place<'_>,
    settings: &Settings,
) -> Result<End> {
    let device = job.device("myc", place);
    let folder = job.folder(&format!("mycelium-{}", place.side))?;
    let (key, port) = (folder.join("key"), settings.port.to_string());
    let key = key.to_string_lossy();
    let mut arguments = vec!["--key-file", &key, "--tun-name", &device];
    arguments.extend(["--tcp-listen-port", &port, "--quic-listen-port", &port]);
    // Peers are those named here and no others.
    arguments.push("--disable-peer-discovery");
    if settings.transport == Link::Tcp {
        arguments.push("--disable-quic");
    }
    let scheme = settings.transport.scheme();
    let before = places.iter().filter(|other| other.number < place.number);
    let peers: Vec<String> = before
        .map(|peer| format!("{scheme}://{}:{port}", peer.host.ipv4))
        .collect();
    if !peers.is_empty() {
        arguments.push("--peers");
        arguments.extend(peers.iter().map(String::as_str));
    }
    let daemon = job.daemon(place, "mycelium", &arguments)?;
    job::wait_for_port(&daemon, Transport::Tcp, settings.port, START_LIMIT)?;
    job::end_by_daemon(place, device, daemon, false, START_LIMIT)
}
