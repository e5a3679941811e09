//! VpnCloud: static peers, as in the study.

use std::net::Ipv4Addr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::End;
use super::adapter::Adapter;
use super::job::{self, Job, Place, Transport};
use crate::lab::error::Result;
use crate::lab::netlink;

/// It measures ciphers for about a second unless told which to take.
const START_LIMIT: Duration = Duration::from_secs(15);
/// At its start it connects a UDP socket to this address, to which it never sends anything, and
/// panics when there is no route.
const PROBED: Ipv4Addr = Ipv4Addr::new(8, 8, 8, 8);

/// VpnCloud on every host.
pub(super) struct Vpncloud;

/// Its keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "snake_case")]
pub(super) struct Settings {
    /// UDP port.
    pub(super) port: u16,
    /// Cipher: aes128, aes256, chacha20 or plain. Unset leaves it to VpnCloud's speed test, as the
    /// study did, and it may differ from run to run.
    pub(super) cipher: Option<Cipher>,
    /// MTU of the device, in bytes; VpnCloud's own (1427 on a 1500-byte wire) when unset.
    pub(super) mtu: Option<u32>,
}

/// VpnCloud's ciphers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Cipher {
    /// AES-128-GCM.
    Aes128,
    /// AES-256-GCM.
    Aes256,
    /// ChaCha20-Poly1305.
    Chacha20,
    /// None.
    Plain,
}

impl Cipher {
    const fn name(self) -> &'static str {
        match self {
            Cipher::Aes128 => "aes128",
            Cipher::Aes256 => "aes256",
            Cipher::Chacha20 => "chacha20",
            Cipher::Plain => "plain",
        }
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            port: 17000,
            cipher: Some(Cipher::Aes128),
            mtu: None,
        }
    }
}

impl Adapter for Vpncloud {
    type Settings = Settings;

    const CARRY_LIMIT: Duration = Duration::from_secs(30);

    fn start(job: &mut Job<'_, '_>, settings: &Settings) -> Result<Vec<End>> {
        let places = job.places.clone();
        job.each(|job, place| launch(job, &places, place, settings))
    }
}

fn launch(
    job: &mut Job<'_, '_>,
    places: &[Place<'_>],
    place: &Place<'_>,
    settings: &Settings,
) -> Result<End> {
    // A peer that forwards nothing is the next hop: a default route would also lead packets for the
    // tunnel's addresses astray while it is not up yet.
    let peer = places.iter().find(|other| other.number != place.number);
    if let Some(peer) = peer {
        // It stays when the daemon is restarted.
        job.once(&format!("vpncloud-route-{}", place.side), |_| {
            let (netns, device) = (&place.host.netns, &place.host.device);
            netlink::add_host_route(netns, PROBED, peer.host.ipv4, device)?;
            Ok(PROBED.to_string())
        })?;
    }
    let device = job.device("vc", place);
    let mut arguments: Vec<String> = [
        "--device",
        &device,
        "--type",
        "tun",
        "--mode",
        "router",
        "--password",
        "vpnbench",
    ]
    .map(str::to_owned)
    .to_vec();
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(|&word| word.to_owned()));
    add(&[
        "--listen",
        &settings.port.to_string(),
        "--no-port-forwarding",
    ]);
    // Its own `--ip` sets a wrong address in builds by a current compiler; the lab sets it.
    add(&["--no-auto-claim", "--claim", &format!("{}/32", place.ipv4)]);
    if let Some(ipv6) = place.ipv6 {
        add(&["--claim", &format!("{ipv6}/128")]);
    }
    if let Some(cipher) = settings.cipher {
        add(&["--algorithm", cipher.name()]);
    }
    for peer in places.iter().filter(|other| other.number < place.number) {
        add(&["--peer", &format!("{}:{}", peer.host.ipv4, settings.port)]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let daemon = job.daemon(place, "vpncloud", &arguments)?;
    job::wait_for_device(place, &device, &daemon, START_LIMIT)?;
    job::wait_for_port(&daemon, Transport::Udp, settings.port, START_LIMIT)?;
    let end = Job::end(place, device, daemon);
    job::bring_up(place, &end, settings.mtu)?;
    Ok(end)
}
