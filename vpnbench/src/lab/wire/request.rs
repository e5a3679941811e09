//! Netlink requests for which the crates have no message types: netem's options, ethtool's features,
//! netfilter's rules and packet queues. Everything is in the machine's byte order.

use std::io;

use netlink_sys::{Socket, SocketAddr};

const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
/// All objects, not one.
pub(super) const DUMP: u16 = 0x300;
/// A new object; refused if it is there already.
pub(super) const CREATE_NEW: u16 = 0x600;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// Header of a message and of an attribute.
const MESSAGE_HEADER: usize = 16;
const ATTRIBUTE_HEADER: usize = 4;
const NESTED: u16 = 0x8000;

/// Attributes after one another, or a fixed structure followed by attributes.
#[derive(Debug, Clone, Default)]
pub(super) struct Body {
    pub(super) bytes: Vec<u8>,
}

impl Body {
    /// Starts with a fixed structure.
    pub(super) fn new(fixed: &[u8]) -> Body {
        let mut body = Body {
            bytes: fixed.to_vec(),
        };
        body.align();
        body
    }

    /// Adds an attribute.
    pub(super) fn put(&mut self, kind: u16, value: &[u8]) -> &mut Body {
        let length = (ATTRIBUTE_HEADER + value.len()) as u16;
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.align();
        self
    }

    /// Adds a text.
    pub(super) fn put_text(&mut self, kind: u16, text: &str) -> &mut Body {
        let mut value = text.as_bytes().to_vec();
        value.push(0);
        self.put(kind, &value)
    }

    /// Adds attributes inside an attribute.
    pub(super) fn put_nested(&mut self, kind: u16, inner: &Body) -> &mut Body {
        self.put(kind | NESTED, &inner.bytes)
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// Kind and value of each attribute in a message's body after its fixed structure.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let kind = u16_at(rest, 2)? & 0x3fff;
        let value = rest.get(ATTRIBUTE_HEADER..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// Number at a place, if there is one.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// See [`u16_at`].
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// See [`u16_at`].
pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// Sends a request in the calling thread's namespace and returns the bodies of the answers, once
/// the kernel has confirmed it.
pub(super) fn ask(protocol: isize, kind: u16, flags: u16, body: &Body) -> io::Result<Vec<Vec<u8>>> {
    ask_through(&open(protocol)?, kind, flags, body)
}

/// The same through a socket of the caller's, for what belongs to the socket.
pub(super) fn ask_through(
    socket: &Socket,
    kind: u16,
    flags: u16,
    body: &Body,
) -> io::Result<Vec<Vec<u8>>> {
    socket.send(&message(kind, flags | ACK, 1, body), 0)?;
    answers(socket, 1)
}

/// Sends messages (type, flags, body) that take effect together or not at all: the first and the
/// last mark the batch and are not confirmed, all others are.
pub(super) fn batch(protocol: isize, messages: &[(u16, u16, Body)]) -> io::Result<()> {
    let socket = open(protocol)?;
    let inner = 1..messages.len().saturating_sub(1);
    let mut bytes = Vec::new();
    for (number, (kind, flags, body)) in messages.iter().enumerate() {
        let ack = if inner.contains(&number) { ACK } else { 0 };
        bytes.extend_from_slice(&message(*kind, flags | ack, number as u32 + 1, body));
    }
    socket.send(&bytes, 0)?;
    answers(&socket, inner.len()).map(drop)
}

/// A socket of the calling thread's namespace that talks to the kernel.
pub(super) fn open(protocol: isize) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

/// A request as it is sent.
pub(super) fn message(kind: u16, flags: u16, sequence: u32, body: &Body) -> Vec<u8> {
    let length = (MESSAGE_HEADER + body.bytes.len()) as u32;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
    message.extend_from_slice(&sequence.to_ne_bytes());
    message.extend_from_slice(&[0; 4]); // port of the kernel
    message.extend_from_slice(&body.bytes);
    message
}

/// Bodies of the answers until so many requests are confirmed, or one is refused.
fn answers(socket: &Socket, mut outstanding: usize) -> io::Result<Vec<Vec<u8>>> {
    let mut answers = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = datagram.as_slice();
        while let Some(length) = u32_at(rest, 0).map(|length| length as usize) {
            let message = rest.get(..length).ok_or(io::ErrorKind::InvalidData)?;
            let body = message
                .get(MESSAGE_HEADER..)
                .ok_or(io::ErrorKind::InvalidData)?;
            match u16_at(message, 4) {
                Some(ERROR) => match u32_at(body, 0) {
                    Some(0) => outstanding = outstanding.saturating_sub(1),
                    Some(code) => return Err(io::Error::from_raw_os_error(-code.cast_signed())),
                    None => return Err(io::ErrorKind::InvalidData.into()),
                },
                Some(DONE) => return Ok(answers),
                _ => answers.push(body.to_vec()),
            }
            if outstanding == 0 {
                return Ok(answers);
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_read_back() {
        let mut inner = Body::default();
        inner.put(1, &[7]).put_text(2, "ab");
        let mut body = Body::new(&[9; 3]);
        body.put_nested(5, &inner).put(6, &4_u32.to_ne_bytes());
        let read: Vec<(u16, &[u8])> = attributes(&body.bytes[4..]).collect();
        assert_eq!(read.len(), 2);
        assert_eq!(
            (read[0].0, read[1].0, u32_at(read[1].1, 0)),
            (5, 6, Some(4))
        );
        let nested: Vec<(u16, &[u8])> = attributes(read[0].1).collect();
        assert_eq!(nested, [(1, &[7][..]), (2, &b"ab\0"[..])]);
        // A length that runs past the end, or is too short for its own header, ends the list.
        assert_eq!(attributes(&[200, 0, 1, 0, 0]).count(), 0);
        assert_eq!(attributes(&[2, 0, 1, 0, 0]).count(), 0);
    }
}
