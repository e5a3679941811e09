//! BoringTun, the WireGuard in Rust by Cloudflare, configured with the `wg` tool.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::End;
use super::adapter::Adapter;
use super::job::Job;
use super::wireguard_keys;
use crate::lab::error::Result;

/// BoringTun on every host.
pub(super) struct Boringtun;

/// Its keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "snake_case")]
pub(super) struct Settings {
    /// UDP port.
    pub(super) port: u16,
    /// MTU of the device, in bytes.
    pub(super) mtu: u32,
    /// Seconds between keepalives; none when unset.
    pub(super) keepalive: Option<u16>,
    /// Worker threads, each with a TUN queue of its own.
    pub(super) threads: u8,
    /// Several TUN queues; false leaves one for all threads.
    pub(super) multi_queue: bool,
    /// A connected socket per peer beside the listening one.
    pub(super) connected_udp: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        let common = wireguard_keys::Settings::default();
        Settings {
            port: common.port,
            mtu: common.mtu,
            keepalive: common.keepalive,
            threads: 4,
            multi_queue: true,
            connected_udp: true,
        }
    }
}

impl Adapter for Boringtun {
    type Settings = Settings;

    fn start(job: &mut Job<'_, '_>, settings: &Settings) -> Result<Vec<End>> {
        let threads = settings.threads.to_string();
        // Without a login session it cannot tell whom to drop its privileges to.
        let mut arguments = vec!["-f", "--disable-drop-privileges", "-t", &threads];
        if !settings.multi_queue {
            arguments.push("--disable-multi-queue");
        }
        if !settings.connected_udp {
            arguments.push("--disable-connected-udp");
        }
        let mut ends = Vec::new();
        for place in job.places.clone() {
            let end = wireguard_keys::start_daemon(job, &place, "boringtun-cli", &arguments)?;
            ends.push(end);
        }
        let common = wireguard_keys::Settings {
            port: settings.port,
            mtu: settings.mtu,
            keepalive: settings.keepalive,
        };
        wireguard_keys::join(job, &ends, &common)?;
        Ok(ends)
    }
}
