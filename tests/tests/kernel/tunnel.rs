//! TAP and TUN devices that the test itself reads and writes.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;

use anyhow::{Result, bail, ensure};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use vpnbench_common::catalog::Tap;
use vpnbench_tests::netns::unique;
use vpnbench_tests::tun;

use crate::accounts::settled;
use crate::frames;
use crate::hosts::{Family, Host};
use crate::recorder::record;
use crate::traffic::flood;

/// The device, by a name that nobody else on the machine uses.
pub(crate) fn tunnel_device() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| unique("t"))
}
/// Hardware address of the TAP device.
pub(crate) const OWN: [u8; 6] = [2, 0, 0, 0, 0x62, 1];
/// Hardware address behind it.
pub(crate) const OTHER: [u8; 6] = [2, 0, 0, 0, 0x62, 2];

/// Packets in each direction.
const COUNT: usize = 4000;
/// Packets of the burst that nobody reads meanwhile.
const BURST: usize = 1000;
/// Room in the queue during the burst.
const QUEUE: usize = 50;

pub(crate) fn text(address: [u8; 6]) -> String {
    address.map(|byte| format!("{byte:02x}")).join(":")
}

/// Opens a device with address 1 of network 98, and a known neighbour 2 behind it.
pub(crate) fn open(host: &Host, family: Family, ethernet: bool) -> Result<File> {
    let device = if ethernet {
        tun::open_tap(&host.netns, tunnel_device())?
    } else {
        tun::open(&host.netns, tunnel_device(), 0, 1)?.remove(0)
    };
    if ethernet {
        host.ip(&format!(
            "link set {} address {}",
            tunnel_device(),
            text(OWN)
        ))?;
    }
    host.up(tunnel_device(), family, 98, 1)?;
    if ethernet {
        host.neighbour(tunnel_device(), family.address(98, 2), &text(OTHER))?;
    }
    fcntl(&device, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    host.wait_until_up(tunnel_device())?;
    // What the kernel sent when the device came up.
    settled(&[host])?;
    drain(&device, |_| ())?;
    Ok(device)
}

/// Reads everything that is queued: packets and bytes.
pub(crate) fn drain(mut device: &File, mut each: impl FnMut(&[u8])) -> Result<(u64, u64)> {
    let mut buffer = vec![0; 66_000];
    let (mut packets, mut bytes) = (0, 0);
    loop {
        match device.read(&mut buffer) {
            Ok(length) => {
                packets += 1;
                bytes += length as u64;
                each(&buffer[..length]);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok((packets, bytes)),
            Err(error) => bail!("read: {error}"),
        }
    }
}

pub(crate) fn tap(family: Family) -> Result<()> {
    exact(family, true)
}

pub(crate) fn tun(family: Family) -> Result<()> {
    exact(family, false)
}

fn exact(family: Family, ethernet: bool) -> Result<()> {
    let host = Host::new(family)?;
    let device = open(&host, family, ethernet)?;
    let (own, other) = (family.address(98, 1), family.address(98, 2));
    let socket = host.udp(own, 0)?;
    let _sink = host.udp(own, 4000)?;
    let target = SocketAddr::new(other, 4000);
    let (mut read, mut written) = ((0, 0), (0, 0));
    let mut dropped = 0;
    let recorded = record(
        &[&host],
        &["--netns", host.name(), "--tun", tunnel_device()],
        || {
            // In handfuls that fit the queue.
            for _ in 0..COUNT / 40 {
                flood(&socket, target, 40, 1400)?;
                add(&mut read, drain(&device, |_| ())?);
            }
            for number in 0..COUNT {
                let frame = datagram(other, own, number * 6007 % 1400, ethernet)?;
                (&device).write_all(&frame)?;
                add(&mut written, (1, frame.len() as u64));
            }
            let before = read;
            host.ip(&format!("link set {} txqueuelen {QUEUE}", tunnel_device()))?;
            flood(&socket, target, BURST, 1400)?;
            add(&mut read, drain(&device, |_| ())?);
            dropped = BURST as u64 - (read.0 - before.0);
            Ok(())
        },
    )?;
    let link = recorded.accounts[0].link(tunnel_device())?;
    ensure!(
        dropped >= (BURST - QUEUE) as u64 && dropped == link.tx_dropped,
        "{dropped}, {link:?}"
    );
    ensure!(
        read == (link.tx_packets, link.tx_bytes),
        "read {read:?}, {link:?}"
    );
    ensure!(
        written == (link.rx_packets, link.rx_bytes),
        "written {written:?}, {link:?}"
    );
    recorded.same_counters(&host, tunnel_device(), link)?;
    for (tap, expected) in [(Tap::TunRead, read), (Tap::TunWrite, written)] {
        let seen = recorded.seen(&host, tunnel_device(), tap)?;
        ensure!(
            seen == expected,
            "{}: {expected:?}, seen {seen:?}",
            tap.name()
        );
    }
    let summed = recorded.summed(&host, Tap::TunWrite);
    ensure!(
        summed == written,
        "tun.write events {summed:?}, {written:?}"
    );
    let handed = recorded.tap(&host, tunnel_device(), Tap::TunTx);
    ensure!(
        handed.0 == read.0 + dropped,
        "tun.tx {handed:?}, read {read:?}"
    );
    let full = recorded.drops(&host, "FULL_RING");
    ensure!(
        (full.0, handed.1) == (dropped, read.1 + full.1),
        "FULL_RING {full:?}, dropped {dropped}, tun.tx {handed:?}, read {read:?}"
    );
    let losses = recorded
        .report
        .losses
        .iter()
        .filter(|loss| loss.reason == "FULL_RING");
    ensure!(
        losses.map(|loss| loss.units).sum::<u64>() == dropped,
        "{:?}",
        recorded.report.losses
    );
    crate::say(&format!(
        "  tun.read {} packets {} bytes, tun.write {} packets {} bytes, dropped {dropped}",
        read.0, read.1, written.0, written.1
    ));
    Ok(())
}

fn add(sum: &mut (u64, u64), more: (u64, u64)) {
    *sum = (sum.0 + more.0, sum.1 + more.1);
}

fn datagram(from: IpAddr, to: IpAddr, size: usize, ethernet: bool) -> Result<Vec<u8>> {
    let frame = frames::udp(from, to, &vec![0xaa; size])?;
    Ok(if ethernet {
        frame
    } else {
        frame[14..].to_vec()
    })
}
