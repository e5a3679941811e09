//! The thread that empties the ring buffers into the trace. It polls: a wake-up per event would
//! cost more than the event. When the disk is slow the rings fill up and the programs count what
//! they cannot store; the kernel never waits.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use vpnbench_common::catalog::Kind;
use vpnbench_common::event::{CongState, Drop, Retransmit, Sample, Syscall, Taken};
use vpnbench_common::header::Header;

use super::clock::monotonic_ns;
use super::kallsyms::Kallsyms;
use super::user_code::UserCode;
use crate::probe::attach::Attached;
use crate::probe::ring::Ring;
use crate::trace::model::Change;
use crate::trace::{TraceError, Writer};

/// Pause between two rounds that found little. At a million events per second a round finds ten
/// thousand, 1.4 MB, which stays in the processor's cache on its way to the file.
const PAUSE: Duration = Duration::from_millis(10);

/// Records of one ring in a row before the others get their turn.
const TURN: usize = 16 * 1024;

/// What the drain thread and the others tell each other.
#[derive(Debug, Default)]
pub(super) struct Signals {
    /// Set when recording ends: nothing new is followed.
    pub(super) stop: AtomicBool,
    /// Set when nothing is watched any more; everything still in the rings is drained first.
    pub(super) finish: AtomicBool,
    /// Set while no watched device exists and none came back for a while.
    pub(super) devices_gone: AtomicBool,
    /// Set when a watched process did something that may change what has to be watched.
    pub(super) rediscover: AtomicBool,
    /// Set when the trace cannot be written any more.
    pub(super) failed: AtomicBool,
    /// Set, before `failed`, when that is because the reader of a pipe went away.
    pub(super) reader_gone: AtomicBool,
    /// Events stored so far, for the progress line.
    pub(super) events: std::sync::atomic::AtomicU64,
    /// Events lost so far, for the progress line.
    pub(super) lost: std::sync::atomic::AtomicU64,
    /// Bytes written so far, for the progress line.
    pub(super) bytes: std::sync::atomic::AtomicU64,
}

/// Everything the thread owns.
pub(super) struct Drain<W: Write> {
    /// Rings in use.
    pub(super) rings: Vec<Ring>,
    /// The trace.
    pub(super) writer: Writer<W>,
    /// Attached programs; detached when draining begins to end.
    pub(super) attached: Attached,
    /// Resolver of kernel addresses.
    pub(super) symbols: Kallsyms,
    /// User addresses, resolved when all have been seen.
    pub(super) user_code: UserCode,
    /// Changes to store.
    pub(super) changes: Receiver<Change>,
    /// Shared flags.
    pub(super) signals: Arc<Signals>,
    /// System calls after which the watched sockets may be others.
    pub(super) socket_calls: Vec<u32>,
}

/// What is left when the thread ends.
pub(super) struct Drained<W: Write> {
    /// The trace, ready for its end frame.
    pub(super) writer: Writer<W>,
    /// Attached programs, for their counters.
    pub(super) attached: Attached,
    /// First error in writing; the trace holds everything up to it.
    pub(super) error: Option<TraceError>,
}

/// Losses up to the last round.
#[derive(Debug, Default)]
struct Losses {
    /// What each ring said of refused records.
    refused: Vec<u64>,
    by_probe: BTreeMap<u8, u64>,
}

impl<W: Write> Drain<W> {
    /// Runs until [`Signals::finish`] or a write error.
    pub(super) fn run(mut self) -> Drained<W> {
        let mut losses = Losses::default();
        let mut watermark = 0;
        let mut error = None;
        loop {
            let stopping = self.signals.finish.load(Ordering::Acquire);
            let round = self.round(&mut losses, &mut watermark);
            self.publish();
            match round {
                Ok(count) if stopping && count == 0 => break,
                Ok(count) if count < TURN => {
                    std::thread::sleep(if stopping { Duration::ZERO } else { PAUSE });
                }
                Ok(_) => {}
                Err(failure) => {
                    let reader_gone = failure.is_closed_pipe();
                    self.signals
                        .reader_gone
                        .store(reader_gone, Ordering::Release);
                    error = Some(failure);
                    self.signals.failed.store(true, Ordering::Release);
                    break;
                }
            }
        }
        if error.is_none() {
            error = self.writer.symbols(&self.user_code.resolve()).err();
        }
        Drained {
            writer: self.writer,
            attached: self.attached,
            error,
        }
    }

    /// One epoch: drains every ring once. Returns the records taken.
    /// `watermark` is the time before which everything has been taken.
    fn round(&mut self, losses: &mut Losses, watermark: &mut u64) -> Result<usize, TraceError> {
        let begun = monotonic_ns();
        let mut count = 0;
        let mut emptied = true;
        for index in 0..self.rings.len() {
            let taken = self.drain_ring(index)?;
            // What is left in a ring is older than what others hold: the time stands still.
            emptied &= taken < TURN;
            count += taken;
        }
        if emptied {
            *watermark = begun;
        }
        self.attached.show_messages();
        let fresh = self.lost_since(losses);
        self.writer.end_epoch(*watermark, &fresh)?;
        while let Ok(change) = self.changes.try_recv() {
            self.writer.change(&change)?;
        }
        if let Some(symbols) = self.symbols.take() {
            self.writer.symbols(&symbols)?;
        }
        Ok(count)
    }

    /// Events of each probe that found no room since the last round. To read all counters takes a system
    /// call for each probe: only if a ring says that there is something new.
    fn lost_since(&self, losses: &mut Losses) -> Vec<(u8, u64)> {
        let refused: Vec<u64> = self.rings.iter().map(Ring::refused).collect();
        if refused == losses.refused {
            return Vec::new();
        }
        let now = self.attached.lost();
        let before = |probe| losses.by_probe.get(probe).copied().unwrap_or(0);
        let fresh = now
            .iter()
            .map(|(probe, total)| (*probe, total - before(probe)))
            .filter(|(_, lost)| *lost > 0)
            .collect();
        *losses = Losses {
            refused,
            by_probe: now,
        };
        fresh
    }

    fn drain_ring(&mut self, index: usize) -> Result<usize, TraceError> {
        let mut last_location = 0;
        let mut count = 0;
        while count < TURN {
            let Some(record) = self.rings[index].next() else {
                break;
            };
            count += 1;
            self.writer.push(index as u16, &record)?;
            // Only rare records and the places of common ones need a look.
            match record[std::mem::offset_of!(Header, kind)] {
                kind if kind == Kind::Packet as u8 => {}
                kind if kind == Kind::Taken as u8 => {
                    if let Ok(taken) = bytemuck::try_from_bytes::<Taken>(&record)
                        && taken.location != last_location
                    {
                        last_location = taken.location;
                        self.symbols.note(taken.location);
                    }
                }
                kind if kind == Kind::Sample as u8 => {
                    if let Ok(sample) = bytemuck::try_from_bytes::<Sample>(&record) {
                        let depth = usize::from(sample.kernel_depth).min(sample.kernel.len());
                        let kernel = &sample.kernel[..depth];
                        kernel.iter().for_each(|frame| self.symbols.note(*frame));
                        self.user_code.note(sample);
                    }
                }
                kind => Self::look(
                    &mut self.symbols,
                    &self.signals,
                    &self.socket_calls,
                    kind,
                    &record,
                ),
            }
        }
        self.rings[index].release();
        Ok(count)
    }

    /// Collects code addresses and hints that the watched sockets or processes may have changed.
    fn look(
        symbols: &mut Kallsyms,
        signals: &Signals,
        socket_calls: &[u32],
        kind: u8,
        record: &[u8],
    ) {
        const DROP: u8 = Kind::Drop as u8;
        const RETRANSMIT: u8 = Kind::Retransmit as u8;
        const CONG: u8 = Kind::CongState as u8;
        const SYSCALL: u8 = Kind::Syscall as u8;
        const TASK: u8 = Kind::Task as u8;
        match kind {
            DROP => {
                if let Ok(drop) = bytemuck::try_from_bytes::<Drop>(record) {
                    symbols.note(drop.location);
                }
            }
            RETRANSMIT => {
                if let Ok(event) = bytemuck::try_from_bytes::<Retransmit>(record) {
                    event.stack.iter().for_each(|frame| symbols.note(*frame));
                }
            }
            CONG => {
                if let Ok(event) = bytemuck::try_from_bytes::<CongState>(record) {
                    event.stack.iter().for_each(|frame| symbols.note(*frame));
                }
            }
            SYSCALL => {
                if let Ok(call) = bytemuck::try_from_bytes::<Syscall>(record)
                    && socket_calls.contains(&call.nr)
                {
                    signals.rediscover.store(true, Ordering::Release);
                }
            }
            TASK => signals.rediscover.store(true, Ordering::Release),
            _ => {}
        }
    }

    fn publish(&self) {
        let totals = self.writer.totals();
        self.signals.events.store(totals.events, Ordering::Relaxed);
        self.signals.lost.store(totals.lost, Ordering::Relaxed);
        self.signals.bytes.store(totals.bytes, Ordering::Relaxed);
    }
}
