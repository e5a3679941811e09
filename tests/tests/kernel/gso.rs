//! Super-packets through TUN devices with `IFF_VNET_HDR`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use anyhow::{Result, ensure};
use vpnbench_common::catalog::Tap;
use vpnbench_tests::tun;

use crate::forwarder::{Fate, Forwarder};
use crate::hosts::Family;
use crate::recorder::record;
use crate::retransmits::joined;
use crate::traffic::{flood, iperf3, local};
use crate::tunnel::tunnel_device;

/// Units, segments and bytes of both accounts.
type Pair = ([u64; 3], [u64; 3]);

/// `TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6`
const OFFLOADS: u32 = 1 | 2 | 4;
/// `struct virtio_net_hdr`
const VNET_HEADER: usize = 10;

/// What the test itself read from one device and wrote to the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    units: u64,
    bytes: u64,
    segments: u64,
}

impl Count {
    fn row(self) -> [u64; 3] {
        [self.units, self.bytes, self.segments]
    }
}

pub(crate) fn super_packets(family: Family) -> Result<()> {
    let ([a, b], devices) = joined(family, libc::IFF_VNET_HDR)?;
    for device in &devices {
        tun::offload(device, OFFLOADS)?;
    }
    let counts: Arc<Mutex<[Count; 2]>> = Arc::default();
    let counting = Arc::clone(&counts);
    let header = family.header() as usize;
    let path = Forwarder::start(
        devices,
        Box::new(move |direction, read| {
            if let Ok(mut counts) = counting.lock() {
                let count = &mut counts[direction];
                count.units += 1;
                count.bytes += (read.len() - VNET_HEADER) as u64;
                count.segments += segments(read, header) as u64;
            }
            Fate::Pass
        }),
    )?;
    let to = family.address(98, 2);
    let sender = a.udp(family.address(98, 1), 0)?;
    let target = local(&b.udp(to, 0)?)?;
    let arguments = [
        "--netns",
        a.name(),
        "--netns",
        b.name(),
        "--tun",
        tunnel_device(),
    ];
    let recorded = record(&[&a, &b], &arguments, || {
        if let Ok(mut counts) = counts.lock() {
            *counts = Default::default();
        }
        flood(&sender, target, 100, 1000)?;
        iperf3(&a, &b, to, 64 << 20)?;
        Ok(())
    })?;
    path.finish()?;
    let counts = counts.lock().map(|counts| *counts).unwrap_or_default();
    ensure!(
        counts[0].segments > 2 * counts[0].units,
        "no super-packets: {counts:?}"
    );
    let mut rows: BTreeMap<Tap, Vec<Pair>> = BTreeMap::new();
    for (index, [from, at]) in [[&a, &b], [&b, &a]].into_iter().enumerate() {
        let own = counts[index];
        let link = recorded.accounts[index].link(tunnel_device())?;
        ensure!(
            (own.units, own.bytes) == (link.tx_packets, link.tx_bytes),
            "{own:?}, {link:?}"
        );
        ensure!(link.tx_dropped == 0, "{link:?}");
        for (host, tap) in [
            (from, Tap::TunTx),
            (from, Tap::TunRead),
            (at, Tap::TunWrite),
        ] {
            let row = recorded.row(host, tunnel_device(), tap).cloned();
            let seen = row.map(|row| Count {
                units: row.units,
                bytes: row.bytes.unwrap_or(0),
                segments: row.segments,
            });
            let seen = seen.unwrap_or_default();
            rows.entry(tap).or_default().push((seen.row(), own.row()));
        }
        crate::say(&format!(
            "  {} units, {} segments, {} bytes at tun.tx, tun.read and tun.write",
            own.units, own.segments, own.bytes
        ));
    }
    for (tap, rows) in &rows {
        recorded.agree(*tap, tunnel_device(), rows)?;
    }
    Ok(())
}

/// Wire segments of a unit, by its `virtio_net_hdr` and its TCP header.
fn segments(read: &[u8], header: usize) -> usize {
    let size = usize::from(u16::from_ne_bytes([read[4], read[5]]));
    if read[1] == 0 || size == 0 {
        return 1;
    }
    let tcp = &read[VNET_HEADER + header..];
    let payload = tcp.len() - usize::from(tcp[12] >> 4) * 4;
    payload.div_ceil(size)
}
