//! `wireguard-go`, the reference daemon: keys, start, peers.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::netns::{Namespace, Process, connect, unique, wait_for};

/// One end: a running daemon with its device up.
#[derive(Debug)]
pub struct End {
    /// Device name, different on every end: the daemons' sockets share one directory.
    pub device: String,
    /// UDP port.
    pub port: u16,
    private: String,
    public: String,
    daemon: Process,
}

impl End {
    /// Starts a daemon in a namespace.
    pub fn start(namespace: &Namespace, port: u16, address: &str) -> Result<Self> {
        let device = unique("w");
        let private = wg(&["genkey"], "")?;
        let public = wg(&["pubkey"], &private)?;
        let daemon = namespace.spawn(&format!("wireguard-go -f {device}"))?;
        let end = Self {
            device,
            port,
            private,
            public,
            daemon,
        };
        end.configure(namespace, address)?;
        Ok(end)
    }

    /// Process id of the daemon.
    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// Path of the daemon's control socket.
    fn control(&self) -> PathBuf {
        format!("/var/run/wireguard/{}.sock", self.device).into()
    }

    fn configure(&self, namespace: &Namespace, address: &str) -> Result<()> {
        let control = self.control();
        // The file is there a moment before anyone listens.
        if !wait_for(Duration::from_secs(5), || {
            UnixStream::connect(&control).is_ok()
        }) {
            bail!("wireguard-go did not open {}", control.display());
        }
        let (device, port) = (&self.device, self.port.to_string());
        wg(
            &[
                "set",
                device,
                "listen-port",
                &port,
                "private-key",
                "/dev/stdin",
            ],
            &self.private,
        )?;
        namespace.ip(&format!("addr add {address} dev {device}"))?;
        namespace.ip(&format!("link set {device} mtu 1420 up"))?;
        Ok(())
    }

    /// Adds the other end as a peer.
    pub fn peer(&self, other: &Self, endpoint: &str, allowed: &str) -> Result<()> {
        let device = &self.device;
        wg(
            &[
                "set",
                device,
                "peer",
                &other.public,
                "endpoint",
                endpoint,
                "allowed-ips",
                allowed,
            ],
            "",
        )?;
        Ok(())
    }

    /// Ends the daemon; its device goes with it.
    pub fn stop(&mut self) {
        self.daemon.stop();
        // Left over only if the daemon did not end in order.
        let _ = std::fs::remove_file(self.control());
    }

    /// Starts the daemon again under the same device name.
    pub fn restart(&mut self, namespace: &Namespace, address: &str) -> Result<()> {
        self.stop();
        self.daemon = namespace.spawn(&format!("wireguard-go -f {}", self.device))?;
        self.configure(namespace, address)
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Two namespaces with a wire and a tunnel: 10.99.0.1/2 outside, 10.98.0.1/2 inside.
#[derive(Debug)]
pub struct Pair {
    // Daemons end before their namespaces are deleted: fields are dropped in this order.
    /// The daemon in `a`.
    pub wg_a: End,
    /// The daemon in `b`.
    pub wg_b: End,
    /// Namespace with address 1.
    pub a: Namespace,
    /// Namespace with address 2.
    pub b: Namespace,
}

impl Pair {
    /// Sets it all up.
    pub fn new() -> Result<Self> {
        let (a, b) = (Namespace::new()?, Namespace::new()?);
        connect(&a, &b)?;
        let wg_a = End::start(&a, 51820, "10.98.0.1/24")?;
        let wg_b = End::start(&b, 51820, "10.98.0.2/24")?;
        wg_a.peer(&wg_b, "10.99.0.2:51820", "10.98.0.2/32")?;
        wg_b.peer(&wg_a, "10.99.0.1:51820", "10.98.0.1/32")?;
        Ok(Self { wg_a, wg_b, a, b })
    }
}

fn wg(arguments: &[&str], input: &str) -> Result<String> {
    let mut child = Command::new("wg")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start wg")?;
    let mut stdin = child.stdin.take().context("wg has no input")?;
    stdin.write_all(input.as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!(
            "wg {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
