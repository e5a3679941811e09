//! Packets in a stream of bytes: four bytes of length before each; and TCP as such a stream.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

use super::NO_SEQUENCE;
use super::account::{Cause, Histogram, ThreadRecord, add};
use super::context::{Shared, Side};
use super::lane::{Input, Output, PATIENCE, wait_for};
use super::pacer::Pacer;
use super::packet::{Header, OVERHEAD, Packet};
use super::settings::Settings;
use crate::lab::error::{LabError, Result};

/// Bytes before each packet.
const LENGTH: usize = 4;
/// How long the connecting end tries.
pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Pause between its attempts.
const RETRY: Duration = Duration::from_millis(20);
/// Bytes read from the stream at once.
const CHUNK: usize = 1 << 18;

/// Appends a packet's frame.
fn frame(packet: &Packet, into: &mut Vec<u8>) {
    let length = u32::try_from(packet.data.len()).unwrap_or(u32::MAX);
    into.extend_from_slice(&length.to_be_bytes());
    into.extend_from_slice(&packet.data);
}

/// Takes packets out of the stream.
pub(super) struct FrameReader {
    pub(super) side: Side,
    bytes: Vec<u8>,
    batches: Arc<Histogram>,
}

impl FrameReader {
    pub(super) fn new(side: Side) -> FrameReader {
        FrameReader {
            side,
            bytes: Vec::new(),
            batches: Histogram::detached(),
        }
    }

    pub(super) fn attach(&mut self, thread: &ThreadRecord) {
        self.batches = thread.histogram("outer_receive");
    }

    /// Appends what one call read, and takes out the packets that are complete.
    pub(super) fn take(&mut self, read: &[u8], now: u64, out: &mut Vec<Packet>) {
        self.bytes.extend_from_slice(read);
        let before = out.len();
        let mut rest = &self.bytes[..];
        while let Some((length, tail)) = rest.split_first_chunk::<LENGTH>() {
            let length = u32::from_be_bytes(*length) as usize;
            let Some(data) = tail.get(..length) else {
                break;
            };
            rest = &tail[length..];
            if length == 0 {
                continue; // the greeting that opens a QUIC stream
            }
            let header = Header::read(data);
            let mut packet = Packet::new(data.to_vec(), length.saturating_sub(OVERHEAD), now);
            packet.sequence = header.map_or(NO_SEQUENCE, |header| header.sequence);
            if header.is_none() || length < OVERHEAD {
                self.side.counters().read.add(packet.length);
                self.side.lost(packet, Cause::Malformed);
            } else {
                out.push(packet);
            }
        }
        let used = self.bytes.len() - rest.len();
        self.bytes.drain(..used);
        let packets = out.len() - before;
        self.side.counters().input.add(1, read.len(), packets);
        self.batches.add(packets);
    }
}

/// Puts packets into the stream.
pub(super) struct FrameWriter {
    side: Side,
    pacer: Pacer,
    bytes: Vec<u8>,
    batches: Arc<Histogram>,
}

impl FrameWriter {
    pub(super) fn new(side: Side) -> FrameWriter {
        FrameWriter {
            pacer: Pacer::new(side.settings().pacing),
            side,
            bytes: Vec::new(),
            batches: Histogram::detached(),
        }
    }

    pub(super) fn attach(&mut self, thread: &ThreadRecord) {
        self.batches = thread.histogram("outer_send");
    }

    /// Hands packets to `write` in batches. It writes all of what it gets and says true, or false if
    /// the tunnel is stopped or the peer ends meanwhile; then the packets are lost.
    pub(super) fn put(
        &mut self,
        packets: &mut Vec<Packet>,
        mut write: impl FnMut(&[u8], &Side) -> Result<bool>,
    ) -> Result<()> {
        while !packets.is_empty() {
            let count = packets.len().min(self.side.settings().send_batch);
            self.bytes.clear();
            packets[..count]
                .iter()
                .for_each(|packet| frame(packet, &mut self.bytes));
            self.pacer.wait(self.bytes.len(), &self.side);
            if !write(&self.bytes, &self.side)? {
                packets
                    .drain(..)
                    .for_each(|packet| self.side.lost(packet, Cause::SendError));
                return Ok(());
            }
            self.side.counters().output.add(1, self.bytes.len(), count);
            self.batches.add(count);
            packets
                .drain(..count)
                .for_each(|packet| self.side.carried(packet));
        }
        Ok(())
    }
}

/// Connects the two ends: one listens, the other tries until it is answered. None if the tunnel
/// is stopped meanwhile.
pub(super) fn connect(
    shared: &Shared,
    local: SocketAddr,
    peer: SocketAddr,
    listen: bool,
) -> Result<Option<TcpStream>> {
    let stream = if listen {
        accept(shared, local)?
    } else {
        dial(shared, peer)?
    };
    let Some(stream) = stream else {
        return Ok(None);
    };
    set_options(&stream, &shared.settings)
        .map_err(LabError::failed("setting up the TCP connection to", peer))?;
    Ok(Some(stream))
}

fn accept(shared: &Shared, local: SocketAddr) -> Result<Option<TcpStream>> {
    let failed = || LabError::failed::<io::Error>("listening on", local);
    let listener = TcpListener::bind(local).map_err(failed())?;
    listener.set_nonblocking(true).map_err(failed())?;
    while !shared.stopping() {
        match listener.accept() {
            Ok((stream, _)) => return Ok(Some(stream)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                wait_for(&[listener.as_fd()], PollFlags::POLLIN, PATIENCE);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(failed()(error)),
        }
    }
    Ok(None)
}

fn dial(shared: &Shared, peer: SocketAddr) -> Result<Option<TcpStream>> {
    let deadline = Instant::now() + CONNECT_LIMIT;
    while !shared.stopping() {
        match TcpStream::connect_timeout(&peer, PATIENCE) {
            Ok(stream) => return Ok(Some(stream)),
            Err(error) if Instant::now() >= deadline => {
                return Err(LabError::failed("connecting to", peer)(error));
            }
            Err(_) => thread::sleep(RETRY),
        }
    }
    Ok(None)
}

fn set_options(stream: &TcpStream, settings: &Settings) -> io::Result<()> {
    use nix::sys::socket::{setsockopt, sockopt};
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    if let Some(bytes) = settings.send_buffer {
        setsockopt(stream, sockopt::SndBuf, &bytes)?;
    }
    if let Some(bytes) = settings.receive_buffer {
        setsockopt(stream, sockopt::RcvBuf, &bytes)?;
    }
    Ok(())
}

/// Reads packets from a TCP connection.
pub(super) struct TcpInput {
    stream: Arc<TcpStream>,
    chunk: Vec<u8>,
    frames: FrameReader,
}

impl TcpInput {
    pub(super) fn new(stream: &Arc<TcpStream>, side: Side) -> TcpInput {
        TcpInput {
            stream: Arc::clone(stream),
            chunk: vec![0; CHUNK],
            frames: FrameReader::new(side),
        }
    }
}

impl Input for TcpInput {
    fn attach(&mut self, thread: &ThreadRecord) {
        self.frames.attach(thread);
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.stream.as_fd())
    }

    fn read(&mut self, now: u64, out: &mut Vec<Packet>) -> Result<()> {
        let shared = &self.frames.side.shared;
        match (&*self.stream).read(&mut self.chunk) {
            Ok(0) => shared.peer_ended(),
            Ok(count) => self.frames.take(&self.chunk[..count], now, out),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::Interrupted => {}
                ErrorKind::ConnectionReset => shared.peer_ended(),
                _ => {
                    return Err(LabError::failed("reading", "the connection to the peer")(
                        error,
                    ));
                }
            },
        }
        Ok(())
    }
}

/// Writes packets to a TCP connection.
pub(super) struct TcpOutput {
    stream: Arc<TcpStream>,
    frames: FrameWriter,
}

impl TcpOutput {
    pub(super) fn new(stream: &Arc<TcpStream>, side: Side) -> TcpOutput {
        TcpOutput {
            stream: Arc::clone(stream),
            frames: FrameWriter::new(side),
        }
    }
}

/// Writes everything, waiting as often as it takes. False if the tunnel is stopped meanwhile.
fn write_all(mut stream: &TcpStream, mut rest: &[u8], side: &Side) -> io::Result<bool> {
    while !rest.is_empty() {
        match stream.write(rest) {
            Ok(count) => rest = &rest[count..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                add(&side.counters().blocked, 1);
                if side.shared.stopping() {
                    return Ok(false);
                }
                wait_for(&[stream.as_fd()], PollFlags::POLLOUT, PATIENCE);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
                ) =>
            {
                side.shared.peer_ended();
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

impl Output for TcpOutput {
    fn attach(&mut self, thread: &ThreadRecord) {
        self.frames.attach(thread);
    }

    fn put(&mut self, packets: &mut Vec<Packet>) -> Result<()> {
        let stream = &self.stream;
        self.frames.put(packets, |bytes, side| {
            write_all(stream, bytes, side)
                .map_err(LabError::failed("writing to", "the connection to the peer"))
        })
    }
}
