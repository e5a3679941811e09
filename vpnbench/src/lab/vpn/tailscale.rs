//! tailscaled, coordinated by the test server of its own module: the data plane of the study's
//! Headscale without headscale.

use std::time::Duration;

use super::End;
use super::adapter::Adapter;
use super::job::{self, Job, Transport};
use super::tailscaled::{self, CONTROL_PORT, START_LIMIT, Settings};
use crate::lab::error::Result;

/// tailscaled on every host, and the test server on the first.
pub(super) struct Tailscale;

impl Adapter for Tailscale {
    type Settings = Settings;

    const CARRY_LIMIT: Duration = Duration::from_secs(60);

    fn start(job: &mut Job<'_, '_>, settings: &Settings) -> Result<Vec<End>> {
        let first = job.places[0];
        let address = tailscaled::control_address(job);
        let stun = tailscaled::stun_address(job);
        let arguments = ["-listen", &address, "-stun", &stun];
        let control = job.daemon(&first, "vpnbench-tailscale-lab", &arguments)?;
        job::wait_for_port(&control, Transport::Tcp, CONTROL_PORT, START_LIMIT)?;
        tailscaled::join_all(job, settings, None)
    }
}
