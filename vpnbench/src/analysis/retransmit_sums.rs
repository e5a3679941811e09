//! Retransmissions added up by cause, flow and namespace, and their books.

use std::collections::BTreeMap;

use vpnbench_common::catalog::ProbeId;

use super::Context;
use super::books::{Reconciliation, Relation};
use super::cause::{CA_LOSS, Cause};
use super::connections::SenderSums;
use super::retransmits::{ByCause, Count, Flow, FlowRetransmits, Key, Output};
use super::spurious::Tally;

/// Sums of one namespace that have a counter in the kernel.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct NamespaceSums {
    segments: u64,
    synacks: u64,
    timeouts: u64,
    probes: u64,
    syns: u64,
    fast: u64,
    slow_start: u64,
    pub(super) sack_entries: u64,
    pub(super) reno_entries: u64,
}

/// Everything added up.
#[derive(Debug, Default)]
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
            books: namespaces
                .flat_map(|netns| self.books(context, netns))
                .collect(),
        }
    }

    /// The identities of net/ipv4/tcp_output.c, tcp_timer.c and tcp_input.c.
    fn books(&self, context: &Context<'_>, netns: u32) -> Vec<Reconciliation> {
        let sums = self.namespaces.get(&netns).copied().unwrap_or_default();
        let place = context.namespace_name(netns);
        let counter = |name: &str| context.counter(netns, name);
        let sent = context.attached(ProbeId::TcpRetransmitSkb);
        let synacks = sent && context.attached(ProbeId::TcpRetransmitSynack);
        let entries = context.attached(ProbeId::TcpCongStateSet);
        let line = |name: &str, (observed, own): (bool, u64), relation: Relation| {
            Reconciliation::new(
                name,
                &place,
                counter(name),
                observed.then_some(own),
                relation,
            )
        };
        let failed = counter("TcpExtTCPRetransFail").unwrap_or(0);
        let kernel = counter("TcpRetransSegs").and_then(|all| all.checked_sub(failed));
        let own = synacks.then_some(sums.segments + sums.synacks);
        let mut total = Reconciliation::new("TcpRetransSegs", &place, kernel, own, Relation::Equal);
        if failed > 0 {
            total = total.note(format!("without the {failed} of TcpExtTCPRetransFail"));
        }
        let mut lines = self.receiver_books(context, netns, &place);
        let mut first = vec![
            total,
            line("TcpExtTCPFastRetrans", (sent, sums.fast), Relation::Equal),
            line(
                "TcpExtTCPSlowStartRetrans",
                (sent, sums.slow_start),
                Relation::Equal,
            ),
            line(
                "TcpExtTCPSynRetrans",
                (synacks, sums.syns + sums.synacks),
                Relation::Equal,
            ),
            line(
                "TcpExtTCPTimeouts",
                (sent, sums.timeouts),
                Relation::KernelAtLeast,
            )
            .note("the kernel also counts timeouts that give up the connection"),
            line(
                "TcpExtTCPLossProbes",
                (sent, sums.probes),
                Relation::KernelAtLeast,
            )
            .note("the kernel also counts probes that carry new data"),
            line(
                "TcpExtTCPSackRecovery",
                (entries, sums.sack_entries),
                Relation::Equal,
            ),
            line(
                "TcpExtTCPRenoRecovery",
                (entries, sums.reno_entries),
                Relation::Equal,
            ),
        ];
        first.append(&mut lines);
        first
    }

    /// Undos, duplicates and reports of duplicates.
    fn receiver_books(
        &self,
        context: &Context<'_>,
        netns: u32,
        place: &str,
    ) -> Vec<Reconciliation> {
        let sums = self.senders.get(&netns).copied().unwrap_or_default();
        let probes = context.attached(ProbeId::TcpProbe);
        let counter = |name: &str| context.counter(netns, name);
        let line = |name: &str, kernel: Option<u64>, own: u64, note: &str| {
            let own = probes.then_some(own);
            Reconciliation::new(name, place, kernel, own, Relation::KernelAtLeast).note(note)
        };
        let undos = [
            "TcpExtTCPFullUndo",
            "TcpExtTCPPartialUndo",
            "TcpExtTCPDSACKUndo",
            "TcpExtTCPLossUndo",
        ];
        let undos = undos.iter().map(|name| counter(name)).sum::<Option<u64>>();
        vec![
            // An undo leaves no event: it is read from the marker, which is also cleared without one.
            Reconciliation::new(
                "TcpExtTCPFullUndo + PartialUndo + DSACKUndo + LossUndo",
                place,
                undos,
                probes.then_some(sums.undone_at_exit + sums.undone_silently),
                Relation::NotComparable,
            )
            .note(
                "ours are undo markers that became 0 between two segments of a socket: two undos \
                 there are seen as one, and a marker cleared without an undo as one",
            ),
            line(
                "TcpExtTCPDSACKRecv",
                counter("TcpExtTCPDSACKRecv"),
                sums.dsacks_below,
                "tcp_probe sees segments in ESTABLISHED only",
            ),
            line(
                "TcpExtTCPDSACKOfoRecv",
                counter("TcpExtTCPDSACKOfoRecv"),
                sums.dsacks_above,
                "tcp_probe sees segments in ESTABLISHED only",
            ),
            line(
                "TcpExtTCPDSACKOldSent",
                counter("TcpExtTCPDSACKOldSent"),
                sums.duplicates_received,
                "tcp_probe sees segments in ESTABLISHED only",
            ),
        ]
    }
}

/// Whether events were lost that say what arrived.
fn incomplete(context: &Context<'_>) -> bool {
    lost(context, ProbeId::TcpProbe) || lost(context, ProbeId::TcpRetransmitSkb)
}

fn lost(context: &Context<'_>, probe: ProbeId) -> bool {
    let lost = context.lost.get(&(probe as u8));
    lost.is_some_and(|lost| *lost > 0)
}
