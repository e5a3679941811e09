//! What headscale and tailscale share: tailscaled on a real device, joined to a coordination server
//! on the first host. No relay, nothing outside the run's namespaces. The first host answers STUN: a tailscaled that
//! hears no answer takes its socket for broken and opens it anew every half minute, and packets are lost with that.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::End;
use super::job::{self, Job, Place};
use crate::lab::error::{LabError, Result};
use crate::lab::wait;

/// Port of the coordination server.
pub(super) const CONTROL_PORT: u16 = 8080;
/// Port of the STUN server.
pub(super) const STUN_PORT: u16 = 3478;
pub(super) const START_LIMIT: Duration = Duration::from_secs(20);
/// tailscaled calls itself running once it has a live peer; until the second host has joined there
/// is none, so `tailscale up` is not waited for beyond this.
const UP_WAIT: &str = "1s";
const UP_TIMED_OUT: &str = "timeout waiting for Tailscale service to enter a Running state";

/// Keys of both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "snake_case")]
pub(super) struct Settings {
    /// UDP port of tailscaled.
    pub(super) port: u16,
    /// Coalescing of TCP segments on the way into the device; false sets `TS_TUN_DISABLE_TCP_GRO`.
    pub(super) tun_tcp_gro: bool,
    /// Coalescing of UDP datagrams on the way into the device; false sets `TS_TUN_DISABLE_UDP_GRO`.
    pub(super) tun_udp_gro: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            port: 41641,
            tun_tcp_gro: true,
            tun_udp_gro: true,
        }
    }
}

/// Address of the coordination server, on the first host.
pub(super) fn control_address(job: &Job<'_, '_>) -> String {
    format!("{}:{CONTROL_PORT}", job.places[0].host.ipv4)
}

/// Address of the STUN server, on the first host.
pub(super) fn stun_address(job: &Job<'_, '_>) -> String {
    format!("{}:{STUN_PORT}", job.places[0].host.ipv4)
}

/// Starts tailscaled on every host and joins it, with an authentication key where one is needed.
pub(super) fn join_all(
    job: &mut Job<'_, '_>,
    settings: &Settings,
    key: Option<&str>,
) -> Result<Vec<End>> {
    let mut ends = Vec::new();
    for place in job.places.clone() {
        ends.push(join(job, &place, settings, key)?);
    }
    Ok(ends)
}

fn join(
    job: &mut Job<'_, '_>,
    place: &Place<'_>,
    settings: &Settings,
    key: Option<&str>,
) -> Result<End> {
    let device = job.device("ts", place);
    let folder = job.folder(&format!("tailscale-{}", place.side))?;
    let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let (state, socket) = (path("state"), path("socket"));
    let (folder, port) = (
        folder.to_string_lossy().into_owned(),
        settings.port.to_string(),
    );
    let mut arguments = vec!["--tun", &device, "--port", &port];
    arguments.extend([
        "--statedir",
        &folder,
        "--state",
        &state,
        "--socket",
        &socket,
    ]);
    // Otherwise it would try to upload its logs.
    arguments.push("--no-logs-no-support");
    // Otherwise it would keep log settings in /var/lib/tailscale.
    let mut environment = vec![("TS_LOGS_DIR", folder.as_str())];
    let switches = [
        ("TS_TUN_DISABLE_TCP_GRO", settings.tun_tcp_gro),
        ("TS_TUN_DISABLE_UDP_GRO", settings.tun_udp_gro),
    ];
    let off = switches.into_iter().filter(|(_, on)| !on);
    environment.extend(off.map(|(name, _)| (name, "true")));
    let daemon = job.daemon_with(place, "tailscaled", &arguments, &environment)?;
    let what = "tailscaled to open its socket";
    wait::until(what, START_LIMIT, &[&daemon], || {
        let answers = std::os::unix::net::UnixStream::connect(&socket).is_ok();
        Ok(answers.then_some(()))
    })?;
    let server = format!("http://{}", control_address(job));
    let name = format!("host-{}", place.side);
    let mut arguments = vec!["--socket", &socket, "up", "--login-server", &server];
    arguments.extend(["--hostname", &name, "--timeout", UP_WAIT]);
    // The namespace's packet filter and the machine's resolver stay as they are.
    arguments.extend(["--netfilter-mode=off", "--accept-dns=false"]);
    if let Some(key) = key {
        arguments.extend(["--auth-key", key]);
    }
    match job.tool(place, "tailscale", &arguments, "") {
        Err(LabError::Failed { source, .. }) if source.to_string().contains(UP_TIMED_OUT) => {}
        other => drop(other?),
    }
    job::end_by_daemon(place, device, daemon, true, START_LIMIT)
}
