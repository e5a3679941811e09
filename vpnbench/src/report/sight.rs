//! What a report says that another recording of the same run says, too, and both beside each other for people.

use std::collections::BTreeMap;
use std::io::{self, Write};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::model::Report;
use super::table::{Align, Screen, Table, wrap};
use crate::explain::compare::twice::{
    CAUSE, FlowCount, Order, RETRANSMITS, SPURIOUS, Sight, Twice,
};

/// Differing figures shown before the rest is counted.
const ROWS: usize = 20;

/// Figures of a report by names that another report of the run has, too.
pub(super) fn of(report: &Report) -> Sight {
    let mut sight = Sight {
        captured: report
            .capture
            .probes
            .iter()
            .any(|one| one.kind == "inferred"),
        complete: report.capture.complete && report.capture.lost == 0,
        stages: report
            .ledger
            .as_ref()
            .map(|ledger| ledger.stages.clone())
            .unwrap_or_default(),
        ..Sight::default()
    };
    let began = OffsetDateTime::parse(&report.run.started_at, &Rfc3339);
    let began = began.map(|at| at.unix_timestamp_nanos() as f64 / 1e9).ok();
    if let Some(began) = began {
        sight.window_s = report
            .run
            .duration_s
            .map(|duration| (began, began + duration));
        for tap in &report.taps {
            let (first, last) = (began + tap.first_s, began + tap.last_s);
            let window = sight.tap_windows_s.entry(tap.tap.clone());
            let window = window.or_insert((first, last));
            *window = (window.0.min(first), window.1.max(last));
        }
    }
    for row in &report.flows {
        let flow = (row.src.clone(), row.dst.clone(), row.protocol.clone());
        let count = sight.flows.entry((flow, row.tap.clone())).or_default();
        *count = FlowCount {
            namespace: row.namespace.clone(),
            packets: count.packets + row.packets,
            units: count.units + row.units,
            bytes: count.bytes + row.bytes,
        };
    }
    for row in &report.reordering {
        let at = (row.direction.clone(), row.tap.clone());
        let order = sight.order.entry(at).or_default();
        *order = Order {
            packets: order.packets + row.packets,
            reordered: order.reordered + row.reordered,
            by_three: order.by_three + row.n_reordering.get(2).copied().unwrap_or(0),
        };
    }
    sight.senders = senders(report);
    sight
}

fn senders(report: &Report) -> BTreeMap<String, u64> {
    let again = &report.retransmits;
    let spurious = again.spurious.as_ref().filter(|one| one.unknown == 0);
    let mut all: BTreeMap<String, u64> = [
        (RETRANSMITS, again.total),
        (SPURIOUS, spurious.map(|one| one.count)),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name.to_owned(), value?)))
    .collect();
    let causes = again
        .by_cause
        .as_ref()
        .and_then(|causes| serde_json::to_value(causes).ok());
    for (cause, count) in causes.iter().filter_map(|one| one.as_object()).flatten() {
        if let Some(count) = count.as_u64() {
            all.insert(format!("{CAUSE}{cause}"), count);
        }
    }
    all
}

/// Both recordings of a run beside each other.
pub(super) fn write(twice: &Twice, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let wide = screen.width.saturating_sub(5);
    let all = &twice.differences;
    let title = format!(
        "one run, recorded twice: {} of {} figures that both know are equal",
        twice.compared - all.len(),
        twice.compared
    );
    writeln!(out, " {title}")?;
    // Those with one reason together.
    let mut rows: Vec<_> = all.iter().collect();
    rows.sort_by(|one, other| one.reason.cmp(&other.reason));
    let mut room = ROWS;
    for group in rows.chunk_by(|one, other| one.reason == other.reason) {
        let reason = group.first().and_then(|one| one.reason.as_deref());
        let text = reason.unwrap_or("NOT EXPLAINED by what the recordings hold");
        let text = wrap(text, wide, 3);
        match reason {
            Some(_) => writeln!(out, "   {text}")?,
            None => writeln!(out, "   {}", screen.bad(&text))?,
        }
        let mut table = Table::new(&[
            ("figure", Align::Text),
            ("first", Align::Number),
            ("other", Align::Number),
        ]);
        for one in group.iter().take(room) {
            table.row(vec![
                one.figure.clone(),
                one.base.to_string(),
                one.changed.to_string(),
            ]);
        }
        room = room.saturating_sub(group.len());
        table.write_rows(screen, out)?;
    }
    if all.len() > ROWS {
        writeln!(out, "   and {} more figures that differ", all.len() - ROWS)?;
    }
    for text in &twice.one_sided {
        writeln!(out, "   {}", wrap(text, wide, 3))?;
    }
    Ok(())
}
