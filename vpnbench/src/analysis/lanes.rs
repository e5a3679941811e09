//! The analyses in two lanes that share nothing: TCP's connections, and everything else, so that each can have a
//! thread of its own.

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

/// What follows connections.
pub struct Tcp<'a>(&'a mut super::connections::Connections);

/// All other analyses.
pub struct Path<'a> {
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
    /// Takes one event, in time order.
    pub fn observe(&mut self, event: &Event<'_>) {
        self.0.observe(event);
    }
}

impl Path<'_> {
    #[inline]
    /// Takes one event, in time order.
    pub fn observe(&mut self, event: &Event<'_>) {
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

impl Analyses {
    /// The analyses in two parts, each of which takes all events.
    pub fn lanes(&mut self) -> (Tcp<'_>, Path<'_>) {
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
}
