//! The rows of each tab.

use super::moment::{Moment, ThreadMoment};
use super::plain;
use crate::analysis::threads::{SATURATED_SHARE, ThreadTime};
use crate::explain::model::{Finding, Verdict};
use crate::report::model::{Report, StageTime};
use crate::report::terminal::{cause_name, evidence_value};
use crate::report::units::{count, duration, percent, rate};

/// Evidence of a finding in its row's detail.
const EVIDENCE: usize = 8;
/// Threads that wake or are woken, in a thread's detail.
const NEIGHBOURS: usize = 6;

/// A tab.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Tab {
    /// Throughput by tap, and what stands out.
    #[default]
    Overview,
    /// Time between taps.
    Stages,
    /// What was lost and sent again.
    Losses,
    /// Threads.
    Threads,
    /// Findings.
    Findings,
}

impl Tab {
    /// All in order.
    pub(super) const ALL: [Tab; 5] = [
        Tab::Overview,
        Tab::Stages,
        Tab::Losses,
        Tab::Threads,
        Tab::Findings,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Tab::Overview => "Overview",
            Tab::Stages => "Stages",
            Tab::Losses => "Losses",
            Tab::Threads => "Threads",
            Tab::Findings => "Findings",
        }
    }
}

/// What a row is like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Mark {
    /// Ordinary.
    #[default]
    None,
    /// Needs attention.
    Bad,
    /// In order.
    Good,
    /// Of less weight.
    Faint,
}

/// A column. Those of least weight go first where there is no room.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) number: bool,
    /// 0 stays to the end.
    pub(super) goes: u8,
}

/// One row, and more about it.
#[derive(Debug, Clone, Default)]
pub(super) struct Row {
    pub(super) cells: Vec<String>,
    pub(super) mark: Mark,
    pub(super) detail: Vec<String>,
}

impl Row {
    /// Whether a cell contains this text in lower case.
    pub(super) fn contains(&self, lower: &str) -> bool {
        let mut cells = self.cells.iter();
        cells.any(|cell| cell.to_lowercase().contains(lower))
    }
}

/// A table.
#[derive(Debug, Clone, Default)]
pub(super) struct Listing {
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Row>,
    /// What to say where there are no rows.
    pub(super) empty: &'static str,
}

const fn text(name: &'static str, goes: u8) -> Column {
    Column {
        name,
        number: false,
        goes,
    }
}

const fn number(name: &'static str, goes: u8) -> Column {
    Column {
        name,
        number: true,
        goes,
    }
}

/// The rows of a tab.
pub(super) fn listing(tab: Tab, moment: &Moment) -> Listing {
    match tab {
        Tab::Overview => taps(moment),
        Tab::Stages => stages(&moment.report),
        Tab::Losses => losses(moment),
        Tab::Threads => threads(moment),
        Tab::Findings => findings(&moment.report),
    }
}

fn taps(moment: &Moment) -> Listing {
    let rows = moment.taps.iter().map(|tap| Row {
        cells: vec![
            tap.tap.clone(),
            tap.place.clone(),
            tap.namespace.clone(),
            count(tap.packets_per_s.round() as u64),
            rate(tap.bps),
            count(tap.packets),
        ],
        mark: Mark::None,
        detail: vec![
            format!("{} of {} in {}", tap.tap, tap.place, tap.namespace),
            format!(
                "{} packets so far, {} a second now, {}",
                count(tap.packets),
                count(tap.packets_per_s.round() as u64),
                rate(tap.bps)
            ),
        ],
    });
    Listing {
        columns: vec![
            text("tap", 0),
            text("device", 0),
            text("namespace", 2),
            number("packets/s", 0),
            number("rate", 0),
            number("so far", 1),
        ],
        rows: rows.collect(),
        empty: "no packet has passed a tap yet",
    }
}

fn stages(report: &Report) -> Listing {
    let time = |us: f64| duration(us / 1e6);
    let row = |stage: &StageTime| {
        let backlog = stage.backlog_max_packets.map_or("-".to_owned(), count);
        Row {
            cells: vec![
                stage.name.clone(),
                stage.direction.clone(),
                count(stage.packets),
                time(stage.p50_us),
                time(stage.p99_us),
                time(stage.max_us),
                backlog.clone(),
            ],
            mark: Mark::None,
            detail: vec![
                format!("{}: {} to {}", stage.name, stage.from, stage.to),
                format!("direction {}", stage.direction),
                format!(
                    "median {}, p90 {}, p99 {}, longest {}, mean {}",
                    time(stage.p50_us),
                    time(stage.p90_us),
                    time(stage.p99_us),
                    time(stage.max_us),
                    time(stage.mean_us)
                ),
                format!("most packets inside at once: {backlog}"),
                format!("packets are recognised by {}", stage.method),
            ],
        }
    };
    Listing {
        columns: vec![
            text("stage", 0),
            text("direction", 1),
            number("packets", 3),
            number("p50", 0),
            number("p99", 0),
            number("max", 2),
            number("backlog", 2),
        ],
        rows: report.stages.iter().map(row).collect(),
        empty: "no packet has passed two taps yet",
    }
}

fn losses(moment: &Moment) -> Listing {
    let length = moment.interval_s.max(1e-9);
    let per_s = |packets: u64| count((packets as f64 / length).round() as u64);
    let so_far = moment.report.retransmits.by_cause.unwrap_or_default();
    let again = so_far.rows().into_iter().filter(|(_, all)| *all > 0);
    let again = again.map(|(cause, all)| {
        let now = moment.retransmits.as_ref().and_then(|one| one.get(cause));
        let now = now.copied().unwrap_or(0);
        Row {
            cells: vec![
                "sent again".to_owned(),
                cause_name(cause).to_owned(),
                "TCP".to_owned(),
                per_s(now),
                count(all),
            ],
            mark: if now > 0 { Mark::Bad } else { Mark::None },
            detail: vec![
                format!("segments that TCP sent again, cause: {}", cause_name(cause)),
                format!("{} so far, {} a second now", count(all), per_s(now)),
            ],
        }
    });
    let lost = moment.losses.iter().map(|loss| Row {
        cells: vec![
            "lost".to_owned(),
            loss.reason.clone(),
            match &loss.device {
                Some(device) => format!("{}, {device}", loss.stage),
                None => loss.stage.clone(),
            },
            per_s(loss.packets),
            count(loss.packets_so_far),
        ],
        mark: match loss.packets {
            0 => Mark::None,
            _ => Mark::Bad,
        },
        detail: vec![
            format!("packets lost in {}: {}", loss.stage, loss.reason),
            format!("namespace {}", loss.namespace),
            format!(
                "{} so far, {} a second now",
                count(loss.packets_so_far),
                per_s(loss.packets)
            ),
        ],
    });
    Listing {
        columns: vec![
            text("what", 0),
            text("cause", 0),
            text("where", 1),
            number("a second", 0),
            number("so far", 0),
        ],
        rows: again.chain(lost).collect(),
        empty: match moment.retransmits {
            Some(_) => "nothing lost, nothing sent again",
            None => "nothing lost; what TCP sends again is not observed",
        },
    }
}

fn threads(moment: &Moment) -> Listing {
    let rows = moment.threads.iter().map(|thread| Row {
        cells: plain::cells(thread).to_vec(),
        mark: match thread.saturated_share {
            Some(share) if share >= SATURATED_SHARE => Mark::Bad,
            _ if thread.on_core_share == 0.0 => Mark::Faint,
            _ => Mark::None,
        },
        detail: thread_detail(thread, &moment.report),
    });
    Listing {
        columns: vec![
            text("thread", 0),
            text("does", 0),
            number("tid", 2),
            number("core", 3),
            number("on core", 0),
            number("waits", 2),
            text("asleep in", 2),
            number("packets/s", 1),
            number("ns/packet", 1),
            number("saturated", 0),
        ],
        rows: rows.collect(),
        empty: "no watched thread has run yet",
    }
}

fn thread_detail(thread: &ThreadMoment, report: &Report) -> Vec<String> {
    let mut lines = vec![
        format!("{} ({}) of process {}", thread.comm, thread.tid, thread.pid),
        format!(
            "{} on a core, {} waiting for one, {} asleep; {} switches a second, {} migrations",
            percent(thread.on_core_share),
            percent(thread.runnable_share),
            percent(thread.blocked_share),
            count(thread.switches_per_s.round() as u64),
            thread.migrations
        ),
        String::new(),
        "So far".to_owned(),
    ];
    let so_far = report.threads.iter().find(|one| one.tid == thread.tid);
    lines.extend(so_far.into_iter().flat_map(so_far_lines));
    let wakings = report.wakings.iter();
    let around = wakings.filter(|one| one.waker_tid == thread.tid || one.woken_tid == thread.tid);
    lines.extend(around.take(NEIGHBOURS).map(|one| {
        let name = |tid: u32, comm: &str| match tid {
            0 => "an interrupt".to_owned(),
            _ => format!("{comm} ({tid})"),
        };
        let (waker, woken) = (
            name(one.waker_tid, &one.waker),
            name(one.woken_tid, &one.woken),
        );
        format!("  {waker} woke {woken} {} times", count(one.count))
    }));
    lines
}

fn so_far_lines(thread: &ThreadTime) -> Vec<String> {
    let mut lines = vec![format!(
        "  {} on cores {}; waited {} for one, {} migrations",
        duration(thread.cpu_s),
        thread
            .cores
            .iter()
            .map(|one| one.cpu.to_string())
            .collect::<Vec<_>>()
            .join(", "),
        duration(thread.runqueue_wait_s),
        count(thread.migrations)
    )];
    let kinds = thread.blocked_s.kinds().into_iter();
    let slept: Vec<String> = kinds
        .filter(|(_, time)| *time >= 0.000_5)
        .map(|(name, time)| format!("{name} {}", duration(time)))
        .collect();
    if !slept.is_empty() {
        lines.push(format!("  asleep in {}", slept.join(", ")));
    }
    if let (Some(share), Some(ceiling)) = (thread.saturated_share, thread.ceiling_packets_per_s) {
        lines.push(format!(
            "  saturated {}, ceiling {} packets/s, {}",
            percent(share),
            count(ceiling.round() as u64),
            rate(thread.ceiling_bps.unwrap_or(0.0))
        ));
    }
    lines.extend(thread.stages.iter().map(|stage| {
        let mut parts = vec![duration(stage.cpu_s)];
        if let Some(ns) = stage.ns_per_packet {
            parts.push(format!("{} ns/packet", count(ns.round() as u64)));
        }
        if let Some(batch) = stage.batch_mean {
            parts.push(format!("{batch:.1} packets a call"));
        }
        if let Some(bytes) = stage.bytes_per_call {
            parts.push(format!("{} bytes a call", count(bytes.round() as u64)));
        }
        format!("  {}: {}", stage.stage, parts.join(", "))
    }));
    lines
}

fn findings(report: &Report) -> Listing {
    let order = |one: &&Finding| match one.verdict {
        Verdict::Supported => 0,
        Verdict::Unknown if one.applicable => 1,
        Verdict::Refuted => 2,
        Verdict::Unknown => 3,
    };
    let mut all: Vec<&Finding> = report.findings.iter().collect();
    all.sort_by_key(order);
    let rows = all.into_iter().map(|finding| {
        let (verdict, mark) = match finding.verdict {
            Verdict::Supported => ("supported", Mark::Bad),
            Verdict::Refuted => ("refuted", Mark::Good),
            Verdict::Unknown => ("unknown", Mark::Faint),
        };
        Row {
            cells: vec![
                verdict.to_owned(),
                finding.id.clone(),
                finding.share.map_or("-".to_owned(), percent),
                finding.summary.clone(),
            ],
            mark,
            detail: finding_detail(finding),
        }
    });
    Listing {
        columns: vec![
            text("verdict", 0),
            text("finding", 0),
            number("share", 0),
            text("says", 1),
        ],
        rows: rows.collect(),
        empty: "nothing is judged yet",
    }
}

fn finding_detail(finding: &Finding) -> Vec<String> {
    let mut lines = vec![finding.id.clone(), finding.summary.clone()];
    for evidence in finding.evidence.iter().take(EVIDENCE) {
        let value = evidence.value;
        let value = value.map_or("unknown".to_owned(), |value| {
            evidence_value(value, &evidence.unit)
        });
        let expected = evidence.expected.as_ref();
        let expected = expected.map_or(String::new(), |text| format!(", expected {text}"));
        lines.push(format!("  {}: {value}{expected}", evidence.metric));
    }
    if let Some(remedy) = &finding.remedy {
        lines.push(format!("try: {remedy}"));
    }
    if let Some(refuted_by) = &finding.refuted_by {
        lines.push(format!("wrong if: {refuted_by}"));
    }
    lines.push(format!("more: vpnbench explain {}", finding.id));
    lines
}
