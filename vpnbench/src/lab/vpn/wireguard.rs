//! WireGuard in the kernel: a device made through netlink, configured with the `wg` tool. There
//! is no daemon.

use super::End;
use super::adapter::Adapter;
use super::job::Job;
use super::wireguard_keys::{self, Settings};
use crate::lab::error::Result;
use crate::lab::netlink;

/// The kernel's WireGuard on every host.
pub(super) struct Wireguard;

impl Adapter for Wireguard {
    type Settings = Settings;

    const NEEDS_TUN: bool = false;

    fn start(job: &mut Job<'_, '_>, settings: &Settings) -> Result<Vec<End>> {
        let mut ends = Vec::new();
        for place in job.places.clone() {
            let device = job.device("wk", &place);
            netlink::add_wireguard(&place.host.netns, &device)?;
            ends.push(End {
                device,
                ipv4: Some(place.ipv4),
                ipv6: place.ipv6,
                daemon: None,
            });
        }
        wireguard_keys::join(job, &ends, settings)?;
        Ok(ends)
    }
}
