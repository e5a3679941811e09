//! What a run was, seen once for all findings: the direction of the load, what carried it, its senders.

use std::collections::BTreeSet;

use vpnbench_common::catalog::{ProbeId, Tap};

use super::rule::Need;
use super::tcp::Senders;
use crate::analysis::connections::TcpFlow;
use crate::analysis::flows::FlowCount;
use crate::analysis::ledger::LedgerStage;
use crate::analysis::stages::StageTime;
use crate::analysis::{Context, Outputs};

/// What the caller knows about the run that no trace tells.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Given {
    /// What was asked of the wire, where somebody configured it.
    pub wire: Option<Wire>,
}

/// A configured impairment and what the one who made it counted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wire {
    /// Effects, e.g. `reordering`: configured share and what really happened, of how many packets.
    pub effects: Vec<Effect>,
}

/// One configured effect.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Effect {
    /// Name.
    pub name: String,
    /// Share of packets it was meant to hit.
    pub configured: f64,
    /// Packets it hit.
    pub hit: u64,
    /// Of how many.
    pub of: u64,
}

/// What carried the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Load {
    /// TCP.
    Tcp,
    /// UDP or ICMP.
    Datagrams,
    /// Nothing that can be told.
    #[default]
    Unknown,
}

/// Direction of the load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// `SENDER > RECEIVER`, as in the ledger.
    pub direction: String,
    /// Namespace of the sender; empty where it was not watched.
    pub sender: String,
    /// Namespace of the receiver; empty where it was not watched.
    pub receiver: String,
}

/// Everything a finding may look at.
#[derive(Debug)]
pub struct Facts<'a> {
    /// What the trace says of itself.
    pub context: &'a Context<'a>,
    /// What the analyses found.
    pub outputs: &'a Outputs,
    /// What the caller knows.
    pub given: &'a Given,
    /// Direction of the load.
    pub way: Option<Way>,
    /// What carried it.
    pub load: Load,
    /// Its TCP senders.
    pub tcp: Option<Senders>,
}

impl<'a> Facts<'a> {
    /// Looks at a run once.
    #[must_use]
    pub fn new(context: &'a Context<'a>, outputs: &'a Outputs, given: &'a Given) -> Facts<'a> {
        let flows = inner_senders(context, outputs);
        let (load, senders) = load(context, outputs, &flows);
        let way = way(context, outputs, load, &senders);
        Facts {
            context,
            outputs,
            given,
            way,
            load,
            tcp: Senders::of(&senders),
        }
    }

    /// Seconds between first and last event.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        let span = &self.outputs.span;
        let ns = match (span.first_ns, span.last_ns) {
            (Some(first), Some(last)) => last.saturating_sub(first),
            _ => 0,
        };
        ns as f64 / 1e9
    }

    /// Events a probe could not store, its stand-in included.
    #[must_use]
    pub fn lost_events(&self, probe: ProbeId) -> u64 {
        let lost = |id: u8| self.context.lost.get(&id).copied().unwrap_or(0);
        let counts = self.context.end.into_iter().flat_map(|end| &end.counts);
        let at_end = counts
            .filter(|count| count.id == probe as u8)
            .map(|count| count.lost);
        lost(probe as u8).max(at_end.max().unwrap_or(0))
    }

    /// Whether any probe of these needs lost events.
    #[must_use]
    pub fn lost_any(&self, needs: &[Need]) -> bool {
        needs.iter().any(|need| match need {
            Need::Probe(id) => self.lost_events(*id) > 0,
            _ => false,
        })
    }

    /// Whether all that is known comes from foreign captures.
    #[must_use]
    pub fn only_captured(&self) -> bool {
        let namespaces = &self.context.start.environment.namespaces;
        !namespaces.is_empty() && namespaces.iter().all(|one| one.captured)
    }

    /// Whether the sender of the load is known from a foreign capture only.
    #[must_use]
    pub fn sender_captured(&self) -> bool {
        match &self.way {
            Some(way) => {
                let netns = self.netns(&way.sender);
                netns.is_some_and(|netns| self.context.is_captured(netns))
            }
            None => self.only_captured(),
        }
    }

    /// Whether TCP sent something again and what that cost cannot be told: it shows in the congestion
    /// window, which no packet tells.
    #[must_use]
    pub fn cost_unknown(&self) -> bool {
        let again = self.tcp.as_ref().is_some_and(|tcp| tcp.sent_again > 0);
        self.load == Load::Tcp && again && self.sender_captured()
    }

    /// Whether both ends of the load's path were watched.
    #[must_use]
    pub fn both_ends(&self) -> bool {
        let known = |way: &Way| !way.sender.is_empty() && !way.receiver.is_empty();
        self.way.as_ref().is_some_and(known)
    }

    /// The ledger of the load: its direction, and for datagrams the way back as well, on which answers
    /// get lost.
    pub fn ledger_rows(&self) -> impl Iterator<Item = &'a LedgerStage> {
        let direction = self.way.as_ref().map(|way| way.direction.clone());
        let both = self.load != Load::Tcp;
        let rows = self.outputs.pairing.ledger.stages.iter();
        rows.filter(move |row| both || direction.as_deref() == Some(row.direction.as_str()))
    }

    /// A stage's time in the direction of the load.
    #[must_use]
    pub fn stage(&self, name: &str) -> Option<&'a StageTime> {
        let direction = &self.way.as_ref()?.direction;
        self.stage_of(direction, name)
    }

    /// A stage's time on the way back.
    #[must_use]
    pub fn stage_back(&self, name: &str) -> Option<&'a StageTime> {
        let way = self.way.as_ref()?;
        self.stage_of(&format!("{} > {}", way.receiver, way.sender), name)
    }

    fn stage_of(&self, direction: &str, name: &str) -> Option<&'a StageTime> {
        let mut stages = self.outputs.pairing.stages.iter();
        stages.find(|stage| stage.name == name && stage.direction == direction)
    }

    /// Segments of the load that entered the path.
    #[must_use]
    pub fn sent(&self) -> Option<u64> {
        let way = self.way.as_ref()?;
        let mut rows = self.outputs.pairing.ledger.stages.iter();
        let first = rows.find(|row| row.direction == way.direction)?;
        Some(first.entered)
    }

    /// Namespace inode by name.
    #[must_use]
    pub fn netns(&self, name: &str) -> Option<u32> {
        let mut all = self.context.start.environment.namespaces.iter();
        all.find(|one| self.context.namespace_name(one.netns) == name)
            .map(|one| one.netns)
    }

    /// What passed a tap in a namespace, over its devices.
    #[must_use]
    pub fn passed(&self, tap: Tap, namespace: &str) -> Option<(u64, u64)> {
        let taps = self.outputs.taps.iter();
        let mut found = taps
            .filter(|row| row.tap == tap.name() && row.namespace == namespace)
            .peekable();
        found.peek()?;
        Some(found.fold((0, 0), |sum, row| (sum.0 + row.units, sum.1 + row.segments)))
    }

    /// Flows at a tap in a namespace.
    pub fn flows_at(&self, tap: Tap, namespace: &str) -> impl Iterator<Item = &'a FlowCount> {
        let netns = self.netns(namespace);
        let rows = self.outputs.flows.iter();
        rows.filter(move |row| Some(row.netns) == netns && row.tap == tap.name())
    }

    /// Whether all daemons carry their packets in TCP connections: such a socket has no room for packets
    /// that could overflow.
    #[must_use]
    pub fn outer_streams(&self) -> bool {
        let tunnels = self.context.start.tunnels.iter();
        let mut sockets = tunnels.flat_map(|one| &one.sockets).peekable();
        sockets.peek().is_some() && sockets.all(|socket| socket.ip_proto == 6)
    }

    /// Kind of the benchmark, empty if unknown.
    #[must_use]
    pub fn benchmark(&self) -> &'a str {
        self.outputs
            .benchmark
            .as_ref()
            .map_or("", |result| &result.kind)
    }
}

/// Connections of the application, not those that carry a tunnel.
fn inner_senders<'a>(context: &Context<'_>, outputs: &'a Outputs) -> Vec<&'a TcpFlow> {
    let sockets = context
        .start
        .tunnels
        .iter()
        .flat_map(|tunnel| &tunnel.sockets);
    let ports: BTreeSet<String> = sockets
        .filter(|socket| socket.ip_proto == 6)
        .map(|socket| format!(":{}", socket.local_port))
        .collect();
    let outer = |flow: &TcpFlow| {
        let ends = [flow.local.as_str(), flow.remote.as_str()];
        let own = ports
            .iter()
            .any(|port| ends.iter().any(|end| end.ends_with(port.as_str())));
        own && outputs.flows.iter().any(|row| {
            row.netns == flow.netns && row.src == flow.local && row.tap.starts_with("outer")
        })
    };
    outputs
        .tcp_flows
        .iter()
        .filter(|flow| !outer(flow))
        .collect()
}

/// What carried the load, and its TCP senders: those of the direction that moved most, down to a
/// twentieth of the largest, so that control connections take no part.
fn load<'a>(
    context: &Context<'_>,
    outputs: &Outputs,
    flows: &[&'a TcpFlow],
) -> (Load, Vec<&'a TcpFlow>) {
    let moved = |flow: &TcpFlow| flow.limits.acked_bytes;
    let largest = flows.iter().copied().max_by_key(|flow| moved(flow));
    let senders: Vec<&TcpFlow> = match largest {
        None => Vec::new(),
        Some(first) => {
            let same =
                |flow: &&&TcpFlow| flow.netns == first.netns && 20 * moved(flow) >= moved(first);
            flows.iter().filter(same).copied().collect()
        }
    };
    let kind = outputs
        .benchmark
        .as_ref()
        .map_or("", |result| result.load());
    let load = match kind {
        "tcp" | "parallel" | "http" | "load-latency" => Load::Tcp,
        "udp" | "ping" | "stream" | "quic" => Load::Datagrams,
        _ => carried(context, outputs),
    };
    match load {
        Load::Tcp if senders.is_empty() => (Load::Unknown, senders),
        load => (load, senders),
    }
}

/// What most payload bytes belong to at the taps where the application's packets leave.
fn carried(context: &Context<'_>, outputs: &Outputs) -> Load {
    let tap = match context.start.tunnels.is_empty() {
        true => Tap::OuterTx,
        false => Tap::TunTx,
    };
    let rows = outputs.flows.iter().filter(|row| row.tap == tap.name());
    let (mut tcp, mut other) = (0, 0);
    for row in rows {
        match row.protocol.as_str() {
            "tcp" => tcp += row.payload_bytes,
            _ => other += row.payload_bytes,
        }
    }
    match (tcp, other) {
        (0, 0) => Load::Unknown,
        (tcp, other) if tcp >= other => Load::Tcp,
        _ => Load::Datagrams,
    }
}

/// The direction of the load: where its largest TCP sender is, else where most bytes went.
fn way(context: &Context<'_>, outputs: &Outputs, load: Load, senders: &[&TcpFlow]) -> Option<Way> {
    let rows = &outputs.pairing.ledger.stages;
    let from = senders
        .first()
        .filter(|_| load == Load::Tcp)
        .map(|flow| context.namespace_name(flow.netns));
    let begins = |row: &&LedgerStage| {
        from.as_ref()
            .is_none_or(|name| sides(&row.direction).0 == *name)
    };
    let most = rows
        .iter()
        .filter(begins)
        .max_by_key(|row| row.bytes.entered)?;
    let (sender, receiver) = sides(&most.direction);
    Some(Way {
        direction: most.direction.clone(),
        sender,
        receiver,
    })
}

fn sides(direction: &str) -> (String, String) {
    let (sender, receiver) = direction.split_once('>').unwrap_or((direction, ""));
    (sender.trim().to_owned(), receiver.trim().to_owned())
}
