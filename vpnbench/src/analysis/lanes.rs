//! The analyses in lanes that share nothing, so that two threads can have them: what follows connections and flows,
//! what follows packets on their path with everything else, and what counts packets, which goes with either.
//! The cuts are where both threads have about as much to do, one of which also reads the recording.

use std::collections::BTreeMap;

use super::{Analyses, Span};
use crate::trace::Event;

/// Events by probe, and the first and last one.
#[derive(Debug, Clone)]
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

/// What follows connections and flows one by one.
pub struct Senders<'a> {
    connections: &'a mut super::connections::Connections,
    reordering: &'a mut super::reordering::Reorder,
    flows: &'a mut super::flows::Flows,
    silences: &'a mut super::stalls::Silences,
}

/// What counts packets at their taps.
pub struct Counting<'a> {
    taps: &'a mut super::taps::Taps,
    coalescing: &'a mut super::coalescing::Coalesce,
    series: &'a mut super::benchmark::series::Series,
}

/// All other analyses.
pub struct Path<'a> {
    counts: &'a mut Counts,
    drops: &'a mut super::drops::Drops,
    threads: &'a mut super::threads::Threads,
    syscalls: &'a mut super::syscalls::Syscalls,
    stacks: &'a mut super::stacks::Stacks,
    pairing: &'a mut super::pairing::Pairing,
}

impl Senders<'_> {
    /// Takes one event, in time order.
    #[inline]
    pub fn observe(&mut self, event: &Event<'_>) {
        self.connections.observe(event);
        self.reordering.observe(event);
        self.flows.observe(event);
        self.silences.observe(event);
    }
}

impl Counting<'_> {
    /// Takes one event, in time order; `is_read` as [`Path::observe`] says.
    #[inline]
    pub fn observe(&mut self, event: &Event<'_>, is_read: bool) {
        self.taps.observe(event);
        self.coalescing.observe(event);
        if let Event::Taken(taken) = event
            && is_read
        {
            self.coalescing.read(taken);
        }
        self.series.observe(event);
    }
}

impl Path<'_> {
    /// Takes one event, in time order. Whether it is a read from a tunnel device, which captures do not have.
    #[inline]
    pub fn observe(&mut self, event: &Event<'_>) -> bool {
        self.counts.observe(event);
        // Nearly all events are packets and segments, of which these know nothing.
        if !matches!(event, Event::Packet(_) | Event::TcpProbe(_)) {
            self.drops.observe(event);
            self.syscalls.observe(event);
            self.stacks.observe(event);
        }
        self.threads.observe(event);
        self.pairing.observe(event)
    }
}

impl Analyses {
    /// The analyses in parts, each of which takes all events it wants.
    pub fn lanes(&mut self) -> (Senders<'_>, Path<'_>, Counting<'_>) {
        let senders = Senders {
            connections: &mut self.connections,
            reordering: &mut self.reordering,
            flows: &mut self.flows,
            silences: &mut self.silences,
        };
        let path = Path {
            counts: &mut self.counts,
            drops: &mut self.drops,
            threads: &mut self.threads,
            syscalls: &mut self.syscalls,
            stacks: &mut self.stacks,
            pairing: &mut self.pairing,
        };
        let counting = Counting {
            taps: &mut self.taps,
            coalescing: &mut self.coalescing,
            series: &mut self.series,
        };
        (senders, path, counting)
    }
}
