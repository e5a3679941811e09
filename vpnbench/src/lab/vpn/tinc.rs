//! tinc, as in the study: the first host has a known address, the others connect to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::adapter::Adapter;
use super::job::{self, Job, Place, Transport};
use super::{End, Tunnel};
use crate::lab::error::{LabError, Result};
use crate::lab::process::Process;
use crate::lab::wait;

const START_LIMIT: Duration = Duration::from_secs(10);
/// Path MTU discovery takes one to three probes a second and gives up after thirty.
const SETTLE_LIMIT: Duration = Duration::from_secs(40);
/// How often the daemon is asked whether it is done.
const ASK_INTERVAL: Duration = Duration::from_millis(500);

/// tinc on every host.
pub(super) struct Tinc;

/// Its keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "snake_case")]
pub(super) struct Settings {
    /// UDP and TCP port.
    pub(super) port: u16,
    /// Accept only the subnets in the hosts files, as the study did.
    pub(super) strict_subnets: bool,
    /// Carry packets over TCP only; otherwise tinc does so where UDP does not get through.
    pub(super) tcp_only: bool,
    /// Lower the MSS of TCP connections to the path MTU found.
    pub(super) clamp_mss: bool,
    /// Receive buffer of the UDP socket, in bytes; the system's default when unset.
    pub(super) receive_buffer: Option<u32>,
    /// Send buffer of the UDP socket, in bytes; the system's default when unset.
    pub(super) send_buffer: Option<u32>,
    /// Cipher of packets, as OpenSSL names it; tinc's default when unset. Only 1.0, and 1.1 with
    /// its legacy protocol, can choose.
    pub(super) cipher: Option<String>,
    /// The new protocol of 1.1, which 1.0 does not have; 1.1's default when unset.
    pub(super) experimental_protocol: Option<bool>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            port: 655,
            strict_subnets: true,
            tcp_only: false,
            clamp_mss: true,
            receive_buffer: None,
            send_buffer: None,
            cipher: None,
            experimental_protocol: None,
        }
    }
}

impl Adapter for Tinc {
    type Settings = Settings;

    /// A connection that failed is tried again after 5 s.
    const CARRY_LIMIT: Duration = Duration::from_secs(30);

    fn start(job: &mut Job<'_, '_>, settings: &Settings) -> Result<Vec<End>> {
        if settings.experimental_protocol.is_some() && !job.is_version("1.1") {
            let version = job.version().unwrap_or_else(|| "an unknown one".to_owned());
            return Err(LabError::failed("configuring", "tinc")(format!(
                "experimental_protocol needs tinc 1.1; this is {version}"
            )));
        }
        let places = job.places.clone();
        let mut folders = Vec::new();
        for place in &places {
            folders.push(prepare(job, place, settings)?);
        }
        exchange(&places, &folders)?;
        let mut ends = Vec::new();
        for (place, folder) in places.iter().zip(&folders) {
            ends.push(launch(job, place, folder, settings)?);
        }
        Ok(ends)
    }

    fn settle(job: &mut Job<'_, '_>, settings: &Settings, tunnel: &Tunnel) -> Result<()> {
        if settings.tcp_only {
            return Ok(());
        }
        for (place, end) in job.places.clone().iter().zip(tunnel.ends()) {
            let Some(daemon) = &end.daemon else { continue };
            wait_for_path_mtu(job, place, daemon)?;
        }
        Ok(())
    }
}

fn node(place: &Place<'_>) -> String {
    format!("node_{}", place.side)
}

/// The folder of one node: configuration and keys, not yet the other nodes' public keys.
fn prepare(job: &mut Job<'_, '_>, place: &Place<'_>, settings: &Settings) -> Result<PathBuf> {
    let folder = job.folder(&format!("tinc-{}", place.side))?;
    let hosts = folder.join("hosts");
    fs::create_dir(&hosts).map_err(LabError::file("creating", &hosts))?;
    let main = configuration(job, place, settings);
    job::write(&folder.join("tinc.conf"), &main)?;
    let mut host = String::new();
    // Only the first host's address is known to the others.
    if place.number == 1 {
        host.push_str(&format!("Address = {}\n", place.host.ipv4));
    }
    host.push_str(&format!(
        "Port = {}\nSubnet = {}/32\n",
        settings.port, place.ipv4
    ));
    if let Some(ipv6) = place.ipv6 {
        host.push_str(&format!("Subnet = {ipv6}/128\n"));
    }
    job::write(&hosts.join(node(place)), &host)?;
    make_keys(job, place, &folder)?;
    Ok(folder)
}

fn configuration(job: &Job<'_, '_>, place: &Place<'_>, settings: &Settings) -> String {
    let yes_no = |value: bool| if value { "yes" } else { "no" };
    let mut lines = vec![
        format!("Name = {}", node(place)),
        format!("Interface = {}", job.device("tinc", place)),
        "DeviceType = tun".to_owned(),
        "AddressFamily = ipv4".to_owned(),
        format!("StrictSubnets = {}", yes_no(settings.strict_subnets)),
        format!("TCPOnly = {}", yes_no(settings.tcp_only)),
        format!("ClampMSS = {}", yes_no(settings.clamp_mss)),
    ];
    if place.number != 1 {
        lines.push("ConnectTo = node_a".to_owned());
    }
    if let Some(bytes) = settings.receive_buffer {
        lines.push(format!("UDPRcvBuf = {bytes}"));
    }
    if let Some(bytes) = settings.send_buffer {
        lines.push(format!("UDPSndBuf = {bytes}"));
    }
    if let Some(cipher) = &settings.cipher {
        lines.push(format!("Cipher = {cipher}"));
    }
    if let Some(experimental) = settings.experimental_protocol {
        lines.push(format!("ExperimentalProtocol = {}", yes_no(experimental)));
    }
    lines.join("\n") + "\n"
}

/// Makes the private keys, and adds the public ones to the node's hosts file.
fn make_keys(job: &mut Job<'_, '_>, place: &Place<'_>, folder: &Path) -> Result<()> {
    let folder = folder.to_string_lossy();
    if job.is_version("1.1") {
        let tinc = job.program("tincd")?.with_file_name("tinc");
        for kind in ["generate-rsa-keys", "generate-ed25519-keys"] {
            let tinc = tinc.to_string_lossy();
            job.command(place, &tinc, &["--batch", "-c", &folder, kind], "")?;
        }
        return Ok(());
    }
    // It asks for file names unless its standard input is no terminal.
    job.tool(place, "tincd", &["-c", &folder, "-K", "2048"], "")
        .map(drop)
}

/// Gives every node the hosts files of the others.
fn exchange(places: &[Place<'_>], folders: &[PathBuf]) -> Result<()> {
    for (owner, from) in places.iter().zip(folders) {
        let name = node(owner);
        let text = job::read(&from.join("hosts").join(&name))?;
        for to in folders.iter().filter(|to| *to != from) {
            job::write(&to.join("hosts").join(&name), &text)?;
        }
    }
    Ok(())
}

fn launch(
    job: &mut Job<'_, '_>,
    place: &Place<'_>,
    folder: &Path,
    settings: &Settings,
) -> Result<End> {
    let device = job.device("tinc", place);
    // Two daemons would collide on the default one.
    let pid_file = folder.join("pid");
    let daemon = job.daemon(
        place,
        "tincd",
        &[
            "-c",
            &folder.to_string_lossy(),
            "-D",
            "-d1",
            &format!("--pidfile={}", pid_file.display()),
        ],
    )?;
    job::wait_for_device(place, &device, &daemon, START_LIMIT)?;
    let end = Job::end(place, device, daemon);
    job::bring_up(place, &end, None)?;
    if let Some(daemon) = &end.daemon {
        job::wait_for_port(daemon, Transport::Tcp, settings.port, START_LIMIT)?;
    }
    Ok(end)
}

/// Waits until tinc has found the path MTU to every other node, before which it clamps no MSS and
/// sends large packets over TCP.
fn wait_for_path_mtu(job: &Job<'_, '_>, place: &Place<'_>, daemon: &Process) -> Result<()> {
    let others: Vec<String> = job
        .places
        .iter()
        .filter(|other| other.number != place.number)
        .map(node)
        .collect();
    let mut asked = None::<Instant>;
    wait::until("tinc to find the path MTU", SETTLE_LIMIT, &[daemon], || {
        if asked.is_none_or(|at| at.elapsed() >= ASK_INTERVAL) {
            asked = Some(Instant::now());
            // It writes its table of nodes into its log.
            daemon.signal(Signal::SIGUSR2)?;
        }
        let log = daemon.log().map(job::read).transpose()?.unwrap_or_default();
        let known = |node: &String| is_path_mtu_known(&log, node);
        Ok(others.iter().all(known).then_some(()))
    })
}

/// Whether the last line about a node in a dump says that its path MTU is fixed:
/// `NODE at ADDRESS ... pmtu 1451 (min 1451 max 1451)`.
fn is_path_mtu_known(log: &str, node: &str) -> bool {
    let line = log
        .lines()
        .rev()
        .find(|line| line.contains(&format!("{node} at ")) && line.contains("pmtu"));
    let Some((_, tail)) = line.and_then(|line| line.split_once("(min ")) else {
        return false;
    };
    let Some((least, most)) = tail.trim_end().trim_end_matches(')').split_once(" max ") else {
        return false;
    };
    least == most && least.parse::<u32>().is_ok_and(|mtu| mtu > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_mtu_is_known_once_both_bounds_meet() {
        let line = |bounds: &str| {
            format!(
                "Nodes:\n node_b at 10.99.0.2 port 655 cipher 91 digest 64 maclength 4 pmtu 1518 {bounds}\nEnd.\n"
            )
        };
        let early = line("(min 0 max 1518)");
        let late = line("(min 1451 max 1451)");
        assert!(!is_path_mtu_known("", "node_b"));
        assert!(!is_path_mtu_known(&early, "node_b"));
        assert!(is_path_mtu_known(&format!("{early}{late}"), "node_b"));
        assert!(!is_path_mtu_known(&format!("{late}{early}"), "node_b"));
        assert!(!is_path_mtu_known(&late, "node_c"));
    }
}
