//! Retransmissions under the study's impairments, beside the kernel's counters and both daemons' logs
//! of which copy of which segment went through.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use vpnbench::lab::tunnel::truth::{Fate, Line, Way};

use crate::run::{End, Run};

/// Port of iperf3's server.
const PORT: u16 = 5201;
/// Protocol number of TCP.
const TCP: u8 = 6;

/// What the daemons' logs say about iperf3's segments, in both directions.
#[derive(Default)]
struct Truth {
    /// Segments that were read from the sender's device once more.
    resent: u64,
    /// Of those, with an earlier copy that the receiver's device got.
    spurious: u64,
    /// By sender and place: whether one had arrived, in the order in which they were sent again.
    verdicts: Verdicts,
}

/// By the sender's end, the client's port and the place in the stream.
type Verdicts = BTreeMap<(&'static str, u16, i64), Vec<Option<bool>>>;

/// What the report says of each segment that was sent again.
fn verdicts(run: &Run) -> Result<Verdicts> {
    let port = |end: &str| -> Result<u16> {
        let port = end.rsplit(':').next().context("no port")?;
        Ok(port.parse()?)
    };
    let mut found = Verdicts::new();
    for flow in &run.report.tcp_flows {
        let end = if flow.namespace.ends_with("-a") {
            End::A
        } else {
            End::B
        };
        let client = match port(&flow.src)? {
            PORT => port(&flow.dst)?,
            client => client,
        };
        for one in &flow.resent {
            let place = (end.letter(), client, i64::try_from(one.offset)?);
            found.entry(place).or_default().push(one.original_arrived);
        }
    }
    Ok(found)
}

/// Of the segments that both sides have and the report judged: how many, and how many alike.
fn alike(ours: &Verdicts, truth: &Verdicts) -> (u64, u64) {
    let both = truth.iter().filter_map(|(place, truth)| {
        let ours = ours.get(place).filter(|ours| ours.len() == truth.len())?;
        Some(ours.iter().zip(truth).filter(|(ours, _)| ours.is_some()))
    });
    both.flatten().fold((0, 0), |(all, alike), (ours, truth)| {
        (all + 1, alike + u64::from(ours == truth))
    })
}

/// Segments with payload by port, in the order in which the sender's device gave them.
fn flows(lines: &[Line]) -> BTreeMap<u16, Vec<(u32, i64, Option<u64>)>> {
    let mut lines: Vec<&Line> = lines.iter().filter(|line| line.copy.is_none()).collect();
    lines.sort_by_key(|line| (line.entered_ns, line.sequence));
    let mut flows: BTreeMap<u16, Vec<_>> = BTreeMap::new();
    for line in lines {
        let Some(inner) = &line.inner else { continue };
        let client = match inner.destination_port {
            Some(PORT) => inner.source_port,
            to => to.filter(|_| inner.source_port == Some(PORT)),
        };
        let payload = inner.payload.unwrap_or(0);
        let places = client.zip(inner.tcp_sequence);
        let counts = inner.protocol == TCP && payload > 0;
        if let (true, Some((port, seq))) = (counts, places) {
            let segment = (seq, i64::from(payload), line.sequence);
            flows.entry(port).or_default().push(segment);
        }
    }
    flows
}

fn truth(run: &Run) -> Result<Truth> {
    let mut found = Truth::default();
    for (from, to) in [(End::A, End::B), (End::B, End::A)] {
        direction(run, from, to, &mut found)?;
    }
    Ok(found)
}

fn direction(run: &Run, from: End, to: End, found: &mut Truth) -> Result<()> {
    let arrived = run.truth(to, Way::Receive)?;
    let arrived = arrived.iter().filter(|line| line.fate == Fate::Carried);
    let arrived: BTreeSet<u64> = arrived.filter_map(|line| line.sequence).collect();
    for (port, flow) in flows(&run.truth(from, Way::Transmit)?) {
        // By place of the first byte: place after the last, and whether a copy arrived.
        let mut sent: BTreeMap<i64, (i64, bool)> = BTreeMap::new();
        let first = flow.first().map_or(0, |one| one.0);
        let mut place = 0;
        for (seq, length, outer) in flow {
            let near = first.wrapping_add(place as u32);
            let start = place + i64::from(seq.wrapping_sub(near) as i32);
            place = place.max(start);
            let end = start + length;
            let mut copies = sent.range(..end).rev();
            let mut copies = copies
                .by_ref()
                .take_while(|(_, (until, _))| *until > start)
                .peekable();
            if copies.peek().is_some() {
                let arrived = copies.all(|(_, (_, arrived))| *arrived);
                found.resent += 1;
                found.spurious += u64::from(arrived);
                let place = (from.letter(), port, start);
                found.verdicts.entry(place).or_default().push(Some(arrived));
            }
            let entry = sent.entry(start).or_insert((end, false));
            entry.0 = entry.0.max(end);
            entry.1 |= outer.is_some_and(|number| arrived.contains(&number));
        }
    }
    Ok(())
}

fn profile(name: &str) -> Result<()> {
    crate::table::case(&format!("retransmissions at {name}"));
    let run = Run::of(&format!(
        "name = \"books\"\n[wire]\nprofile = \"{name}\"\nbackend = \"embedded\"\nunit = \"packet\"\n\
         [vpn]\nname = \"reference\"\n[vpn.settings]\ntruth_log = true\n\
         [benchmark]\nname = \"tcp\"\nduration = \"4s\"\n"
    ))?;
    run.counters_agree()?;
    let truth = truth(&run)?;
    let retransmits = &run.report.retransmits;
    let spurious = retransmits
        .spurious
        .as_ref()
        .context("nothing was judged")?;
    let total = retransmits.total.context("no probe")?;
    let row = |what: &str, found: u64, truth: u64| {
        crate::table::figure(what, &found.to_string(), &truth.to_string(), run.hidden);
    };
    row("sent again", total, truth.resent);
    row("of these, judged", spurious.judged, truth.resent);
    row("of these, spurious", spurious.count, truth.spurious);
    ensure!(truth.resent > 20, "hardly anything was sent again");
    ensure!(
        spurious.evidence.original_seen.is_some(),
        "the receiver was not seen"
    );
    let (judged, same) = alike(&verdicts(&run)?, &truth.verdicts);
    row("of those judged one by one, as the logs say", same, judged);
    ensure!(
        10 * judged >= 9 * truth.resent || run.hidden > 0,
        "{judged} of {} found in both",
        truth.resent
    );
    ensure!(100 * same >= 99 * judged, "{same} of {judged} judged right");
    // What opens and closes connections carries nothing; a segment may be cut anew.
    let tolerance = truth.resent / 100 + 2 + run.hidden;
    ensure!(
        total.abs_diff(truth.resent) <= tolerance,
        "{total}, by the daemons {}",
        truth.resent
    );
    ensure!(
        spurious.count.abs_diff(truth.spurious) <= tolerance,
        "{} spurious, in truth {}",
        spurious.count,
        truth.spurious
    );
    Ok(())
}

pub(crate) fn medium() -> Result<()> {
    profile("medium")
}

pub(crate) fn low_and_high() -> Result<()> {
    profile("low")?;
    profile("high")
}
