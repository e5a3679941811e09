//! wireguard-go, the userspace WireGuard, configured with the `wg` tool.

use super::End;
use super::adapter::Adapter;
use super::job::Job;
use super::wireguard_keys::{self, Settings};
use crate::lab::error::Result;

/// wireguard-go on every host.
pub(super) struct WireguardGo;

impl Adapter for WireguardGo {
    type Settings = Settings;

    fn start(job: &mut Job<'_, '_>, settings: &Settings) -> Result<Vec<End>> {
        let mut ends = Vec::new();
        for place in job.places.clone() {
            ends.push(wireguard_keys::start_daemon(
                job,
                &place,
                "wireguard-go",
                &["-f"],
            )?);
        }
        wireguard_keys::join(job, &ends, settings)?;
        Ok(ends)
    }
}
