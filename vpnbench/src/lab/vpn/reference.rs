//! The lab's own reference tunnel (`lab::tunnel`) between the first two hosts. Where there is a third
//! host, the way leads through it: a relay there passes the outer packets on.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::End;
use super::adapter::Adapter;
use super::job::{self, Job, Place};
use crate::lab::error::{LabError, Result};
use crate::lab::process::Process;
use crate::lab::tunnel::relay::{self, RelaySettings};
use crate::lab::tunnel::settings::Transport;
use crate::lab::tunnel::{self, PartSettings, Settings};
use crate::lab::wait;

/// Port of the outer sockets and of the relay.
const PORT: u16 = 4600;
/// How long a part has until its device or its port is there.
const START_LIMIT: Duration = Duration::from_secs(10);

/// What an end writes to its log when its link is there.
const CARRIES: &str = "carries packets";

/// The reference tunnel.
pub(super) struct Reference;

impl Adapter for Reference {
    type Settings = Settings;

    const CARRY_LIMIT: Duration = Duration::from_secs(30);

    fn check(settings: &Settings) -> std::result::Result<(), String> {
        settings.check()
    }

    fn start(job: &mut Job<'_, '_>, settings: &Settings) -> Result<Vec<End>> {
        let places = job.places.clone();
        let [a, b, rest @ ..] = places.as_slice() else {
            return Err(LabError::failed("setting up", "the reference tunnel")(
                "it needs two hosts",
            ));
        };
        let relay = rest.first();
        if let Some(relay) = relay {
            start_relay(job, relay, [a, b], settings)?;
        }
        let key = [(); 2].map(|()| uuid::Uuid::new_v4().simple().to_string());
        let key = key.concat();
        // The end that listens first, as the other one connects.
        let far = start_end(job, b, relay.unwrap_or(a), true, &key, settings)?;
        let near = start_end(job, a, relay.unwrap_or(b), false, &key, settings)?;
        Ok(vec![near, far])
    }
}

fn outer(place: &Place<'_>) -> SocketAddr {
    (IpAddr::V4(place.host.ipv4), PORT).into()
}

fn start_relay(
    job: &mut Job<'_, '_>,
    place: &Place<'_>,
    ends: [&Place<'_>; 2],
    settings: &Settings,
) -> Result<()> {
    if settings.transport != Transport::Udp {
        let why = "through a third host only transport = \"udp\" works";
        return Err(LabError::failed("setting up", "the reference tunnel")(why));
    }
    let part = RelaySettings {
        local: outer(place),
        ends: ends.map(outer),
        account: Some(job.log_file("relay.json")),
    };
    let relay = job.part(place, relay::NAME, &part)?;
    job::wait_for_port(&relay, job::Transport::Udp, PORT, START_LIMIT)
}

fn start_end(
    job: &mut Job<'_, '_>,
    place: &Place<'_>,
    peer: &Place<'_>,
    listen: bool,
    key: &str,
    settings: &Settings,
) -> Result<End> {
    let device = job.device("ref", place);
    let label = &place.host.label;
    let part = PartSettings {
        device: device.clone(),
        local: outer(place),
        peer: outer(peer),
        listen,
        key: key.to_owned(),
        account: Some(job.log_file(&format!("tunnel-{label}.json"))),
        truth: Some(job.log_file(&format!("tunnel-{label}.truth.jsonl"))),
        settings: settings.clone(),
    };
    let daemon = job.part(place, tunnel::NAME, &part)?;
    // The device appears before its owner has set it up, and setting it up takes it down again: what
    // comes after that is waited for.
    match listen {
        true => wait_until_it_listens(&daemon, settings)?,
        false => wait_until_it_carries(&daemon)?,
    }
    let end = Job::end(place, device, daemon);
    job::bring_up(place, &end, Some(settings.mtu))?;
    Ok(end)
}

/// The end that connects says so once it has.
fn wait_until_it_carries(daemon: &Process) -> Result<()> {
    wait::until("the tunnel to connect", START_LIMIT, &[daemon], || {
        let log = daemon.log().map(fs::read_to_string);
        let text = log.and_then(std::io::Result::ok).unwrap_or_default();
        Ok(text.contains(CARRIES).then_some(()))
    })
}

fn wait_until_it_listens(daemon: &Process, settings: &Settings) -> Result<()> {
    let transport = match settings.transport {
        Transport::Tcp => job::Transport::Tcp,
        Transport::Udp | Transport::Quic => job::Transport::Udp,
    };
    job::wait_for_port(daemon, transport, PORT, START_LIMIT)
}
