//! Retransmissions added up by cause, flow and namespace, and their books.

use std::collections::BTreeMap;

use vpnbench_common::catalog::{Kind, PROBES, ProbeId};

use super::Context;
use super::cause::{CA_LOSS, Cause};
use super::connections::SenderSums;
use super::retransmit_books::Books;
use super::retransmits::{ByCause, Count, Flow, FlowRetransmits, Key, Output};
use super::spurious::Tally;

/// Sums of one namespace that have a counter in the kernel.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct NamespaceSums {
    pub(super) segments: u64,
    pub(super) synacks: u64,
    pub(super) timeouts: u64,
    pub(super) probes: u64,
    pub(super) syns: u64,
    pub(super) fast: u64,
    pub(super) slow_start: u64,
    pub(super) in_host_queue: u64,
    pub(super) sack_entries: u64,
    pub(super) reno_entries: u64,
}

/// Everything added up.
#[derive(Debug, Clone, Default)]
pub(super) struct Sums {
    total: u64,
    failed: u64,
    by_cause: ByCause,
    /// Retransmissions were not recorded: only what is proven without them counts.
    certain_only: bool,
    spurious: Tally,
    spurious_by_cause: ByCause,
    flows: BTreeMap<Flow, (u64, ByCause, Tally)>,
    pub(super) senders: BTreeMap<u32, SenderSums>,
    pub(super) namespaces: BTreeMap<u32, NamespaceSums>,
}

impl Sums {
    pub(super) fn new(context: &Context<'_>, senders: BTreeMap<u32, SenderSums>) -> Sums {
        Sums {
            senders,
            certain_only: lost(context, ProbeId::TcpRetransmitSkb),
            ..Sums::default()
        }
    }

    /// Segments proven spurious.
    fn proven(&self, tally: &Tally) -> u64 {
        if self.certain_only {
            tally.certain
        } else {
            tally.spurious
        }
    }

    pub(super) fn add(&mut self, key: &Key, cause: Cause, queue: bool, count: &Count) {
        self.total += count.segments;
        self.failed += count.failed;
        self.by_cause.add(cause, count.segments);
        if let Some(flow) = key.flow {
            let sums = self.flows.entry(flow).or_default();
            sums.0 += count.segments;
            sums.1.add(cause, count.segments);
            sums.2.add(&count.spurious);
        }
        self.spurious.add(&count.spurious);
        self.spurious_by_cause
            .add(cause, self.proven(&count.spurious));
        let sums = self.namespaces.entry(key.netns).or_default();
        sums.segments += count.segments;
        sums.in_host_queue += count.in_host_queue;
        match cause {
            Cause::Rto | Cause::Syn => sums.timeouts += count.events + count.failed,
            Cause::Tlp => sums.probes += count.events,
            _ => {}
        }
        if cause == Cause::Syn {
            sums.syns += count.segments;
        }
        if queue && key.fields.ca_state == CA_LOSS {
            sums.slow_start += count.segments;
        } else if queue {
            sums.fast += count.segments;
        }
    }

    pub(super) fn synack(&mut self, netns: u32, flow: Option<Flow>, count: u64) {
        self.total += count;
        self.by_cause.add(Cause::Syn, count);
        if let Some(flow) = flow {
            let sums = self.flows.entry(flow).or_default();
            sums.0 += count;
            sums.1.add(Cause::Syn, count);
        }
        self.namespaces.entry(netns).or_default().synacks += count;
    }

    pub(super) fn output(
        &self,
        context: &Context<'_>,
        episodes: BTreeMap<&'static str, u64>,
    ) -> Output {
        let mut flows: Vec<FlowRetransmits> = self
            .flows
            .iter()
            .filter(|(_, (segments, ..))| *segments > 0)
            .map(|(flow, (segments, by_cause, tally))| {
                let (local, remote) = flow.names();
                FlowRetransmits {
                    netns: flow.netns,
                    local,
                    remote,
                    segments: *segments,
                    by_cause: *by_cause,
                    spurious: (tally.segments > 0).then_some(self.proven(tally)),
                }
            })
            .collect();
        flows.sort_by_key(|row| std::cmp::Reverse(row.segments));
        let namespaces = context
            .start
            .environment
            .namespaces
            .iter()
            .map(|one| one.netns);
        Output {
            total: self.total,
            by_cause: self.by_cause,
            failed: self.failed,
            spurious: Tally {
                spurious: self.proven(&self.spurious),
                ..self.spurious
            },
            spurious_by_cause: self.spurious_by_cause,
            unjudged: self.total.saturating_sub(self.spurious.segments),
            verdicts_incomplete: incomplete(context),
            episodes,
            flows,
            causes: BTreeMap::new(),
            books: namespaces
                .flat_map(|netns| {
                    let sums = self.namespaces.get(&netns).copied().unwrap_or_default();
                    let senders = self.senders.get(&netns).copied().unwrap_or_default();
                    Books::new(context, netns, sums, senders).lines()
                })
                .collect(),
        }
    }
}

/// Whether events were lost that tell a verdict: what was sent again, what arrived, and the packets
/// whose timestamps tell an original from its retransmission.
fn incomplete(context: &Context<'_>) -> bool {
    let packets = PROBES
        .iter()
        .filter(|probe| probe.kinds.contains(&Kind::Packet))
        .map(|probe| probe.id);
    packets
        .chain([ProbeId::TcpProbe, ProbeId::TcpRetransmitSkb])
        .any(|probe| lost(context, probe))
}

fn lost(context: &Context<'_>, probe: ProbeId) -> bool {
    let lost = context.lost.get(&(probe as u8));
    lost.is_some_and(|lost| *lost > 0)
}
