//! A wire without a tunnel.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};

use anyhow::{Context, Result, anyhow, ensure};
use vpnbench_common::catalog::Tap;
use vpnbench_tests::tcp::{self, Counted};

use crate::hosts::{Family, Host, wire, wired};
use crate::recorder::{Recorded, Row, record};
use crate::traffic::{flood, local, ping};

/// Bytes that are sent over TCP.
const TRANSFER: u64 = 64 << 20;

pub(crate) fn veth(family: Family) -> Result<()> {
    let [a, b] = wired(family)?;
    let (from, to) = (family.address(99, 1), family.address(99, 2));
    let sender = a.udp(from, 0)?;
    let receiver = b.udp(to, 0)?;
    let target: SocketAddr = local(&receiver)?;
    let mut counted = None;
    let recorded = record(
        &[&a, &b],
        &["--netns", a.name(), "--netns", b.name(), "--outer", wire()],
        || {
            // Beyond 1472 bytes they are fragmented.
            flood(&sender, target, 20_000, 1600)?;
            ping(&a, to)?;
            counted = Some(transfer(&a, &b, to)?);
            Ok(())
        },
    )?;
    let mut figures = Vec::new();
    let mut rows: BTreeMap<Tap, Vec<Row<2>>> = BTreeMap::new();
    for (host, account) in [&a, &b].into_iter().zip(&recorded.accounts) {
        let link = account.link(wire())?;
        ensure!(link.tx_dropped == 0 && link.rx_dropped == 0, "{link:?}");
        for (tap, counted) in [
            (Tap::OuterTx, [link.tx_packets, link.tx_bytes]),
            (Tap::OuterRx, [link.rx_packets, link.rx_bytes]),
        ] {
            let (tapped, summed) = (recorded.tap(host, wire(), tap), recorded.summed(host, tap));
            let seen = recorded.seen(host, wire(), tap)?;
            ensure!(
                tapped == summed && seen == summed,
                "{}: tap {tapped:?}, events {summed:?}, seen {seen:?}",
                tap.name(),
            );
            rows.entry(tap).or_default().push((seen.into(), counted));
            figures.push(format!(
                "{} {} packets {} bytes",
                tap.name(),
                counted[0],
                counted[1]
            ));
        }
        recorded.same_counters(host, wire(), link)?;
    }
    for (tap, rows) in &rows {
        recorded.agree(*tap, wire(), rows)?;
    }
    // Everything that enters the qdisc is handed to the driver: nothing in between segments.
    let queued = recorded.tap(&a, wire(), Tap::OuterQueue);
    ensure!(
        queued == recorded.tap(&a, wire(), Tap::OuterTx) || !recorded.hidden.is_empty(),
        "{queued:?}"
    );
    let figure = connection(&recorded, &a, counted.context("no transfer")?)?;
    crate::say(&format!("  {}; {figure}", figures.join(", ")));
    Ok(())
}

/// Sends over TCP from a to b; the sender's address and the kernel's account of the connection.
fn transfer(a: &Host, b: &Host, to: IpAddr) -> Result<(SocketAddr, Counted)> {
    let listener = b.run(move || TcpListener::bind(SocketAddr::new(to, 0)))?;
    let target = listener.local_addr()?;
    let receiver = std::thread::spawn(move || tcp::receive(listener.accept()?.0, TRANSFER));
    let stream = a.run(move || TcpStream::connect(target))?;
    let counted = tcp::send(stream, TRANSFER)?;
    receiver.join().map_err(|_| anyhow!("receiving"))??;
    Ok(counted)
}

/// Holds the data packets of the connection against the kernel's account of it.
fn connection(
    recorded: &Recorded,
    a: &Host,
    (from, counted): (SocketAddr, Counted),
) -> Result<String> {
    let packets = recorded.events.at(a, Tap::OuterTx);
    let data = packets.filter(|packet| {
        packet.ip_proto == 6 && packet.sport == from.port() && packet.payload_len > 0
    });
    let (mut bytes, mut segments, mut largest) = (0, 0, 0);
    for packet in data {
        bytes += u64::from(packet.payload_len);
        segments += u64::from(packet.segments());
        largest = largest.max(packet.segments());
    }
    ensure!(
        counted.bytes_sent - counted.bytes_retrans == TRANSFER,
        "{counted:?}"
    );
    let exact = (bytes, segments) == (counted.bytes_sent, counted.data_segs_out);
    let fewer = bytes < counted.bytes_sent && segments < counted.data_segs_out;
    ensure!(
        exact || (fewer && !recorded.hidden.is_empty()),
        "{counted:?}, seen {bytes} bytes in {segments} segments"
    );
    ensure!(largest > 1, "no super-packet among them");
    Ok(format!(
        "TCP sent {bytes} bytes in {segments} segments, {} bytes of them again",
        counted.bytes_retrans
    ))
}
