//! Tells at once when a device of a namespace appears, changes or goes.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc;
use std::thread;

use netlink_packet_core::{NetlinkBuffer, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::link::{LinkFlags, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::link;
use crate::probe::netns::{Netns, ignore_signals};

/// What happened to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkChange {
    /// It was created, moved here or renamed to this name.
    Added,
    /// It was set up or down.
    Changed,
    /// It was deleted or moved away.
    Removed,
    /// Messages were lost: anything may have happened.
    Overrun,
}

/// A message of the link watcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkEvent {
    /// Inode number of the namespace.
    pub netns: u32,
    /// Interface index, 0 on overrun.
    pub ifindex: u32,
    /// Name, empty on overrun.
    pub name: String,
    /// Administratively up.
    pub up: bool,
    /// What happened.
    pub change: LinkChange,
}

/// Keeps a watcher running; it ends when this is dropped.
#[derive(Debug)]
pub struct LinkWatch {
    /// Closing it wakes the thread.
    _stop: OwnedFd,
}

impl Netns {
    /// Sends a message for every device that appears, is set up or down, or goes. Needs no
    /// rights. Devices that came since they were last listed are not reported: look again once after
    /// the start. The thread ends when the returned guard is dropped, or at the first event for
    /// which there is no receiver.
    pub fn watch_links(&self, sender: mpsc::Sender<LinkEvent>) -> io::Result<LinkWatch> {
        // The socket stays in the namespace in which it was made, whichever thread reads it.
        let (socket, known) = self.run(|| {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind(&SocketAddr::new(0, 1))?; // bit 0: RTNLGRP_LINK
            let links = link::links()?
                .into_iter()
                .map(|link| (link.ifindex, (link.name, link.up)));
            io::Result::Ok((socket, links.collect()))
        })?;
        let (wake, stop) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        let mut watcher = Watcher {
            netns: self.inum(),
            socket,
            known,
            sender,
        };
        thread::Builder::new()
            .name("vpnbench-links".into())
            .spawn(move || {
                ignore_signals();
                watcher.run(&wake);
            })?;
        Ok(LinkWatch { _stop: stop })
    }
}

struct Watcher {
    netns: u32,
    socket: Socket,
    known: BTreeMap<u32, (String, bool)>,
    sender: mpsc::Sender<LinkEvent>,
}

impl Watcher {
    fn run(&mut self, wake: &OwnedFd) {
        while self.wait(wake.as_fd()) {
            let sent = match self.socket.recv_from_full() {
                Ok((datagram, _)) => self.read(&datagram),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    let (ifindex, name) = (0, String::new());
                    self.send(ifindex, name, false, LinkChange::Overrun)
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
                Err(_) => return,
            };
            if sent.is_err() {
                return;
            }
        }
    }

    /// False when the guard was dropped.
    fn wait(&self, wake: BorrowedFd<'_>) -> bool {
        let mut fds = [
            PollFd::new(wake, PollFlags::empty()),
            PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
        ];
        loop {
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) => return fds[0].revents().is_none_or(|events| events.is_empty()),
                Err(nix::Error::EINTR) => {}
                Err(_) => return false,
            }
        }
    }

    fn read(&mut self, mut datagram: &[u8]) -> Result<(), mpsc::SendError<LinkEvent>> {
        while let Ok(raw) = NetlinkBuffer::new_checked(datagram) {
            let length = (raw.length() as usize).next_multiple_of(4);
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(datagram);
            match message.map(|message| message.payload) {
                Ok(NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link))) => {
                    self.present(&link)?;
                }
                Ok(NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link))) => {
                    self.gone(&link)?;
                }
                _ => {}
            }
            datagram = datagram.get(length..).unwrap_or_default();
        }
        Ok(())
    }

    fn present(&mut self, message: &LinkMessage) -> Result<(), mpsc::SendError<LinkEvent>> {
        // Bridges report their ports as links of their own family.
        let Some(name) = own_name(message) else {
            return Ok(());
        };
        let up = message.header.flags.contains(LinkFlags::Up);
        let state = (name.clone(), up);
        let before = self.known.insert(message.header.index, state.clone());
        let change = match before {
            Some(before) if before == state => return Ok(()),
            Some((old, _)) if old == name => LinkChange::Changed,
            _ => LinkChange::Added,
        };
        self.send(message.header.index, name, up, change)
    }

    fn gone(&mut self, message: &LinkMessage) -> Result<(), mpsc::SendError<LinkEvent>> {
        let Some(name) = own_name(message) else {
            return Ok(());
        };
        self.known.remove(&message.header.index);
        self.send(message.header.index, name, false, LinkChange::Removed)
    }

    fn send(
        &self,
        ifindex: u32,
        name: String,
        up: bool,
        change: LinkChange,
    ) -> Result<(), mpsc::SendError<LinkEvent>> {
        self.sender.send(LinkEvent {
            netns: self.netns,
            ifindex,
            name,
            up,
            change,
        })
    }
}

fn own_name(message: &LinkMessage) -> Option<String> {
    (message.header.interface_family == AddressFamily::Unspec)
        .then(|| link::name_of(message).map(str::to_owned))?
}
