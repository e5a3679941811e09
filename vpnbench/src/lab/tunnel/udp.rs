//! The outer UDP socket: UDP_SEGMENT, sendmmsg, UDP_GRO, recvmmsg, each of which can be off.

use std::borrow::Cow;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{
    MsgFlags, MultiHeaders, SetSockOpt, SockaddrStorage, sendmmsg, setsockopt, sockopt,
};
#[allow(unused_imports, reason = "sockopt_impl! expands to the other one")]
use nix::{setsockopt_impl, sockopt_impl};
use quinn_udp::{RecvMeta, Transmit, UdpSocketState};

use super::account::{Cause, Histogram, ThreadRecord, add};
use super::context::Side;
use super::fragment::{Assembly, Outcome, cut};
use super::lane::{Input, Output, PATIENCE, wait_for};
use super::pacer::Pacer;
use super::packet::{Header, OVERHEAD, Packet};
use super::settings::{Fragmentation, Settings};
use super::{NO_SEQUENCE, account};
use crate::lab::error::{LabError, Result};

sockopt_impl!(
    /// ip(7): IP_MTU_DISCOVER
    IpMtuDiscover, SetOnly, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, i32
);
sockopt_impl!(
    /// ipv6(7): IPV6_MTU_DISCOVER
    Ipv6MtuDiscover, SetOnly, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, i32
);
sockopt_impl!(
    /// ipv6(7): IPV6_DONTFRAG
    Ipv6DontFragment, SetOnly, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, i32
);
sockopt_impl!(
    /// udp(7): UDP_GRO
    UdpGro, SetOnly, libc::SOL_UDP, libc::UDP_GRO, i32
);

/// Most segments of one message (UDP_MAX_SEGMENTS of Linux up to 6.8).
const SEGMENTS: usize = 64;
/// Most bytes of one message, below 65535 less the headers.
const MESSAGE: usize = 65_000;
/// Largest received message.
const LARGEST: usize = 65_535;

/// The socket.
pub(super) struct Outer {
    socket: UdpSocket,
    state: UdpSocketState,
    peer: SocketAddr,
}

/// Opens the socket and sets it up.
pub(super) fn open(
    settings: &Settings,
    local: SocketAddr,
    peer: SocketAddr,
    books: &account::Books,
) -> Result<Arc<Outer>> {
    let failed = || LabError::failed::<io::Error>("opening the outer UDP socket on", local);
    let socket = UdpSocket::bind(local).map_err(failed())?;
    socket.connect(peer).map_err(failed())?;
    let state = UdpSocketState::new((&socket).into()).map_err(failed())?;
    set_options(&socket, settings, local.is_ipv4()).map_err(|errno| failed()(errno.into()))?;
    let sizes = (
        state.send_buffer_size((&socket).into()),
        state.recv_buffer_size((&socket).into()),
    );
    books
        .send_buffer
        .store(sizes.0.unwrap_or(0), Ordering::Relaxed);
    books
        .receive_buffer
        .store(sizes.1.unwrap_or(0), Ordering::Relaxed);
    Ok(Arc::new(Outer {
        socket,
        state,
        peer,
    }))
}

fn set_options(socket: &UdpSocket, settings: &Settings, ipv4: bool) -> nix::Result<()> {
    if !settings.outer_gro {
        setsockopt(socket, UdpGro, &0)?;
    }
    // quinn-udp has set PROBE: DF, without regard to what the kernel knows of the path.
    if settings.fragmentation == Fragmentation::Kernel && ipv4 {
        setsockopt(socket, IpMtuDiscover, &libc::IP_PMTUDISC_DONT)?;
    }
    if settings.fragmentation == Fragmentation::Kernel && !ipv4 {
        setsockopt(socket, Ipv6MtuDiscover, &libc::IPV6_PMTUDISC_DONT)?;
        setsockopt(socket, Ipv6DontFragment, &0)?;
    }
    set_buffers(socket, settings)
}

/// Sizes of the socket's buffers.
pub(super) fn set_buffers(socket: &UdpSocket, settings: &Settings) -> nix::Result<()> {
    if let Some(bytes) = settings.send_buffer {
        set_buffer(socket, sockopt::SndBufForce, sockopt::SndBuf, bytes)?;
    }
    if let Some(bytes) = settings.receive_buffer {
        set_buffer(socket, sockopt::RcvBufForce, sockopt::RcvBuf, bytes)?;
    }
    Ok(())
}

/// Beyond the system's maximum where that is allowed.
fn set_buffer(
    socket: &UdpSocket,
    force: impl SetSockOpt<Val = usize>,
    ask: impl SetSockOpt<Val = usize>,
    bytes: usize,
) -> nix::Result<()> {
    match setsockopt(socket, force, &bytes) {
        Err(Errno::EPERM) => setsockopt(socket, ask, &bytes),
        other => other,
    }
}

/// Receives.
pub(super) struct UdpInput {
    outer: Arc<Outer>,
    side: Side,
    slots: Vec<Vec<u8>>,
    metas: Vec<RecvMeta>,
    assembly: Assembly,
    buffers: Vec<Vec<u8>>,
    batches: Arc<Histogram>,
}

impl UdpInput {
    pub(super) fn new(outer: &Arc<Outer>, side: Side) -> UdpInput {
        let batch = side.settings().receive_batch;
        UdpInput {
            outer: Arc::clone(outer),
            slots: vec![vec![0; LARGEST]; batch],
            metas: vec![RecvMeta::default(); batch],
            assembly: Assembly::default(),
            buffers: Vec::new(),
            batches: Histogram::detached(),
            side,
        }
    }

    fn receive(&mut self) -> io::Result<usize> {
        let mut slots: Vec<IoSliceMut<'_>> = self
            .slots
            .iter_mut()
            .map(|slot| IoSliceMut::new(slot))
            .collect();
        loop {
            let received =
                self.outer
                    .state
                    .recv((&self.outer.socket).into(), &mut slots, &mut self.metas);
            match received {
                // Some earlier datagram found nobody: no reason to stop listening.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
                other => return other,
            }
        }
    }

    /// Makes packets of one message's datagrams.
    fn take(&mut self, message: usize, now: u64, out: &mut Vec<Packet>) {
        let meta = self.metas[message];
        let bytes = &self.slots[message][..meta.len];
        let count = meta.len.div_ceil(meta.stride.max(1));
        self.side.counters().input.add(1, meta.len, count);
        self.side.shared.pool.take(count, 0, &mut self.buffers);
        for datagram in bytes.chunks(meta.stride.max(1)) {
            let mut data = self.buffers.pop().unwrap_or_default();
            let header = Header::read(datagram);
            let whole = match header {
                Some(header) if header.pieces > 1 => {
                    let (outcome, given_up) = self.assembly.add(header, datagram);
                    for _ in 0..given_up {
                        self.side.counters().read.add(0);
                        self.side.counters().lost(Cause::Incomplete).add(0);
                    }
                    match outcome {
                        Outcome::Complete(whole) => Cow::Owned(whole),
                        Outcome::Pending => continue,
                    }
                }
                _ => Cow::Borrowed(datagram),
            };
            data.extend_from_slice(&whole);
            let mut packet = Packet::new(data, whole.len().saturating_sub(OVERHEAD), now);
            packet.sequence = header.map_or(NO_SEQUENCE, |header| header.sequence);
            if header.is_none() || whole.len() < OVERHEAD {
                self.side.counters().read.add(packet.length);
                self.side.lost(packet, Cause::Malformed);
                continue;
            }
            out.push(packet);
        }
    }
}

impl Input for UdpInput {
    fn attach(&mut self, thread: &ThreadRecord) {
        self.batches = thread.histogram("outer_receive");
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.outer.socket.as_fd())
    }

    fn read(&mut self, now: u64, out: &mut Vec<Packet>) -> Result<()> {
        let count = self
            .receive()
            .map_err(LabError::failed("receiving from", self.outer.peer))?;
        if count > 0 {
            let datagrams = |meta: &RecvMeta| meta.len.div_ceil(meta.stride.max(1));
            self.batches
                .add(self.metas[..count].iter().map(datagrams).sum());
        }
        for message in 0..count {
            self.take(message, now, out);
        }
        Ok(())
    }

    fn unfinished(&self) -> u64 {
        self.assembly.pending()
    }
}

/// One outer datagram and the packet it belongs to.
struct Datagram<'a> {
    packet: usize,
    bytes: Cow<'a, [u8]>,
}

/// Sends.
pub(super) struct UdpOutput {
    outer: Arc<Outer>,
    side: Side,
    /// Largest datagram before the tunnel's own fragmentation.
    largest: usize,
    /// Largest datagram that needs no IP fragments.
    unfragmented: usize,
    pacer: Pacer,
    message: Vec<u8>,
    batches: Arc<Histogram>,
}

impl UdpOutput {
    pub(super) fn new(outer: &Arc<Outer>, side: Side) -> UdpOutput {
        let settings = side.settings();
        let headers = if outer.peer.is_ipv4() { 20 + 8 } else { 40 + 8 };
        let unfragmented = settings.outer_mtu as usize - headers;
        let largest = match settings.fragmentation {
            Fragmentation::Own => unfragmented,
            Fragmentation::Kernel | Fragmentation::Forbid => usize::MAX,
        };
        UdpOutput {
            outer: Arc::clone(outer),
            largest,
            unfragmented,
            pacer: Pacer::new(settings.pacing),
            message: Vec::with_capacity(LARGEST),
            batches: Histogram::detached(),
            side,
        }
    }

    /// Sends a run of datagrams; the first whose fate is decided gets it. Returns how many.
    fn send(&mut self, run: &[Datagram<'_>]) -> (usize, std::result::Result<(), Cause>) {
        let bytes = run.iter().map(|datagram| datagram.bytes.len()).sum();
        self.pacer.wait(bytes, &self.side);
        let gso = self.uses_gso(&run[0]);
        loop {
            let sent = if gso || run.len() == 1 {
                self.send_message(run).map(|()| run.len())
            } else {
                self.send_many(run)
            };
            match sent {
                Ok(count) => {
                    let units = if gso { 1 } else { count };
                    let bytes = run[..count]
                        .iter()
                        .map(|datagram| datagram.bytes.len())
                        .sum();
                    self.side.counters().output.add(units as u64, bytes, count);
                    self.batches.add(count);
                    return (count, Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    add(&self.side.counters().blocked, 1);
                    if self.side.shared.stopping() {
                        return (run.len(), Err(Cause::SendError));
                    }
                    wait_for(&[self.outer.socket.as_fd()], PollFlags::POLLOUT, PATIENCE);
                }
                // About an earlier datagram: this one was not sent.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                    return (if gso { run.len() } else { 1 }, Err(Cause::TooBig));
                }
                Err(error) => {
                    log::debug!("sending to {}: {error}", self.outer.peer);
                    return (if gso { run.len() } else { 1 }, Err(Cause::SendError));
                }
            }
        }
    }

    /// One message: one datagram, or several as UDP_SEGMENT.
    fn send_message(&mut self, run: &[Datagram<'_>]) -> io::Result<()> {
        let (contents, segment_size) = if let [one] = run {
            (&*one.bytes, None)
        } else {
            self.message.clear();
            run.iter()
                .for_each(|datagram| self.message.extend_from_slice(&datagram.bytes));
            (&*self.message, Some(run[0].bytes.len()))
        };
        let transmit = Transmit {
            destination: self.outer.peer,
            ecn: None,
            contents,
            segment_size,
            src_ip: None,
        };
        self.outer
            .state
            .try_send((&self.outer.socket).into(), &transmit)
    }

    /// sendmmsg: returns how many the kernel took.
    fn send_many(&self, run: &[Datagram<'_>]) -> io::Result<usize> {
        let slices: Vec<[IoSlice<'_>; 1]> = run
            .iter()
            .map(|datagram| [IoSlice::new(&datagram.bytes)])
            .collect();
        let addresses: Vec<Option<SockaddrStorage>> = vec![None; run.len()];
        let mut headers = MultiHeaders::preallocate(run.len(), None);
        let fd = self.outer.socket.as_raw_fd();
        let flags = MsgFlags::MSG_DONTWAIT;
        let sent = sendmmsg(fd, &mut headers, slices.iter(), addresses, [], flags)?;
        Ok(sent.count())
    }

    /// Whether a datagram may be a segment of a message: the kernel makes no IP fragments of one.
    fn uses_gso(&self, datagram: &Datagram<'_>) -> bool {
        self.side.settings().outer_gso && datagram.bytes.len() <= self.unfragmented
    }

    /// Length of the run of datagrams at the start that one call can send.
    fn run_length(&self, datagrams: &[Datagram<'_>]) -> usize {
        let settings = self.side.settings();
        let size = datagrams[0].bytes.len();
        if !self.uses_gso(&datagrams[0]) {
            let alike = |other: &&Datagram<'_>| !self.uses_gso(other);
            return datagrams
                .iter()
                .take(settings.send_batch)
                .take_while(alike)
                .count();
        }
        let most = (MESSAGE / size).clamp(1, SEGMENTS.min(settings.send_batch));
        let equal = datagrams
            .iter()
            .take(most)
            .take_while(|other| other.bytes.len() == size);
        let equal = equal.count();
        // The last segment of a message may be shorter.
        let shorter = datagrams
            .get(equal)
            .is_some_and(|last| last.bytes.len() < size);
        if shorter && equal < most {
            equal + 1
        } else {
            equal
        }
    }

    fn cut<'a>(&self, packets: &'a [Packet]) -> Vec<Datagram<'a>> {
        let mut datagrams = Vec::with_capacity(packets.len());
        for (packet, sealed) in packets.iter().enumerate() {
            let whole = || Datagram {
                packet,
                bytes: Cow::Borrowed(&*sealed.data),
            };
            if sealed.data.len() <= self.largest {
                datagrams.push(whole());
                continue;
            }
            match cut(&sealed.data, self.largest) {
                Some(pieces) => datagrams.extend(pieces.into_iter().map(|piece| Datagram {
                    packet,
                    bytes: Cow::Owned(piece),
                })),
                // More than 255 pieces; the kernel refuses it.
                None => datagrams.push(whole()),
            }
        }
        datagrams
    }
}

impl Output for UdpOutput {
    fn attach(&mut self, thread: &ThreadRecord) {
        self.batches = thread.histogram("outer_send");
    }

    fn put(&mut self, packets: &mut Vec<Packet>) -> Result<()> {
        let mut causes: Vec<Option<Cause>> = vec![None; packets.len()];
        let datagrams = self.cut(packets);
        let mut rest = &datagrams[..];
        while !rest.is_empty() {
            let length = self.run_length(rest);
            let (count, outcome) = self.send(&rest[..length]);
            if let Err(cause) = outcome {
                for datagram in &rest[..count] {
                    causes[datagram.packet] = Some(cause);
                }
            }
            rest = &rest[count.max(1)..];
        }
        drop(datagrams);
        for (packet, cause) in packets.drain(..).zip(causes) {
            match cause {
                None => self.side.carried(packet),
                Some(cause) => self.side.lost(packet, cause),
            }
        }
        Ok(())
    }
}
