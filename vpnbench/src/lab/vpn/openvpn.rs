//! OpenVPN: the first host is the server.

use std::path::Path;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::End;
use super::adapter::Adapter;
use super::job::{self, Job, Place, Transport};
use crate::lab::error::{LabError, Result};

const START_LIMIT: Duration = Duration::from_secs(15);

/// OpenVPN on both hosts.
pub(super) struct Openvpn;

/// Its keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "snake_case")]
pub(super) struct Settings {
    /// udp or tcp.
    pub(super) transport: Link,
    /// Port of that transport.
    pub(super) port: u16,
    /// Send and receive buffer of the outer socket, in bytes; the system's default when unset.
    pub(super) socket_buffer: Option<u32>,
    /// Packets the device's queue holds; the system's default when unset.
    pub(super) tx_queue_len: Option<u32>,
    /// Write to UDP without waiting for the socket to be writable (`--fast-io`).
    pub(super) fast_io: bool,
    /// Move packets in the kernel where it can (data channel offload); then no daemon sees them.
    pub(super) kernel_offload: bool,
}

/// OpenVPN's transports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Link {
    /// UDP datagrams.
    Udp,
    /// A TCP connection.
    Tcp,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            transport: Link::Udp,
            port: 1194,
            socket_buffer: None,
            tx_queue_len: None,
            fast_io: false,
            kernel_offload: false,
        }
    }
}

impl Adapter for Openvpn {
    type Settings = Settings;

    /// Between its clients a server would only relay.
    const MOST_HOSTS: usize = 2;
    const CARRY_LIMIT: Duration = Duration::from_secs(30);

    fn start(job: &mut Job<'_, '_>, settings: &Settings) -> Result<Vec<End>> {
        let folder = job.folder("openvpn")?;
        let places = job.places.clone();
        write_certificates(&folder, &places)
            .map_err(LabError::failed("making", "certificates for openvpn"))?;
        let mut ends = Vec::new();
        for place in &places {
            ends.push(launch(job, &places[0], place, &folder, settings)?);
        }
        Ok(ends)
    }
}

fn launch(
    job: &mut Job<'_, '_>,
    server: &Place<'_>,
    place: &Place<'_>,
    folder: &Path,
    settings: &Settings,
) -> Result<End> {
    let device = job.device("ovpn", place);
    let path = folder.join(format!("{}.conf", place.side));
    job::write(
        &path,
        &configuration(server, place, &device, folder, settings),
    )?;
    let daemon = job.daemon(place, "openvpn", &["--config", &path.to_string_lossy()])?;
    if place.number == server.number {
        let transport = match settings.transport {
            Link::Udp => Transport::Udp,
            Link::Tcp => Transport::Tcp,
        };
        job::wait_for_port(&daemon, transport, settings.port, START_LIMIT)?;
    }
    job::wait_for_device(place, &device, &daemon, START_LIMIT)?;
    let mut end = Job::end(place, device, daemon);
    end.ipv6 = None;
    Ok(end)
}

fn configuration(
    server: &Place<'_>,
    place: &Place<'_>,
    device: &str,
    folder: &Path,
    settings: &Settings,
) -> String {
    let is_server = place.number == server.number;
    let file = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let protocol = match (settings.transport, is_server) {
        (Link::Udp, _) => "udp4",
        (Link::Tcp, true) => "tcp4-server",
        (Link::Tcp, false) => "tcp4-client",
    };
    let mut lines = vec![
        format!("dev {device}"),
        "dev-type tun".to_owned(),
        format!("proto {protocol}"),
        format!("ca {}", file("ca.crt")),
        format!("cert {}", file(&format!("{}.crt", place.side))),
        format!("key {}", file(&format!("{}.key", place.side))),
    ];
    if is_server {
        lines
            .extend(["mode server", "tls-server", "topology subnet", "dh none"].map(str::to_owned));
        lines.push("server 10.98.0.0 255.255.255.0".to_owned());
        lines.push(format!("port {}", settings.port));
    } else {
        lines.extend(["client", "nobind", "remote-cert-tls server"].map(str::to_owned));
        // The first client gets the address of the second place.
        lines.push(format!("remote {} {}", server.host.ipv4, settings.port));
        lines.push("connect-retry 1 5".to_owned());
    }
    if let Some(bytes) = settings.socket_buffer {
        lines.push(format!("sndbuf {bytes}"));
        lines.push(format!("rcvbuf {bytes}"));
    }
    if let Some(packets) = settings.tx_queue_len {
        lines.push(format!("txqueuelen {packets}"));
    }
    if settings.fast_io {
        lines.push("fast-io".to_owned());
    }
    if !settings.kernel_offload {
        lines.push("disable-dco".to_owned());
    }
    lines.join("\n") + "\n"
}

/// An authority of the run's own, and a certificate per host.
fn write_certificates(
    folder: &Path,
    places: &[Place<'_>],
) -> std::result::Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut parameters = named("vpnbench")?;
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    let key = KeyPair::generate()?;
    let authority = parameters.self_signed(&key)?;
    job::write(&folder.join("ca.crt"), &authority.pem())?;
    let issuer = Issuer::new(parameters, key);
    for place in places {
        let mut parameters = named(&format!("host-{}", place.side))?;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![match place.number {
            1 => ExtendedKeyUsagePurpose::ServerAuth,
            _ => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        let key = KeyPair::generate()?;
        let certificate = parameters.signed_by(&key, &issuer)?;
        let file = |kind: &str| folder.join(format!("{}.{kind}", place.side));
        job::write(&file("crt"), &certificate.pem())?;
        job::write(&file("key"), &key.serialize_pem())?;
    }
    Ok(())
}

fn named(name: &str) -> std::result::Result<CertificateParams, rcgen::Error> {
    let mut parameters = CertificateParams::new(Vec::new())?;
    parameters.distinguished_name.push(DnType::CommonName, name);
    Ok(parameters)
}
