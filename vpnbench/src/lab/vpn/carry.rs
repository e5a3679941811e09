//! When a tunnel counts as up: it carries packets both ways between every two hosts.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
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
            let mut kept = None;
            let what = "the tunnel to carry packets both ways";
            wait::until(what, limit, &daemons, || {
                let answered = netns::run_in(&near.0.netns, || {
                    knock(&mut kept, near.1.address(), far.1.address())
                })?;
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

/// Sends a datagram to a closed port and waits a moment for the peer's "port unreachable". The answer
/// may be that to an earlier one, over a long way: the socket is kept.
fn knock(kept: &mut Option<UdpSocket>, from: IpAddr, to: IpAddr) -> Result<bool> {
    let opened = match kept.take() {
        Some(socket) => Some(socket),
        None => open(from, to).map_err(LabError::failed("preparing a probe to", to))?,
    };
    let Some(socket) = opened else {
        return Ok(false);
    };
    let refused = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    if let Err(error) = socket.send(b"vpnbench") {
        // That is the answer to an earlier one, or the route is gone.
        return Ok(refused(&error));
    }
    let answer = socket.recv(&mut [0; 16]);
    *kept = Some(socket);
    Ok(answer.is_err_and(|error| refused(&error)))
}

/// A socket to the peer; None while the route does not start at this address.
fn open(from: IpAddr, to: IpAddr) -> io::Result<Option<UdpSocket>> {
    /// The discard port; nothing in a fresh namespace listens there.
    const PORT: u16 = 9;
    let any: IpAddr = match to {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    if socket.connect((to, PORT)).is_err() {
        return Ok(None); // no route yet
    }
    // The kernel chose this address with the route; on another device it would be another one.
    if socket.local_addr()?.ip() != from {
        return Ok(None);
    }
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    Ok(Some(socket))
}
