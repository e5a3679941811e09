//! TCP over a path that loses, delays and repeats packets.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use vpnbench_tests::tun;

use crate::forwarder::{Fate, Forwarder};
use crate::hosts::{Family, Host};
use crate::recorder::{Recorded, record};
use crate::traffic::iperf3;
use crate::tunnel::tunnel_device;

/// Port of the connection whose first SYN is lost.
const LOSE_SYN: u16 = 4001;
/// Port of the connection whose first SYN-ACK is lost.
const LOSE_SYNACK: u16 = 4002;
/// Data packet with which all packets begin to be lost.
const BLACKOUT_FROM: u64 = 1500;
/// How long they are; longer than the smallest retransmission timeout.
const BLACKOUT: Duration = Duration::from_millis(250);

/// Two hosts, each with a TUN device: addresses 1 and 2 of network 98.
pub(crate) fn joined(family: Family, flags: i32) -> Result<([Host; 2], [std::fs::File; 2])> {
    let hosts = [Host::new(family)?, Host::new(family)?];
    let open = |host: &Host, number| -> Result<std::fs::File> {
        let device = tun::open(&host.netns, tunnel_device(), flags, 1)?.remove(0);
        host.up(tunnel_device(), family, 98, number)?;
        Ok(device)
    };
    let devices = [open(&hosts[0], 1)?, open(&hosts[1], 2)?];
    Ok((hosts, devices))
}

/// Ports, flags and payload of a TCP packet without options of IP.
struct Segment {
    sport: u16,
    dport: u16,
    flags: u8,
    payload: usize,
}

fn segment(packet: &[u8]) -> Option<Segment> {
    let ip = match packet.first()? >> 4 {
        4 if packet.get(9) == Some(&6) => 20,
        6 if packet.get(6) == Some(&6) => 40,
        _ => return None,
    };
    let tcp = packet.get(ip..)?;
    let header = usize::from(tcp.get(12)? >> 4) * 4;
    Some(Segment {
        sport: u16::from_be_bytes([tcp[0], tcp[1]]),
        dport: u16::from_be_bytes([tcp[2], tcp[3]]),
        flags: *tcp.get(13)?,
        payload: tcp.len() - header,
    })
}

/// The same share of packets in every run.
fn trouble() -> impl FnMut(usize, &[u8]) -> Fate + Send {
    let (mut syns, mut synacks, mut data) = (0, 0, 0);
    let mut blackout: Option<Instant> = None;
    move |direction, packet| {
        let Some(segment) = segment(packet) else {
            return Fate::Pass;
        };
        match (segment.flags & 0x12, direction) {
            (0x02, 0) if segment.dport == LOSE_SYN => {
                syns += 1;
                return if syns == 1 { Fate::Drop } else { Fate::Pass };
            }
            (0x12, 1) if segment.sport == LOSE_SYNACK => {
                synacks += 1;
                return if synacks == 1 { Fate::Drop } else { Fate::Pass };
            }
            _ => {}
        }
        if direction == 1 || segment.payload < 1000 {
            return Fate::Pass;
        }
        data += 1;
        if data == BLACKOUT_FROM {
            blackout = Some(Instant::now());
        }
        match data {
            _ if blackout.is_some_and(|since| since.elapsed() < BLACKOUT) => Fate::Drop,
            n if n % 101 == 0 => Fate::Drop,
            n if n % 61 == 0 => Fate::Later,
            n if n % 83 == 0 => Fate::Twice,
            _ => Fate::Pass,
        }
    }
}

pub(crate) fn retransmissions(family: Family) -> Result<()> {
    let ([a, b], devices) = joined(family, 0)?;
    let to = family.address(98, 2);
    let path = Forwarder::start(devices, Box::new(trouble()))?;
    let arguments = [
        "--netns",
        a.name(),
        "--netns",
        b.name(),
        "--tun",
        tunnel_device(),
    ];
    let recorded = record(&[&a, &b], &arguments, || {
        let slow = connect(&a, &b, to, LOSE_SYN)?;
        let other = connect(&a, &b, to, LOSE_SYNACK)?;
        for connecting in [slow, other] {
            connecting.join().map_err(|_| anyhow!("connecting"))??;
        }
        iperf3(&a, &b, to, 6 << 20)?;
        Ok(())
    })?;
    path.finish()?;
    check(&recorded, &[a, b], [to, family.address(98, 1)])
}

/// Connects in a thread of its own.
fn connect(
    from: &Host,
    at: &Host,
    to: IpAddr,
    port: u16,
) -> Result<std::thread::JoinHandle<Result<()>>> {
    let target = SocketAddr::new(to, port);
    let listener = at.run(move || TcpListener::bind(target))?;
    let netns = from.name().to_owned();
    Ok(std::thread::spawn(move || {
        let spec = vpnbench::probe::netns::NetnsSpec::Name(netns);
        let inside = vpnbench::probe::netns::Netns::open(&spec)?;
        let stream =
            inside.run(move || TcpStream::connect_timeout(&target, Duration::from_secs(10)))?;
        let accepted = listener.accept()?;
        drop((stream, accepted));
        Ok(())
    }))
}

/// Holds the events against the counters; `peers` are the addresses that each host sends to.
fn check(recorded: &Recorded, hosts: &[Host; 2], peers: [IpAddr; 2]) -> Result<()> {
    let mut figures = Vec::new();
    let mut total = 0;
    // Where a timer interrupts a hidden task, only the witness sees what it does.
    let all_seen = recorded.hidden.is_empty();
    for ((host, account), peer) in hosts.iter().zip(&recorded.accounts).zip(peers) {
        let counter = |name: &str| account.counter(name);
        let kernel = counter("TcpRetransSegs")? - counter("TcpExtTCPRetransFail")?;
        let here = |netns: u32| netns == host.inum();
        let data = recorded.events.retransmits.iter();
        let data = data.filter(|one| here(one.netns) && one.error == 0);
        let data: u64 = data.map(|one| u64::from(one.segments)).sum();
        let synacks = recorded.events.synacks.iter().filter(|one| here(one.netns));
        let synacks = synacks.count() as u64;
        let seen = data + synacks;
        let hidden = recorded.hidden.retransmissions(peer);
        ensure!(
            if hidden == 0 {
                seen == kernel
            } else {
                seen + hidden <= kernel
            },
            "TcpRetransSegs {kernel}, seen {seen}, hidden {hidden}"
        );
        total += seen;
        // Counters, and how many the kernel may count that are no retransmission of data.
        for (name, more) in [
            ("TcpRetransSegs", 0),
            ("TcpExtTCPFastRetrans", 0),
            ("TcpExtTCPSlowStartRetrans", 0),
            ("TcpExtTCPSynRetrans", 0),
            // A SYN-ACK is sent again by its timer, or because the SYN came again.
            ("TcpExtTCPTimeouts", synacks),
            // Probes may carry new data.
            ("TcpExtTCPLossProbes", u64::MAX),
            ("TcpExtTCPSackRecovery", 0),
        ] {
            let own = match name {
                "TcpRetransSegs" => kernel,
                _ => counter(name)?,
            };
            let books = &recorded.report.books;
            let line = books
                .iter()
                .find(|line| line.counter == name && line.place == host.name())
                .with_context(|| format!("no {name} in the books"))?;
            let seen = line.vpnbench.context("not seen")?;
            ensure!(line.kernel == Some(own), "{line:?}, own {own}");
            let more = if all_seen { more } else { u64::MAX };
            ensure!(seen <= own && own - seen <= more, "{line:?}, own {own}");
            if own > 0 {
                figures.push(format!("{name} {own} seen {seen}"));
            }
        }
    }
    let retransmits = &recorded.report.retransmits;
    ensure!(
        retransmits.total == Some(total),
        "{retransmits:?}, seen {total}"
    );
    let causes = retransmits.by_cause.context("no causes")?;
    ensure!(causes.other == 0, "unknown causes: {causes:?}");
    let sum: u64 = causes.rows().iter().map(|(_, count)| count).sum();
    ensure!(sum == total, "{causes:?}, seen {total}");
    let syns = recorded
        .accounts
        .iter()
        .map(|one| one.counter("TcpExtTCPSynRetrans"));
    let syns: u64 = syns.sum::<Result<u64>>()?;
    ensure!(
        causes.syn <= syns && syns >= 2 && (causes.syn == syns || !all_seen),
        "{causes:?}, SYN {syns}"
    );
    ensure!(
        !all_seen || (!recorded.events.synacks.is_empty() && causes.rto > 0),
        "no SYN-ACK sent again, or no timeout: {causes:?}"
    );
    let fast = causes.rack + causes.dupack + causes.rack_timer;
    ensure!(fast > 0, "no fast retransmission: {causes:?}");
    crate::say(&format!("  {}; {causes:?}", figures.join(", ")));
    Ok(())
}
