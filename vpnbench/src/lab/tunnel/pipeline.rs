//! A direction as a pipeline: one thread reads, several encrypt or decrypt, one writes.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::account::{Cause, add};
use super::clock;
use super::context::{Side, TRANSMIT};
use super::lane::{Back, Front, Middle, PATIENCE};
use super::packet::{Packet, lock};
use super::queue::Queue;
use super::settings::{Order, PeerLock, QueueFull};
use super::threads::Starter;
use crate::lab::error::Result;

impl Starter<'_, '_> {
    /// Starts the threads of one direction, named after their stages. With a peer's lock, workers
    /// write packets themselves, and there is no last thread.
    pub(super) fn pipeline(&self, front: Front, back: Back, names: [&str; 3]) -> Result<()> {
        let settings = &self.shared.settings;
        let queue = || Arc::new(Queue::new(settings.queue_depth, settings.queue_full));
        let inputs: Vec<Arc<Queue>> = (0..settings.workers).map(|_| queue()).collect();
        // A lost packet must be known at the end to restore the order, so workers block.
        let ready = Arc::new(Queue::new(settings.queue_depth, QueueFull::Block));
        let side = front.side.clone();
        let locked = match settings.peer_lock {
            PeerLock::None => false,
            PeerLock::Transmit => side.direction == TRANSMIT,
            PeerLock::Both => true,
        };
        let back = Arc::new(Mutex::new(back));
        for (number, input) in inputs.iter().enumerate() {
            let worker = Worker {
                side: side.clone(),
                middle: Middle::new(side.clone(), Some(number)),
                input: Arc::clone(input),
                ready: Arc::clone(&ready),
            };
            let name = format!("{}-{number}", names[1]);
            if locked {
                let back = Arc::clone(&back);
                self.spawn(&name, move |record| {
                    lock(&back).attach(record);
                    worker.run_locked(&back)
                })?;
            } else {
                self.spawn(&name, move |_| {
                    worker.run();
                    Ok(())
                })?;
            }
        }
        if !locked {
            let ready = Arc::clone(&ready);
            self.spawn(names[2], move |record| {
                let mut back = lock(&back);
                back.attach(record);
                Last {
                    ready,
                    next: 0,
                    parked: BTreeMap::new(),
                }
                .run(&mut back)
            })?;
        }
        self.spawn(names[0], move |record| {
            First {
                front,
                inputs,
                ready,
                slot: 0,
            }
            .run(record)
        })
    }
}

/// How long a stage may sleep.
fn patience(side: &Side) -> Duration {
    if side.settings().busy_poll {
        Duration::ZERO
    } else {
        PATIENCE
    }
}

/// Reads and deals packets out.
struct First {
    front: Front,
    inputs: Vec<Arc<Queue>>,
    ready: Arc<Queue>,
    slot: u64,
}

impl First {
    fn run(mut self, record: &super::account::ThreadRecord) -> Result<()> {
        self.front.attach(record);
        let mut batch = Vec::new();
        let side = self.front.side.clone();
        let outcome = loop {
            if side.shared.stopping() {
                break Ok(());
            }
            if !side.settings().busy_poll {
                self.front.wait(PATIENCE);
            }
            if let Err(error) = self.front.collect(&mut batch) {
                break Err(error);
            }
            batch.drain(..).for_each(|packet| self.deal(packet));
        };
        self.front.finish();
        // So that nobody waits for room that never comes.
        side.shared.stop.store(true, Ordering::SeqCst);
        for queue in self.inputs.iter().chain([&self.ready]) {
            queue.close();
            side.counters()
                .queue_deepest
                .fetch_max(queue.deepest(), Ordering::Relaxed);
        }
        outcome
    }

    /// Gives a packet to the worker whose turn it is.
    fn deal(&mut self, mut packet: Packet) {
        let side = &self.front.side;
        let run = side.settings().worker_run as u64;
        let worker = (self.slot / run) % self.inputs.len() as u64;
        packet.slot = self.slot;
        let (back, waited) = self.inputs[worker as usize].push(packet);
        add(&side.counters().blocked, u64::from(waited));
        match back {
            None => self.slot += 1,
            // Not lost but still inside when it is the end that turned it away.
            Some(packet) if side.shared.stopping() => side.inside(&[packet]),
            Some(packet) => side.lost(packet, Cause::QueueFull),
        }
    }
}

/// Encrypts or decrypts.
struct Worker {
    side: Side,
    middle: Middle,
    input: Arc<Queue>,
    ready: Arc<Queue>,
}

impl Worker {
    fn run(self) {
        let mut batch = Vec::new();
        while !self.side.shared.stopping() {
            self.input.pop(
                self.side.settings().worker_run,
                patience(&self.side),
                &mut batch,
            );
            for mut packet in batch.drain(..) {
                if let Err(cause) = self.middle.work(&mut packet) {
                    self.pass_tombstone(packet, cause);
                    continue;
                }
                let (back, waited) = self.ready.push(packet);
                add(&self.side.counters().blocked, u64::from(waited));
                self.side.inside(back.as_slice());
            }
        }
        self.side.inside(&self.input.drain());
    }

    /// Enters a packet as lost, and leaves a mark in its place for who restores the order.
    fn pass_tombstone(&self, packet: Packet, cause: Cause) {
        let mut mark = Packet::new(Vec::new(), 0, packet.entered);
        mark.slot = packet.slot;
        mark.lost = Some(cause);
        self.side.lost(packet, cause);
        self.ready.push_beyond(mark);
    }

    /// Encrypts and sends (decrypts and writes) under the peer's lock.
    fn run_locked(self, back: &Mutex<Back>) -> Result<()> {
        let mut batch = Vec::new();
        while !self.side.shared.stopping() {
            let due = lock(back).next_event();
            let wait = due.map_or(PATIENCE, |due| {
                Duration::from_nanos(due.saturating_sub(clock::now())).min(PATIENCE)
            });
            self.input
                .pop(1, wait.min(patience(&self.side)), &mut batch);
            if batch.is_empty() && due.is_none() {
                continue;
            }
            let _peer = self.side.lock_peer();
            let mut back = lock(back);
            back.stall();
            for mut packet in batch.drain(..) {
                match self.middle.work(&mut packet) {
                    Ok(()) => back.accept(packet),
                    Err(cause) => self.side.lost(packet, cause),
                }
                self.middle.sleep();
            }
            back.flush()?;
        }
        self.side.inside(&self.input.drain());
        lock(back).finish();
        Ok(())
    }
}

/// Writes packets, in their order if the settings say so.
struct Last {
    ready: Arc<Queue>,
    next: u64,
    parked: BTreeMap<u64, Packet>,
}

impl Last {
    fn run(mut self, back: &mut Back) -> Result<()> {
        let mut batch = Vec::new();
        let side = back.side.clone();
        while !side.shared.stopping() {
            let now = clock::now();
            let due = back
                .next_event()
                .map(|due| Duration::from_nanos(due.saturating_sub(now)));
            let wait = due.unwrap_or(PATIENCE).min(patience(&side));
            self.ready
                .pop(side.settings().send_batch.max(1), wait, &mut batch);
            back.stall();
            for packet in batch.drain(..) {
                self.place(packet, side.settings().order, back);
            }
            back.flush()?;
        }
        back.finish();
        side.inside(&self.parked.into_values().collect::<Vec<_>>());
        side.inside(&self.ready.drain());
        Ok(())
    }

    /// Passes a packet on when all before it have passed.
    fn place(&mut self, packet: Packet, order: Order, back: &mut Back) {
        if order == Order::Unordered {
            if packet.lost.is_none() {
                back.accept(packet);
            }
            return;
        }
        self.parked.insert(packet.slot, packet);
        while let Some(packet) = self.parked.remove(&self.next) {
            self.next += 1;
            if packet.lost.is_none() {
                back.accept(packet);
            }
        }
    }
}
