//! tailscaled, coordinated by headscale on the first host, as in the study.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::End;
use super::adapter::Adapter;
use super::job::{self, Job, Transport};
use super::tailscaled::{self, CONTROL_PORT, START_LIMIT, STUN_PORT, Settings};
use crate::lab::error::{LabError, Result};
use crate::lab::wait;

/// tailscaled on every host, and headscale on the first.
pub(super) struct Headscale;

impl Adapter for Headscale {
    type Settings = Settings;

    const CARRY_LIMIT: Duration = Duration::from_secs(60);

    fn start(job: &mut Job<'_, '_>, settings: &Settings) -> Result<Vec<End>> {
        let key = start_control(job)?;
        tailscaled::join_all(job, settings, Some(&key))
    }
}

/// Starts headscale and returns a key with which hosts may join.
fn start_control(job: &mut Job<'_, '_>) -> Result<String> {
    let first = job.places[0];
    let folder = job.folder("headscale")?;
    let relays = folder.join("derp.yaml");
    job::write(&relays, &relay_map(&first.host.ipv4.to_string()))?;
    let configuration = folder.join("config.yaml");
    let address = tailscaled::control_address(job);
    let stun = tailscaled::stun_address(job);
    job::write_json(
        &configuration,
        &configure(&folder, &relays, &address, &stun),
    )?;
    let configuration = configuration.to_string_lossy();
    let control = job.daemon(&first, "headscale", &["-c", &configuration, "serve"])?;
    job::wait_for_port(&control, Transport::Tcp, CONTROL_PORT, START_LIMIT)?;
    let socket = folder.join("socket");
    wait::until(
        "headscale to open its socket",
        START_LIMIT,
        &[&control],
        || {
            let answers = std::os::unix::net::UnixStream::connect(&socket).is_ok();
            Ok(answers.then_some(()))
        },
    )?;
    let run = |job: &Job<'_, '_>, words: &[&str]| {
        let arguments = [&["-c", &configuration], words].concat();
        job.tool(&first, "headscale", &arguments, "")
    };
    run(job, &["users", "create", "lab"])?;
    let printed = run(job, &["preauthkeys", "create", "--user", "1", "--reusable"])?;
    let key = printed.lines().rev().find(|line| !line.trim().is_empty());
    key.map(|key| key.trim().to_owned())
        .ok_or_else(|| LabError::failed("creating", "a key with headscale")("it printed nothing"))
}

/// The map of relays, which must not be empty: one that relays nothing and tells hosts their addresses (STUN).
fn relay_map(address: &str) -> String {
    format!(
        "regions:\n  900:\n    regionid: 900\n    regioncode: lab\n    regionname: lab\n    \
         nodes:\n      - name: 900a\n        regionid: 900\n        hostname: {address}\n        \
         ipv4: {address}\n        ipv6: none\n        stunport: {STUN_PORT}\n        stunonly: true\n"
    )
}

fn configure(folder: &Path, relays: &Path, address: &str, stun: &str) -> Value {
    json!({
        "server_url": format!("http://{address}"),
        "listen_addr": address,
        "metrics_listen_addr": "127.0.0.1:9090",
        "grpc_listen_addr": "127.0.0.1:50443",
        "noise": { "private_key_path": folder.join("noise.key") },
        "prefixes": {
            "v4": "100.64.0.0/10",
            "v6": "fd7a:115c:a1e0::/48",
            "allocation": "sequential",
        },
        "derp": {
            "server": {
                "enabled": true,
                "region_id": 900,
                "region_code": "lab",
                "region_name": "lab",
                "verify_clients": false,
                "automatically_add_embedded_derp_region": false,
                "stun_listen_addr": stun,
                "private_key_path": folder.join("derp.key"),
            },
            "urls": [],
            "paths": [relays],
            "auto_update_enabled": false,
        },
        "disable_check_updates": true,
        "database": { "type": "sqlite", "sqlite": { "path": folder.join("db.sqlite") } },
        "policy": { "mode": "file", "path": "" },
        "dns": { "magic_dns": false, "override_local_dns": false, "base_domain": "lab.invalid" },
        "unix_socket": folder.join("socket"),
        "unix_socket_permission": "0700",
        "logtail": { "enabled": false },
        "log": { "level": "info", "format": "text" },
    })
}
