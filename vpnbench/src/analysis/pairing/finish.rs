//! From queues, daemons and flows to rows: stages, ledger, losses, waterfalls.

mod corrections;

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::amount::Amount;
use super::daemon::{Book, Rule};
use super::host::{Host, Queue};
use super::journeys::Waterfall;
use super::transit::{Flow, Sums};
use super::units::Units;
use super::{Between, Pairing};
use crate::analysis::ledger::structure::Fates;
use crate::analysis::ledger::{
    self, Account, DaemonSums, EndToEnd, Ledger, LedgerStage, Loss, LossStructure,
};
use crate::analysis::stages::{Backlog, Stage, StageTime};
use crate::analysis::{Context, Problem, address};

/// What became of the packets.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Output {
    /// Time between taps.
    pub stages: Vec<StageTime>,
    /// The books.
    pub ledger: Ledger,
    /// Losses that the books prove and no drop of the kernel explains.
    pub losses: Vec<Loss>,
    /// Single packets on their whole way.
    pub waterfalls: Vec<Waterfall>,
    /// What arrived without having been seen leaving, by the stage's place in the ledger and the
    /// namespace that they come from.
    pub appeared: Vec<(usize, u32, Amount)>,
}

/// Confidence below which another way of measuring is looked for.
const SURE: f64 = 0.95;
/// Confidence below which times are not reported.
const GUESSED: f64 = 0.5;

type Ends = (u16, u16);

/// Everything that is known at the end, by direction.
struct Closing<'a> {
    context: &'a Context<'a>,
    hosts: Vec<Host>,
    between: BTreeMap<Ends, Between>,
    wire: BTreeMap<Ends, Sums>,
    inner: BTreeMap<Ends, Sums>,
    units: Units,
    now_ns: u64,
    output: Output,
    problems: Vec<Problem>,
}

impl Pairing {
    /// Ends all queues and flows.
    #[must_use]
    pub fn finish(mut self, context: &Context<'_>) -> (Output, Vec<Problem>) {
        let now = context
            .end
            .map_or(self.last_ns, |end| end.clock.monotonic_ns.max(self.last_ns));
        let mut closed = Vec::new();
        let wire = std::mem::take(&mut self.wire).finish(now, &mut closed);
        let inner = std::mem::take(&mut self.tunnel).finish(now, &mut closed);
        for (flow, one) in closed {
            self.fates.entry(flow).or_default().add(&one);
        }
        let units = std::mem::take(&mut self.inner);
        for host in &mut self.hosts {
            for queue in [
                &mut host.tun_qdisc,
                &mut host.tun_queue,
                &mut host.outer_qdisc,
                &mut host.to_tcp,
            ] {
                queue.finish(now);
            }
            host.socket.finish(now);
        }
        let seen: Vec<(u32, u64, u64)> = self
            .hosts
            .iter()
            .map(|host| (host.netns, host.fragments.0, host.fragments.1))
            .collect();
        let mut fates = std::mem::take(&mut self.fates);
        let addresses = addresses(context, &self.hosts);
        let mut closing = Closing {
            context,
            hosts: self.hosts,
            between: self.between.into_iter().collect(),
            wire: BTreeMap::new(),
            inner: BTreeMap::new(),
            units,
            now_ns: now,
            output: Output::default(),
            problems: Vec::new(),
        };
        let mut structure: BTreeMap<(&str, Ends), Fates> = BTreeMap::new();
        let mut beside = Amount::default();
        for (level, flows) in [("outer", wire), ("inner", inner)] {
            for (hash, flow) in flows {
                let Some(ends) = ends(&flow, &addresses) else {
                    continue;
                };
                if level == "outer" && closing.is_beside(&flow, ends.1) {
                    beside = beside.plus(flow.sums.departed);
                    continue;
                }
                let sums = if level == "outer" {
                    &mut closing.wire
                } else {
                    &mut closing.inner
                };
                sums.entry(ends).or_default().add(&flow.sums);
                if let Some(fates) = fates.remove(&hash) {
                    structure.entry((level, ends)).or_default().merge(fates);
                }
            }
        }
        closing.beside(beside);
        closing.directions();
        let name = |ends: Ends| closing.direction(Some(ends.0), Some(ends.1));
        let rows = structure
            .into_iter()
            .filter_map(|((level, ends), fates)| fates.finish(level, &name(ends)));
        closing.output.ledger.structure = rows.collect::<Vec<LossStructure>>();
        let waterfalls = self
            .journeys
            .finish(context, |from, to| closing.direction(Some(from), Some(to)));
        closing.output.waterfalls = waterfalls;
        closing.output.ledger.fragments = ledger::fragments(context, &seen);
        closing.output.ledger.drops_elsewhere = self.elsewhere;
        if self.uncounted > 0 {
            let message = format!(
                "{} packets of too many namespaces were not followed",
                self.uncounted
            );
            closing
                .problems
                .push(Problem::data_loss("pairing", message));
        }
        closing.verdict();
        (closing.output, closing.problems)
    }
}

/// Addresses of the watched namespaces, at both ends of the run.
fn addresses(context: &Context<'_>, hosts: &[Host]) -> BTreeMap<IpAddr, u16> {
    let mut found = BTreeMap::new();
    for (index, host) in hosts.iter().enumerate() {
        let (start, end) = context.namespace(host.netns);
        let links = start.into_iter().chain(end).flat_map(|one| &one.links);
        for text in links.flat_map(|link| &link.addresses) {
            if let Some(Ok(ip)) = text.split('/').next().map(str::parse) {
                found.insert(ip, index as u16);
            }
        }
    }
    found
}

/// Hosts between which a flow runs, if both are watched: it arrived somewhere, or its destination is
/// an address of a watched host.
fn ends(flow: &Flow, addresses: &BTreeMap<IpAddr, u16>) -> Option<Ends> {
    let destination = address::ip(flow.version, &flow.destination);
    let owner = destination.and_then(|ip| addresses.get(&ip).copied());
    let to = flow.to.or(owner).filter(|to| *to != flow.from)?;
    Some((flow.from, to))
}

impl Closing<'_> {
    /// All directions, each in the order a packet passes its stages.
    fn directions(&mut self) {
        let count = self.hosts.len();
        for sender in 0..count as u16 {
            let receiver = (count == 2).then(|| 1 - sender);
            self.sending(sender, receiver);
            let ends: Vec<Ends> = self
                .wire
                .keys()
                .copied()
                .filter(|ends| ends.0 == sender)
                .collect();
            for ends in ends {
                self.wire_row(ends);
            }
            match receiver {
                Some(receiver) => self.receiving(receiver, Some(sender)),
                None => self.receiving(sender, None),
            }
        }
        for (ends, sums) in std::mem::take(&mut self.inner) {
            let row = EndToEnd {
                direction: self.direction(Some(ends.0), Some(ends.1)),
                entered: sums.departed.segments - sums.dropped.segments.min(sums.departed.segments),
                delivered: sums.arrived.segments,
                lost: sums.missing.segments,
                duplicated: sums.duplicated.segments,
                inside: sums.inside.segments,
                unknown: sums.unknown.segments,
            };
            self.output.ledger.inner.push(row);
        }
    }

    fn direction(&self, from: Option<u16>, to: Option<u16>) -> String {
        let name = |host: Option<u16>| {
            let host = host.and_then(|host| self.hosts.get(host as usize));
            host.map_or(String::new(), |host| {
                self.context.namespace_name(host.netns)
            })
        };
        format!("{} > {}", name(from), name(to)).trim().to_owned()
    }

    fn sending(&mut self, sender: u16, receiver: Option<u16>) {
        let direction = self.direction(Some(sender), receiver);
        let queue = std::mem::take(&mut self.hosts[sender as usize].tun_qdisc);
        self.queue(Stage::TunQdisc, &direction, sender, &queue);
        let queue = std::mem::take(&mut self.hosts[sender as usize].tun_queue);
        self.queue(Stage::TunQueue, &direction, sender, &queue);
        self.daemon_send(sender, receiver, &direction);
        let queue = std::mem::take(&mut self.hosts[sender as usize].outer_qdisc);
        self.queue(Stage::OuterQdisc, &direction, sender, &queue);
    }

    fn receiving(&mut self, receiver: u16, sender: Option<u16>) {
        let direction = self.direction(sender, Some(receiver));
        let host = &mut self.hosts[receiver as usize];
        let socket = std::mem::take(&mut host.socket);
        if socket.account.entered.units > 0 {
            let by_address = socket.by_address >= socket.by_order;
            let method = if by_address { "address" } else { "order" };
            let mut row = socket.delays.row(
                Stage::OuterSocket,
                &direction,
                self.context.start.clock.monotonic_ns,
            );
            row.confidence = by_address.then_some(1.0);
            self.push_stage(row, method, Some(socket.backlog), &socket.account);
            self.push_account(
                Stage::OuterSocket,
                &direction,
                "kernel-reason",
                &socket.account,
                receiver,
            );
        }
        self.daemon_receive(receiver, sender, &direction);
        let queue = std::mem::take(&mut self.hosts[receiver as usize].to_tcp);
        let mut row = queue.delays.row(
            Stage::ToTcp,
            &direction,
            self.context.start.clock.monotonic_ns,
        );
        if row.packets > 0 {
            if !self.hosts[receiver as usize].has_tunnel {
                row.from = "outer.rx".to_owned();
            }
            row.confidence = Some(1.0);
            // Segments of sockets that are not established, and those merged in the socket's backlog, do not
            // pass the tap: this stage has times and no account.
            self.push_stage(
                row,
                "address",
                Some(queue.waiting.backlog),
                &Account::default(),
            );
        }
    }

    fn queue(&mut self, stage: Stage, direction: &str, host: u16, queue: &Queue) {
        if queue.account.entered.units == 0 {
            return;
        }
        let mut row = queue
            .delays
            .row(stage, direction, self.context.start.clock.monotonic_ns);
        row.confidence = Some(1.0);
        self.push_stage(row, "address", Some(queue.waiting.backlog), &queue.account);
        self.push_account(stage, direction, "kernel-reason", &queue.account, host);
    }

    fn daemon_send(&mut self, sender: u16, receiver: Option<u16>, direction: &str) {
        self.sums(Stage::DaemonSend, direction, sender);
        let host = &mut self.hosts[sender as usize];
        let daemon = std::mem::take(&mut host.send);
        let delays = std::mem::take(&mut host.send_delays);
        let in_kernel = host.in_kernel;
        // Without an outer device to watch, nothing is known of what the daemon sends.
        let entered = daemon.book(Rule::Order).entered.units;
        if entered == 0 || !self.has_outer_device(sender) {
            return;
        }
        let ends = receiver.map(|receiver| (sender, receiver));
        let far = ends
            .and_then(|ends| self.between.remove(&ends))
            .unwrap_or_default();
        let rule = daemon.better(far.confirmed, far.checked);
        let mut book = daemon.into_book_of_counts();
        let units = &self.units;
        let mut inside = book.finish(self.now_ns, |unit| {
            units.get(unit).is_some_and(|unit| unit.arrived)
        });
        if let Some(sums) = ends.and_then(|ends| self.inner.get(&ends)) {
            // No more can be inside this daemon than is on its way at all.
            let segments = inside.segments.min(sums.inside.segments);
            book.lost.segments += inside.segments - segments;
            inside.segments = segments;
        }
        let mut account = book.account(inside);
        if let Some(ends) = ends {
            self.repeated(ends, &mut account);
        }
        self.unproven(sender, &mut account);
        self.unseen_way(ends, direction, &mut account);
        let share = |part: u64| (far.checked > 0).then(|| part as f64 / far.checked as f64);
        let confidence = share(far.confirmed[rule as usize]);
        let far_is_better = confidence.is_some_and(|sure| sure < SURE)
            && 2 * far.daemon_send.packets() > book.left.segments
            && receiver.is_some_and(|receiver| self.pairs_all(receiver));
        let (delays, method) = if far_is_better {
            (&far.daemon_send, "far-end")
        } else {
            (&delays[rule as usize], rule.name())
        };
        let start = self.context.start.clock.monotonic_ns;
        let mut row = delays.row(Stage::DaemonSend, direction, start);
        row.confidence = if far_is_better { None } else { confidence };
        if in_kernel {
            row.from = "tun.tx".to_owned();
        }
        if self.hosts[sender as usize].captured {
            row.to = "outer.tx".to_owned();
        }
        self.daemon(Stage::DaemonSend, row, method, &book, &account, sender);
        if let Some(ends) = ends {
            self.between.insert(ends, far);
        }
    }

    /// Whether the receiver's daemon passes on (nearly) all that comes in, so that its pairs are right
    /// under either rule.
    fn pairs_all(&self, receiver: u16) -> bool {
        let daemon = &self.hosts[receiver as usize].receive;
        let rule = daemon.complete();
        let book = daemon.book(rule);
        rule == Rule::Thread || book.over() * 1000 <= book.entered.segments
    }

    fn has_outer_device(&self, host: u16) -> bool {
        let netns = self.hosts[host as usize].netns;
        let changed = self
            .context
            .changes
            .iter()
            .flat_map(|change| &change.devices);
        let mut devices = self.context.start.devices.iter().chain(changed);
        devices.any(|device| device.netns == netns && device.role == "outer")
    }

    fn daemon_receive(&mut self, receiver: u16, sender: Option<u16>, direction: &str) {
        self.sums(Stage::DaemonReceive, direction, receiver);
        let host = &mut self.hosts[receiver as usize];
        let daemon = std::mem::take(&mut host.receive);
        let delays = std::mem::take(&mut host.receive_delays);
        let (own, without_recv) = (host.receive_own, host.without_recv);
        let wireguard = host.wireguard;
        let rule = daemon.better([0; 2], 0);
        let mut book = daemon.into_book_of_counts();
        let inside = book.finish(self.now_ns, |_| false);
        if book.entered.units == 0 {
            return;
        }
        let mut account = book.account(inside);
        account.consume(own);
        if sender.is_none() && !wireguard {
            // Control packets of a peer that is not seen cannot be told from lost ones.
            account.lost = Amount::default();
        }
        self.unproven(receiver, &mut account);
        let start = self.context.start.clock.monotonic_ns;
        let mut row = delays[rule as usize].row(Stage::DaemonReceive, direction, start);
        if without_recv {
            row.from = "outer.rx".to_owned();
        }
        self.daemon(
            Stage::DaemonReceive,
            row,
            rule.name(),
            &book,
            &account,
            receiver,
        );
    }

    fn sums(&mut self, stage: Stage, direction: &str, host: u16) {
        let carried = self.hosts[host as usize].carried(stage);
        if carried.inner.units > 0 {
            self.output.ledger.sums.push(DaemonSums {
                stage: stage.name().to_owned(),
                direction: direction.to_owned(),
                ..carried.book()
            });
        }
    }

    fn daemon(
        &mut self,
        stage: Stage,
        row: StageTime,
        method: &str,
        daemon: &Book,
        account: &Account,
        host: u16,
    ) {
        let direction = row.direction.clone();
        // Segments of a stream may happen to look like packets: they are none.
        let carried = self.hosts[host as usize].carried(stage);
        let (in_stream, in_quic) = (carried.in_stream(), carried.in_quic());
        if in_quic && row.confidence.is_some_and(|sure| sure >= SURE) {
            // One datagram frame for each packet: the far end says so. Losses are not told by that.
            self.push_stage(row, method, Some(daemon.backlog), account);
            return;
        }
        if daemon.one_to_one() && !in_stream && !in_quic {
            let guessed = row.confidence.is_some_and(|sure| sure < GUESSED);
            if guessed {
                let message = format!(
                    "time in {} ({direction}) is not told: the far end shows that most of its packets were paired wrongly, as packets of one size were lost inside",
                    stage.name()
                );
                self.problems.push(Problem::info("pairing", message));
                self.push_account(stage, &direction, "ledger", account, host);
                return;
            }
            self.push_stage(row, method, Some(daemon.backlog), account);
            self.push_account(stage, &direction, "ledger", account, host);
            return;
        }
        let out = daemon.left.segments + daemon.originated.segments;
        let why = if in_stream {
            "the daemon carries packets in a stream"
        } else if in_quic {
            "the daemon carries packets in QUIC, which puts them together, cuts them and sends them again behind its encryption"
        } else {
            "most do not pair one to one: the daemon merges, splits or compresses packets, or carries them in a stream"
        };
        let message = format!(
            "{} ({direction}): {} packets went in and {out} came out, and {why}; time inside it and its losses cannot be told per packet",
            stage.name(),
            daemon.entered.segments,
        );
        self.problems.push(Problem::info("pairing", message));
    }

    fn wire_row(&mut self, ends: Ends) {
        let Some(sums) = self.wire.get(&ends).cloned() else {
            return;
        };
        let direction = self.direction(Some(ends.0), Some(ends.1));
        // What came out of the receiver's socket had arrived, although it was not seen to.
        let taken = self.hosts[ends.1 as usize].socket.account.appeared;
        let through = if self.hosts.len() == 2 {
            taken.within(sums.missing)
        } else {
            Amount::default()
        };
        let account = Account {
            entered: sums.departed,
            left: sums.arrived.plus(sums.unknown).plus(through),
            dropped: sums.dropped,
            lost: sums.missing.minus(through),
            duplicated: sums.duplicated,
            inside: sums.inside,
            evicted: sums.evicted,
            ..Account::default()
        };
        let start = self.context.start.clock.monotonic_ns;
        if let Some(between) = self.between.get(&ends) {
            let mut row = between.wire.row(Stage::Wire, &direction, start);
            let by_order = 2 * sums.by_order > sums.arrived.segments;
            let method = if by_order { "order" } else { "numbers" };
            row.confidence = (sums.by_order == 0).then_some(1.0);
            row.uncertainty_us = self.clock_uncertainty_us(ends);
            if row.packets > 0 {
                self.push_stage(row, method, None, &account);
            }
        }
        if sums.unknown.units > 0 {
            let netns = self.hosts[ends.0 as usize].netns;
            let place = self.output.ledger.stages.len();
            self.output.appeared.push((place, netns, sums.unknown));
        }
        self.push_account(Stage::Wire, &direction, "sequence", &account, ends.0);
    }

    /// How far times between two hosts may be off, where each has a clock of its own.
    fn clock_uncertainty_us(&self, ends: Ends) -> Option<f64> {
        let of = |host: u16| {
            let netns = self.hosts.get(usize::from(host))?.netns;
            self.context.namespace(netns).0?.clock_uncertainty_ns
        };
        let sum = of(ends.0)? + of(ends.1)?;
        (sum > 0).then_some(sum as f64 / 1000.0)
    }

    fn push_stage(
        &mut self,
        mut row: StageTime,
        method: &str,
        backlog: Option<Backlog>,
        account: &Account,
    ) {
        row.method = method.to_owned();
        row.backlog_max_packets = backlog.map(|backlog| backlog.max_packets);
        row.backlog_max_bytes = backlog.map(|backlog| backlog.max_bytes);
        let fated = account
            .left
            .plus(account.lost)
            .plus(account.dropped)
            .plus(account.inside);
        let entered = account.entered.segments;
        if row.packets == 0 {
            return;
        }
        row.unpaired_ratio =
            (entered > 0).then(|| entered.saturating_sub(fated.segments) as f64 / entered as f64);
        self.output.stages.push(row);
    }

    fn push_account(
        &mut self,
        stage: Stage,
        direction: &str,
        method: &str,
        account: &Account,
        host: u16,
    ) {
        let row: LedgerStage = account.row(stage, direction, method);
        let proven = account.lost;
        if proven.segments > 0 {
            let reason = match stage {
                Stage::Wire => "did not arrive",
                _ => "did not come out",
            };
            self.output.losses.push(Loss {
                stage: stage.name().to_owned(),
                reason: reason.to_owned(),
                units: proven.units,
                packets: proven.segments,
                bytes: proven.bytes,
                method: method.to_owned(),
                device: None,
                place: None,
                namespace: self.context.namespace_name(self.hosts[host as usize].netns),
            });
        }
        self.output.ledger.stages.push(row);
    }

    fn verdict(&mut self) {
        let (balanced, reason) = ledger::verdict(self.context, &self.output.ledger.stages);
        self.output.ledger.balanced = balanced;
        self.output.ledger.reason = reason;
    }
}

impl Book {
    fn account(&self, inside: Amount) -> Account {
        Account {
            entered: self.entered,
            left: self.left,
            lost: self.lost,
            originated: self.originated,
            inside,
            evicted: self.evicted,
            ..Account::default()
        }
    }
}
