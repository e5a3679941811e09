//! One thread reads a recording, each lane of the analyses has a thread that follows: what is read is handed over in
//! batches.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use crate::analysis::Analyses;
use crate::trace::{Batch, Event};

/// 8-byte words of records that are handed over at a time: what fits a core's own cache.
const WORDS: usize = 1 << 14;
/// Batches that wait for a lane.
const WAITING: usize = 8;

/// Takes the events of a recording that is being read.
pub(super) struct Feed {
    batch: Batch,
    lanes: [SyncSender<Arc<Batch>>; 2],
    used: Receiver<Batch>,
}

impl Feed {
    /// Takes one event, in time order.
    #[inline]
    pub(super) fn observe(&mut self, event: &Event<'_>) {
        self.batch.push(event);
        if self.batch.words() >= WORDS {
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        let next = self.used.try_recv();
        let next = next.unwrap_or_else(|_| Batch::with_room(WORDS));
        let full = Arc::new(std::mem::replace(&mut self.batch, next));
        for lane in &self.lanes {
            // A lane is gone only if it panicked, which its thread's end tells.
            let _ = lane.send(full.clone());
        }
    }
}

/// Takes batches until there are no more; the last lane gives them back.
fn follow(
    batches: &Receiver<Arc<Batch>>,
    used: &SyncSender<Batch>,
    mut observe: impl FnMut(&Event<'_>),
) {
    for batch in batches {
        for event in batch.events() {
            observe(&event);
        }
        if let Some(mut batch) = Arc::into_inner(batch) {
            batch.clear();
            // Nobody waits for it if there are enough.
            let _ = used.try_send(batch);
        }
    }
}

/// Takes all events that `read` gives to its feed, in time order, in threads beside it. Returns what
/// `read` does. The outcome is that of [`Analyses::observe`] with the same events.
pub(super) fn follow_all<R>(analyses: &mut Analyses, read: impl FnOnce(&mut Feed) -> R) -> R {
    let (mut tcp, mut path) = analyses.lanes();
    thread::scope(|scope| {
        let (to_tcp, for_tcp) = sync_channel(WAITING);
        let (to_path, for_path) = sync_channel(WAITING);
        let (give_back, used) = sync_channel(2 * WAITING);
        let also_back = give_back.clone();
        scope.spawn(move || follow(&for_tcp, &give_back, |event| tcp.observe(event)));
        scope.spawn(move || follow(&for_path, &also_back, |event| path.observe(event)));
        let mut feed = Feed {
            batch: Batch::with_room(WORDS),
            lanes: [to_tcp, to_path],
            used,
        };
        let result = read(&mut feed);
        feed.hand_over();
        result
    })
}
