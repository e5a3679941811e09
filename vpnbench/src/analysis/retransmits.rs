//! TCP retransmissions: how many, why, and whether they add up to the kernel's own counters.
//!
//! Distinct stacks are kept with counts and resolved at the end, when the symbols are known.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use vpnbench_common::event;

use super::books::Reconciliation;
use super::cause::{self, Cause, Detection, Entry, EntryFields, Fields};
use super::connections::{SenderSums, flow};
use super::retransmit_sums::Sums;
use super::spurious::Tally;
use super::{Context, Problem, symbols};

/// Distinct stacks, flows and sockets kept.
const KEYS_MAX: usize = 4096;
/// `TCP_CA_Recovery`.
const CA_RECOVERY: u32 = 3;
/// `TCP_CLOSE`.
const CLOSE: u8 = 7;
/// `-EBUSY`: `skb_still_in_host_queue` (net/ipv4/tcp_output.c).
const BUSY: i32 = -16;
/// Stack id of what does not fit [`KEYS_MAX`], and of no stack at all.
const NO_STACK: u32 = u32::MAX;

/// Segments per cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ByCause {
    /// Retransmission timer: the head of the queue.
    pub rto: u64,
    /// Clocked by acknowledgements while recovering from a timeout.
    pub after_rto: u64,
    /// Tail loss probes.
    pub tlp: u64,
    /// RACK's time test.
    pub rack: u64,
    /// Duplicate acknowledgements or SACKed segments reached a threshold.
    pub dupack: u64,
    /// RACK's reordering timer.
    pub rack_timer: u64,
    /// SYN and SYN-ACK.
    pub syn: u64,
    /// Path MTU shrank or an MTU probe was lost.
    pub pmtu: u64,
    /// Not recognised.
    pub other: u64,
}

impl ByCause {
    pub(super) fn add(&mut self, cause: Cause, segments: u64) {
        let slot = match cause {
            Cause::Syn => &mut self.syn,
            Cause::Rto => &mut self.rto,
            Cause::AfterRto => &mut self.after_rto,
            Cause::Tlp => &mut self.tlp,
            Cause::Rack => &mut self.rack,
            Cause::Dupack => &mut self.dupack,
            Cause::RackTimer => &mut self.rack_timer,
            Cause::Pmtu => &mut self.pmtu,
            Cause::Other => &mut self.other,
        };
        *slot += segments;
    }

    /// Names and counts, in the order of this struct.
    #[must_use]
    pub fn rows(&self) -> [(&'static str, u64); 9] {
        [
            ("rto", self.rto),
            ("after_rto", self.after_rto),
            ("tlp", self.tlp),
            ("rack", self.rack),
            ("dupack", self.dupack),
            ("rack_timer", self.rack_timer),
            ("syn", self.syn),
            ("pmtu", self.pmtu),
            ("other", self.other),
        ]
    }
}

/// Retransmissions of one TCP flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FlowRetransmits {
    /// Inode number of the sender's network namespace.
    pub netns: u32,
    /// The retransmitting end.
    pub local: String,
    /// The other end.
    pub remote: String,
    /// Segments sent again.
    pub segments: u64,
    /// Segments by cause.
    pub by_cause: ByCause,
    /// Segments of which an earlier copy arrived; null if nothing could be said about any.
    #[serde(default)]
    pub spurious: Option<u64>,
}

/// What the retransmissions came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// Segments sent again, SYN-ACKs included.
    pub total: u64,
    /// By cause; adds up to `total`.
    pub by_cause: ByCause,
    /// Attempts that failed before the segment left.
    pub failed: u64,
    /// What is known about whether they were needed, and by cause.
    pub spurious: Tally,
    /// Spurious ones by cause.
    pub spurious_by_cause: ByCause,
    /// Handshake segments and failed look-ups: nothing can be said about them.
    pub unjudged: u64,
    /// Whether events were lost that could prove more of them spurious.
    pub verdicts_incomplete: bool,
    /// Entries into Recovery: by RACK's time test, a threshold, RACK's timer.
    pub episodes: BTreeMap<&'static str, u64>,
    /// Most segments first.
    pub flows: Vec<FlowRetransmits>,
    /// Beside the kernel's counters, per namespace.
    pub books: Vec<Reconciliation>,
    /// Name of the cause by the number that [`super::spurious::Mark::key`] has.
    pub causes: BTreeMap<u32, &'static str>,
}

/// One end of a TCP connection: namespace, IP version, local and remote address and port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Flow {
    pub(super) netns: u32,
    pub(super) version: u8,
    pub(super) local: ([u8; 16], u16),
    pub(super) remote: ([u8; 16], u16),
}

/// What the cause of a retransmission depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) flow: Option<Flow>,
    pub(super) netns: u32,
    pub(super) stack: u32,
    pub(super) fields: Fields,
    pub(super) entry: Option<(u32, EntryFields)>,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Count {
    pub(super) events: u64,
    pub(super) segments: u64,
    pub(super) failed: u64,
    /// Of those, because the segment was still in a queue of this host.
    pub(super) in_host_queue: u64,
    pub(super) spurious: Tally,
}

/// Collects retransmissions by what decides their cause.
#[derive(Debug, Clone, Default)]
pub struct Retransmits {
    stacks: BTreeMap<Vec<u64>, u32>,
    flows: BTreeMap<Flow, ()>,
    keys: BTreeMap<Key, u32>,
    counts: Vec<Count>,
    synacks: BTreeMap<(u32, Option<Flow>), u64>,
    entries: BTreeMap<(u32, u32, EntryFields), u64>,
    last_entry: BTreeMap<u64, (u32, EntryFields)>,
    dropped_keys: u64,
}

impl Retransmits {
    /// A SYN-ACK was sent again.
    pub(super) fn synack(&mut self, event: &event::SynAckRetransmit) {
        let local = (event.laddr, event.lport);
        let remote = (event.raddr, event.rport);
        let flow = flow(event.netns, event.ip_version, local, remote);
        let flow = self.known(flow);
        *self.synacks.entry((event.netns, flow)).or_default() += 1;
    }

    /// The congestion state changes.
    pub(super) fn congestion(&mut self, event: &event::CongState) {
        if event.new == CA_RECOVERY {
            self.entry(event);
        }
    }

    /// A socket changes its state.
    pub(super) fn closed(&mut self, event: &event::SockState) {
        if event.new == CLOSE {
            self.last_entry.remove(&event.sk);
        }
    }

    /// A segment was sent again, or an attempt failed. Returns the number of what its cause
    /// depends on, for [`Retransmits::verdicts`].
    pub(super) fn retransmit(&mut self, event: &event::Retransmit) -> u32 {
        let local = (event.laddr, event.lport);
        let remote = (event.raddr, event.rport);
        let flow = self.known(flow(event.netns, event.ip_version, local, remote));
        let fields = Fields {
            state: event.state,
            ca_state: event.ca_state,
            pending: event.pending,
            timed_out: event.retransmits > 0,
        };
        let stack = self.stack(&event.stack, event.depth);
        let entry = self.last_entry.get(&event.sk).copied();
        let key = Key {
            flow,
            netns: event.netns,
            stack,
            fields,
            entry,
        };
        let next = u32::try_from(self.counts.len()).unwrap_or(u32::MAX);
        let number = *self.keys.entry(key).or_insert(next);
        if number == next {
            self.counts.push(Count::default());
        }
        let count = &mut self.counts[number as usize];
        if event.error == 0 {
            count.events += 1;
            count.segments += u64::from(event.segments.max(1));
        } else {
            count.failed += 1;
            count.in_host_queue += u64::from(event.error == BUSY);
        }
        number
    }

    /// What is known of segments sent again, by the numbers of [`Retransmits::retransmit`].
    pub(super) fn verdicts(&mut self, verdicts: FxHashMap<u32, Tally>) {
        for (number, tally) in verdicts {
            if let Some(count) = self.counts.get_mut(number as usize) {
                count.spurious.add(&tally);
            }
        }
    }

    fn entry(&mut self, event: &event::CongState) {
        let stack = self.stack(&event.stack, event.depth);
        let fields = EntryFields {
            sack: event.sack_ok != 0,
            reordering_seen: event.reord_seen != 0,
            threshold_reached: event.sacked_out >= event.reordering,
        };
        *self
            .entries
            .entry((event.netns, stack, fields))
            .or_default() += 1;
        if self.last_entry.len() < KEYS_MAX || self.last_entry.contains_key(&event.sk) {
            self.last_entry.insert(event.sk, (stack, fields));
        } else {
            self.dropped_keys += 1;
        }
    }

    fn stack(&mut self, stack: &[u64], depth: u32) -> u32 {
        let frames = &stack[..stack.len().min(depth as usize)];
        if frames.is_empty() {
            return NO_STACK;
        }
        if let Some(id) = self.stacks.get(frames) {
            return *id;
        }
        if self.stacks.len() >= KEYS_MAX {
            self.dropped_keys += 1;
            return NO_STACK;
        }
        let id = u32::try_from(self.stacks.len()).unwrap_or(NO_STACK);
        self.stacks.insert(frames.to_vec(), id);
        id
    }

    fn known(&mut self, flow: Flow) -> Option<Flow> {
        if self.flows.len() >= KEYS_MAX && !self.flows.contains_key(&flow) {
            self.dropped_keys += 1;
            return None;
        }
        self.flows.insert(flow, ());
        Some(flow)
    }

    /// Resolves the stacks and adds up.
    #[must_use]
    pub(super) fn finish(
        self,
        context: &Context<'_>,
        senders: BTreeMap<u32, SenderSums>,
    ) -> (Output, Vec<Problem>) {
        let resolver = Resolver::new(&self.stacks, context);
        let mut sums = Sums::new(context, senders);
        let mut guessed = 0;
        let mut causes = BTreeMap::new();
        for (key, &number) in &self.keys {
            let count = &self.counts[number as usize];
            let frames = resolver.frames(key.stack);
            let entry = key
                .entry
                .map(|(stack, fields)| resolver.entry(key.netns, stack, fields));
            let cause = cause::cause(frames, key.fields, entry);
            if frames.is_empty() {
                // What is known from a capture has no stacks at all.
                guessed += match context.is_captured(key.netns) {
                    true => 0,
                    false => count.segments,
                };
            }
            causes.insert(number, cause.name());
            sums.add(key, cause, cause::through_queue(frames), count);
        }
        for (&(netns, flow), &count) in &self.synacks {
            sums.synack(netns, flow, count);
        }
        let mut episodes = BTreeMap::from([("dupack", 0), ("rack", 0), ("rack_timer", 0)]);
        for (&(netns, stack, fields), &count) in &self.entries {
            let name = match resolver.entry(netns, stack, fields) {
                Entry::Rack => "rack",
                Entry::Dupack => "dupack",
                Entry::RackTimer => "rack_timer",
            };
            *episodes.entry(name).or_default() += count;
            let namespace = sums.namespaces.entry(netns).or_default();
            if fields.sack {
                namespace.sack_entries += count;
            } else {
                namespace.reno_entries += count;
            }
        }
        let problems = self.problems(guessed);
        let mut output = sums.output(context, episodes);
        output.causes = causes;
        (output, problems)
    }

    fn problems(&self, guessed: u64) -> Vec<Problem> {
        let mut problems = Vec::new();
        if guessed > 0 {
            let message = format!(
                "{guessed} retransmitted segments have no readable kernel stack; their cause is inferred from the sender's state"
            );
            problems.push(Problem::data_loss("retransmits", message));
        }
        if self.dropped_keys > 0 {
            let message = format!(
                "{} events of more than {KEYS_MAX} flows, sockets or stacks are counted without telling them apart",
                self.dropped_keys
            );
            problems.push(Problem::data_loss("retransmits", message));
        }
        problems
    }
}

/// Function names of the distinct stacks.
struct Resolver<'a> {
    frames: BTreeMap<u32, Vec<&'a str>>,
    context: &'a Context<'a>,
}

impl<'a> Resolver<'a> {
    fn new(stacks: &BTreeMap<Vec<u64>, u32>, context: &'a Context<'a>) -> Resolver<'a> {
        let resolve = |stack: &Vec<u64>| -> Vec<&'a str> {
            stack
                .iter()
                .filter_map(|address| symbols::function(context.symbols, *address))
                .collect()
        };
        let frames = stacks
            .iter()
            .map(|(stack, id)| (*id, resolve(stack)))
            .collect();
        Resolver { frames, context }
    }

    fn frames(&self, stack: u32) -> &[&'a str] {
        self.frames.get(&stack).map_or(&[], Vec::as_slice)
    }

    fn entry(&self, netns: u32, stack: u32, fields: EntryFields) -> Entry {
        let namespace = self.context.namespace(netns).0;
        let sysctl = namespace.and_then(|one| one.sysctls.get("net.ipv4.tcp_recovery"));
        let release = &self.context.start.host.kernel_release;
        let detection = Detection::new(sysctl.map(String::as_str), release);
        cause::entry(self.frames(stack), fields, detection)
    }
}
