//! Where packets were lost, and what that cost.
//!
//! For datagrams the share of a place is what it lost of all that was sent. For TCP it is the place's
//! part of all lost segments of the data's direction, times the time that reductions cost which were
//! needed ([`super::tcp`]).
//!
//! Where losses hold the window down most of the time, a sender without them fills the path whatever its round
//! trip is. It gains at least what it would gain without late acknowledgements, since that is what the
//! path can carry, and then what the losses still cost: 1 - (1 - cost)(1 - late), where `late` is the part of the round
//! trip that acknowledgements wait ([`super::way_back`]).

use super::bounds;
use super::confidence;
use super::facts::{Facts, Load};
use super::model::Evidence;
use super::rule::{Judgement, Known};
use super::units;
use super::way_back;
use crate::analysis::ledger::{LedgerStage, LossStructure};

/// Name of the evidence that says which share of the packets a place lost.
pub const LOST_RATIO: &str = "of those that entered";

/// Stages at which a packet can get lost, in the order of the path.
pub(super) const STAGES: [&str; 7] = [
    "tun-qdisc",
    "tun-queue",
    "daemon-send",
    "outer-qdisc",
    "wire",
    "outer-socket",
    "daemon-receive",
];

/// What a place lost.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Lost {
    /// Segments that entered.
    pub entered: u64,
    /// Segments lost.
    pub lost: u64,
    /// Units lost.
    pub units: u64,
    /// Segments whose fate the book leaves open.
    pub open: u64,
}

impl Lost {
    pub(super) fn ratio(&self) -> f64 {
        match self.entered {
            0 => 0.0,
            entered => self.lost as f64 / entered as f64,
        }
    }
}

/// What is inside of the daemons at both ends.
pub(super) const DAEMONS: [&str; 2] = ["daemon-send", "daemon-receive"];

/// Sum of some stages; `None` if no row of the ledger has any of them. Daemons whose packets do not pair, since they carry
/// them in a stream, have no row; where all came out at the other end they lost none.
pub(super) fn at(facts: &Facts<'_>, stages: &[&str]) -> Option<Lost> {
    rows(facts, stages).or_else(|| through(facts).filter(|_| *stages == DAEMONS))
}

/// Inner packets from end to end, if none is missing.
fn through(facts: &Facts<'_>) -> Option<Lost> {
    let direction = &facts.way.as_ref()?.direction;
    let mut all = facts.outputs.pairing.ledger.inner.iter();
    let row = all.find(|row| row.direction == *direction)?;
    let whole = row.lost == 0 && row.unknown == 0 && row.delivered + row.inside >= row.entered;
    (whole && row.delivered > 0).then(|| Lost {
        entered: row.entered,
        ..Lost::default()
    })
}

fn rows(facts: &Facts<'_>, stages: &[&str]) -> Option<Lost> {
    let mut sum: Option<Lost> = None;
    for row in facts.ledger_rows() {
        if !stages.contains(&row.name.as_str()) {
            continue;
        }
        let sum = sum.get_or_insert_default();
        sum.entered = sum.entered.max(row.entered);
        let (lost, open) = counted(facts, row);
        sum.lost += lost;
        sum.units += row.units.lost;
        sum.open += open;
    }
    sum
}

/// Lost and left open in a row. Where outer packets are told apart by IP IDs, those of UDP segmentation
/// offload repeat (the kernel counts one ID for each super-packet and as many for its segments), so single
/// fates on the wire may be mixed up; how many arrived in all is not. Of those that did not, as many may be under way as enter
/// in the time that the slowest hundredth takes; the rest is lost, whatever the single fates say.
fn counted(facts: &Facts<'_>, row: &LedgerStage) -> (u64, u64) {
    let open = row.unexplained.unsigned_abs() + row.unseen;
    let rows = &facts.outputs.pairing.ledger.stages;
    let behind = |name: &str| {
        let mut rows = rows.iter();
        rows.find(|next| next.name == name && next.direction == row.direction)
    };
    // A capture does not see the socket: what came in is what the tunnel received.
    let received = || behind("daemon-receive").filter(|_| facts.only_captured());
    let next = behind("outer-socket").or_else(received);
    match next.filter(|_| row.name == "wire") {
        Some(next) => {
            let missing = row.entered.saturating_sub(next.entered);
            let mut times = facts.outputs.pairing.stages.iter();
            let time = times.find(|time| time.name == row.name && time.direction == row.direction);
            let rate = row.entered as f64 / facts.seconds().max(1e-9);
            let under_way = time.map_or(f64::INFINITY, |time| rate * time.p99_us / 1e6);
            let least = missing.saturating_sub(under_way.ceil() as u64);
            (row.lost.clamp(least, missing), 0)
        }
        None => (row.lost, open),
    }
}

/// What the lost packets of a place cost: probability that it is material, and the share.
pub(super) fn cost(facts: &Facts<'_>, here: &Lost) -> (f64, f64) {
    match (&facts.tcp, facts.load) {
        (Some(tcp), Load::Tcp) => {
            let all = at(facts, &STAGES).unwrap_or_default().lost.max(here.lost);
            let whole = tcp.needed_share();
            if all == 0 || whole <= 0.0 {
                return (0.0, 0.0);
            }
            let part = here.lost as f64 / all as f64;
            let least = bounds::MATERIAL / whole;
            let probability = confidence::ratio_above(here.lost as f64, all as f64, least);
            let share = part * whole;
            let late = match share > bounds::MOST {
                true => way_back::late(facts),
                false => 0.0,
            };
            (probability, 1.0 - (1.0 - share) * (1.0 - late))
        }
        _ => {
            let sent = facts
                .sent()
                .unwrap_or(here.entered)
                .max(here.entered)
                .max(here.lost);
            let (lost, sent) = (here.lost as f64, sent as f64);
            let probability = confidence::ratio_above(lost, sent, bounds::DATAGRAM_LOSS);
            (probability, if sent > 0.0 { lost / sent } else { 0.0 })
        }
    }
}

/// Judges "packets are lost at this place, and it matters".
pub(super) fn judge(facts: &Facts<'_>, stages: &[&str], place: &str) -> Judgement {
    judge_open(facts, stages, place, true)
}

/// The same for drops that the kernel reports, which hold whatever the book leaves open.
pub(super) fn judge_drops(facts: &Facts<'_>, stages: &[&str], place: &str) -> Judgement {
    judge_open(facts, stages, place, false)
}

fn judge_open(facts: &Facts<'_>, stages: &[&str], place: &str, book: bool) -> Judgement {
    let Some(here) = at(facts, stages) else {
        return Judgement::unseen(format!("no book covers {}", stages.join(" and ")));
    };
    if book
        && here.open > here.lost
        && here.open as f64 > bounds::DATAGRAM_LOSS * here.entered as f64
    {
        return Judgement::unseen(format!(
            "{} packets at {place} are unaccounted for, more than the {} lost",
            units::count(here.open),
            units::count(here.lost)
        ));
    }
    let (probability, share) = cost(facts, &here);
    let (lost, entered) = (units::count(here.lost), units::count(here.entered));
    let ratio = units::percent(here.ratio());
    let mut evidence = vec![
        Evidence::new(
            format!("lost at {place}"),
            here.lost as f64,
            "packets",
            "ledger",
        )
        .expected("0"),
        Evidence::new(LOST_RATIO, here.ratio(), "ratio", "ledger"),
    ];
    evidence.extend(retransmissions(facts));
    Known {
        probability,
        share: Some(share),
        summary: format!("{lost} of {entered} packets ({ratio}) were lost at {place}"),
        evidence,
        remedy: None,
    }
    .into()
}

/// How the losses of the load's direction are distributed: inner packets where there is a tunnel, since
/// their identity is sure, else outer ones.
pub(super) fn structure<'a>(facts: &Facts<'a>) -> Option<&'a LossStructure> {
    let bare = facts.context.start.tunnels.is_empty();
    let level = if bare { "outer" } else { "inner" };
    let direction = &facts.way.as_ref()?.direction;
    let rows = facts.outputs.pairing.ledger.structure.iter();
    rows.filter(|row| row.level == level && row.direction == *direction)
        .max_by_key(|row| row.packets)
}

/// What TCP had to do about losses.
pub(super) fn retransmissions(facts: &Facts<'_>) -> Option<Evidence> {
    let tcp = facts.tcp.as_ref().filter(|_| facts.load == Load::Tcp)?;
    let metric = "time that window reductions and recoveries cost";
    Some(Evidence::new(
        metric,
        tcp.loss_share(),
        "of the busy time",
        "tcp_flows",
    ))
}
