//! Retransmissions added up by cause, flow and namespace, and their books.

use std::collections::BTreeMap;

use vpnbench_common::catalog::ProbeId;

use super::books::{Reconciliation, Relation};
use super::cause::{CA_LOSS, Cause};
use super::retransmits::{ByCause, Count, Flow, FlowRetransmits, Key, Output};
use super::{Context, address};

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
    flows: BTreeMap<Flow, (u64, ByCause)>,
    pub(super) namespaces: BTreeMap<u32, NamespaceSums>,
}

impl Sums {
    pub(super) fn add(&mut self, key: &Key, cause: Cause, queue: bool, count: &Count) {
        self.total += count.segments;
        self.failed += count.failed;
        self.by_cause.add(cause, count.segments);
        if let Some(flow) = key.flow {
            let sums = self.flows.entry(flow).or_default();
            sums.0 += count.segments;
            sums.1.add(cause, count.segments);
        }
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
            .filter(|(_, (segments, _))| *segments > 0)
            .map(|(flow, (segments, by_cause))| FlowRetransmits {
                netns: flow.netns,
                local: address::endpoint(flow.version, &flow.local.0, Some(flow.local.1)),
                remote: address::endpoint(flow.version, &flow.remote.0, Some(flow.remote.1)),
                segments: *segments,
                by_cause: *by_cause,
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
        vec![
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
        ]
    }
}
