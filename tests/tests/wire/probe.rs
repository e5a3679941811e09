//! Numbered datagrams from one host to another.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use nix::sys::socket::{setsockopt, sockopt};
use vpnbench::lab::{self, Bench, Host, LabOptions, Run, Topology, Vpn, WireSpec};

/// Where probes go.
pub(crate) const PORT: u16 = 7001;
/// Longest that a probe may be under way: the largest delay of any profile many times over.
const QUIET: Duration = Duration::from_millis(500);
/// Most sends without a pause.
const BURST: u32 = 100;

/// Two hosts and a wire, nothing else.
pub(crate) fn start(wire: &str, topology: Topology) -> Result<Run, Failed> {
    let wire: WireSpec = toml::from_str(wire)?;
    let run = lab::start(&LabOptions {
        vpn: Vpn::None.into(),
        benchmark: Bench::Ping.into(),
        topology,
        wire,
        seed: 7,
        sysctls: lab::Sysctls::default(),
        cpus: lab::Cpus::default(),
        logs: None,
    })?;
    Ok(run)
}

/// How to send.
#[derive(Clone, Copy)]
pub(crate) struct Flood {
    /// Datagrams.
    pub(crate) count: u64,
    /// Pause between two sends.
    pub(crate) every: Duration,
    /// Bytes of each.
    pub(crate) size: usize,
    /// Datagrams per send, as one super-packet (UDP_SEGMENT) when more than one.
    pub(crate) batch: u64,
}

/// Sends datagrams numbered from 0 from one host to the other, and returns the numbers in the
/// order in which they arrived.
pub(crate) fn flood(from: &Host, to: &Host, flood: Flood) -> Result<Vec<u64>, Failed> {
    let address = to.ipv4;
    let sent = AtomicBool::new(false);
    let receiver = inside(&to.netns, move || {
        let socket = UdpSocket::bind((address, PORT))?;
        // Room for all of them: nothing may be lost here.
        setsockopt(&socket, sockopt::RcvBufForce, &(256 << 20)).map_err(io::Error::from)?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        Ok(socket)
    })?;
    thread::scope(|scope| {
        let arrivals = scope.spawn(|| receive(&receiver, &sent));
        let outcome = inside(&from.netns, || send(address, flood));
        sent.store(true, Ordering::Release);
        let arrivals = arrivals.join();
        outcome?;
        let arrivals = arrivals.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok(arrivals?)
    })
}

fn receive(socket: &UdpSocket, sent: &AtomicBool) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    let mut buffer = [0; 2048];
    let mut last = Instant::now();
    loop {
        match socket.recv(&mut buffer) {
            Ok(length) if length >= 8 => {
                last = Instant::now();
                let mut number = [0; 8];
                number.copy_from_slice(&buffer[..8]);
                numbers.push(u64::from_be_bytes(number));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if !sent.load(Ordering::Acquire) {
                    last = Instant::now();
                } else if last.elapsed() > QUIET {
                    return Ok(numbers);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

fn send(to: Ipv4Addr, flood: Flood) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((to, PORT))?;
    if flood.batch > 1 {
        let size = i32::try_from(flood.size).map_err(io::Error::other)?;
        setsockopt(&socket, sockopt::UdpGsoSegment, &size).map_err(io::Error::from)?;
    }
    let mut due = Instant::now();
    let mut buffer = Vec::new();
    for first in (0..flood.count).step_by(usize::try_from(flood.batch).unwrap_or(1)) {
        buffer.clear();
        for number in first..(first + flood.batch).min(flood.count) {
            buffer.extend_from_slice(&number.to_be_bytes());
            buffer.resize(buffer.len() + flood.size - 8, 0);
        }
        socket.send(&buffer)?;
        // What a late start of this thread costs is made up for, but not at any price: a long
        // burst would not fit the queues on the way, whatever they are told to do.
        let now = Instant::now();
        due = (due + flood.every).max(now - flood.every * BURST);
        thread::sleep(due.saturating_duration_since(now));
    }
    Ok(())
}

/// Runs something on a thread in a namespace.
pub(crate) fn inside<T: Send>(
    netns: &Path,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            lab::enter_netns(netns)?;
            work()
        });
        let outcome = thread.join();
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// How many numbers came after a higher one (RFC 4737, Type-P-Reordered); repeats do not count.
pub(crate) fn reordered(numbers: &[u64]) -> u64 {
    let mut newest = None;
    let mut count = 0;
    for &number in numbers {
        match newest {
            Some(before) if number < before => count += 1,
            _ => newest = Some(number),
        }
    }
    count
}
