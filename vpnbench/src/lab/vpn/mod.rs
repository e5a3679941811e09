//! Tunnels between the two hosts, one file per daemon.

mod none;
mod wireguard_go;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::{LabError, Result};
use super::hosts::{Host, Hosts};
use super::process::Process;
use super::undo::Undo;
use super::{netlink, netns, wait};

/// How long a tunnel has until it carries packets.
const CARRY_LIMIT: Duration = Duration::from_secs(15);

/// The tunnels the lab can set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Vpn {
    /// The bare wire.
    None,
    /// wireguard-go on both ends.
    WireguardGo,
}

impl Vpn {
    /// All of them.
    pub const ALL: [Vpn; 2] = [Vpn::None, Vpn::WireguardGo];

    /// Name on the command line and in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Vpn::None => "none",
            Vpn::WireguardGo => "wireguard-go",
        }
    }
}

impl FromStr for Vpn {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Vpn, String> {
        let found = Vpn::ALL.into_iter().find(|vpn| vpn.name() == text);
        let names = Vpn::ALL.map(Vpn::name).join(", ");
        found.ok_or_else(|| format!("no VPN {text:?}; there are: {names}"))
    }
}

/// One end of a tunnel.
#[derive(Debug, Clone)]
pub struct End {
    /// The tunnel device, or the wire's where there is no tunnel.
    pub device: String,
    /// Address inside the tunnel.
    pub ipv4: Ipv4Addr,
    /// Address inside the tunnel, where the kernel has IPv6.
    pub ipv6: Option<Ipv6Addr>,
    /// The daemon, where there is one.
    pub daemon: Option<Process>,
}

/// A tunnel that carries packets.
#[derive(Debug, Clone)]
pub struct Tunnel {
    /// Which.
    pub vpn: Vpn,
    /// The client's end.
    pub a: End,
    /// The server's end.
    pub b: End,
}

/// What an adapter gets.
pub(crate) struct Setup<'a> {
    pub(crate) id: &'a str,
    pub(crate) hosts: &'a Hosts,
    pub(crate) undo: &'a mut Undo,
    /// Where daemons write their logs.
    pub(crate) logs: PathBuf,
}

/// Brings a tunnel up and waits until it carries packets both ways.
pub(crate) fn start(vpn: Vpn, mut setup: Setup<'_>) -> Result<Tunnel> {
    let tunnel = match vpn {
        Vpn::None => none::start(setup.hosts),
        Vpn::WireguardGo => wireguard_go::start(&mut setup)?,
    };
    wait_until_it_carries(setup.hosts, &tunnel)?;
    Ok(tunnel)
}

/// Address inside the tunnel of host 1 (a) or 2 (b).
fn inner_addresses(number: u8, host: &Host) -> (Ipv4Addr, Option<Ipv6Addr>) {
    let ipv6 = Ipv6Addr::new(0xfd00, 0x98, 0, 0, 0, 0, 0, number.into());
    (Ipv4Addr::new(10, 98, 0, number), host.ipv6.map(|_| ipv6))
}

/// An answer alone proves little: with another route to the peer's address the kernel would take
/// that. So the route must start at the tunnel's own address, and both devices must count bytes.
fn wait_until_it_carries(hosts: &Hosts, tunnel: &Tunnel) -> Result<()> {
    let daemons: Vec<&Process> = [&tunnel.a, &tunnel.b]
        .into_iter()
        .filter_map(|end| end.daemon.as_ref())
        .collect();
    let a_before = netlink::counters(&hosts.a.netns, &tunnel.a.device)?;
    let b_before = netlink::counters(&hosts.b.netns, &tunnel.b.device)?;
    wait::until(
        "the tunnel to carry packets both ways",
        CARRY_LIMIT,
        &daemons,
        || {
            let answered = netns::run_in(&hosts.a.netns, || knock(tunnel.a.ipv4, tunnel.b.ipv4))?;
            let a = netlink::counters(&hosts.a.netns, &tunnel.a.device)?;
            let b = netlink::counters(&hosts.b.netns, &tunnel.b.device)?;
            let counted = a.sent > a_before.sent && a.received > a_before.received;
            let counted = counted && b.received > b_before.received && b.sent > b_before.sent;
            Ok((answered && counted).then_some(()))
        },
    )
}

/// Sends a datagram to a closed port and waits a moment for the peer's "port unreachable".
fn knock(from: Ipv4Addr, to: Ipv4Addr) -> Result<bool> {
    /// The discard port; nothing in a fresh namespace listens there.
    const PORT: u16 = 9;
    let failed = || LabError::failed::<io::Error>("sending a probe to", to);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(failed())?;
    if socket.connect((to, PORT)).is_err() {
        return Ok(false); // no route yet
    }
    // The kernel chose this address with the route; on another device it would be another one.
    if socket.local_addr().map_err(failed())?.ip() != SocketAddr::from((from, 0)).ip() {
        return Ok(false);
    }
    socket
        .set_read_timeout(Some(Duration::from_millis(100)))
        .map_err(failed())?;
    if socket.send(b"vpnbench").is_err() {
        return Ok(false);
    }
    let answer = socket.recv(&mut [0; 16]);
    Ok(answer.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused))
}
