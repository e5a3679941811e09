//! The loss ledger: per stage and direction, what went in is what came out, what was lost and what is
//! still inside.
//!
//! ```text
//! in + duplicated + originated + unseen = out + lost + inside + unexplained
//! ```
//!
//! in segments; units and bytes stand beside it. `lost` is proven: the kernel told that it dropped the
//! packet and where, or both sides of the stage were watched and the packet passed only the first. What
//! is neither is `unexplained`, a figure of its own that is never spread over others. Bytes of a daemon's
//! stage are counted in front (inner on the way out, outer on the way in) so that they too add up.
//!
//! Loss is data: with events lost by the recorder, or a fate that was not followed for lack of room, the
//! ledger is neither balanced nor unbalanced but unknown.

pub mod structure;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use vpnbench_common::catalog::Tap;

use super::Context;
use super::interfaces::Interface;
use super::pairing::amount::Amount;
use super::stages::Stage;
pub use structure::LossStructure;

/// Link, network and transport header with their options, at most (14 + 60 + 60 bytes, rounded up).
const HEADERS: u64 = 144;

/// Packets in, out, lost and inside per stage.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Ledger {
    /// Stages, by direction, in the order a packet passes them.
    pub stages: Vec<LedgerStage>,
    /// Whether nothing is unexplained and nothing was missed; null where that is unknown.
    pub balanced: Option<bool>,
    /// Why `balanced` is null or false.
    pub reason: Option<String>,
    /// Inner flows from end to end, by direction; empty unless both ends were watched.
    pub inner: Vec<EndToEnd>,
    /// How losses are distributed.
    pub structure: Vec<LossStructure>,
    /// What each daemon got and what it made of it, in sums.
    #[serde(default)]
    pub sums: Vec<DaemonSums>,
    /// Fragments and reassembly.
    pub fragments: Vec<Fragments>,
    /// Drops the kernel told of packets that are in no stage: other traffic, or packets that had passed
    /// their last tap.
    pub drops_elsewhere: Amount,
}

/// A stage of the ledger, in wire segments.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LedgerStage {
    /// Stage.
    pub name: String,
    /// `SENDER > RECEIVER` by namespace.
    pub direction: String,
    /// Went in.
    #[serde(rename = "in")]
    pub entered: u64,
    /// Came out.
    #[serde(rename = "out")]
    pub left: u64,
    /// Lost, proven.
    pub lost: u64,
    /// Of these, by a drop the kernel reported.
    pub lost_by_kernel: u64,
    /// Came out more than once.
    pub duplicated: u64,
    /// Came out without having gone in: a daemon's own handshakes, keepalives and control packets.
    pub originated: u64,
    /// Came out of a queue of the kernel, or arrived, without an event of their going in, although none was lost: the
    /// kernel ran no program there. On the wire only where the sending device's own counter says so. A super-packet
    /// counts with all its segments.
    #[serde(default)]
    pub unseen: u64,
    /// Still inside at the end.
    pub inside: u64,
    /// What the others leave open; 0 in a book that adds up.
    pub unexplained: i64,
    /// Fates that were not followed for lack of room; part of `unexplained`.
    pub evicted: u64,
    /// The same in units.
    pub units: Sides,
    /// The same in bytes.
    pub bytes: Sides,
    /// How losses are known: `kernel-reason`, `ledger` or `sequence`.
    pub method: String,
}

/// In, out and lost in another measure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Sides {
    /// Went in.
    #[serde(rename = "in")]
    pub entered: u64,
    /// Came out.
    #[serde(rename = "out")]
    pub left: u64,
    /// Lost.
    pub lost: u64,
}

/// Inner packets from the sender's tunnel device to the receiver's, by their own identity.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EndToEnd {
    /// `SENDER > RECEIVER` by namespace.
    pub direction: String,
    /// Segments handed to the tunnel device and not dropped there.
    pub entered: u64,
    /// Arrived.
    pub delivered: u64,
    /// Did not arrive.
    pub lost: u64,
    /// Arrived more than once.
    pub duplicated: u64,
    /// On their way at the end.
    pub inside: u64,
    /// Arrived without having been seen leaving.
    pub unknown: u64,
}

/// What went into a daemon and what came out, in sums. For tunnels whose transport is a stream (TCP,
/// TLS), or that merge, split or compress packets, these are the only books: nothing is said about
/// single packets, nor about losses, as a stream has none and what is inside cannot be told from what
/// the daemon adds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DaemonSums {
    /// `daemon-send` or `daemon-receive`.
    pub stage: String,
    /// `SENDER > RECEIVER` by namespace.
    pub direction: String,
    /// Inner packets, as segments.
    pub inner_segments: u64,
    /// Their bytes, each segment with its own headers, without a link layer.
    pub inner_bytes: u64,
    /// Outer packets with payload, as segments; null where none was seen.
    pub outer_segments: Option<u64>,
    /// Their payload in bytes, what was sent again included; null likewise.
    pub outer_bytes: Option<u64>,
    /// Of these, bytes of a TCP connection that this tap had had before: the outer connection's own
    /// retransmissions. Null where the transport is not TCP: it cannot be seen.
    pub repeated_bytes: Option<u64>,
    /// What the tunnel added to each inner byte: (`outer_bytes` - `repeated_bytes` - `inner_bytes`) /
    /// `inner_bytes`. Below 0 for a tunnel that compresses, or reads super-packets and sends their headers
    /// once. Null without inner bytes, or where repeated bytes are not known.
    pub overhead_ratio: Option<f64>,
}

/// Fragments in one namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Fragments {
    /// Namespace.
    pub namespace: String,
    /// Fragments that left on outer devices.
    pub sent: u64,
    /// Fragments that arrived on outer devices.
    pub received: u64,
    /// `IpReasmFails` + `Ip6ReasmFails` over the run; null if unknown.
    pub reassemblies_failed: Option<u64>,
    /// `IpReasmTimeout` + `Ip6ReasmTimeout`.
    pub reassemblies_timed_out: Option<u64>,
    /// `IpReasmOKs` + `Ip6ReasmOKs`.
    pub reassembled: Option<u64>,
    /// `IpFragFails` + `Ip6FragFails`: too large and not allowed to be fragmented.
    pub fragmentation_failed: Option<u64>,
}

/// Lost packets of one reason.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Loss {
    /// Where on the path.
    pub stage: String,
    /// The kernel's reason, or what the books say.
    pub reason: String,
    /// Units.
    pub units: u64,
    /// Wire segments.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
    /// `kernel-reason`, `ledger` or `sequence`.
    pub method: String,
    /// Device; null where the packet no longer has one.
    pub device: Option<String>,
    /// Kernel function that dropped it.
    pub place: Option<String>,
    /// Namespace.
    pub namespace: String,
}

/// Raw sums of one stage in one direction.
#[derive(Debug, Clone, Copy, Default)]
pub struct Account {
    /// Went in.
    pub entered: Amount,
    /// Came out, each packet once.
    pub left: Amount,
    /// Dropped by the kernel.
    pub dropped: Amount,
    /// Proven lost by the books of both sides.
    pub lost: Amount,
    /// Came out again.
    pub duplicated: Amount,
    /// Came out without having gone in.
    pub originated: Amount,
    /// Came out of a queue without having been seen going in: an event is missing.
    pub appeared: Amount,
    /// Inside at the end.
    pub inside: Amount,
    /// Given up for lack of room.
    pub evicted: Amount,
}

impl Account {
    /// Takes packets out of the book that were for the daemon itself: they came in, and nothing had to
    /// come out. Only as many as are missing; the others turned out to be data.
    pub fn consume(&mut self, own: Amount) {
        let segments = own.segments.min(self.lost.segments);
        if segments > 0 {
            let bytes = own.bytes.min(self.lost.bytes);
            let units = own.units.min(self.lost.units);
            for sum in [&mut self.lost, &mut self.entered] {
                sum.segments -= segments;
                sum.units -= units.min(sum.units);
                sum.bytes -= bytes.min(sum.bytes);
            }
        }
    }

    /// The row of a stage.
    #[must_use]
    pub fn row(&self, stage: Stage, direction: &str, method: &str) -> LedgerStage {
        let lost = self.lost.plus(self.dropped);
        let out = self
            .left
            .plus(self.duplicated)
            .plus(self.originated)
            .plus(self.appeared);
        let came = self.entered.segments
            + self.duplicated.segments
            + self.originated.segments
            + self.appeared.segments;
        let went = out.segments + lost.segments + self.inside.segments;
        LedgerStage {
            name: stage.name().to_owned(),
            direction: direction.to_owned(),
            entered: self.entered.segments,
            left: out.segments,
            lost: lost.segments,
            lost_by_kernel: self.dropped.segments,
            duplicated: self.duplicated.segments,
            originated: self.originated.segments,
            unseen: self.appeared.segments,
            inside: self.inside.segments,
            unexplained: i64::try_from(i128::from(came) - i128::from(went)).unwrap_or(i64::MAX),
            evicted: self.evicted.segments,
            units: sides(self.entered.units, out.units, lost.units),
            bytes: sides(self.entered.bytes, out.bytes, lost.bytes),
            method: method.to_owned(),
        }
    }
}

fn sides(entered: u64, left: u64, lost: u64) -> Sides {
    Sides {
        entered,
        left,
        lost,
    }
}

/// What arrived without having been seen leaving is `unseen`, not unexplained, where the device's own counters say that
/// it sent as many units, or as many bytes, more than were seen: the kernel ran no program for them.
pub fn appeared(
    context: &Context<'_>,
    ledger: &mut Ledger,
    arrivals: &[(usize, u32, Amount)],
    interfaces: &[Interface],
) {
    let explains = |netns: u32, arrived: Amount| -> bool {
        let outer = interfaces.iter();
        let outer = outer.filter(|one| one.netns == netns && one.role == "outer");
        let hidden = outer.filter_map(|one| one.hidden(Tap::OuterTx));
        let (units, bytes) = hidden.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        // A unit may arrive in several, each with headers of its own.
        units >= arrived.units || (units > 0 && bytes + HEADERS * arrived.units >= arrived.bytes)
    };
    for &(place, netns, arrived) in arrivals {
        let Some(stage) = ledger.stages.get_mut(place) else {
            continue;
        };
        if stage.unexplained < 0 && explains(netns, arrived) {
            stage.unseen += stage.unexplained.unsigned_abs();
            stage.unexplained = 0;
        }
    }
    if !arrivals.is_empty() {
        (ledger.balanced, ledger.reason) = verdict(context, &ledger.stages);
    }
}

/// Whether the books add up, and if that is unknown or not so, why.
#[must_use]
pub fn verdict(context: &Context<'_>, stages: &[LedgerStage]) -> (Option<bool>, Option<String>) {
    let lost: u64 = context.lost.values().sum();
    let counted: u64 = context
        .end
        .iter()
        .flat_map(|end| &end.counts)
        .map(|count| count.lost)
        .sum();
    if stages.is_empty() {
        return (None, Some("no packet passed two taps".to_owned()));
    }
    if lost.max(counted) > 0 {
        let reason = format!(
            "the recorder could not store {} events: a packet that is missing here may have passed",
            lost.max(counted)
        );
        return (None, Some(reason));
    }
    if context.end.is_none() {
        return (None, Some("the recording did not end in order".to_owned()));
    }
    let evicted: u64 = stages.iter().map(|stage| stage.evicted).sum();
    if evicted > 0 {
        return (
            None,
            Some(format!(
                "{evicted} packets were not followed to the end for lack of room"
            )),
        );
    }
    let open: Vec<String> = stages
        .iter()
        .filter(|stage| stage.unexplained != 0)
        .map(|stage| {
            format!(
                "{} in {} ({})",
                stage.unexplained, stage.name, stage.direction
            )
        })
        .collect();
    let unseen: u64 = stages.iter().map(|stage| stage.unseen).sum();
    if open.is_empty() && unseen > 0 {
        let reason = format!(
            "{unseen} segments came out of a stage without having been seen going in, although no event \
             was lost: the kernel ran no program there, and may have done so elsewhere"
        );
        (None, Some(reason))
    } else if open.is_empty() {
        (Some(true), None)
    } else {
        let mut reason = format!("unexplained: {}", open.join(", "));
        if stages.iter().any(|stage| stage.unexplained < 0) {
            reason.push_str(
                "; what is below 0 came out without having been seen going in, although no event was \
                 lost: the kernel ran no program there",
            );
        }
        (Some(false), Some(reason))
    }
}

/// Fragments beside the counters of their namespaces.
#[must_use]
pub fn fragments(context: &Context<'_>, seen: &[(u32, u64, u64)]) -> Vec<Fragments> {
    let both = |netns: u32, name: &str| {
        let four = context.counter(netns, &format!("Ip{name}"));
        let six = context.counter(netns, &format!("Ip6{name}"));
        four.map(|four| four + six.unwrap_or(0)).or(six)
    };
    let rows = seen.iter().map(|&(netns, sent, received)| Fragments {
        namespace: context.namespace_name(netns),
        sent,
        received,
        reassemblies_failed: both(netns, "ReasmFails"),
        reassemblies_timed_out: both(netns, "ReasmTimeout"),
        reassembled: both(netns, "ReasmOKs"),
        fragmentation_failed: both(netns, "FragFails"),
    });
    rows.filter(|row| {
        row.sent + row.received > 0 || row.reassemblies_failed.is_some_and(|fails| fails > 0)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::analysis::interfaces::Seen;
    use crate::trace::model::{End, LinkCounters, Start, Symbols};

    #[test]
    fn what_the_device_counted_and_no_program_saw_is_not_unexplained() {
        let start = Start::default();
        let end = End::default();
        let (symbols, lost) = (Symbols::default(), BTreeMap::new());
        let context = Context::new(&start, Some(&end), &[], &symbols, &lost);
        let book = || Ledger {
            stages: vec![LedgerStage {
                name: "wire".to_owned(),
                entered: 10,
                left: 32,
                unexplained: -22,
                ..LedgerStage::default()
            }],
            ..Ledger::default()
        };
        let device = |counted| Interface {
            device: "wire-a".to_owned(),
            netns: 7,
            namespace: String::new(),
            role: "outer".to_owned(),
            kind: Some("tun".to_owned()),
            counters: Some(LinkCounters {
                tx_packets: counted,
                tx_bytes: 1000 * counted,
                ..LinkCounters::default()
            }),
            seen: vec![Seen {
                tap: Tap::OuterTx.name().to_owned(),
                units: 5,
                bytes: Some(5000),
                ..Seen::default()
            }],
        };
        let mut arrived = Amount::default();
        (arrived.units, arrived.bytes) = (4, 3100);
        let mut ledger = book();
        appeared(&context, &mut ledger, &[(0, 7, arrived)], &[device(8)]);
        let row = &ledger.stages[0];
        assert_eq!((row.unseen, row.unexplained), (22, 0));
        assert_eq!(ledger.balanced, None);
        // Fewer than arrived, another namespace, or hardware: nothing says so.
        let hardware = Interface {
            kind: None,
            ..device(80)
        };
        for (netns, device) in [(7, device(7)), (8, device(8)), (7, hardware)] {
            let mut ledger = book();
            appeared(&context, &mut ledger, &[(0, netns, arrived)], &[device]);
            assert_eq!(ledger.stages[0].unexplained, -22);
            assert_eq!(ledger.balanced, Some(false));
        }
    }
}
