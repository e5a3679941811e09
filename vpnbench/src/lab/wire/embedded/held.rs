//! What waits inside the sending host: packets in its nfnetlink_queue, where `wire::hold` puts them.
//! Formats: include/uapi/linux/netfilter/nfnetlink_queue.h, numbers big-endian.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};

use super::super::super::error::{LabError, Result};
use super::super::super::netns;
use super::super::hold::QUEUE;
use super::super::request::{self, Body, attributes, u16_at, u32_at};
use super::super::spec::Unit;
use super::frame::{ETHERNET, Frame, Size, VNET_HEADER};

const SUBSYSTEM: u16 = 3 << 8;
const PACKET: u16 = SUBSYSTEM;
const VERDICT: u16 = SUBSYSTEM | 1;
const CONFIGURE: u16 = SUBSYSTEM | 2;
/// Attributes of a configuration.
const COMMAND: u16 = 1;
const PARAMETERS: u16 = 2;
const LONGEST: u16 = 3;
const MASK: u16 = 4;
const FLAGS: u16 = 5;
const BIND: u8 = 1;
const COPY_PACKET: u8 = 2;
/// Super-packets come whole.
const WHOLE: u32 = 1 << 2;
/// Attributes of a packet, and of a verdict.
const PACKET_HEADER: u16 = 1;
const VERDICT_HEADER: u16 = 2;
const PAYLOAD: u16 = 10;
const FULL_LENGTH: u16 = 13;
const INFO: u16 = 14;
const IS_SUPER: u32 = 1 << 1;
const DROP: u32 = 0;
const ACCEPT: u32 = 1;
/// Bytes of each packet that are looked at: all headers.
const LOOK: u32 = 128;
/// Most packets in the kernel's queue. The impairment's own limit comes first.
const ROOM: u32 = 1 << 20;
/// Room for messages that have not been read yet.
const BUFFER: usize = 64 << 20;
/// MTU of the wire's devices.
const MTU: usize = 1500;
/// Header of a netlink message, and `struct nfgenmsg`.
const HEADER: usize = 16;
const FAMILY: usize = 4;

/// A packet that waits in its host.
pub(super) struct Held {
    /// The kernel's number for it.
    pub(super) id: u32,
    /// Its first bytes behind an Ethernet header made up, without the virtio-net header's meaning.
    pub(super) frame: Frame,
    pub(super) size: Size,
    /// Bytes of the frame.
    pub(super) length: u32,
}

/// A flow: protocol and ports.
type Flow = (u8, u16, u16);

/// A host's queue.
pub(super) struct Queue {
    socket: Socket,
    device: String,
    buffer: Vec<u8>,
    /// Payload of a flow's segments as its last super-packet at the device had it.
    segment: HashMap<Flow, usize>,
}

impl Queue {
    /// Takes the queue in its namespace. It goes with this process, and what waits in it is dropped.
    pub(super) fn open(netns: &Path, device: &str, unit: Unit) -> Result<Queue> {
        let socket = netns::run_in(netns, || {
            open(unit).map_err(LabError::failed("taking the packet queue of", device))
        })?;
        Ok(Queue {
            socket,
            device: device.to_owned(),
            buffer: vec![0; 1 << 16],
            segment: HashMap::new(),
        })
    }

    /// For poll.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The next packet that came; `None` when there is none now.
    pub(super) fn read(&mut self) -> Result<Option<Held>> {
        let failed = || LabError::failed("reading the packet queue of", &self.device);
        loop {
            let fd = self.socket.as_raw_fd();
            let length = match recv(fd, &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => length,
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EINTR) => continue,
                // ENOBUFS: packets were dropped that nobody counted. The run is worthless.
                Err(errno) => return Err(failed()(errno)),
            };
            let message = &self.buffer[..length];
            if u16_at(message, 4) == Some(PACKET)
                && let Some(packet) = parse(&message[(HEADER + FAMILY).min(length)..])
            {
                let size = self.size(&packet);
                let length = packet.length as u32;
                let Packet { id, frame, .. } = packet;
                return Ok(Some(Held {
                    id,
                    frame,
                    size,
                    length,
                }));
            }
        }
    }

    /// Lets a packet go on to the device, or drops it.
    pub(super) fn release(&self, id: u32, goes_on: bool) -> Result<()> {
        let verdict = if goes_on { ACCEPT } else { DROP };
        let mut body = Body::new(&queue());
        let mut header = verdict.to_be_bytes().to_vec();
        header.extend_from_slice(&id.to_be_bytes());
        body.put(VERDICT_HEADER, &header);
        let message = request::message(VERDICT, 0, 0, &body);
        self.socket
            .send(&message, 0)
            .map(drop)
            .map_err(LabError::failed("letting a packet go at", &self.device))
    }

    /// Learns from a super-packet at the device how large its flow's segments are.
    pub(super) fn learn(&mut self, frame: &Frame) {
        if let Some((flow, segment)) = flow(frame).zip(frame.segment_payload()) {
            self.segment.insert(flow, segment);
        }
    }

    /// The queue does not say how large the segments of a super-packet are. They are taken to be as
    /// the flow's last at the device; before there is one, as large as fits.
    fn size(&self, packet: &Packet) -> Size {
        let length = packet.length;
        let headers = packet.frame.headers().filter(|_| packet.is_super);
        let Some(headers) = headers.filter(|headers| *headers < length) else {
            return Size {
                segments: 1,
                bytes: length as u64,
            };
        };
        let known = flow(&packet.frame).and_then(|flow| self.segment.get(&flow).copied());
        let segment = known
            .unwrap_or((MTU + ETHERNET).saturating_sub(headers))
            .max(1);
        let segments = (length - headers).div_ceil(segment);
        Size {
            segments: segments as u32,
            bytes: (length + (segments - 1) * headers) as u64,
        }
    }
}

fn flow(frame: &Frame) -> Option<Flow> {
    let identity = frame.identity();
    let flow = (
        identity.protocol,
        identity.source_port,
        identity.destination_port,
    );
    (identity.protocol != 0).then_some(flow)
}

/// `struct nfgenmsg` for this queue.
fn queue() -> [u8; FAMILY] {
    let [high, low] = QUEUE.to_be_bytes();
    [0, 0, high, low]
}

fn open(unit: Unit) -> io::Result<Socket> {
    let socket = request::open(NETLINK_NETFILTER)?;
    let mut parameters = LOOK.to_be_bytes().to_vec();
    parameters.push(COPY_PACKET);
    let whole = if unit == Unit::Skb { WHOLE } else { 0 };
    let settings: [&[(u16, &[u8])]; 3] = [
        &[(COMMAND, &[BIND, 0, 0, 0])],
        &[(PARAMETERS, &parameters), (LONGEST, &ROOM.to_be_bytes())],
        &[(MASK, &WHOLE.to_be_bytes()), (FLAGS, &whole.to_be_bytes())],
    ];
    for setting in settings {
        let mut body = Body::new(&queue());
        for (kind, value) in setting {
            body.put(*kind, value);
        }
        request::ask_through(&socket, CONFIGURE, 0, &body)?;
    }
    setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
    Ok(socket)
}

struct Packet {
    id: u32,
    /// Bytes with an Ethernet header.
    length: usize,
    is_super: bool,
    frame: Frame,
}

/// A message's attributes.
fn parse(body: &[u8]) -> Option<Packet> {
    let number = |value: &[u8]| u32_at(value, 0).map(u32::from_be);
    let (mut id, mut ethertype, mut payload, mut full, mut info) = (None, [0; 2], None, None, 0);
    for (kind, value) in attributes(body) {
        match kind {
            PACKET_HEADER => {
                id = number(value);
                ethertype.copy_from_slice(value.get(4..6)?);
            }
            PAYLOAD => payload = Some(value),
            FULL_LENGTH => full = number(value),
            INFO => info = number(value)?,
            _ => {}
        }
    }
    let payload = payload?;
    let mut buffer = vec![0; VNET_HEADER + ETHERNET];
    buffer[VNET_HEADER + 12..].copy_from_slice(&ethertype);
    buffer.extend_from_slice(payload);
    let length = buffer.len();
    Some(Packet {
        id: id?,
        length: full.map_or(payload.len(), |full| full as usize) + ETHERNET,
        is_super: info & IS_SUPER != 0,
        frame: Frame::new(buffer, length).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packets_message_says_what_it_is() {
        let mut ip = vec![
            0x45, 0, 0, 0, 0, 7, 0, 0, 64, 17, 0, 0, 10, 99, 0, 1, 10, 99, 0, 2,
        ];
        ip.extend_from_slice(&[0x11, 0xf8, 0x11, 0xf9, 0, 0, 0, 0]);
        let mut body = Body::default();
        body.put(PACKET_HEADER, &[0, 0, 0, 9, 8, 0, 4]);
        body.put(INFO, &IS_SUPER.to_be_bytes());
        body.put(FULL_LENGTH, &2928_u32.to_be_bytes());
        body.put(PAYLOAD, &ip);
        let packet = parse(&body.bytes).unwrap();
        assert_eq!((packet.id, packet.length, packet.is_super), (9, 2942, true));
        assert_eq!(flow(&packet.frame), Some((17, 0x11f8, 0x11f9)));
        assert_eq!(packet.frame.headers(), Some(42));
        assert!(parse(&body.bytes[..20]).is_none());
    }
}
