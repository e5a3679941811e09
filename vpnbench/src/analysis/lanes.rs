//! The analyses in lanes that share nothing, so that several threads can have them, and so that each can have many
//! events in a row: a batch stays in a core's cache from one lane to the next, and so does a lane's own state from
//! one event to the next.

use std::collections::BTreeMap;

use super::coalescing::Coalesce;
use super::drops::Drops;
use super::pairing::Pairing;
use super::stacks::Stacks;
use super::syscalls::Syscalls;
use super::{Analyses, Span};
use crate::trace::{Batch, Event};

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

/// Analyses that take the events of batches, one after another.
pub type Lane<'a> = Box<dyn FnMut(&Batch) + Send + 'a>;

fn lane<'a>(mut observe: impl FnMut(&Event<'_>) + Send + 'a) -> Lane<'a> {
    Box::new(move |batch| batch.events().for_each(|event| observe(&event)))
}

impl Analyses {
    /// The analyses in parts, each of which takes all events, in time order.
    pub fn lanes(&mut self) -> Vec<Lane<'_>> {
        let Analyses {
            taps,
            flows,
            connections,
            drops,
            threads,
            syscalls,
            stacks,
            pairing,
            reordering,
            coalescing,
            series,
            silences,
            counts,
        } = self;
        // What takes an event out of a batch is done once a lane: those that do little share one.
        vec![
            lane(|event| connections.observe(event)),
            lane(|event| paired(pairing, coalescing, event)),
            lane(|event| {
                reordering.observe(event);
                flows.observe(event);
            }),
            lane(|event| {
                counts.observe(event);
                rare(drops, syscalls, stacks, event);
                threads.observe(event);
                taps.observe(event);
                series.observe(event);
                silences.observe(event);
            }),
        ]
    }

    /// Takes one event, in time order.
    pub fn observe(&mut self, event: &Event<'_>) {
        self.counts.observe(event);
        rare(&mut self.drops, &mut self.syscalls, &mut self.stacks, event);
        self.connections.observe(event);
        self.reordering.observe(event);
        self.flows.observe(event);
        self.silences.observe(event);
        self.threads.observe(event);
        paired(&mut self.pairing, &mut self.coalescing, event);
        self.taps.observe(event);
        self.series.observe(event);
    }
}

/// Packets on their path. What is a read from a tunnel device is known only there.
#[inline]
fn paired(pairing: &mut Pairing, coalescing: &mut Coalesce, event: &Event<'_>) {
    coalescing.observe(event);
    let is_read = pairing.observe(event);
    if let Event::Taken(taken) = event
        && is_read
    {
        coalescing.read(taken);
    }
}

/// Nearly all events are packets and segments, of which these know nothing.
#[inline]
fn rare(drops: &mut Drops, syscalls: &mut Syscalls, stacks: &mut Stacks, event: &Event<'_>) {
    if !matches!(event, Event::Packet(_) | Event::TcpProbe(_)) {
        drops.observe(event);
        syscalls.observe(event);
        stacks.observe(event);
    }
}
