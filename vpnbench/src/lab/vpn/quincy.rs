//! Quincy, QUIC datagrams: the first host is the server.

use std::path::Path;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::End;
use super::adapter::Adapter;
use super::job::{self, Job, Place, Transport};
use super::wireguard_keys::key_pair;
use crate::lab::error::Result;
use crate::lab::hosts::IPV4_PREFIX;

const START_LIMIT: Duration = Duration::from_secs(15);

/// Quincy on both hosts.
pub(super) struct Quincy;

/// Its keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "snake_case")]
pub(super) struct Settings {
    /// UDP port.
    pub(super) port: u16,
    /// MTU of the connection and the device, in bytes.
    pub(super) mtu: u16,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            port: 55555,
            mtu: 1400,
        }
    }
}

struct Keys {
    private: String,
    public: String,
}

impl Adapter for Quincy {
    type Settings = Settings;

    /// Between its clients the server would only relay.
    const MOST_HOSTS: usize = 2;
    const CARRY_LIMIT: Duration = Duration::from_secs(30);

    fn start(job: &mut Job<'_, '_>, settings: &Settings) -> Result<Vec<End>> {
        let folder = job.folder("quincy")?;
        let [server, client] = [job.places[0], job.places[1]];
        let (server_keys, client_keys) = (keys(job, &server)?, keys(job, &client)?);
        let users = folder.join("users.toml");
        let public = &client_keys.public;
        job::write(
            &users,
            &format!("[users.lab]\nauthorized_keys = [\"{public}\"]\nauthorized_certs = []\n"),
        )?;
        // In this order: the client gives up after 30 s without a server.
        let a = start_server(job, &server, &folder, &users, &server_keys, settings)?;
        let public = &server_keys.public;
        let b = start_client(
            job,
            [&server, &client],
            &folder,
            &client_keys,
            public,
            settings,
        )?;
        Ok(vec![a, b])
    }
}

/// It takes WireGuard's keys.
fn keys(job: &Job<'_, '_>, place: &Place<'_>) -> Result<Keys> {
    let (private, public) = key_pair(job, place)?;
    Ok(Keys { private, public })
}

fn start_server(
    job: &mut Job<'_, '_>,
    place: &Place<'_>,
    folder: &Path,
    users: &Path,
    keys: &Keys,
    settings: &Settings,
) -> Result<End> {
    let device = job.device("qcy", place);
    let path = folder.join("server.toml");
    let configuration = format!(
        "name = \"lab\"\ninterface_name = \"{device}\"\nbind_address = \"{}\"\nbind_port = {}\n\
         tunnel_network = \"{}/{IPV4_PREFIX}\"\nusers_file = \"{}\"\n\n\
         [protocol]\nmode = \"noise\"\nkey_exchange = \"standard\"\nprivate_key = \"{}\"\n\n\
         [connection]\nmtu = {}\n\n[log]\nlevel = \"info\"\n",
        place.host.ipv4,
        settings.port,
        place.ipv4,
        users.display(),
        keys.private,
        settings.mtu,
    );
    job::write(&path, &configuration)?;
    let arguments = ["--config-path", &path.to_string_lossy()];
    let daemon = job.daemon(place, "quincy-server", &arguments)?;
    job::wait_for_port(&daemon, Transport::Udp, settings.port, START_LIMIT)?;
    finish(place, device, daemon)
}

fn start_client(
    job: &mut Job<'_, '_>,
    [server, place]: [&Place<'_>; 2],
    folder: &Path,
    keys: &Keys,
    server_key: &str,
    settings: &Settings,
) -> Result<End> {
    let device = job.device("qcy", place);
    let path = folder.join("client.toml");
    let configuration = format!(
        "connection_string = \"{}:{}\"\n\n\
         [protocol]\nmode = \"noise\"\nkey_exchange = \"standard\"\nprivate_key = \"{}\"\n\
         server_public_key = \"{server_key}\"\n\n\
         [connection]\nmtu = {}\n\n[network]\ninterface_name = \"{device}\"\nroutes = []\n\n\
         [log]\nlevel = \"info\"\n",
        server.host.ipv4, settings.port, keys.private, settings.mtu,
    );
    job::write(&path, &configuration)?;
    let arguments = ["--config-path", &path.to_string_lossy()];
    let daemon = job.daemon(place, "quincy-client", &arguments)?;
    finish(place, device, daemon)
}

/// The server hands the client the address of the second place.
fn finish(place: &Place<'_>, device: String, daemon: crate::lab::Process) -> Result<End> {
    job::wait_for_device(place, &device, &daemon, START_LIMIT)?;
    let mut end = Job::end(place, device, daemon);
    end.ipv6 = None;
    Ok(end)
}
