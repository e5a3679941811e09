//! Nebula, as in the study: the first host is the lighthouse.

use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::End;
use super::adapter::Adapter;
use super::job::{self, Job, Place, Transport};
use crate::lab::error::Result;
use crate::lab::hosts::{IPV4_PREFIX, IPV6_PREFIX};

const START_LIMIT: Duration = Duration::from_secs(10);

/// Nebula on every host.
pub(super) struct Nebula;

/// Its keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "snake_case")]
pub(super) struct Settings {
    /// UDP port.
    pub(super) port: u16,
    /// MTU of the device, in bytes.
    pub(super) mtu: u32,
    /// TUN queues, each with a thread that reads it.
    pub(super) routines: u8,
    /// Packets read from the UDP socket at a time.
    pub(super) batch: u16,
    /// Cipher: aes or chachapoly.
    pub(super) cipher: Cipher,
    /// Receive buffer of the UDP socket, in bytes; the system's default when unset.
    pub(super) receive_buffer: Option<u32>,
    /// Send buffer of the UDP socket, in bytes; the system's default when unset.
    pub(super) send_buffer: Option<u32>,
}

/// Nebula's ciphers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Cipher {
    /// AES-256-GCM.
    Aes,
    /// ChaCha20-Poly1305.
    Chachapoly,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            port: 4242,
            mtu: 1300,
            routines: 1,
            batch: 64,
            cipher: Cipher::Aes,
            receive_buffer: None,
            send_buffer: None,
        }
    }
}

impl Adapter for Nebula {
    type Settings = Settings;

    fn start(job: &mut Job<'_, '_>, settings: &Settings) -> Result<Vec<End>> {
        let folder = job.folder("nebula")?;
        let places = job.places.clone();
        // Certificates of version 2, which can hold an IPv6 address, came with 1.10.
        let has_ipv6 = supports_version_2(&job.version().unwrap_or_default());
        make_authority(job, &places[0], &folder, has_ipv6)?;
        let mut ends = Vec::new();
        for place in &places {
            sign(job, place, &folder, has_ipv6)?;
            let device = job.device("neb", place);
            let path = folder.join(format!("{}.yml", place.side));
            let configuration = configuration(&places, place, &device, &folder, settings);
            job::write_json(&path, &configuration)?;
            let daemon = job.daemon(place, "nebula", &["-config", &path.to_string_lossy()])?;
            job::wait_for_device(place, &device, &daemon, START_LIMIT)?;
            job::wait_for_port(&daemon, Transport::Udp, settings.port, START_LIMIT)?;
            let mut end = Job::end(place, device, daemon);
            end.ipv6 = end.ipv6.filter(|_| has_ipv6);
            ends.push(end);
        }
        Ok(ends)
    }
}

fn supports_version_2(version: &str) -> bool {
    let mut parts = version.split('.').map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(1)), Some(Ok(minor))) => minor >= 10,
        (Some(Ok(major)), _) => major > 1,
        _ => false,
    }
}

fn file(folder: &Path, name: &str) -> String {
    folder.join(name).to_string_lossy().into_owned()
}

fn make_authority(job: &Job<'_, '_>, place: &Place<'_>, folder: &Path, v2: bool) -> Result<()> {
    let (certificate, key) = (file(folder, "ca.crt"), file(folder, "ca.key"));
    let mut arguments = vec!["ca", "-name", "vpnbench"];
    arguments.extend(["-out-crt", &certificate, "-out-key", &key]);
    if v2 {
        arguments.extend(["-version", "2"]);
    }
    job.tool(place, "nebula-cert", &arguments, "").map(drop)
}

fn sign(job: &Job<'_, '_>, place: &Place<'_>, folder: &Path, v2: bool) -> Result<()> {
    let authority = (file(folder, "ca.crt"), file(folder, "ca.key"));
    let own = (
        file(folder, &format!("{}.crt", place.side)),
        file(folder, &format!("{}.key", place.side)),
    );
    let name = format!("host-{}", place.side);
    let mut networks = format!("{}/{IPV4_PREFIX}", place.ipv4);
    if let (true, Some(ipv6)) = (v2, place.ipv6) {
        networks.push_str(&format!(",{ipv6}/{IPV6_PREFIX}"));
    }
    let networks_flag = if v2 { "-networks" } else { "-ip" };
    let mut arguments = vec!["sign", "-name", &name, networks_flag, &networks];
    arguments.extend(["-ca-crt", &authority.0, "-ca-key", &authority.1]);
    arguments.extend(["-out-crt", &own.0, "-out-key", &own.1]);
    job.tool(place, "nebula-cert", &arguments, "").map(drop)
}

fn configuration(
    places: &[Place<'_>],
    place: &Place<'_>,
    device: &str,
    folder: &Path,
    settings: &Settings,
) -> Value {
    let lighthouse = &places[0];
    let is_lighthouse = place.number == lighthouse.number;
    let lighthouse_name = lighthouse.ipv4.to_string();
    let endpoint = format!("{}:{}", lighthouse.host.ipv4, settings.port);
    let pki = |name: String| -> PathBuf { folder.join(name) };
    let anything = json!([{ "port": "any", "proto": "any", "host": "any" }]);
    let hosts = if is_lighthouse {
        json!([])
    } else {
        json!([lighthouse_name])
    };
    let mut listen = json!({
        "host": "0.0.0.0",
        "port": settings.port,
        "batch": settings.batch,
    });
    for (key, bytes) in [
        ("read_buffer", settings.receive_buffer),
        ("write_buffer", settings.send_buffer),
    ] {
        if let Some(bytes) = bytes {
            listen[key] = json!(bytes);
        }
    }
    json!({
        "pki": {
            "ca": pki("ca.crt".to_owned()),
            "cert": pki(format!("{}.crt", place.side)),
            "key": pki(format!("{}.key", place.side)),
        },
        "static_host_map": { (lighthouse_name): [endpoint] },
        "lighthouse": { "am_lighthouse": is_lighthouse, "interval": 10, "hosts": hosts },
        "listen": listen,
        "tun": { "dev": device, "mtu": settings.mtu },
        "routines": settings.routines,
        "cipher": settings.cipher,
        // The default is to let nothing in.
        "firewall": { "outbound": anything, "inbound": anything },
        "logging": { "level": "info", "format": "text" },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_2_certificates_came_with_1_10() {
        for (version, expected) in [
            ("1.10.3", true),
            ("2.0.0", true),
            ("1.9.5", false),
            ("1.6.1", false),
            ("", false),
        ] {
            assert_eq!(supports_version_2(version), expected, "{version}");
        }
    }
}
