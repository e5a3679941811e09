//! A wire without a tunnel.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Result, ensure};
use vpnbench_common::catalog::Tap;

use crate::hosts::{Family, WIRE, wired};
use crate::recorder::record;
use crate::traffic::{flood, iperf3, local, number, ping};

/// Bytes that iperf3 sends.
const TRANSFER: u64 = 64 << 20;
/// Bytes that iperf3 sends in front of the data: the cookie of the test.
const COOKIE: u64 = 37;

pub(crate) fn veth(family: Family) -> Result<()> {
    let [a, b] = wired(family)?;
    let (from, to) = (family.address(99, 1), family.address(99, 2));
    let sender = a.udp(from, 0)?;
    let receiver = b.udp(to, 0)?;
    let target: SocketAddr = local(&receiver)?;
    let mut result = None;
    let recorded = record(
        &[&a, &b],
        &["--netns", a.name(), "--netns", b.name(), "--outer", WIRE],
        || {
            // Beyond 1472 bytes they are fragmented.
            flood(&sender, target, 20_000, 1600)?;
            ping(&a, to)?;
            result = Some(iperf3(&a, &b, to, TRANSFER)?);
            Ok(())
        },
    )?;
    let mut figures = Vec::new();
    for (host, account) in [&a, &b].into_iter().zip(&recorded.accounts) {
        let link = account.link(WIRE)?;
        ensure!(link.tx_dropped == 0 && link.rx_dropped == 0, "{link:?}");
        for (tap, expected) in [
            (Tap::OuterTx, (link.tx_packets, link.tx_bytes)),
            (Tap::OuterRx, (link.rx_packets, link.rx_bytes)),
        ] {
            let (tapped, summed) = (recorded.tap(host, WIRE, tap), recorded.summed(host, tap));
            let seen = recorded.seen(host, WIRE, tap)?;
            ensure!(
                tapped == expected && summed == expected && seen == expected,
                "{}: counted {expected:?}, tap {tapped:?}, events {summed:?}, seen {seen:?}; {:?}",
                tap.name(),
                recorded.report.capture.probes
            );
            figures.push(format!(
                "{} {} packets {} bytes",
                tap.name(),
                expected.0,
                expected.1
            ));
        }
        recorded.same_counters(host, WIRE, link)?;
    }
    // Everything that enters the qdisc is handed to the driver: nothing in between segments.
    let queued = recorded.tap(&a, WIRE, Tap::OuterQueue);
    ensure!(queued == recorded.tap(&a, WIRE, Tap::OuterTx), "{queued:?}");
    // The data connection, by iperf3's own count.
    let mut connections: BTreeMap<u16, (u64, u64)> = BTreeMap::new();
    let tcp = recorded.events.at(&a, Tap::OuterTx);
    for packet in tcp.filter(|packet| packet.ip_proto == 6 && packet.dport == 5201) {
        let sums = connections.entry(packet.sport).or_default();
        sums.0 += u64::from(packet.payload_len);
        sums.1 = sums.1.max(u64::from(packet.gso_segs));
    }
    let (bytes, largest) = connections.into_values().max().unwrap_or_default();
    let result = result.unwrap_or_default();
    let sent = number(&result, "/end/sum_sent/bytes")?;
    let received = number(&result, "/end/sum_received/bytes")?;
    // iperf3 ends without waiting for what it has given to the kernel. The upper bound is not
    // right yet: more than one block above its count was seen, unexplained so far.
    ensure!(
        (received..=sent + (128 << 10)).contains(&(bytes - COOKIE)),
        "iperf3 sent {sent}, received {received}, seen {bytes}"
    );
    ensure!(largest > 1, "no super-packet among them");
    crate::say(&format!("  {}; iperf3 {sent} bytes", figures.join(", ")));
    Ok(())
}
