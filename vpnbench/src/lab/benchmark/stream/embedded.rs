//! The embedded endpoints: sockets and clocks around the receiver's book.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use super::super::endpoint::{self, Failure, local_port, monotonic_ns};
use super::Settings;
use super::packet::Packet;
use super::receiver::{Account, Receiver};
use crate::analysis::benchmark::Benchmark;
use crate::analysis::benchmark::model::{Connection, Interval, Packets, Quantiles, Realtime, Way};
use crate::lab::error::{LabError, Result};
use crate::lab::part;

/// Between two RTT probes of the receiver, ns.
const PROBE_NS: u64 = 100_000_000;
/// How often the receiver looks for gaps.
const LOOK: Duration = Duration::from_millis(5);
/// How long the sender asks for the receiver's account.
const ACCOUNT_NS: u64 = 3_000_000_000;
/// Between two attempts at that, ns.
const END_NS: u64 = 100_000_000;
/// Largest datagram.
const DATAGRAM: usize = 65_536;

/// The part `stream-receive`: serves one sender after the other until it is asked to end.
pub(in crate::lab) fn receive(settings: &str) -> Result<()> {
    let settings: Settings = part::settings("stream-receive", settings)?;
    serve(&settings).map_err(LabError::failed("running", "stream-receive"))
}

fn serve(settings: &Settings) -> std::result::Result<(), Failure> {
    let socket = UdpSocket::bind(settings.receiver)
        .map_err(Failure::of(format!("binding UDP {}", settings.receiver)))?;
    socket
        .set_read_timeout(Some(LOOK))
        .map_err(Failure::of("setting a timeout"))?;
    let mut receiver = Receiver::new(settings.buffer_ns);
    let (mut bytes, mut out) = (vec![0; DATAGRAM], Vec::new());
    let mut peer = None;
    let mut probed_ns = 0;
    while !endpoint::is_terminated() {
        let got = match socket.recv_from(&mut bytes) {
            Ok((length, from)) => {
                peer = Some(from);
                Packet::decode(&bytes[..length])
            }
            Err(error) if is_timeout(&error) => None,
            Err(error) => return Err(Failure::of("receiving")(error)),
        };
        let now_ns = monotonic_ns();
        let answer = got.and_then(|packet| take(&mut receiver, now_ns, packet));
        let Some(peer) = peer else { continue };
        let mut send = |packet: &Packet| {
            packet.encode(&mut out);
            // What does not go out is lost like any other packet.
            let _sent = socket.send_to(&out, peer);
        };
        if let Some(answer) = answer {
            send(&answer);
        }
        let seqs = receiver.requests(now_ns);
        if !seqs.is_empty() {
            send(&Packet::Request { seqs });
        }
        if now_ns.saturating_sub(probed_ns) >= PROBE_NS {
            probed_ns = now_ns;
            send(&Packet::Probe { ns: now_ns });
        }
    }
    Ok(())
}

/// What a packet changes, and the answer to it.
fn take(receiver: &mut Receiver, now_ns: u64, packet: Packet) -> Option<Packet> {
    match packet {
        Packet::Data {
            seq,
            due_ns,
            again,
            length,
        } => {
            receiver.data(now_ns, seq, due_ns, again, length);
            None
        }
        Packet::Probe { ns } => Some(Packet::Echo { ns }),
        Packet::Echo { ns } => {
            receiver.rtt(now_ns.saturating_sub(ns));
            None
        }
        Packet::End { .. } => {
            let json = serde_json::to_vec(&thinned(&receiver.account)).unwrap_or_default();
            Some(Packet::Account { json })
        }
        Packet::Request { .. } | Packet::Account { .. } => None,
    }
}

/// The account in a form that fits a datagram: at most 500 of its RTTs, evenly chosen.
fn thinned(account: &Account) -> Account {
    let step = account.rtt_us.len().div_ceil(500).max(1);
    Account {
        rtt_us: account.rtt_us.iter().step_by(step).copied().collect(),
        ..account.clone()
    }
}

fn is_timeout(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, Interrupted, TimedOut, WouldBlock};
    matches!(
        error.kind(),
        WouldBlock | TimedOut | Interrupted | ConnectionRefused
    )
}

/// The part `stream-send`.
pub(in crate::lab) fn send(settings: &str) -> Result<()> {
    let settings: Settings = part::settings("stream-send", settings)?;
    let result = Sender::new(&settings)
        .and_then(Sender::run)
        .map_err(LabError::failed("running", "stream-send"))?;
    endpoint::emit(&result).map_err(LabError::failed("running", "stream-send"))?;
    match result.error {
        Some(error) => Err(LabError::failed("running", "stream-send")(error)),
        None => Ok(()),
    }
}

struct Sender<'a> {
    settings: &'a Settings,
    socket: UdpSocket,
    started_ns: u64,
    /// Due times of packets that may still be asked for, oldest first, and the number of the first.
    kept: VecDeque<(u64, u32)>,
    first_kept: u64,
    sent: u64,
    retransmitted: u64,
    out: Vec<u8>,
}

impl<'a> Sender<'a> {
    fn new(settings: &'a Settings) -> std::result::Result<Sender<'a>, Failure> {
        let any = match settings.receiver.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let socket = UdpSocket::bind((any, 0)).map_err(Failure::of("binding a UDP port"))?;
        socket
            .connect(settings.receiver)
            .map_err(Failure::of(format!("connecting to {}", settings.receiver)))?;
        Ok(Sender {
            settings,
            socket,
            started_ns: monotonic_ns(),
            kept: VecDeque::new(),
            first_kept: 0,
            sent: 0,
            retransmitted: 0,
            out: Vec::new(),
        })
    }

    fn run(mut self) -> std::result::Result<Benchmark, Failure> {
        while self.sent < self.settings.packets && !endpoint::is_terminated() {
            let due_ns = self.started_ns + self.sent * self.settings.interval_ns;
            self.serve_until(due_ns)?;
            self.kept.push_back((due_ns, 0));
            self.transmit(self.sent);
            self.sent += 1;
            self.forget(due_ns);
        }
        let ended_ns = monotonic_ns();
        // The last packets have their time to be recovered, too.
        self.serve_until(ended_ns + self.settings.buffer_ns)?;
        let account = self.ask_for_account()?;
        Ok(self.result(account, ended_ns))
    }

    /// Sends packet `seq` once more.
    fn transmit(&mut self, seq: u64) {
        let Some(index) = seq.checked_sub(self.first_kept) else {
            return;
        };
        let Some((due_ns, copies)) = self.kept.get_mut(index as usize) else {
            return;
        };
        let packet = Packet::Data {
            seq,
            due_ns: *due_ns,
            again: *copies,
            length: self.settings.payload,
        };
        self.retransmitted += u64::from(*copies > 0);
        *copies += 1;
        packet.encode(&mut self.out);
        // A full queue (ENOBUFS) loses the packet, as a router would.
        let _sent = self.socket.send(&self.out);
    }

    /// Packets whose time is over are not sent again.
    fn forget(&mut self, now_ns: u64) {
        let limit = 2 * self.settings.buffer_ns;
        while self
            .kept
            .front()
            .is_some_and(|(due_ns, _)| due_ns + limit < now_ns)
        {
            self.kept.pop_front();
            self.first_kept += 1;
        }
    }

    /// Answers the receiver until a moment.
    fn serve_until(&mut self, until_ns: u64) -> std::result::Result<(), Failure> {
        loop {
            let left_ns = until_ns.saturating_sub(monotonic_ns());
            if left_ns == 0 || endpoint::is_terminated() {
                return Ok(());
            }
            self.serve(Duration::from_nanos(left_ns))?;
        }
    }

    /// Waits for one packet, answers it, and returns an account if it was one.
    fn serve(&mut self, limit: Duration) -> std::result::Result<Option<Account>, Failure> {
        let limit = limit.max(Duration::from_micros(50));
        self.socket
            .set_read_timeout(Some(limit))
            .map_err(Failure::of("setting a timeout"))?;
        let mut bytes = [0; DATAGRAM];
        let length = match self.socket.recv(&mut bytes) {
            Ok(length) => length,
            Err(error) if is_timeout(&error) => return Ok(None),
            Err(error) => return Err(Failure::of("receiving")(error)),
        };
        match Packet::decode(&bytes[..length]) {
            Some(Packet::Request { seqs }) => seqs.into_iter().for_each(|seq| self.transmit(seq)),
            Some(Packet::Probe { ns }) => {
                Packet::Echo { ns }.encode(&mut self.out);
                let _sent = self.socket.send(&self.out);
            }
            Some(Packet::Account { json }) => return Ok(serde_json::from_slice(&json).ok()),
            _ => {}
        }
        Ok(None)
    }

    fn ask_for_account(&mut self) -> std::result::Result<Option<Account>, Failure> {
        let deadline_ns = monotonic_ns() + ACCOUNT_NS;
        let mut asked_ns = 0;
        while monotonic_ns() < deadline_ns {
            if monotonic_ns() >= asked_ns + END_NS {
                asked_ns = monotonic_ns();
                Packet::End { sent: self.sent }.encode(&mut self.out);
                let _sent = self.socket.send(&self.out);
            }
            if let Some(account) = self.serve(Duration::from_nanos(END_NS))? {
                return Ok(Some(account));
            }
        }
        Ok(None)
    }

    fn result(&self, account: Option<Account>, ended_ns: u64) -> Benchmark {
        let duration_s = (ended_ns - self.started_ns) as f64 / 1e9;
        let payload = u64::from(self.settings.payload);
        let offered_bps = 8e9 * payload as f64 / self.settings.interval_ns as f64;
        let connection = local_port(self.socket.local_addr()).map(|local_port| Connection {
            local_port,
            remote_port: self.settings.receiver.port(),
            protocol: "udp".to_owned(),
        });
        let mut result = Benchmark {
            kind: "stream".to_owned(),
            started_ns: Some(self.started_ns),
            duration_s: Some(duration_s),
            bytes_sent: Some(self.sent * payload),
            throughput_bps_sent: Some(8.0 * (self.sent * payload) as f64 / duration_s),
            retransmits: Some(self.retransmitted),
            streams: Some(1),
            connections: connection.into_iter().collect(),
            ..endpoint::own()
        };
        match account {
            Some(account) => self.add(&mut result, &account, offered_bps, duration_s),
            None => result.error = Some("the receiver did not send its account".to_owned()),
        }
        result
    }

    fn add(&self, result: &mut Benchmark, account: &Account, offered_bps: f64, duration_s: f64) {
        let lost = self.sent.saturating_sub(account.received);
        let sent = self.sent.max(1) as f64;
        result.complete = self.sent == self.settings.packets;
        result.bytes_received = Some(account.bytes);
        result.throughput_bps_received = Some(8.0 * account.bytes as f64 / duration_s);
        result.loss_ratio = Some(lost as f64 / sent);
        result.jitter_us = Some(account.jitter_ns / 1e3);
        result.rtt_us = Quantiles::of(account.rtt_us.clone());
        result.packets = Some(Packets {
            sent: Some(self.sent),
            received: Some(account.received),
            lost: Some(lost),
            duplicates: Some(account.duplicates),
            reordered: Some(account.reordered),
            errors: None,
        });
        result.realtime = Some(Realtime {
            offered_bps,
            buffer_s: self.settings.buffer_ns as f64 / 1e9,
            quality_ratio: Some(account.in_time as f64 / sent),
            sent: self.sent,
            in_time: account.in_time,
            recovered: account.recovered,
            late: account.late,
            lost,
            duplicates: account.duplicates,
            retransmitted: self.retransmitted,
            requested: account.requested,
            reordered: account.reordered,
        });
        // The last second is not a whole one.
        let whole = account.in_time_bytes.len().saturating_sub(1);
        let seconds = account.in_time_bytes.iter().take(whole).enumerate();
        result.intervals = seconds
            .map(|(second, bytes)| Interval {
                start_s: second as f64,
                end_s: (second + 1) as f64,
                throughput_bps: Some(8.0 * *bytes as f64),
                way: Way::Sent,
                ..Interval::default()
            })
            .collect();
    }
}
