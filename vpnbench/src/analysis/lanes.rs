//! The analyses in two lanes that share nothing: TCP's connections, and everything else. One
//! thread reads a recording, each lane has a thread that follows: what is read is handed over in batches.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use super::{Analyses, Span};
use crate::trace::{Batch, Event};

/// 8-byte words of records that are handed over at a time: what fits a core's own cache.
const WORDS: usize = 1 << 14;
/// Batches that wait for a lane.
const WAITING: usize = 8;

/// Events by probe, and the first and last one.
#[derive(Debug)]
pub(super) struct Counts {
    by_probe: [u64; 256],
    pub(super) span: Span,
}

impl Default for Counts {
    fn default() -> Counts {
        Counts {
            by_probe: [0; 256],
            span: Span::default(),
        }
    }
}

impl Counts {
    #[inline]
    fn observe(&mut self, event: &Event<'_>) {
        let header = event.header();
        self.by_probe[usize::from(header.probe)] += 1;
        self.span.events += 1;
        self.span.first_ns.get_or_insert(header.time_ns);
        self.span.last_ns = Some(header.time_ns);
    }

    /// Probes of which there were events.
    pub(super) fn by_probe(&self) -> BTreeMap<u8, u64> {
        let all = (0u8..=255).zip(self.by_probe);
        all.filter(|(_, events)| *events > 0).collect()
    }
}

/// What follows connections.
pub(super) struct Tcp<'a>(&'a mut super::connections::Connections);

/// All other analyses.
pub(super) struct Path<'a> {
    counts: &'a mut Counts,
    taps: &'a mut super::taps::Taps,
    flows: &'a mut super::flows::Flows,
    drops: &'a mut super::drops::Drops,
    threads: &'a mut super::threads::Threads,
    syscalls: &'a mut super::syscalls::Syscalls,
    stacks: &'a mut super::stacks::Stacks,
    pairing: &'a mut super::pairing::Pairing,
    reordering: &'a mut super::reordering::Reorder,
    coalescing: &'a mut super::coalescing::Coalesce,
    series: &'a mut super::benchmark::series::Series,
    silences: &'a mut super::stalls::Silences,
}

impl Tcp<'_> {
    #[inline]
    pub(super) fn observe(&mut self, event: &Event<'_>) {
        self.0.observe(event);
    }
}

impl Path<'_> {
    #[inline]
    pub(super) fn observe(&mut self, event: &Event<'_>) {
        self.counts.observe(event);
        self.taps.observe(event);
        self.flows.observe(event);
        self.drops.observe(event);
        self.threads.observe(event);
        self.syscalls.observe(event);
        self.stacks.observe(event);
        self.reordering.observe(event);
        self.coalescing.observe(event);
        let is_read = self.pairing.observe(event);
        if let Event::Taken(taken) = event
            && is_read
        {
            self.coalescing.read(taken);
        }
        self.series.observe(event);
        self.silences.observe(event);
    }
}

/// Takes the events of a recording that is being read.
pub struct Feed {
    batch: Batch,
    lanes: [SyncSender<Arc<Batch>>; 2],
    used: Receiver<Batch>,
}

impl Feed {
    /// Takes one event, in time order.
    #[inline]
    pub fn observe(&mut self, event: &Event<'_>) {
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

impl Analyses {
    pub(super) fn lanes(&mut self) -> (Tcp<'_>, Path<'_>) {
        let path = Path {
            counts: &mut self.counts,
            taps: &mut self.taps,
            flows: &mut self.flows,
            drops: &mut self.drops,
            threads: &mut self.threads,
            syscalls: &mut self.syscalls,
            stacks: &mut self.stacks,
            pairing: &mut self.pairing,
            reordering: &mut self.reordering,
            coalescing: &mut self.coalescing,
            series: &mut self.series,
            silences: &mut self.silences,
        };
        (Tcp(&mut self.connections), path)
    }

    /// Takes all events that `read` gives to its feed, in time order, in threads beside it. Returns what
    /// `read` does. The outcome is that of [`Analyses::observe`] with the same events.
    pub fn follow<R>(&mut self, read: impl FnOnce(&mut Feed) -> R) -> R {
        let (mut tcp, mut path) = self.lanes();
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
}
