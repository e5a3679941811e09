//! A socket that never reads.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use nix::sys::socket::{setsockopt, sockopt};

use crate::hosts::{Family, wire, wired};
use crate::recorder::record;
use crate::traffic::{flood, local};

const COUNT: usize = 3000;

pub(crate) fn receive_overflow(family: Family) -> Result<()> {
    let [a, b] = wired(family)?;
    let sender = a.udp(family.address(99, 1), 0)?;
    let receiver = b.udp(family.address(99, 2), 0)?;
    setsockopt(&receiver, sockopt::RcvBuf, &20_000)?;
    let target: SocketAddr = local(&receiver)?;
    let recorded = record(
        &[&a, &b],
        &["--netns", a.name(), "--netns", b.name(), "--outer", wire()],
        || flood(&sender, target, COUNT, 1400).map(drop),
    )?;
    let name = match family {
        Family::V4 => "UdpRcvbufErrors",
        Family::V6 => "Udp6RcvbufErrors",
    };
    let kernel = recorded.accounts[1].counter(name)?;
    let full = recorded.events.sock_drops.iter().filter(|drop| {
        drop.netns == b.inum()
            && drop.error == -12
            && (drop.lport, drop.ip_version) == (target.port(), family.version())
            && drop.rcvbuf == 40_000
    });
    let told = full.count() as u64;
    // net/ipv6/udp.c has the tracepoint since Linux 6.10; before, only the freeing is seen.
    let silent = family == Family::V6 && told == 0 && before_6_10()?;
    let seen = if silent { kernel } else { told };
    ensure!(kernel > 0 && seen == kernel, "{name} {kernel}, seen {seen}");
    ensure!(
        recorded.events.sock_drops.len() as u64 == told,
        "others among them"
    );
    let line = recorded
        .report
        .books
        .iter()
        .find(|line| line.counter == name && line.place == b.name());
    let agreed = line.is_some_and(|line| {
        (line.kernel, line.vpnbench, line.agrees) == (Some(kernel), Some(seen), Some(true))
    });
    ensure!(agreed, "{line:?}");
    let reason = recorded.drops(&b, "SOCKET_RCVBUFF").0;
    ensure!(reason == kernel, "SOCKET_RCVBUFF {reason}, {name} {kernel}");
    crate::say(&format!("  {name} {kernel}, seen {seen}"));
    Ok(())
}

fn before_6_10() -> Result<bool> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split('.').map(str::parse::<u32>);
    let (major, minor) = (numbers.next(), numbers.next());
    let number = major.zip(minor).context("no kernel release")?;
    Ok((number.0?, number.1?) < (6, 10))
}
