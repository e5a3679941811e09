//! The analyses in lanes that share nothing, so that several threads can have them, and so that each can have many
//! events in a row: a batch stays in a core's cache from one lane to the next, and so does a lane's own state from
//! one event to the next.

use std::collections::BTreeMap;

use super::benchmark::series::Series;
use super::coalescing::Coalesce;
use super::drops::Drops;
use super::flows::Flows;
use super::pairing::Pairing;
use super::reordering::Reorder;
use super::stacks::Stacks;
use super::stalls::Silences;
use super::syscalls::Syscalls;
use super::taps::Taps;
use super::threads::Threads;
use super::{Analyses, Span};
use crate::trace::model::Start;
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

/// Packets on their path.
#[derive(Debug, Clone, Default)]
pub(super) struct Paths {
    pub(super) pairing: Pairing,
    pub(super) coalescing: Coalesce,
}

impl Paths {
    pub(super) fn of(start: &Start) -> Paths {
        let mut paths = Paths::default();
        paths.pairing.begin(start);
        paths
    }

    #[inline]
    fn observe(&mut self, event: &Event<'_>) {
        let Paths {
            pairing,
            coalescing,
        } = self;
        coalescing.observe(event);
        // What is a read from a tunnel device is known only to the pairing.
        let is_read = pairing.observe(event);
        if let Event::Taken(taken) = event
            && is_read
        {
            coalescing.read(taken);
        }
    }
}

/// Packets one behind another.
#[derive(Debug, Clone, Default)]
pub(super) struct Orders {
    pub(super) reordering: Reorder,
    pub(super) flows: Flows,
}

impl Orders {
    #[inline]
    fn observe(&mut self, event: &Event<'_>) {
        let Orders { reordering, flows } = self;
        reordering.observe(event);
        flows.observe(event);
    }
}

/// What takes less time than getting an event out of a batch once more.
#[derive(Debug, Clone, Default)]
pub(super) struct Others {
    pub(super) counts: Counts,
    pub(super) drops: Drops,
    pub(super) syscalls: Syscalls,
    pub(super) stacks: Stacks,
    pub(super) threads: Threads,
    pub(super) taps: Taps,
    pub(super) series: Series,
    pub(super) silences: Silences,
}

impl Others {
    pub(super) fn of(start: &Start) -> Others {
        Others {
            threads: Threads::of(start),
            series: Series::of(start),
            ..Others::default()
        }
    }

    #[inline]
    fn observe(&mut self, event: &Event<'_>) {
        let Others {
            counts,
            drops,
            syscalls,
            stacks,
            threads,
            taps,
            series,
            silences,
        } = self;
        counts.observe(event);
        // Nearly all events are packets and segments, of which these know nothing.
        if !matches!(event, Event::Packet(_) | Event::TcpProbe(_)) {
            drops.observe(event);
            syscalls.observe(event);
            stacks.observe(event);
        }
        threads.observe(event);
        taps.observe(event);
        series.observe(event);
        silences.observe(event);
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
            connections,
            paths,
            orders,
            others,
        } = self;
        vec![
            lane(|event| connections.observe(event)),
            lane(|event| paths.observe(event)),
            lane(|event| orders.observe(event)),
            lane(|event| others.observe(event)),
        ]
    }

    /// Takes one event, in time order.
    pub fn observe(&mut self, event: &Event<'_>) {
        let Analyses {
            connections,
            paths,
            orders,
            others,
        } = self;
        connections.observe(event);
        paths.observe(event);
        orders.observe(event);
        others.observe(event);
    }
}
