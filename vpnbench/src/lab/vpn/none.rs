//! The bare wire, as the reference every tunnel is compared with.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::End;
use super::adapter::Adapter;
use super::job::Job;
use crate::lab::error::Result;

/// A "tunnel" whose devices and addresses are those of the wire.
pub(super) struct None;

/// There is nothing to set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Settings {}

impl Adapter for None {
    type Settings = Settings;

    const NEEDS_TUN: bool = false;

    fn start(job: &mut Job<'_, '_>, _settings: &Settings) -> Result<Vec<End>> {
        let ends = job.places.iter().map(|place| End {
            device: place.host.device.clone(),
            ipv4: Some(place.host.ipv4),
            ipv6: place.host.ipv6,
            daemon: Option::None,
        });
        Ok(ends.collect())
    }
}
