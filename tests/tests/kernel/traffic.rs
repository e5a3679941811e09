//! Traffic that tests make.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use vpnbench_tests::netns::{Process, wait_for};

use crate::hosts::Host;

/// Datagrams of sizes from nothing to `largest`; returns the bytes of payload sent.
pub(crate) fn flood(
    socket: &UdpSocket,
    to: SocketAddr,
    count: usize,
    largest: usize,
) -> Result<u64> {
    let payload = vec![0x55; largest];
    let mut bytes = 0;
    for number in 0..count {
        let size = number * 7919 % (largest + 1);
        socket.send_to(&payload[..size], to)?;
        bytes += size as u64;
    }
    Ok(bytes)
}

/// Ten echo requests and their replies.
pub(crate) fn ping(from: &Host, to: std::net::IpAddr) -> Result<()> {
    from.namespace
        .exec(&format!("ping -q -c 10 -i 0.01 -W 2 {to}"))?;
    Ok(())
}

/// A TCP transfer by iperf3 of a number of bytes; its own result.
pub(crate) fn iperf3(from: &Host, at: &Host, to: std::net::IpAddr, bytes: u64) -> Result<Value> {
    let _server = server(at)?;
    let text = from
        .namespace
        .exec(&format!("iperf3 -J -c {to} -n {bytes}"))?;
    Ok(serde_json::from_str(&text)?)
}

/// An iperf3 server that listens.
pub(crate) fn server(at: &Host) -> Result<Process> {
    let server = at.namespace.spawn("iperf3 -s -1")?;
    let listening = wait_for(Duration::from_secs(5), || {
        let tables = at.run(|| {
            ["tcp", "tcp6"].map(|name| {
                std::fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default()
            })
        });
        // Port 5201 in the state LISTEN.
        tables.iter().flat_map(|table| table.lines()).any(|line| {
            let mut words = line.split_whitespace().skip(1);
            let local = words.next().is_some_and(|local| local.ends_with(":1451"));
            local && words.nth(1) == Some("0A")
        })
    });
    ensure!(listening, "iperf3 does not listen");
    Ok(server)
}

/// Waits until a host answers: a tunnel has come up.
pub(crate) fn reachable(from: &Host, to: std::net::IpAddr) -> Result<()> {
    let answered = wait_for(Duration::from_secs(10), || {
        from.namespace
            .exec(&format!("ping -q -c 1 -W 1 {to}"))
            .is_ok()
    });
    ensure!(answered, "{to} does not answer");
    Ok(())
}

/// Local address of a socket.
pub(crate) fn local(socket: &UdpSocket) -> Result<SocketAddr> {
    socket.local_addr().context("no local address")
}
