//! The kernel's TCP counters of a namespace beside vpnbench's own counts: the identities of
//! net/ipv4/tcp_output.c, tcp_timer.c and tcp_input.c.
//!
//! Where the kernel counted more, and the sockets' own totals prove that as many events are missing
//! although none was lost, the line says so (`explained`).

use vpnbench_common::catalog::ProbeId;

use super::Context;
use super::books::{Reconciliation, Relation};
use super::connections::SenderSums;
use super::retransmit_sums::NamespaceSums;

const UNSEEN: &str = "the sockets' own total_retrans grew by that many more than there are events: \
    the kernel ran no program for them";
const UNSEEN_CAUSE: &str = "as many retransmissions have no event (see TcpRetransSegs), and so no \
    known cause";
const UNSEEN_ENTRIES: &str = "sockets were found in recovery without an event of its entry: the \
    kernel ran no program for them";
const OPEN_AT_END: &str = "senders still had unacknowledged data when recording ended, and sent on \
    until the counters were read";
const ESTABLISHED: &str = "tcp_probe sees segments in ESTABLISHED only";

/// Makes the lines of one namespace.
pub(super) struct Books<'a> {
    context: &'a Context<'a>,
    netns: u32,
    place: String,
    sums: NamespaceSums,
    senders: SenderSums,
    /// Retransmissions without an event.
    unseen: u64,
}

impl<'a> Books<'a> {
    /// What was counted in a namespace.
    pub(super) fn new(
        context: &'a Context<'a>,
        netns: u32,
        sums: NamespaceSums,
        senders: SenderSums,
    ) -> Books<'a> {
        Books {
            context,
            netns,
            place: context.namespace_name(netns),
            sums,
            senders,
            unseen: senders.unseen_retransmits,
        }
    }

    /// All lines.
    pub(super) fn lines(&self) -> Vec<Reconciliation> {
        let mut lines = self.retransmissions();
        lines.extend(self.recoveries());
        lines.extend(self.undos());
        lines.extend(self.duplicates());
        lines
    }

    fn counter(&self, name: &str) -> Option<u64> {
        self.context.counter(self.netns, name)
    }

    fn line(&self, name: &str, observed: bool, own: u64, relation: Relation) -> Reconciliation {
        let own = observed.then_some(own);
        Reconciliation::new(name, &self.place, self.counter(name), own, relation)
    }

    fn retransmissions(&self) -> Vec<Reconciliation> {
        let (context, sums) = (self.context, &self.sums);
        let sent = context.attached(ProbeId::TcpRetransmitSkb);
        let synacks = sent && context.attached(ProbeId::TcpRetransmitSynack);
        let failed = self.counter("TcpExtTCPRetransFail").unwrap_or(0);
        let kernel = self.counter("TcpRetransSegs");
        let kernel = kernel.and_then(|all| all.checked_sub(failed));
        let own = synacks.then_some(sums.segments + sums.synacks);
        let equal = Relation::Equal;
        let mut total = Reconciliation::new("TcpRetransSegs", &self.place, kernel, own, equal);
        if failed > 0 {
            total = total.note(format!("without the {failed} of TcpExtTCPRetransFail"));
        }
        // Kernels before 6.17 tell of no failed attempt, but the sockets count it.
        let unseen = self.unseen.saturating_sub(failed);
        let open = self.senders.open_at_end;
        let some = |line: Reconciliation| {
            let line = line.explain(unseen, UNSEEN_CAUSE);
            line.explain(open, OPEN_AT_END)
        };
        let queued = self.line(
            "TcpExtTCPSpuriousRtxHostQueues",
            sent && self.reports_failures(),
            sums.in_host_queue,
            Relation::Equal,
        );
        vec![
            total.explain(unseen, UNSEEN).explain(open, OPEN_AT_END),
            some(self.line("TcpExtTCPFastRetrans", sent, sums.fast, equal)),
            some(self.line("TcpExtTCPSlowStartRetrans", sent, sums.slow_start, equal)),
            some(self.line(
                "TcpExtTCPSynRetrans",
                synacks,
                sums.syns + sums.synacks,
                equal,
            )),
            self.line(
                "TcpExtTCPTimeouts",
                sent,
                sums.timeouts,
                Relation::KernelAtLeast,
            )
            .note("the kernel also counts timeouts that give up the connection"),
            self.line(
                "TcpExtTCPLossProbes",
                sent,
                sums.probes,
                Relation::KernelAtLeast,
            )
            .note("the kernel also counts probes that carry new data"),
            if queued.vpnbench.is_none() {
                queued.note("kernels before 6.17 do not tell of attempts that fail")
            } else {
                queued
            },
        ]
    }

    /// From 6.17 on, the version that also removed RFC 6675, the tracepoint fires for failed attempts.
    fn reports_failures(&self) -> bool {
        let release = &self.context.start.host.kernel_release;
        !super::cause::Detection::new(None, release).has_rfc6675
    }

    fn recoveries(&self) -> Vec<Reconciliation> {
        let entries = self.context.attached(ProbeId::TcpCongStateSet);
        let line = |name: &str, own: u64| {
            let line = self.line(name, entries, own, Relation::Equal);
            let line = line.explain(self.senders.unseen_entries, UNSEEN_ENTRIES);
            line.explain(self.senders.open_at_end, OPEN_AT_END)
        };
        vec![
            line("TcpExtTCPSackRecovery", self.sums.sack_entries),
            line("TcpExtTCPRenoRecovery", self.sums.reno_entries),
        ]
    }

    fn undos(&self) -> Vec<Reconciliation> {
        let both = self.context.attached(ProbeId::TcpCongStateSet)
            && self.context.attached(ProbeId::TcpProbe);
        let undos = &self.senders.undos;
        let line = |name: &str, own: u64| {
            let line = self.line(name, both, own, Relation::Equal);
            let line = line.explain(undos.unclear, "markers that were cleared without an event");
            line.explain(self.senders.open_at_end, OPEN_AT_END)
        };
        vec![
            line("TcpExtTCPFullUndo", undos.full),
            line("TcpExtTCPPartialUndo", undos.partial),
            line("TcpExtTCPLossUndo", undos.loss),
            line("TcpExtTCPSpuriousRTOs", undos.frto),
            self.line(
                "TcpExtTCPDSACKUndo",
                both,
                undos.dsack,
                Relation::KernelAtLeast,
            )
            .note("one that is followed by a new recovery in the same instant leaves no trace"),
        ]
    }

    /// Reordering, duplicates and reports of duplicates.
    fn duplicates(&self) -> Vec<Reconciliation> {
        let probes = self.context.attached(ProbeId::TcpProbe);
        let sums = &self.senders;
        let least = Relation::KernelAtLeast;
        let line = |name: &str, own: u64| self.line(name, probes, own, least).note(ESTABLISHED);
        let names = [
            "TcpExtTCPSACKReorder",
            "TcpExtTCPTSReorder",
            "TcpExtTCPRenoReorder",
        ];
        let reordered = names
            .iter()
            .map(|name| self.counter(name))
            .sum::<Option<u64>>();
        let own = probes.then_some(sums.reordered);
        let name = "TcpExtTCPSACKReorder + TSReorder + RenoReorder";
        vec![
            Reconciliation::new(name, &self.place, reordered, own, least).note(
                "from the sockets' reord_seen; what the last acknowledgement adds is not seen",
            ),
            line("TcpExtTCPDSACKRecv", sums.dsacks_below),
            line("TcpExtTCPDSACKOfoRecv", sums.dsacks_above),
            line("TcpExtTCPDSACKOldSent", sums.duplicates_received),
            self.duplicates_above(probes),
        ]
    }

    /// `tcp_data_queue_ofo` joins some units to what waits, or to a report that has not left yet
    /// (`tcp_ooo_try_coalesce`, `tcp_dsack_extend`), and counts nothing.
    fn duplicates_above(&self, probes: bool) -> Reconciliation {
        let (name, all) = ("TcpExtTCPDSACKOfoSent", self.senders.duplicates_above);
        let silent = all
            .saturating_sub(self.counter(name).unwrap_or(all))
            .min(self.senders.duplicates_joined);
        let line = self.line(name, probes, all - silent, Relation::KernelAtLeast);
        if silent == 0 {
            return line.note(ESTABLISHED);
        }
        line.note(format!(
            "{ESTABLISHED}; without {silent} that repeated only in part or several segments at once: \
             TCP joined them to what waited or to the report before, and counted nothing"
        ))
    }
}
