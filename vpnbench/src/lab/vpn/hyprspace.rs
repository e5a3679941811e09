//! Hyprspace: libp2p streams; addresses follow from the keys, so they are read, not chosen.

use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::End;
use super::adapter::Adapter;
use super::job::{self, Job, Place, Transport};
use crate::lab::error::{LabError, Result};

const START_LIMIT: Duration = Duration::from_secs(15);

/// Hyprspace on every host.
pub(super) struct Hyprspace;

/// Its keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "snake_case")]
pub(super) struct Settings {
    /// How hosts reach each other: tcp, quic, or both as in the study, where libp2p chooses.
    pub(super) transport: Link,
    /// TCP and UDP port.
    pub(super) port: u16,
}

/// Transports of libp2p.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Link {
    /// Whichever connects first.
    Both,
    /// TCP only.
    Tcp,
    /// QUIC only.
    Quic,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            transport: Link::Both,
            port: 8001,
        }
    }
}

/// A node's configuration as `hyprspace init` wrote it, and the identity it printed.
struct Node {
    path: PathBuf,
    configuration: Value,
    id: String,
}

impl Adapter for Hyprspace {
    type Settings = Settings;

    const CARRY_LIMIT: Duration = Duration::from_secs(60);

    fn start(job: &mut Job<'_, '_>, settings: &Settings) -> Result<Vec<End>> {
        let places = job.places.clone();
        let folder = job.folder("hyprspace")?;
        let mut nodes = Vec::new();
        for place in &places {
            nodes.push(initialise(job, place, &folder)?);
        }
        let mut ends = Vec::new();
        for (index, place) in places.iter().enumerate() {
            configure(&places, &nodes, index, settings)?;
            ends.push(launch(job, place, &nodes[index].path, settings)?);
        }
        Ok(ends)
    }
}

fn initialise(job: &Job<'_, '_>, place: &Place<'_>, folder: &Path) -> Result<Node> {
    let path = folder.join(format!("{}.json", place.side));
    let device = job.device("hyp", place);
    let arguments = ["init", "-c", &path.to_string_lossy(), "-i", &device];
    let printed = job.tool(place, "hyprspace", &arguments, "")?;
    let id = printed.lines().find_map(|line| {
        let value = line.trim().strip_prefix("\"id\": \"")?;
        Some(value.trim_end_matches('"').to_owned())
    });
    let id = id.ok_or_else(|| {
        LabError::failed("reading", "hyprspace's identity")(format!("it wrote: {printed}"))
    })?;
    let configuration = serde_json::from_str(&job::read(&path)?)
        .map_err(LabError::failed("reading", path.display()))?;
    Ok(Node {
        path,
        configuration,
        id,
    })
}

/// Where a node is reached, per transport.
fn addresses(place: &Place<'_>, settings: &Settings) -> Vec<String> {
    let (ip, port) = (place.host.ipv4, settings.port);
    let tcp = format!("/ip4/{ip}/tcp/{port}");
    let quic = format!("/ip4/{ip}/udp/{port}/quic-v1");
    match settings.transport {
        Link::Both => vec![tcp, quic],
        Link::Tcp => vec![tcp],
        Link::Quic => vec![quic],
    }
}

fn configure(places: &[Place<'_>], nodes: &[Node], own: usize, settings: &Settings) -> Result<()> {
    let others = || {
        let all = places.iter().zip(nodes).enumerate();
        all.filter(move |(index, _)| *index != own)
            .map(|(_, pair)| pair)
    };
    let peers: Vec<Value> = others()
        .map(|(place, node)| json!({ "name": format!("host-{}", place.side), "id": node.id }))
        .collect();
    // The default would be the public bootstrap hosts of libp2p.
    let bootstrap: Vec<String> = others()
        .flat_map(|(place, node)| {
            let addresses = addresses(place, settings).into_iter();
            addresses.map(|address| format!("{address}/p2p/{}", node.id))
        })
        .collect();
    let mut configuration = nodes[own].configuration.clone();
    configuration["peers"] = json!(peers);
    configuration["bootstrapPeers"] = json!(bootstrap);
    configuration["listenAddresses"] = json!(addresses(&places[own], settings));
    job::write_json(&nodes[own].path, &configuration)
}

fn launch(
    job: &mut Job<'_, '_>,
    place: &Place<'_>,
    path: &Path,
    settings: &Settings,
) -> Result<End> {
    let device = job.device("hyp", place);
    let socket = PathBuf::from(format!("/run/hyprspace-rpc.{device}.sock"));
    job.expect_file(&socket)?;
    let arguments = ["up", "-c", &path.to_string_lossy(), "-i", &device];
    let daemon = job.daemon(place, "hyprspace", &arguments)?;
    let transport = match settings.transport {
        Link::Both | Link::Tcp => Transport::Tcp,
        Link::Quic => Transport::Udp,
    };
    job::wait_for_port(&daemon, transport, settings.port, START_LIMIT)?;
    job::end_by_daemon(place, device, daemon, true, START_LIMIT)
}
