//! What the threads of a tunnel share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use super::account::{Books, Cause, Copied, Counters, add};
use super::clock;
use super::crypto::Cipher;
use super::faults::DirectionFaults;
use super::impair::Exit;
use super::packet::{Packet, Pool};
use super::settings::{PeerLock, Settings};
use super::truth::{Fate, Truth};

/// Index of the direction from the device to the socket.
pub(super) const TRANSMIT: usize = 0;
/// Index of the direction from the socket to the device.
pub(super) const RECEIVE: usize = 1;

/// Shared by all threads.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) books: Books,
    pub(super) pool: Pool,
    pub(super) truth: Option<Truth>,
    pub(super) cipher: Cipher,
    pub(super) stop: AtomicBool,
    pub(super) sequence: AtomicU64,
    peer: Mutex<()>,
}

impl Shared {
    pub(super) fn new(settings: Settings, cipher: Cipher, truth: Option<Truth>) -> Shared {
        Shared {
            settings,
            books: Books::new(),
            pool: Pool::default(),
            truth,
            cipher,
            stop: AtomicBool::new(false),
            sequence: AtomicU64::new(0),
            peer: Mutex::default(),
        }
    }

    pub(super) fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || crate::lab::signals::received() > 0
    }

    /// The connection is gone: there is nothing left to carry, which is no failure of this end.
    pub(super) fn peer_ended(&self) {
        if !self.stop.swap(true, Ordering::SeqCst) {
            log::warn!("the peer ended the connection");
        }
    }
}

/// One direction's view of it.
#[derive(Debug, Clone)]
pub(super) struct Side {
    pub(super) shared: Arc<Shared>,
    pub(super) direction: usize,
}

impl Side {
    pub(super) fn new(shared: &Arc<Shared>, direction: usize) -> Side {
        Side {
            shared: Arc::clone(shared),
            direction,
        }
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.shared.books.directions[self.direction]
    }

    pub(super) fn faults(&self) -> &DirectionFaults {
        let faults = &self.shared.settings.faults;
        if self.direction == TRANSMIT {
            &faults.transmit
        } else {
            &faults.receive
        }
    }

    /// Whether someone wants to know what the inner packets are.
    pub(super) fn needs_inner(&self) -> bool {
        self.shared.truth.is_some() || Exit::needs_inner(self.faults())
    }

    /// Enters a packet that got through.
    pub(super) fn carried(&self, packet: Packet) {
        match packet.copied {
            None => self.counters().left.add(packet.length),
            Some(Copied::Duplicate) => add(&self.counters().duplicates, 1),
            Some(Copied::Retransmit) => add(&self.counters().retransmits, 1),
        }
        self.fate(&packet, Fate::Carried, None);
        self.shared.pool.give([packet.data]);
    }

    /// Enters a packet that did not. An additional copy that is lost is only in the truth log.
    pub(super) fn lost(&self, packet: Packet, cause: Cause) {
        if packet.copied.is_none() {
            self.counters().lost(cause).add(packet.length);
        }
        self.fate(&packet, Fate::Lost, Some(cause));
        self.shared.pool.give([packet.data]);
    }

    /// Enters packets that are still inside at the end.
    pub(super) fn inside(&self, packets: &[Packet]) {
        for packet in packets.iter().filter(|packet| packet.lost.is_none()) {
            self.fate(packet, Fate::Inside, None);
        }
    }

    fn fate(&self, packet: &Packet, fate: Fate, cause: Option<Cause>) {
        if let Some(truth) = &self.shared.truth {
            truth.write(self.direction, packet, fate, cause);
        }
    }

    /// Takes the peer's lock, if the settings have one for this direction.
    pub(super) fn lock_peer(&self) -> Option<MutexGuard<'_, ()>> {
        match (self.settings().peer_lock, self.direction) {
            (PeerLock::Both, _) | (PeerLock::Transmit, TRANSMIT) => {}
            _ => return None,
        }
        let guard = match self.shared.peer.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                let start = clock::now();
                let guard = super::packet::lock(&self.shared.peer);
                add(&self.counters().lock_waits, 1);
                add(&self.counters().lock_wait_ns, clock::now() - start);
                guard
            }
        };
        Some(guard)
    }

    /// Burns the CPU time planted at a stage: 0 entry, 1 crypto, 2 exit.
    pub(super) fn burn(&self, stage: usize, nanoseconds: u64) {
        if nanoseconds > 0 {
            add(&self.counters().burnt_ns[stage], clock::burn(nanoseconds));
        }
    }
}
