//! The analyses in two threads: the one that reads a recording takes one lane of them itself, the other lane
//! follows, with batches of what it wants.
//!
//! What is read is copied once, into the batches of the lane beside; the reader's own lane takes it where it is.
//! Captures are costly to read and little is to be said about their path, so there the senders are beside, and with
//! them what counts packets; of a trace it is the other way round.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use crate::analysis::Analyses;
use crate::analysis::lanes::{Path, Senders};
use crate::trace::{Batch, Event};

/// 8-byte words of records that are handed over at a time: what fits a core's own cache, and so much that waking the
/// other thread costs little beside it.
const WORDS: usize = 1 << 15;
/// Batches that wait for the lane beside.
const WAITING: usize = 8;

/// Which lane has a thread beside the one that reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beside {
    Senders,
    Path,
}

/// The lane of the thread that reads.
enum Own<'a> {
    Senders(Senders<'a>),
    Path(Path<'a>),
}

/// Takes the events of a recording that is being read.
pub(super) struct Feed<'a> {
    own: Own<'a>,
    batch: Batch,
    beside: SyncSender<Batch>,
    used: Receiver<Batch>,
}

impl Feed<'_> {
    /// Takes one event, in time order.
    #[inline]
    pub(super) fn observe(&mut self, event: &Event<'_>) {
        match &mut self.own {
            Own::Path(path) => {
                path.observe(event);
            }
            Own::Senders(senders) => senders.observe(event),
        }
        self.batch.push(event);
        if self.batch.words() >= WORDS {
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        let next = self.used.try_recv();
        let next = next.unwrap_or_else(|_| Batch::with_room(WORDS));
        let full = std::mem::replace(&mut self.batch, next);
        // The lane is gone only if it panicked, which its thread's end tells.
        let _ = self.beside.send(full);
    }
}

/// Takes batches until there are no more, and gives them back.
fn follow(
    batches: &Receiver<Batch>,
    used: &SyncSender<Batch>,
    mut observe: impl FnMut(&Event<'_>),
) {
    for mut batch in batches {
        for event in batch.events() {
            observe(&event);
        }
        batch.clear();
        // Nobody waits for it if there are enough.
        let _ = used.try_send(batch);
    }
}

/// Takes all events that `read` gives to its feed, in time order. Returns what `read` does. The outcome is that
/// of [`Analyses::observe`] with the same events.
pub(super) fn follow_all<R>(
    analyses: &mut Analyses,
    beside: Beside,
    read: impl FnOnce(&mut Feed<'_>) -> R,
) -> R {
    let (mut senders, mut path, mut counting) = analyses.lanes();
    thread::scope(|scope| {
        let (send, batches) = sync_channel(WAITING);
        let (give_back, used) = sync_channel(2 * WAITING);
        let own = match beside {
            Beside::Senders => {
                scope.spawn(move || {
                    follow(&batches, &give_back, |event| {
                        senders.observe(event);
                        // Nothing of a capture is a read.
                        counting.observe(event, false);
                    });
                });
                Own::Path(path)
            }
            Beside::Path => {
                scope.spawn(move || {
                    follow(&batches, &give_back, |event| {
                        let is_read = path.observe(event);
                        counting.observe(event, is_read);
                    });
                });
                Own::Senders(senders)
            }
        };
        let mut feed = Feed {
            own,
            batch: Batch::with_room(WORDS),
            beside: send,
            used,
        };
        let result = read(&mut feed);
        feed.hand_over();
        result
    })
}
