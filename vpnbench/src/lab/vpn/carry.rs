//! When a tunnel counts as up: it carries packets both ways between every two hosts.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use super::{End, Tunnel};
use crate::lab::error::{LabError, Result};
use crate::lab::hosts::Host;
use crate::lab::netlink::{self, Counters};
use crate::lab::process::Process;
use crate::lab::{netns, wait};

/// Waits until a datagram and its answer cross the tunnel between every two hosts.
///
/// An answer alone proves little: with another route to the peer's address the kernel would take
/// that. So the route must start at the tunnel's own address, and both devices must count bytes.
pub(super) fn wait(hosts: &[&Host], tunnel: &Tunnel, limit: Duration) -> Result<()> {
    let ends: Vec<(&&Host, &End)> = hosts.iter().zip(tunnel.ends()).collect();
    let daemons: Vec<&Process> = tunnel
        .ends()
        .filter_map(|end| end.daemon.as_ref())
        .collect();
    for (index, near) in ends.iter().enumerate() {
        for far in &ends[index + 1..] {
            let before = (counters(near)?, counters(far)?);
            let what = "the tunnel to carry packets both ways";
            wait::until(what, limit, &daemons, || {
                let answered =
                    netns::run_in(&near.0.netns, || knock(near.1.address(), far.1.address()))?;
                let counted = moved(before.0, counters(near)?) && moved(before.1, counters(far)?);
                Ok((answered && counted).then_some(()))
            })?;
        }
    }
    Ok(())
}

fn counters((host, end): &(&&Host, &End)) -> Result<Counters> {
    netlink::counters(&host.netns, &end.device)
}

fn moved(before: Counters, now: Counters) -> bool {
    now.sent > before.sent && now.received > before.received
}

/// Sends a datagram to a closed port and waits a moment for the peer's "port unreachable".
fn knock(from: IpAddr, to: IpAddr) -> Result<bool> {
    /// The discard port; nothing in a fresh namespace listens there.
    const PORT: u16 = 9;
    let failed = || LabError::failed::<io::Error>("sending a probe to", to);
    let any: IpAddr = match to {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).map_err(failed())?;
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
