//! One run that was recorded twice, as a trace and as captures, or by two captures: which figures both know,
//! whether they agree, and why not where they do not.
//!
//! Figures are matched by what both name alike: flows by their addresses and ports at a tap; namespaces, which
//! a capture calls as its user does, by the flows they share.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::analysis::ledger::LedgerStage;

/// Taps at both ends of a stage that a capture can know.
const STAGES: [(&str, &str, &str); 3] = [
    ("daemon-send", "tun.tx", "outer.tx"),
    ("wire", "outer.tx", "outer.rx"),
    ("daemon-receive", "outer.rx", "tun.write"),
];
/// Before the names of taps outside of the tunnel.
const OUTSIDE: &str = "outer.";
/// Sum of the causes of retransmissions.
pub const RETRANSMITS: &str = "retransmissions";
/// Those of which an earlier copy arrived.
pub const SPURIOUS: &str = "spurious retransmissions";
/// Before a cause of retransmissions.
pub const CAUSE: &str = "retransmissions by ";
/// Sender, receiver and protocol of a flow.
pub type Flow = (String, String, String);

/// What a flow is at a tap.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FlowCount {
    /// Where.
    pub namespace: String,
    /// Wire segments.
    pub packets: u64,
    /// Units (skbs).
    pub units: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Reordering at a tap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Order {
    /// Units with a number.
    pub packets: u64,
    /// Of these, reordered (RFC 4737).
    pub reordered: u64,
    /// Of these, by three or more.
    pub by_three: u64,
}

/// What a recording says of a run, by names that another recording of it has, too.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sight {
    /// Whether it was made from captures: without the state of the kernel.
    pub captured: bool,
    /// Whether all that passed was recorded, as far as is known.
    pub complete: bool,
    /// Begin and end, s of UTC; null where a recording does not say.
    pub window_s: Option<(f64, f64)>,
    /// First and last packet at each tap, s of UTC.
    pub tap_windows_s: BTreeMap<String, (f64, f64)>,
    /// Flows at taps.
    pub flows: BTreeMap<(Flow, String), FlowCount>,
    /// The ledger.
    pub stages: Vec<LedgerStage>,
    /// Addresses of sender and receiver, and tap.
    pub order: BTreeMap<(String, String), Order>,
    /// Figures of TCP's senders by name; without those that are not known.
    pub senders: BTreeMap<String, u64>,
}

/// Figures of a run that both recordings know.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Twice {
    /// Figures that both have.
    pub compared: usize,
    /// Those that differ.
    pub differences: Vec<Disagreement>,
    /// What only one of them can know, in words.
    pub one_sided: Vec<String>,
}

/// A figure that differs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Disagreement {
    /// Which.
    pub figure: String,
    /// In the first recording.
    pub base: i64,
    /// In the other.
    pub changed: i64,
    /// Why, as far as the recordings show it; null if nothing in them does.
    pub reason: Option<String>,
}

/// Compares two recordings if they are of one run: they have a TCP or UDP flow in common, ports included, and
/// their times overlap.
#[must_use]
pub fn compare(base: &Sight, changed: &Sight) -> Option<Twice> {
    let common = |at: &&(Flow, String)| changed.flows.contains_key(at);
    base.flows.keys().find(common)?;
    if let (Some(ours), Some(theirs)) = (base.window_s, changed.window_s)
        && (ours.0 > theirs.1 || theirs.0 > ours.1)
    {
        return None;
    }
    let mut book = Book {
        base,
        changed,
        twice: Twice::default(),
        reasons: BTreeMap::new(),
    };
    book.flows();
    book.stages();
    book.order();
    book.senders();
    book.one_sided();
    Some(book.twice)
}

struct Book<'a> {
    base: &'a Sight,
    changed: &'a Sight,
    twice: Twice,
    /// Taps, by the sender's address, with a figure that differs; why the first does.
    reasons: BTreeMap<(String, String), Option<String>>,
}

impl Book<'_> {
    fn row(&mut self, figure: String, ours: i64, theirs: i64, reason: Option<String>) {
        self.twice.compared += 1;
        if ours != theirs {
            self.twice.differences.push(Disagreement {
                figure,
                base: ours,
                changed: theirs,
                reason,
            });
        }
    }

    /// Whether only one of them is a capture.
    fn is_mixed(&self) -> bool {
        self.base.captured != self.changed.captured
    }

    fn flows(&mut self) {
        let (base, changed) = (self.base, self.changed);
        for (at @ (flow, tap), ours) in &base.flows {
            let Some(theirs) = changed.flows.get(at) else {
                continue;
            };
            let reason = self.why_flow(tap, ours, theirs);
            let what = |name: &str| format!("{name} of {} > {} at {tap}", flow.0, flow.1);
            let pairs = [
                ("units", ours.units, theirs.units),
                ("bytes", ours.bytes, theirs.bytes),
                ("segments", ours.packets, theirs.packets),
            ];
            for (name, ours, theirs) in pairs {
                self.row(what(name), ours as i64, theirs as i64, reason.clone());
                if ours != theirs {
                    let place = (address(&flow.0).to_owned(), tap.clone());
                    self.reasons.entry(place).or_insert(reason.clone());
                }
            }
        }
    }

    fn why_flow(&self, tap: &str, ours: &FlowCount, theirs: &FlowCount) -> Option<String> {
        if (ours.units, ours.bytes) == (theirs.units, theirs.bytes) {
            let (captured, traced) = match self.base.captured {
                true => (ours, theirs),
                false => (theirs, ours),
            };
            // A unit that fits one packet of the device is one, as far as a capture shows.
            return (self.is_mixed() && captured.packets < traced.packets).then(|| {
                "a capture does not show how many datagrams a unit holds (the kernel's gso_segs): \
                 such a unit counts as one"
                    .to_owned()
            });
        }
        for (name, one, other) in [
            ("the first", self.base, self.changed),
            ("the other", self.changed, self.base),
        ] {
            if !one.complete {
                return Some(format!("{name} recording is not complete"));
            }
            let (Some((begin, end)), Some((first, last))) =
                (one.window_s, other.tap_windows_s.get(tap))
            else {
                continue;
            };
            if *first < begin {
                return Some(format!(
                    "{name} recording began {:.3} s after the first packet of the other there",
                    begin - first
                ));
            }
            if *last > end {
                return Some(format!(
                    "{name} recording ended {:.3} s before the last packet of the other there",
                    last - end
                ));
            }
        }
        None
    }

    /// Stages whose ends are taps of captures, by the namespaces of flows that both have.
    fn stages(&mut self) {
        let (base, changed) = (self.base, self.changed);
        let mut places: BTreeMap<&str, &str> = BTreeMap::new();
        let mut senders: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (at @ (flow, tap), ours) in &base.flows {
            if let Some(theirs) = changed.flows.get(at) {
                places.insert(&ours.namespace, &theirs.namespace);
            }
            if tap.ends_with(".tx") {
                let of = senders.entry(&ours.namespace).or_default();
                of.insert(address(&flow.0));
            }
        }
        for ours in &base.stages {
            let Some((_, before, behind)) = STAGES.iter().find(|row| row.0 == ours.name) else {
                continue;
            };
            let Some((from, to)) = ours.direction.split_once(" > ") else {
                continue;
            };
            let (Some(there), Some(back)) = (places.get(from), places.get(to)) else {
                continue;
            };
            let direction = format!("{there} > {back}");
            let same = |row: &&LedgerStage| row.name == ours.name && row.direction == direction;
            let Some(theirs) = changed.stages.iter().find(same) else {
                continue;
            };
            let addresses = senders.get(from).into_iter().flatten();
            let at = addresses.flat_map(|address| {
                [before, behind].map(|tap| ((*address).to_owned(), (*tap).to_owned()))
            });
            let reason = at
                .filter_map(|place| Some((self.reasons.get(&place)?.clone()?, place.1)))
                .map(|(_, tap)| format!("the segments at {tap} differ, see there"))
                .next();
            let rows = [
                ("in", ours.entered as i64, theirs.entered as i64),
                ("out", ours.left as i64, theirs.left as i64),
                ("lost", ours.lost as i64, theirs.lost as i64),
                (
                    "duplicated",
                    ours.duplicated as i64,
                    theirs.duplicated as i64,
                ),
                ("unexplained", ours.unexplained, theirs.unexplained),
            ];
            for (name, one, other) in rows {
                let figure = format!("{name} of stage {} {}", ours.name, ours.direction);
                self.row(figure, one, other, reason.clone());
            }
        }
    }

    fn order(&mut self) {
        let (base, changed) = (self.base, self.changed);
        for (at @ (direction, tap), ours) in &base.order {
            let Some(theirs) = changed.order.get(at) else {
                continue;
            };
            let from = direction.split(" > ").next().unwrap_or_default();
            let reason = self.reasons.get(&(from.to_owned(), tap.clone()));
            let reason = reason
                .filter(|_| ours.packets != theirs.packets)
                .map(|_| format!("the units at {tap} differ, see there"));
            let rows = [
                ("units with numbers", ours.packets, theirs.packets),
                ("reordered units", ours.reordered, theirs.reordered),
                ("3-reordered units", ours.by_three, theirs.by_three),
            ];
            for (name, one, other) in rows {
                let figure = format!("{name} of {direction} at {tap}");
                self.row(figure, one as i64, other as i64, reason.clone());
            }
        }
    }

    fn senders(&mut self) {
        let (base, changed) = (self.base, self.changed);
        for (name, ours) in &base.senders {
            let Some(theirs) = changed.senders.get(name) else {
                continue;
            };
            let counted = self
                .reasons
                .iter()
                .find(|((_, tap), _)| !tap.starts_with(OUTSIDE));
            let reason = if let Some(((_, tap), Some(_))) = counted {
                Some(format!("the packets at {tap} differ, see there"))
            } else if self.is_mixed() && name.starts_with(CAUSE) {
                Some(
                    "a trace has the sender's state; of a capture the cause is concluded from sequence, \
                     SACK and timing"
                        .to_owned(),
                )
            } else {
                None
            };
            self.row(name.clone(), *ours as i64, *theirs as i64, reason);
        }
    }

    fn one_sided(&mut self) {
        let only = |one: &Sight, other: &Sight| -> Vec<(String, String)> {
            let taps = |sight: &Sight| -> BTreeSet<String> {
                sight.flows.keys().map(|(_, tap)| tap.clone()).collect()
            };
            let (ours, theirs) = (taps(one), taps(other));
            let at = one.flows.keys().filter(|at| !other.flows.contains_key(at));
            at.map(
                |(flow, tap)| match theirs.contains(tap) && ours.contains(tap) {
                    true => (tap.clone(), format!("{} > {}", flow.0, flow.1)),
                    false => (tap.clone(), String::new()),
                },
            )
            .collect()
        };
        for (name, one, other) in [
            ("the first", self.base, self.changed),
            ("the other", self.changed, self.base),
        ] {
            let found = only(one, other);
            let taps: BTreeSet<&str> = found
                .iter()
                .filter(|(_, flow)| flow.is_empty())
                .map(|(tap, _)| tap.as_str())
                .collect();
            if !taps.is_empty() {
                let taps: Vec<&str> = taps.into_iter().collect();
                let text = format!("only {name} saw packets at {}", taps.join(", "));
                self.twice.one_sided.push(text);
            }
            let flows: BTreeSet<&str> = found
                .iter()
                .filter(|(_, flow)| !flow.is_empty())
                .map(|(_, flow)| flow.as_str())
                .collect();
            if !flows.is_empty() {
                let why = match one.captured && !other.captured {
                    true => ": a trace leaves out at the outer device what is not of the tunnel",
                    false => "",
                };
                let flows: Vec<&str> = flows.into_iter().collect();
                let text = format!("only {name} has the flows {}{why}", flows.join(", "));
                self.twice.one_sided.push(text);
            }
        }
    }
}

/// Address of `address:port`, as reports write both; an address of a flow without ports stays.
fn address(end: &str) -> &str {
    match end.rsplit_once(':') {
        Some((address, _)) if end.starts_with('[') => address.trim_matches(['[', ']']),
        Some((address, _)) if !address.contains(':') => address,
        _ => end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(captured: bool, segments: u64) -> Sight {
        let flow = |from: &str, to: &str| (from.to_owned(), to.to_owned(), "udp".to_owned());
        let count = |namespace: &str, packets| FlowCount {
            namespace: namespace.to_owned(),
            packets,
            units: 10,
            bytes: 14000,
        };
        let name = if captured { "a" } else { "vb-1-a" };
        let peer = if captured { "b" } else { "vb-1-b" };
        let outer = flow("10.99.0.1:4600", "10.99.0.2:4600");
        Sight {
            captured,
            complete: true,
            window_s: Some((100.0, 110.0)),
            flows: BTreeMap::from([
                (
                    (outer.clone(), "outer.tx".to_owned()),
                    count(name, segments),
                ),
                ((outer, "outer.rx".to_owned()), count(peer, segments)),
            ]),
            stages: vec![LedgerStage {
                name: "wire".to_owned(),
                direction: format!("{name} > {peer}"),
                entered: segments,
                left: segments,
                ..LedgerStage::default()
            }],
            senders: BTreeMap::from([(SPURIOUS.to_owned(), 5), (format!("{CAUSE}rack"), segments)]),
            ..Sight::default()
        }
    }

    #[test]
    fn a_run_seen_twice_agrees_or_says_why_not() {
        let same = compare(&sight(false, 20), &sight(true, 20)).expect("one run");
        assert_eq!((same.compared, same.differences.len()), (13, 0));
        let other = compare(&sight(false, 20), &sight(true, 10)).expect("one run");
        assert_eq!(other.compared, 13);
        let names: Vec<&str> = other
            .differences
            .iter()
            .map(|one| one.figure.as_str())
            .collect();
        assert_eq!(
            names,
            [
                "segments of 10.99.0.1:4600 > 10.99.0.2:4600 at outer.rx",
                "segments of 10.99.0.1:4600 > 10.99.0.2:4600 at outer.tx",
                "in of stage wire vb-1-a > vb-1-b",
                "out of stage wire vb-1-a > vb-1-b",
                "retransmissions by rack",
            ]
        );
        assert!(other.differences.iter().all(|one| one.reason.is_some()));
    }

    #[test]
    fn what_nothing_explains_stays_open() {
        let mut odd = sight(true, 20);
        odd.senders.insert(SPURIOUS.to_owned(), 4);
        for count in odd.flows.values_mut() {
            count.bytes += 1;
        }
        let twice = compare(&sight(false, 20), &odd).expect("one run");
        assert_eq!(twice.differences.len(), 3);
        assert!(twice.differences.iter().all(|one| one.reason.is_none()));
        odd.window_s = Some((100.5, 110.0));
        let mut whole = sight(false, 20);
        let taps = ["outer.tx", "outer.rx"].map(|tap| (tap.to_owned(), (100.1, 109.0)));
        whole.tap_windows_s = BTreeMap::from(taps);
        let late = compare(&whole, &odd).expect("one run");
        let first = late.differences[0].reason.as_deref();
        assert!(first.is_some_and(|text| text.contains("began 0.400 s after")));
    }

    #[test]
    fn other_runs_are_not_compared_so() {
        let mut later = sight(true, 20);
        later.window_s = Some((111.0, 120.0));
        assert_eq!(compare(&sight(false, 20), &later), None);
        later = Sight::default();
        assert_eq!(compare(&sight(false, 20), &later), None);
        assert_eq!(address("[fd00::1]:5201"), "fd00::1");
        assert_eq!(address("fe80::1"), "fe80::1");
    }
}
