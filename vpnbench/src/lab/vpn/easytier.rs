//! EasyTier: the first host listens, the others connect to it.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::End;
use super::adapter::Adapter;
use super::job::{self, Job, Place, Transport};
use crate::lab::error::Result;

const START_LIMIT: Duration = Duration::from_secs(10);
/// Where its own command-line tool would reach it; loopback of the namespace.
const RPC: &str = "127.0.0.1:15888";

/// EasyTier on every host.
pub(super) struct Easytier;

/// Its keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "snake_case")]
pub(super) struct Settings {
    /// How hosts reach each other: tcp (the study's), udp or wg.
    pub(super) transport: Link,
    /// Port of that transport.
    pub(super) port: u16,
    /// Largest packet before encryption, in bytes; EasyTier's default when unset. The device's MTU
    /// is 20 less.
    pub(super) mtu: Option<u32>,
    /// Encrypt what is carried.
    pub(super) encryption: bool,
    /// Several worker threads instead of one.
    pub(super) multi_thread: bool,
}

/// EasyTier's transports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Link {
    /// A TCP connection.
    Tcp,
    /// UDP datagrams.
    Udp,
    /// WireGuard's format, over UDP.
    Wg,
}

impl Link {
    const fn scheme(self) -> &'static str {
        match self {
            Link::Tcp => "tcp",
            Link::Udp => "udp",
            Link::Wg => "wg",
        }
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            transport: Link::Tcp,
            port: 11010,
            mtu: None,
            encryption: true,
            multi_thread: false,
        }
    }
}

impl Adapter for Easytier {
    type Settings = Settings;

    const CARRY_LIMIT: Duration = Duration::from_secs(30);

    fn start(job: &mut Job<'_, '_>, settings: &Settings) -> Result<Vec<End>> {
        let places = job.places.clone();
        job.each(|job, place| {
            let device = job.device("et", place);
            let arguments = arguments(&places[0], place, &device, settings);
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let daemon = job.daemon(place, "easytier-core", &arguments)?;
            job::wait_for_device(place, &device, &daemon, START_LIMIT)?;
            if place.number == 1 {
                let transport = match settings.transport {
                    Link::Tcp => Transport::Tcp,
                    Link::Udp | Link::Wg => Transport::Udp,
                };
                job::wait_for_port(&daemon, transport, settings.port, START_LIMIT)?;
            }
            let mut end = Job::end(place, device, daemon);
            // The crate's newest release gives its device no IPv6 address.
            end.ipv6 = None;
            Ok(end)
        })
    }
}

fn arguments(
    first: &Place<'_>,
    place: &Place<'_>,
    device: &str,
    settings: &Settings,
) -> Vec<String> {
    let url = |address: String| {
        format!(
            "{}://{address}:{}",
            settings.transport.scheme(),
            settings.port
        )
    };
    let mut arguments: Vec<String> = ["--network-name", "vpnbench", "--network-secret", "vpnbench"]
        .map(str::to_owned)
        .to_vec();
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(|&word| word.to_owned()));
    add(&["--ipv4", &place.ipv4.to_string(), "--dev-name", device]);
    // Without this it opens a second UDP socket on a random port.
    add(&["--rpc-portal", RPC, "--disable-ipv6"]);
    if place.number == 1 {
        add(&["--listeners", &url("0.0.0.0".to_owned())]);
    } else {
        add(&[
            "--no-listener",
            "--peers",
            &url(first.host.ipv4.to_string()),
        ]);
    }
    if let Some(mtu) = settings.mtu {
        add(&["--mtu", &mtu.to_string()]);
    }
    if !settings.encryption {
        add(&["--disable-encryption"]);
    }
    if settings.multi_thread {
        add(&["--multi-thread"]);
    }
    arguments
}
