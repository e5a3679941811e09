//! wireguard-go, the userspace WireGuard, configured with the `wg` tool.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{End, Setup, Tunnel, Vpn, inner_addresses};
use crate::lab::error::{LabError, Result};
use crate::lab::hosts::{self, Host};
use crate::lab::process::Program;
use crate::lab::{netlink, netns, wait};

const PORT: u16 = 51820;
/// WireGuard's usual: room for its 80 bytes over IPv6 in a 1500-byte packet.
const MTU: u32 = 1420;
const START_LIMIT: Duration = Duration::from_secs(10);

struct Keys {
    private: PathBuf,
    public: String,
}

/// Starts and joins both ends.
pub(super) fn start(setup: &mut Setup<'_>) -> Result<Tunnel> {
    if !Path::new("/dev/net/tun").exists() {
        return Err(LabError::Skipped(
            "/dev/net/tun not found (modprobe tun)".to_owned(),
        ));
    }
    let hosts = setup.hosts;
    let b = start_end(setup, &hosts.b, 2)?;
    let a = start_end(setup, &hosts.a, 1)?;
    let a_keys = keys(setup, "a")?;
    let b_keys = keys(setup, "b")?;
    configure(&hosts.b, &b, &b_keys, &a_keys.public, &hosts.a, &a)?;
    configure(&hosts.a, &a, &a_keys, &b_keys.public, &hosts.b, &b)?;
    for (host, end) in [(&hosts.b, &b), (&hosts.a, &a)] {
        let addresses = hosts::addresses(end.ipv4, end.ipv6);
        netlink::bring_up(&host.netns, &end.device, Some(MTU), &addresses)?;
    }
    Ok(Tunnel {
        vpn: Vpn::WireguardGo,
        a,
        b,
    })
}

fn start_end(setup: &mut Setup<'_>, host: &Host, number: u8) -> Result<End> {
    let side = if number == 1 { "a" } else { "b" };
    // The control socket is in the file system, not in the namespace: names must be unique.
    let device = format!("wg{}{side}", setup.id);
    let socket = PathBuf::from(format!("/var/run/wireguard/{device}.sock"));
    setup.undo.expect_file(&socket)?;
    let daemon = setup.undo.start(&Program {
        name: "wireguard-go",
        arguments: &["-f", &device],
        netns: &host.netns,
        log: setup.logs.join(format!("wireguard-go-{side}.log")),
    })?;
    wait::until(
        "wireguard-go's control socket and device",
        START_LIMIT,
        &[&daemon],
        || {
            let answers = UnixStream::connect(&socket).is_ok();
            Ok((answers && netlink::exists(&host.netns, &device)?).then_some(()))
        },
    )?;
    let (ipv4, ipv6) = inner_addresses(number, host);
    Ok(End {
        device,
        ipv4,
        ipv6,
        daemon: Some(daemon),
    })
}

/// A fresh key pair; the private half goes into a file only root can read.
fn keys(setup: &Setup<'_>, side: &str) -> Result<Keys> {
    let private = setup.undo.directory().join(format!("wireguard-{side}.key"));
    let key = wg(Command::new("wg").arg("genkey"), "")?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&private)
        .map_err(LabError::file("creating", &private))?;
    file.write_all(key.as_bytes())
        .map_err(LabError::file("writing", &private))?;
    let key = fs::read_to_string(&private).map_err(LabError::file("reading", &private))?;
    let public = wg(Command::new("wg").arg("pubkey"), &key)?
        .trim()
        .to_owned();
    Ok(Keys { private, public })
}

fn configure(
    host: &Host,
    end: &End,
    own: &Keys,
    peer_key: &str,
    peer_host: &Host,
    peer: &End,
) -> Result<()> {
    let mut allowed = format!("{}/32", peer.ipv4);
    if let Some(ipv6) = peer.ipv6 {
        allowed.push_str(&format!(",{ipv6}/128"));
    }
    let mut command = netns::command(&host.netns, "wg")
        .map_err(LabError::file("entering namespace", &host.netns))?;
    command.args([
        "set",
        &end.device,
        "listen-port",
        &PORT.to_string(),
        "private-key",
    ]);
    command.arg(&own.private).args(["peer", peer_key]);
    command.args([
        "endpoint",
        &format!("{}:{PORT}", peer_host.ipv4),
        "allowed-ips",
        &allowed,
    ]);
    wg(&mut command, "").map(drop)
}

/// Runs `wg` with `input` on its standard input.
fn wg(command: &mut Command, input: &str) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => LabError::Skipped("wg not found".to_owned()),
            _ => LabError::failed("starting", "wg")(error),
        })?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin
            .write_all(input.as_bytes())
            .map_err(LabError::failed("writing to", "wg"))?;
    }
    let output = child
        .wait_with_output()
        .map_err(LabError::failed("running", "wg"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(LabError::failed("configuring", "wireguard-go with wg")(
        message,
    ))
}
