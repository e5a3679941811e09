//! The analyses in two lanes that share nothing, so that each can have a thread of its own: what follows
//! connections and flows, and what follows packets on their path with everything else. The cut is where both are
//! about as costly with what the thread that reads a recording does beside one of them.

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

/// All other analyses.
pub struct Path<'a> {
    counts: &'a mut Counts,
    taps: &'a mut super::taps::Taps,
    drops: &'a mut super::drops::Drops,
    threads: &'a mut super::threads::Threads,
    syscalls: &'a mut super::syscalls::Syscalls,
    stacks: &'a mut super::stacks::Stacks,
    pairing: &'a mut super::pairing::Pairing,
    coalescing: &'a mut super::coalescing::Coalesce,
    series: &'a mut super::benchmark::series::Series,
}

impl Senders<'_> {
    /// Whether an event says anything about senders; others need not be given.
    #[inline]
    #[must_use]
    pub fn want(event: &Event<'_>) -> bool {
        matches!(
            event,
            Event::Packet(_)
                | Event::TcpProbe(_)
                | Event::Retransmit(_)
                | Event::SynAckRetransmit(_)
                | Event::CongState(_)
                | Event::SockState(_)
        )
    }

    /// Takes one event, in time order.
    #[inline]
    pub fn observe(&mut self, event: &Event<'_>) {
        self.connections.observe(event);
        self.reordering.observe(event);
        self.flows.observe(event);
        self.silences.observe(event);
    }
}

impl Path<'_> {
    /// Takes one event, in time order.
    #[inline]
    pub fn observe(&mut self, event: &Event<'_>) {
        self.counts.observe(event);
        self.taps.observe(event);
        // Nearly all events are packets and segments, of which these know nothing.
        if !matches!(event, Event::Packet(_) | Event::TcpProbe(_)) {
            self.drops.observe(event);
            self.syscalls.observe(event);
            self.stacks.observe(event);
        }
        self.threads.observe(event);
        self.coalescing.observe(event);
        let is_read = self.pairing.observe(event);
        if let Event::Taken(taken) = event
            && is_read
        {
            self.coalescing.read(taken);
        }
        self.series.observe(event);
    }
}

impl Analyses {
    /// The analyses in two parts, each of which takes all events it wants.
    pub fn lanes(&mut self) -> (Senders<'_>, Path<'_>) {
        let senders = Senders {
            connections: &mut self.connections,
            reordering: &mut self.reordering,
            flows: &mut self.flows,
            silences: &mut self.silences,
        };
        let path = Path {
            counts: &mut self.counts,
            taps: &mut self.taps,
            drops: &mut self.drops,
            threads: &mut self.threads,
            syscalls: &mut self.syscalls,
            stacks: &mut self.stacks,
            pairing: &mut self.pairing,
            coalescing: &mut self.coalescing,
            series: &mut self.series,
        };
        (senders, path)
    }
}
