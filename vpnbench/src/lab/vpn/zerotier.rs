//! ZeroTier One with a network of its own: the first host is controller and moon, as in the study.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::End;
use super::adapter::Adapter;
use super::job::{self, Job, Place};
use crate::lab::error::{LabError, Result};
use crate::lab::process::Process;
use crate::lab::{netns, wait};

const PROGRAM: &str = "zerotier-one";
const START_LIMIT: Duration = Duration::from_secs(20);
const JOIN_LIMIT: Duration = Duration::from_secs(60);
/// For one request to a daemon's control interface.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);
/// Allows requests to the daemons' control interfaces, which only the namespace's loopback has.
const TOKEN: &str = "vpnbench";

/// ZeroTier on every host.
pub(super) struct Zerotier;

/// Its keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "snake_case")]
pub(super) struct Settings {
    /// UDP port, and TCP port of the control interface on loopback.
    pub(super) port: u16,
    /// MTU of the network, in bytes; 2800, as in the study, makes two datagrams of a full packet.
    pub(super) mtu: u16,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            port: 9993,
            mtu: 2800,
        }
    }
}

/// A host's identity and where its daemon keeps its files.
struct Node {
    home: PathBuf,
    address: String,
}

impl Adapter for Zerotier {
    type Settings = Settings;

    const CARRY_LIMIT: Duration = Duration::from_secs(60);

    fn start(job: &mut Job<'_, '_>, settings: &Settings) -> Result<Vec<End>> {
        let places = job.places.clone();
        let mut nodes = Vec::new();
        for place in &places {
            nodes.push(prepare(job, place, settings)?);
        }
        share_moon(job, &places[0], &nodes, settings)?;
        // The controller's address, and a number of the network's own.
        let network = format!("{}000001", nodes[0].address);
        let mut daemons = Vec::new();
        for (place, node) in places.iter().zip(&nodes) {
            let device = job.device("zt", place);
            let map = format!("{network}={device}\n");
            job::write(&node.home.join("devicemap"), &map)?;
            daemons.push(launch(job, place, node, settings)?);
        }
        let control = Control {
            place: &places[0],
            port: settings.port,
        };
        create_network(&control, &network, &places, &nodes, settings)?;
        let mut ends = Vec::new();
        for (place, daemon) in places.iter().zip(daemons) {
            let control = Control {
                place,
                port: settings.port,
            };
            control.post(&format!("/network/{network}"), &json!({}))?;
            let device = job.device("zt", place);
            ends.push(job::end_by_daemon(place, device, daemon, true, JOIN_LIMIT)?);
        }
        Ok(ends)
    }
}

/// Makes an identity, and the settings that keep the daemon to the wire.
fn prepare(job: &Job<'_, '_>, place: &Place<'_>, settings: &Settings) -> Result<Node> {
    let home = job.folder(&format!("zerotier-{}", place.side))?;
    let file = |name: &str| home.join(name).to_string_lossy().into_owned();
    let (secret, public) = (file("identity.secret"), file("identity.public"));
    job.tool(place, PROGRAM, &["-i", "generate", &secret, &public], "")?;
    let identity = job::read(&home.join("identity.public"))?;
    let address = identity.split(':').next().unwrap_or_default().to_owned();
    job::write(&home.join("authtoken.secret"), TOKEN)?;
    let local = json!({ "settings": {
        "primaryPort": settings.port,
        "allowSecondaryPort": false,
        "portMappingEnabled": false,
        "allowTcpFallbackRelay": false,
        "interfacePrefixBlacklist": ["zt", "lo"],
    }});
    job::write_json(&home.join("local.conf"), &local)?;
    Ok(Node { home, address })
}

/// Makes the first host a moon, a root server of the run's own, and tells all hosts about it:
/// without an uplink it is the only one they can reach.
fn share_moon(
    job: &Job<'_, '_>,
    first: &Place<'_>,
    nodes: &[Node],
    settings: &Settings,
) -> Result<()> {
    let home = &nodes[0].home;
    let public = home.join("identity.public");
    let fresh = job.tool(
        first,
        PROGRAM,
        &["-i", "initmoon", &public.to_string_lossy()],
        "",
    )?;
    let mut moon: Value =
        serde_json::from_str(&fresh).map_err(LabError::failed("reading", "zerotier's moon"))?;
    let endpoint = format!("{}/{}", first.host.ipv4, settings.port);
    moon["roots"][0]["stableEndpoints"] = json!([endpoint]);
    let path = home.join("moon.json");
    job::write_json(&path, &moon)?;
    // It writes the signed moon into its working directory, the run's own.
    job.tool(
        first,
        PROGRAM,
        &["-i", "genmoon", &path.to_string_lossy()],
        "",
    )?;
    let signed = signed_moon(job.directory())?;
    let text = fs::read(&signed).map_err(LabError::file("reading", &signed))?;
    for node in nodes {
        let folder = node.home.join("moons.d");
        fs::create_dir(&folder).map_err(LabError::file("creating", &folder))?;
        let target = folder.join(signed.file_name().unwrap_or_default());
        fs::write(&target, &text).map_err(LabError::file("writing", &target))?;
    }
    Ok(())
}

fn signed_moon(directory: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(directory).map_err(LabError::file("reading", directory))?;
    let mut paths = entries.flatten().map(|entry| entry.path());
    paths
        .find(|path| {
            path.extension()
                .is_some_and(|extension| extension == "moon")
        })
        .ok_or_else(|| LabError::failed("making", "zerotier's moon")("no file appeared"))
}

fn launch(
    job: &mut Job<'_, '_>,
    place: &Place<'_>,
    node: &Node,
    settings: &Settings,
) -> Result<Process> {
    let port = format!("-p{}", settings.port);
    let daemon = job.daemon(place, PROGRAM, &["-U", &port, &node.home.to_string_lossy()])?;
    let control = Control {
        place,
        port: settings.port,
    };
    let what = "zerotier-one to answer on its control interface";
    wait::until(what, START_LIMIT, &[&daemon], || {
        Ok(control.request("GET", "/status", "").ok().map(drop))
    })?;
    Ok(daemon)
}

fn create_network(
    control: &Control<'_, '_>,
    network: &str,
    places: &[Place<'_>],
    nodes: &[Node],
    settings: &Settings,
) -> Result<()> {
    let has_ipv6 = places.iter().all(|place| place.ipv6.is_some());
    let mut routes = vec![json!({ "target": "10.98.0.0/24" })];
    if has_ipv6 {
        routes.push(json!({ "target": "fd00:98::/64" }));
    }
    let path = format!("/controller/network/{network}");
    let network = json!({
        "name": "lab", "private": true, "mtu": settings.mtu, "routes": routes,
        "v4AssignMode": { "zt": false },
    });
    control.post(&path, &network)?;
    for (place, node) in places.iter().zip(nodes) {
        let mut addresses = vec![place.ipv4.to_string()];
        addresses.extend(place.ipv6.map(|ipv6| ipv6.to_string()));
        let member = json!({
            "authorized": true, "noAutoAssignIps": true, "ipAssignments": addresses,
        });
        control.post(&format!("{path}/member/{}", node.address), &member)?;
    }
    Ok(())
}

/// A daemon's control interface: HTTP on its namespace's loopback.
struct Control<'p, 'a> {
    place: &'p Place<'a>,
    port: u16,
}

impl Control<'_, '_> {
    fn post(&self, path: &str, body: &Value) -> Result<String> {
        self.request("POST", path, &body.to_string())
    }

    fn request(&self, method: &str, path: &str, body: &str) -> Result<String> {
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let failed = || LabError::failed::<std::io::Error>("asking zerotier-one for", path);
        let answer = netns::run_in(&self.place.host.netns, || {
            let mut stream = TcpStream::connect_timeout(&target, REQUEST_LIMIT).map_err(failed())?;
            stream
                .set_read_timeout(Some(REQUEST_LIMIT))
                .map_err(failed())?;
            let head = format!(
                "{method} {path} HTTP/1.1\r\nHost: {target}\r\nX-ZT1-Auth: {TOKEN}\r\n\
                 Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            stream
                .write_all((head + body).as_bytes())
                .map_err(failed())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).map_err(failed())?;
            Ok(answer)
        })?;
        let status = answer.split(' ').nth(1).unwrap_or_default();
        if status != "200" {
            let first = answer.lines().next().unwrap_or("no answer").to_owned();
            return Err(LabError::failed("asking zerotier-one for", path)(first));
        }
        Ok(answer)
    }
}
