//! Pure analyses. Each is a struct fed with every event of one read of the trace; time arrives in
//! the data, memory is bounded, and `finish` returns its output with the problems it met. Joins
//! (interface counters against taps) are pure functions over outputs.
//!
//! No analysis reads a clock, a file, the environment or the network.

pub mod address;
pub mod benchmark;
pub mod books;
pub mod cause;
pub mod coalescing;
pub mod conditions;
pub mod connections;
pub mod devices;
pub mod drops;
pub mod episodes;
pub mod flows;
mod inferred;
pub mod interfaces;
pub mod lanes;
pub mod ledger;
pub mod limits;
pub mod pairing;
pub mod problem;
pub mod reordering;
mod retransmit_books;
mod retransmit_sums;
pub mod retransmits;
mod sampled;
pub mod spurious;
#[cfg(test)]
mod spurious_properties;
pub mod stacks;
pub mod stages;
pub mod stalls;
pub mod statistics;
pub mod symbols;
pub mod syscalls;
pub mod taps;
pub mod threads;
pub mod what_if;

use std::collections::BTreeMap;

use vpnbench_common::catalog::ProbeId;

use crate::trace::Summary;
use crate::trace::model::{Change, End, Namespace, SocketSample, Start, Symbols, Tunnel};

pub use books::Reconciliation;
pub use problem::{Problem, Severity};

/// Everything but the events that an analysis may use: what the trace says about itself.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// First frame.
    pub start: &'a Start,
    /// Last frame, if the recording ended in order.
    pub end: Option<&'a End>,
    /// Changes while recording.
    pub changes: &'a [Change],
    /// Kernel symbols of the code addresses in records.
    pub symbols: &'a Symbols,
    /// Events lost per probe number.
    pub lost: &'a BTreeMap<u8, u64>,
    /// What `ss -ti` said of sockets, given beside captures.
    pub sockets: &'a [SocketSample],
}

impl<'a> Context<'a> {
    /// The parts of a recording that was read.
    #[must_use]
    pub fn of(summary: &'a Summary) -> Self {
        Context {
            sockets: &summary.sockets,
            ..Context::new(
                &summary.start,
                summary.end.as_ref(),
                &summary.changes,
                &summary.symbols,
                &summary.lost,
            )
        }
    }

    /// The parts of a trace that are not events.
    #[must_use]
    pub fn new(
        start: &'a Start,
        end: Option<&'a End>,
        changes: &'a [Change],
        symbols: &'a Symbols,
        lost: &'a BTreeMap<u8, u64>,
    ) -> Self {
        Context {
            start,
            end,
            changes,
            symbols,
            lost,
            sockets: &[],
        }
    }

    /// A watched namespace at the start and at the end of the run.
    #[must_use]
    pub fn namespace(&self, netns: u32) -> (Option<&'a Namespace>, Option<&'a Namespace>) {
        let find = |all: &'a [Namespace]| all.iter().find(|one| one.netns == netns);
        (
            find(&self.start.environment.namespaces),
            self.end.and_then(|end| find(&end.environment.namespaces)),
        )
    }

    /// Tunnels there were at the start, and those that came later.
    pub fn tunnels(&self) -> impl Iterator<Item = &'a Tunnel> {
        let later = self.changes.iter().flat_map(|change| &change.tunnels);
        self.start.tunnels.iter().chain(later)
    }

    /// Whether a probe was attached. What it shows is unknown otherwise, not zero.
    #[must_use]
    pub fn attached(&self, probe: ProbeId) -> bool {
        self.start
            .probes
            .iter()
            .any(|status| status.id == probe as u8 && status.attached)
    }

    /// Increase of a protocol counter of a namespace over the run; `None` if either end lacks it
    /// or it ran backwards.
    #[must_use]
    pub fn counter(&self, netns: u32, name: &str) -> Option<u64> {
        let (start, end) = self.namespace(netns);
        let before = start?.counters.get(name)?;
        end?.counters.get(name)?.checked_sub(*before)
    }

    /// Name of a namespace for people: its name, or its inode number.
    #[must_use]
    pub fn namespace_name(&self, netns: u32) -> String {
        let named = self.namespace(netns).0.and_then(|one| one.name.clone());
        named.unwrap_or_else(|| format!("netns {netns}"))
    }

    /// Seconds from the start of the recording to a moment of `CLOCK_MONOTONIC`.
    #[must_use]
    pub fn seconds_since_start(&self, time_ns: u64) -> f64 {
        let start = self.start.clock.monotonic_ns;
        if time_ns >= start {
            seconds(time_ns - start)
        } else {
            -seconds(start - time_ns)
        }
    }
}

/// Nanoseconds as seconds.
#[must_use]
pub fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// All analyses of one trace. A copy can be ended while the original goes on.
#[derive(Debug, Clone, Default)]
pub struct Analyses {
    connections: connections::Connections,
    paths: lanes::Paths,
    orders: lanes::Orders,
    others: lanes::Others,
}

/// First and last event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    /// Events.
    pub events: u64,
    /// `CLOCK_MONOTONIC` ns of the first event.
    pub first_ns: Option<u64>,
    /// `CLOCK_MONOTONIC` ns of the last event.
    pub last_ns: Option<u64>,
}

/// What the analyses found.
#[derive(Debug, Clone, Default)]
pub struct Outputs {
    /// Packets per tap.
    pub taps: Vec<taps::TapCount>,
    /// Flows per tap.
    pub flows: Vec<flows::FlowCount>,
    /// Retransmissions by cause.
    pub retransmits: retransmits::Output,
    /// What TCP senders did and what held them back.
    pub tcp_flows: Vec<connections::TcpFlow>,
    /// What other settings would have done.
    pub what_if: Vec<what_if::summary::Prediction>,
    /// Dropped packets.
    pub drops: drops::Output,
    /// CPU time per thread.
    pub threads: threads::Output,
    /// System calls per process.
    pub syscalls: Vec<syscalls::SyscallCount>,
    /// Stack samples by process and group; None without any.
    pub stacks: Option<stacks::Output>,
    /// Packets from tap to tap: stages, ledger, losses by the books.
    pub pairing: pairing::Output,
    /// Reordering per tap.
    pub reordering: reordering::Output,
    /// Segments per unit at each tap.
    pub coalescing: Vec<coalescing::Coalescing>,
    /// Times without packets, per tap.
    pub stalls: Vec<stalls::Stalls>,
    /// Interfaces: counters beside taps.
    pub interfaces: interfaces::Output,
    /// The benchmark's own result beside the packets.
    pub benchmark: Option<benchmark::Benchmark>,
    /// Events per probe number.
    pub events_by_probe: BTreeMap<u8, u64>,
    /// First and last event.
    pub span: Span,
}

impl Analyses {
    /// Analyses of a trace that begins with this frame, which says which tunnels are in the kernel,
    /// and with which settings TCP began: the replay of its loss detection takes them from there.
    #[must_use]
    pub fn new(start: &Start) -> Analyses {
        Analyses {
            connections: connections::Connections::of(start),
            paths: lanes::Paths::of(start),
            orders: lanes::Orders::default(),
            others: lanes::Others::of(start),
        }
    }

    /// First and last event so far.
    #[must_use]
    pub fn span(&self) -> Span {
        self.others.counts.span
    }

    /// Ends all analyses and joins their outputs.
    #[must_use]
    pub fn finish(self, context: &Context<'_>) -> (Outputs, Vec<Problem>) {
        let Analyses {
            connections,
            paths,
            orders,
            others,
        } = self;
        let span = others.counts.span;
        let mut problems = Vec::new();
        let mut collect = |found: Vec<Problem>| problems.extend(found);
        let (taps, found) = others.taps.finish(context);
        collect(found);
        let (flows, found) = orders.flows.finish(context);
        collect(found);
        let (connections, found) = connections.finish(context);
        collect(found);
        let (drops, found) = others.drops.finish(context);
        collect(found);
        let (threads, found) = others.threads.finish(context, span);
        collect(found);
        let (syscalls, found) = others.syscalls.finish(context);
        collect(found);
        let sampled = !others.stacks.is_empty();
        let (stacks, found) = others
            .stacks
            .finish(context, &stacks::rules::Rules::default());
        collect(found);
        let (mut pairing, found) = paths.pairing.finish(context);
        collect(found);
        let (reordering, found) = orders.reordering.finish(context);
        collect(found);
        let (coalescing, found) = paths.coalescing.finish(context);
        collect(found);
        let (interfaces, found) = interfaces::join(context, &taps, &drops);
        collect(found);
        ledger::appeared(
            context,
            &mut pairing.ledger,
            &pairing.appeared,
            &interfaces.interfaces,
        );
        let (benchmark, found) = benchmark::join(context, others.series);
        collect(found);
        let mut outputs = Outputs {
            taps,
            flows,
            retransmits: connections.retransmits,
            tcp_flows: connections.flows,
            what_if: connections.what_if,
            drops,
            threads,
            syscalls,
            stacks: sampled.then_some(stacks),
            pairing,
            reordering,
            coalescing,
            stalls: others.silences.finish(context),
            interfaces,
            benchmark,
            events_by_probe: others.counts.by_probe(),
            span,
        };
        problems.extend(conditions::conditions(context, &outputs.threads));
        inferred::leave_out(context, &mut outputs);
        problems.extend(sampled::fill(context, &mut outputs.tcp_flows));
        (outputs, problems)
    }
}
