//! GotaTun, the WireGuard in Rust by Mullvad, configured with the `wg` tool.

use super::End;
use super::adapter::Adapter;
use super::job::Job;
use super::wireguard_keys::{self, Settings};
use crate::lab::error::Result;

/// GotaTun on every host.
pub(super) struct Gotatun;

impl Adapter for Gotatun {
    type Settings = Settings;

    fn start(job: &mut Job<'_, '_>, settings: &Settings) -> Result<Vec<End>> {
        // Without a login session it cannot tell whom to drop its privileges to.
        let arguments = ["--foreground", "--disable-drop-privileges"];
        let mut ends = Vec::new();
        for place in job.places.clone() {
            ends.push(wireguard_keys::start_daemon(
                job, &place, "gotatun", &arguments,
            )?);
        }
        wireguard_keys::join(job, &ends, settings)?;
        Ok(ends)
    }
}
