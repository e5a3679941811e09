//! The three stages of one direction: front (read), middle (encrypt or decrypt), back (write).

use std::os::fd::{AsFd, BorrowedFd};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::account::{Cause, ThreadRecord, add};
use super::clock;
use super::context::{Side, TRANSMIT};
use super::faults::Stall;
use super::impair::{Effects, Entry, Exit};
use super::inner::Inner;
use super::packet::{HEADER, Packet};
use crate::lab::error::Result;

/// Longest time without a look at whether the tunnel is being stopped.
pub(super) const PATIENCE: Duration = Duration::from_millis(50);

/// Where packets come from.
pub(super) trait Input: Send {
    /// Says which thread it works for from now on.
    fn attach(&mut self, thread: &ThreadRecord);

    /// What to poll, unless it can only be waited for with [`Input::wait`].
    fn fd(&self) -> Option<BorrowedFd<'_>>;

    /// Waits until there may be something to read.
    fn wait(&mut self, limit: Duration) {
        if let Some(fd) = self.fd() {
            wait_for(&[fd], PollFlags::POLLIN, limit);
        }
    }

    /// Appends what is there, without waiting.
    fn read(&mut self, now: u64, out: &mut Vec<Packet>) -> Result<()>;

    /// Packets that were begun and never completed, at the end.
    fn unfinished(&self) -> u64 {
        0
    }
}

/// Where they go.
pub(super) trait Output: Send {
    /// Says which thread it works for from now on.
    fn attach(&mut self, thread: &ThreadRecord);

    /// Takes all packets and enters the fate of each.
    fn put(&mut self, packets: &mut Vec<Packet>) -> Result<()>;
}

/// Polls descriptors; a signal or a timeout is as good as an event for the caller.
pub(super) fn wait_for(fds: &[BorrowedFd<'_>], events: PollFlags, limit: Duration) {
    let mut fds: Vec<PollFd<'_>> = fds
        .iter()
        .map(|fd| PollFd::new(fd.as_fd(), events))
        .collect();
    // Whole milliseconds, rounded up: rounding down would spin through the last one.
    let milliseconds = limit.as_nanos().div_ceil(1_000_000);
    let timeout = PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX);
    let _interrupted = poll(&mut fds, timeout);
}

/// Reads packets and applies the entry faults.
pub(super) struct Front {
    pub(super) side: Side,
    input: Box<dyn Input>,
    entry: Entry,
    burn: u64,
    parse: bool,
    highest: Option<u64>,
    read: Vec<Packet>,
}

impl Front {
    pub(super) fn new(side: Side, input: Box<dyn Input>, lane: u64) -> Front {
        let settings = side.settings();
        let direction = side.direction as u64 + 2 * lane;
        let entry = Entry::new(
            side.faults(),
            settings.seed,
            direction,
            side.shared.books.started,
        );
        Front {
            burn: side.faults().burn_entry.nanoseconds(),
            parse: side.direction == TRANSMIT && side.needs_inner(),
            highest: None,
            read: Vec::new(),
            entry,
            input,
            side,
        }
    }

    /// Says which thread it works for.
    pub(super) fn attach(&mut self, thread: &ThreadRecord) {
        self.input.attach(thread);
    }

    /// What to poll: nothing while the start fault keeps everything waiting.
    pub(super) fn fd(&self, now: u64) -> Option<BorrowedFd<'_>> {
        if self.entry.wait(now) > 0 {
            None
        } else {
            self.input.fd()
        }
    }

    /// Time until anything may be read, in ns.
    pub(super) fn closed_for(&self, now: u64) -> u64 {
        self.entry.wait(now)
    }

    /// Waits until there may be something to read.
    pub(super) fn wait(&mut self, limit: Duration) {
        let closed = Duration::from_nanos(self.entry.wait(clock::now()));
        if closed.is_zero() {
            self.input.wait(limit);
        } else {
            thread::sleep(closed.min(limit));
        }
    }

    /// Appends the packets that get in.
    pub(super) fn collect(&mut self, out: &mut Vec<Packet>) -> Result<()> {
        let now = clock::now();
        if self.entry.wait(now) > 0 {
            return Ok(());
        }
        self.input.read(now, &mut self.read)?;
        let mut read = std::mem::take(&mut self.read);
        for mut packet in read.drain(..) {
            self.side.burn(0, self.burn);
            self.side.counters().read.add(packet.length);
            if self.parse {
                packet.inner = Inner::parse(&packet.data[HEADER..]).map(Box::new);
            }
            if self.side.direction != TRANSMIT {
                self.note_order(&packet);
            }
            if let Some(cause) = self.entry.refuses(packet.length, now) {
                self.side.lost(packet, cause);
                continue;
            }
            self.side.counters().entered.add(packet.length);
            if self.side.direction == TRANSMIT {
                let sequence = &self.side.shared.sequence;
                packet.sequence = sequence.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
            out.push(packet);
        }
        self.read = read;
        Ok(())
    }

    /// RFC 4737 section 3: reordered is what has a lower number than something before it.
    fn note_order(&mut self, packet: &Packet) {
        if self
            .highest
            .is_some_and(|highest| packet.sequence < highest)
        {
            add(&self.side.counters().out_of_order, 1);
        }
        self.highest = self.highest.max(Some(packet.sequence));
    }

    /// Enters what never became a packet, at the end.
    pub(super) fn finish(&self) {
        for _ in 0..self.input.unfinished() {
            self.side.counters().read.add(0);
            self.side.counters().lost(Cause::Incomplete).add(0);
        }
    }
}

/// Encrypts or decrypts.
#[derive(Debug, Clone)]
pub(super) struct Middle {
    side: Side,
    burn: u64,
    parse: bool,
    sleep: Option<Duration>,
}

impl Middle {
    /// For worker number `worker` of a pipeline; without one every packet burns.
    pub(super) fn new(side: Side, worker: Option<usize>) -> Middle {
        let faults = side.faults();
        let only = faults.burn_crypto_worker;
        let burns = worker.is_none() || only.is_none() || only == worker;
        Middle {
            burn: if burns {
                faults.burn_crypto.nanoseconds()
            } else {
                0
            },
            parse: side.direction != TRANSMIT && side.needs_inner(),
            sleep: faults.sleep_in_lock.map(|sleep| sleep.duration()),
            side,
        }
    }

    /// Does its work on one packet.
    pub(super) fn work(&self, packet: &mut Packet) -> std::result::Result<(), Cause> {
        self.side.burn(1, self.burn);
        let cipher = &self.side.shared.cipher;
        let done = match self.side.direction {
            TRANSMIT => cipher.seal(packet),
            _ => cipher.open(packet),
        };
        if !done {
            return Err(Cause::Authentication);
        }
        self.side.counters().crypto.add(packet.length);
        if self.parse {
            packet.inner = Inner::parse(&packet.data[HEADER..]).map(Box::new);
        }
        Ok(())
    }

    /// The fault `sleep_in_lock`; the caller holds the peer's lock.
    pub(super) fn sleep(&self) {
        if let Some(sleep) = self.sleep {
            thread::sleep(sleep);
        }
    }
}

/// Applies the exit faults and writes packets.
pub(super) struct Back {
    pub(super) side: Side,
    output: Box<dyn Output>,
    exit: Exit,
    told: Effects,
    burn: u64,
    stall: Option<Stall>,
    next_stall: u64,
    ready: Vec<Packet>,
}

impl Back {
    pub(super) fn new(side: Side, output: Box<dyn Output>, lane: u64) -> Back {
        let faults = side.faults();
        let stall = faults.stall;
        let period = stall.map_or(0, |stall| stall.period.nanoseconds());
        let direction = side.direction as u64 + 2 * lane;
        Back {
            exit: Exit::new(faults, side.settings().seed, direction),
            told: Effects::default(),
            burn: faults.burn_exit.nanoseconds(),
            stall,
            next_stall: side.shared.books.started.saturating_add(period),
            ready: Vec::new(),
            output,
            side,
        }
    }

    /// Says which thread it works for.
    pub(super) fn attach(&mut self, thread: &ThreadRecord) {
        self.output.attach(thread);
    }

    /// Takes a packet.
    pub(super) fn accept(&mut self, packet: Packet) {
        self.side.burn(2, self.burn);
        if let Some(lost) = self.exit.push(packet, clock::now(), &mut self.ready) {
            self.side.lost(lost, Cause::DropExit);
        }
    }

    /// Writes what may leave now.
    pub(super) fn flush(&mut self) -> Result<()> {
        self.exit.due(clock::now(), &mut self.ready);
        self.tell();
        if self.ready.is_empty() {
            return Ok(());
        }
        self.output.put(&mut self.ready)
    }

    fn tell(&mut self) {
        let (now, told) = (self.exit.effects(), self.told);
        if now == told {
            return;
        }
        let counters = self.side.counters();
        add(&counters.reordered, now.reordered - told.reordered);
        add(
            &counters.reorder_timeouts,
            now.reorder_timeouts - told.reorder_timeouts,
        );
        add(&counters.delayed, now.delayed - told.delayed);
        add(&counters.acks_delayed, now.acks_delayed - told.acks_delayed);
        self.told = now;
    }

    /// Pauses if it is time to: the fault `stall`.
    pub(super) fn stall(&mut self) {
        let Some(stall) = self.stall else { return };
        let start = clock::now();
        if start < self.next_stall {
            return;
        }
        let (length, period) = (stall.length.nanoseconds(), stall.period.nanoseconds());
        let end = self.next_stall + length;
        self.next_stall += period * ((start - self.next_stall) / period + 1);
        while !self.side.shared.stopping() {
            let left = Duration::from_nanos(end.saturating_sub(clock::now()));
            if left.is_zero() {
                break;
            }
            thread::sleep(left.min(PATIENCE));
        }
        add(&self.side.counters().stalls, 1);
        add(&self.side.counters().stalled_ns, clock::now() - start);
    }

    /// When it has something to do without a new packet.
    pub(super) fn next_event(&self) -> Option<u64> {
        let stall = self.stall.map(|_| self.next_stall);
        self.exit.next_due().into_iter().chain(stall).min()
    }

    /// Enters what is still inside, at the end.
    pub(super) fn finish(&mut self) {
        let mut inside = self.exit.drain();
        inside.append(&mut self.ready);
        self.side.inside(&inside);
    }
}
