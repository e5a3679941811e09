//! Blocking netlink exchanges. The socket belongs to the network namespace of the calling thread.

use std::io;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_MULTIPART, NLM_F_REQUEST, NetlinkBuffer,
    NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};

/// A dump is read again when the kernel says that it changed meanwhile, at most this often.
const TRIES: usize = 3;

/// What came back: the messages that could be read, and how many could not.
#[derive(Debug)]
pub(crate) struct Answer<M> {
    /// Messages.
    pub(crate) messages: Vec<M>,
    /// Messages whose content was not understood.
    pub(crate) unreadable: usize,
}

/// Sends a request for one object and returns the answer.
pub(crate) fn request<M>(protocol: isize, message: M) -> io::Result<Answer<M>>
where
    M: NetlinkSerializable + NetlinkDeserializable + Clone,
{
    exchange(protocol, message, NLM_F_REQUEST).map(|(answer, _)| answer)
}

/// Asks for all objects of a kind.
pub(crate) fn dump<M>(protocol: isize, message: M) -> io::Result<Answer<M>>
where
    M: NetlinkSerializable + NetlinkDeserializable + Clone,
{
    let mut answer = exchange(protocol, message.clone(), NLM_F_REQUEST | NLM_F_DUMP)?;
    for _ in 1..TRIES {
        if !answer.1 {
            break;
        }
        answer = exchange(protocol, message.clone(), NLM_F_REQUEST | NLM_F_DUMP)?;
    }
    Ok(answer.0)
}

/// One request and its answer; the flag tells that a dump was interrupted by a change.
fn exchange<M>(protocol: isize, message: M, flags: u16) -> io::Result<(Answer<M>, bool)>
where
    M: NetlinkSerializable + NetlinkDeserializable,
{
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let payload = NetlinkPayload::InnerMessage(message);
    let mut request = NetlinkMessage::new(NetlinkHeader::default(), payload);
    request.header.flags = flags;
    request.header.sequence_number = 1;
    request.finalize();
    let mut buffer = vec![0; request.buffer_len()];
    request.serialize(&mut buffer);
    socket.send(&buffer, 0)?;

    let mut answer = Answer {
        messages: Vec::new(),
        unreadable: 0,
    };
    let mut interrupted = false;
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = datagram.as_slice();
        while let Ok(raw) = NetlinkBuffer::new_checked(rest) {
            let length = raw.length() as usize;
            interrupted |= raw.flags() & NLM_F_DUMP_INTR != 0;
            let last = raw.flags() & NLM_F_MULTIPART == 0;
            if take(rest, &mut answer)? || last {
                return Ok((answer, interrupted));
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

/// Sorts one message into the answer; true when it was the last.
fn take<M>(bytes: &[u8], answer: &mut Answer<M>) -> io::Result<bool>
where
    M: NetlinkSerializable + NetlinkDeserializable,
{
    match NetlinkMessage::<M>::deserialize(bytes).map(|message| message.payload) {
        Ok(NetlinkPayload::InnerMessage(inner)) => answer.messages.push(inner),
        Ok(NetlinkPayload::Done(done)) if done.code < 0 => {
            return Err(io::Error::from_raw_os_error(-done.code));
        }
        Ok(NetlinkPayload::Done(_)) => return Ok(true),
        Ok(NetlinkPayload::Error(error)) if error.code.is_some() => return Err(error.to_io()),
        Ok(NetlinkPayload::Error(_)) => return Ok(true),
        Ok(_) => {}
        Err(_) => answer.unreadable += 1,
    }
    Ok(false)
}
