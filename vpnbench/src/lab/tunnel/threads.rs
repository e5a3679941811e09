//! How the stages of both directions are spread over threads.

use std::io;
use std::net::TcpStream;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::{self, Scope};
use std::time::Duration;

use nix::poll::PollFlags;

use super::account::ThreadRecord;
use super::clock;
use super::context::{RECEIVE, Shared, Side, TRANSMIT};
use super::device::{Tun, TunInput, TunOutput};
use super::lane::{Back, Front, Input, Middle, Output, PATIENCE, wait_for};
use super::packet::{Packet, lock};
use super::settings::{Threads, Transport};
use super::stream::{TcpInput, TcpOutput};
use super::udp::{Outer, UdpInput, UdpOutput};
use super::{PartSettings, quic, stream, udp};
use crate::lab::error::{LabError, Result};

/// What carries packets between the ends.
pub(super) enum Link {
    /// Datagrams.
    Udp(Arc<Outer>),
    /// A connection.
    Tcp(Arc<TcpStream>),
    /// A stream.
    Quic(Box<quic::Stream>),
}

impl Link {
    /// Opens it; none if the tunnel is stopped before the peer answers.
    pub(super) fn open(shared: &Shared, part: &PartSettings) -> Result<Option<Link>> {
        let (local, peer, listen) = (part.local, part.peer, part.listen);
        Ok(match shared.settings.transport {
            Transport::Udp => {
                let outer = udp::open(&shared.settings, local, peer, &shared.books)?;
                Some(Link::Udp(outer))
            }
            Transport::Tcp => stream::connect(shared, local, peer, listen)?
                .map(|stream| Link::Tcp(Arc::new(stream))),
            Transport::Quic => quic::connect(shared, local, peer, listen)?
                .map(|stream| Link::Quic(Box::new(stream))),
        })
    }

    /// Both halves.
    fn split(self, input: Side, output: Side) -> (Box<dyn Input>, Box<dyn Output>) {
        match self {
            Link::Udp(outer) => (
                Box::new(UdpInput::new(&outer, input)),
                Box::new(UdpOutput::new(&outer, output)),
            ),
            Link::Tcp(stream) => (
                Box::new(TcpInput::new(&stream, input)),
                Box::new(TcpOutput::new(&stream, output)),
            ),
            Link::Quic(stream) => {
                let (reader, writer) = stream.split(input, output);
                (Box::new(reader), Box::new(writer))
            }
        }
    }
}

/// Starts the threads of a tunnel.
pub(super) struct Starter<'scope, 'env> {
    pub(super) scope: &'scope Scope<'scope, 'env>,
    pub(super) shared: Arc<Shared>,
    /// The first error of a thread; it stops the tunnel.
    pub(super) failure: &'scope Mutex<Option<LabError>>,
}

impl<'scope> Starter<'scope, '_> {
    /// Starts all of them. With several queues of the device, each gets a thread that transmits.
    pub(super) fn start(&self, queues: &[Arc<Tun>], link: Link) -> Result<()> {
        let (transmit, receive) = (self.side(TRANSMIT), self.side(RECEIVE));
        let shared_socket = match &link {
            Link::Udp(outer) => Some(Arc::clone(outer)),
            Link::Tcp(_) | Link::Quic(_) => None,
        };
        let (input, output) = link.split(receive.clone(), transmit.clone());
        let device = TunInput::new(&queues[0], transmit.clone());
        let out = (
            Front::new(transmit.clone(), Box::new(device), 0),
            Back::new(transmit, output, 0),
        );
        let device = TunOutput::new(&queues[0], receive.clone());
        let back = Back::new(receive.clone(), Box::new(device), 0);
        let inward = (Front::new(receive, input, 0), back);
        match self.shared.settings.threads {
            Threads::Single => self.inline("tunnel", vec![self.lane(out), self.lane(inward)]),
            Threads::PerDirection => {
                self.inline("transmit", vec![self.lane(out)])?;
                self.inline("receive", vec![self.lane(inward)])?;
                let more = queues.iter().zip(0..).skip(1);
                for ((queue, number), outer) in more.zip(shared_socket.iter().cycle()) {
                    let side = self.side(TRANSMIT);
                    let input = Box::new(TunInput::new(queue, side.clone()));
                    let output = Box::new(UdpOutput::new(outer, side.clone()));
                    let front = Front::new(side.clone(), input, number);
                    let lane = self.lane((front, Back::new(side, output, number)));
                    self.inline(&format!("transmit-{number}"), vec![lane])?;
                }
                Ok(())
            }
            Threads::Pipeline => {
                self.pipeline(out.0, out.1, ["reader", "seal", "sender"])?;
                self.pipeline(inward.0, inward.1, ["receiver", "open", "writer"])
            }
        }
    }

    fn side(&self, direction: usize) -> Side {
        Side::new(&self.shared, direction)
    }

    fn lane(&self, (front, back): (Front, Back)) -> Lane {
        let middle = Middle::new(front.side.clone(), None);
        Lane {
            front,
            middle,
            back,
            batch: Vec::new(),
        }
    }

    /// Starts a thread that stops the tunnel if it fails.
    pub(super) fn spawn(
        &self,
        name: &str,
        work: impl FnOnce(&ThreadRecord) -> Result<()> + Send + 'scope,
    ) -> Result<()> {
        let (shared, failure) = (Arc::clone(&self.shared), self.failure);
        let body = move || {
            let record = shared.books.thread();
            let outcome = work(&record);
            record.finish();
            if let Err(error) = outcome {
                lock(failure).get_or_insert(error);
                shared.stop.store(true, Ordering::SeqCst);
            }
        };
        let builder = thread::Builder::new().name(name.to_owned());
        let started = builder.spawn_scoped(self.scope, body);
        started
            .map(drop)
            .map_err(LabError::failed::<io::Error>("starting thread", name))
    }

    /// One thread that works through all stages of these lanes.
    fn inline(&self, name: &str, mut lanes: Vec<Lane>) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        self.spawn(name, move |record| {
            for lane in &mut lanes {
                lane.front.attach(record);
                lane.back.attach(record);
            }
            while !shared.stopping() {
                if !shared.settings.busy_poll {
                    wait(&mut lanes);
                }
                lanes.iter_mut().try_for_each(Lane::turn)?;
            }
            lanes.iter_mut().for_each(Lane::finish);
            Ok(())
        })
    }
}

/// One direction's stages, worked through by one thread.
struct Lane {
    front: Front,
    middle: Middle,
    back: Back,
    batch: Vec<Packet>,
}

impl Lane {
    /// Takes what is there from one end to the other.
    fn turn(&mut self) -> Result<()> {
        self.back.stall();
        self.front.collect(&mut self.batch)?;
        let side = self.front.side.clone();
        let guard = side.lock_peer();
        for mut packet in self.batch.drain(..) {
            match self.middle.work(&mut packet) {
                Ok(()) => self.back.accept(packet),
                Err(cause) => side.lost(packet, cause),
            }
            if guard.is_some() {
                self.middle.sleep();
            }
        }
        self.back.flush()
    }

    fn finish(&mut self) {
        self.front.finish();
        self.back.finish();
    }
}

/// Waits until one of the lanes has something to do.
fn wait(lanes: &mut [Lane]) {
    let now = clock::now();
    let mut limit = PATIENCE;
    for lane in &*lanes {
        let event = lane.back.next_event().map(|due| due.saturating_sub(now));
        let opens = Some(lane.front.closed_for(now)).filter(|closed| *closed > 0);
        for wait in event.into_iter().chain(opens) {
            limit = limit.min(Duration::from_nanos(wait));
        }
    }
    if limit.is_zero() {
        return;
    }
    if let [lane] = lanes {
        return lane.front.wait(limit);
    }
    let fds: Vec<BorrowedFd<'_>> = lanes.iter().filter_map(|lane| lane.front.fd(now)).collect();
    wait_for(&fds, PollFlags::POLLIN, limit);
}
