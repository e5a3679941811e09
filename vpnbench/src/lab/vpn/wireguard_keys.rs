//! What all WireGuards share: keys, and the `wg` tool that configures kernel and daemons alike.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::End;
use super::job::{self, Job, Place};
use crate::lab::error::Result;
use crate::lab::{netlink, wait};

const START_LIMIT: Duration = Duration::from_secs(10);

/// Keys of every WireGuard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "snake_case")]
pub(super) struct Settings {
    /// UDP port; the study's was 6666.
    pub(super) port: u16,
    /// MTU of the device, in bytes. WireGuard's usual: room for its 80 bytes over IPv6 in a
    /// 1500-byte packet.
    pub(super) mtu: u32,
    /// Seconds between keepalives; none when unset.
    pub(super) keepalive: Option<u16>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            port: 51820,
            mtu: 1420,
            keepalive: None,
        }
    }
}

struct Keys {
    private: PathBuf,
    public: String,
}

/// Starts a daemon that makes its device and its control socket, and waits for both.
pub(super) fn start_daemon(
    job: &mut Job<'_, '_>,
    place: &Place<'_>,
    program: &str,
    arguments: &[&str],
) -> Result<End> {
    let device = job.device("wg", place);
    let socket = PathBuf::from(format!("/var/run/wireguard/{device}.sock"));
    job.expect_file(&socket)?;
    let arguments = [arguments, &[&device]].concat();
    let daemon = job.daemon(place, program, &arguments)?;
    let what = format!("{program}'s control socket and device");
    wait::until(&what, START_LIMIT, &[&daemon], || {
        let answers = UnixStream::connect(&socket).is_ok();
        Ok((answers && netlink::exists(&place.host.netns, &device)?).then_some(()))
    })?;
    Ok(Job::end(place, device, daemon))
}

/// Gives every end its key, its peers and its addresses.
pub(super) fn join(job: &Job<'_, '_>, ends: &[End], settings: &Settings) -> Result<()> {
    let folder = job.folder("wireguard")?;
    let mut keys = Vec::new();
    for place in &job.places {
        keys.push(make_keys(job, place, &folder)?);
    }
    for (index, place) in job.places.iter().enumerate() {
        let peers = job.places.iter().zip(ends).zip(&keys);
        let peers = peers
            .enumerate()
            .filter(|(other, _)| *other != index)
            .map(|(_, ((place, end), keys))| (place, end, keys.public.as_str()));
        configure(job, place, &ends[index], &keys[index], peers, settings)?;
    }
    for (place, end) in job.places.iter().zip(ends) {
        job::bring_up(place, end, Some(settings.mtu))?;
    }
    Ok(())
}

/// A fresh private key and its public half, in base64.
pub(super) fn key_pair(job: &Job<'_, '_>, place: &Place<'_>) -> Result<(String, String)> {
    let private = job.tool(place, "wg", &["genkey"], "")?;
    let public = job.tool(place, "wg", &["pubkey"], &private)?;
    Ok((private.trim().to_owned(), public.trim().to_owned()))
}

/// A fresh key pair; the private half goes into a file only root can read.
fn make_keys(job: &Job<'_, '_>, place: &Place<'_>, folder: &Path) -> Result<Keys> {
    let private = folder.join(format!("{}.key", place.side));
    let (key, public) = key_pair(job, place)?;
    job::write(&private, &format!("{key}\n"))?;
    Ok(Keys { private, public })
}

fn configure<'p>(
    job: &Job<'_, '_>,
    place: &Place<'_>,
    end: &End,
    own: &Keys,
    peers: impl Iterator<Item = (&'p Place<'p>, &'p End, &'p str)>,
    settings: &Settings,
) -> Result<()> {
    let private = own.private.to_string_lossy().into_owned();
    let port = settings.port.to_string();
    let mut arguments: Vec<String> = [
        "set",
        &end.device,
        "listen-port",
        &port,
        "private-key",
        &private,
    ]
    .map(str::to_owned)
    .to_vec();
    for (peer, peer_end, key) in peers {
        let mut allowed = format!("{}/32", peer.ipv4);
        if let Some(ipv6) = peer_end.ipv6 {
            allowed.push_str(&format!(",{ipv6}/128"));
        }
        let endpoint = format!("{}:{port}", peer.host.ipv4);
        let words = ["peer", key, "endpoint", &endpoint, "allowed-ips", &allowed];
        arguments.extend(words.map(str::to_owned));
        if let Some(keepalive) = settings.keepalive {
            arguments.extend(["persistent-keepalive".to_owned(), keepalive.to_string()]);
        }
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    job.tool(place, "wg", &arguments, "").map(drop)
}
