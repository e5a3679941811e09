//! The report as one HTML file that needs no network: findings with their evidence, timeline, waterfall,
//! distributions, books. Charts by uPlot (`uplot.js`, MIT, its licence beside it), which is inside the file.
//!
//! The page holds the part of the report that it shows as JSON; `page.js` draws it. Colours follow the
//! reader's light or dark preference; printed, everything is unfolded.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::model::Report;
use crate::analysis::threads::ThreadTime;

const LIBRARY: &str = include_str!("uplot.js");
const LIBRARY_STYLE: &str = include_str!("uplot.css");
const LICENCE: &str = include_str!("uplot.LICENSE");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Senders with a timeline: more lines would hide each other.
const SENDERS: usize = 8;
/// Packets of each direction in the waterfall: the median one and the slowest.
const JOURNEYS: usize = 4;

/// Threads in the table.
const THREADS: usize = 16;
/// Threads with a course over time.
const ACTIVE: usize = 6;

/// Writes the page.
///
/// # Errors
/// When the writer fails.
pub fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let title = match report.run.command.is_empty() {
        true => report.run.id.clone(),
        false => report.run.command.join(" "),
    };
    let data = serde_json::to_string(&shown(report)).map_err(io::Error::from)?;
    writeln!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{} - vpnbench</title>\n\
         <style>{LIBRARY_STYLE}\n{STYLE}</style></head>\n<body><main id=\"report\">\
         <noscript>This report draws itself with a script inside the file.</noscript></main>\n\
         <script type=\"application/json\" id=\"data\">{}</script>\n\
         <script>/*! uPlot\n{}*/\n{LIBRARY}</script>\n<script>{SCRIPT}</script></body></html>",
        escaped(&title),
        // A script element ends at the first "</script", whatever it is part of.
        data.replace("</", "<\\/"),
        LICENCE.replace("*/", "* /")
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// To a thousandth: plots show no more.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// What the page shows of a report.
fn shown(report: &Report) -> Value {
    let mut flows: Vec<&super::model::TcpFlow> = report.tcp_flows.iter().collect();
    flows.sort_by_key(|flow| std::cmp::Reverse(flow.acked_bytes));
    flows.truncate(SENDERS);
    let mut journeys = Vec::new();
    let mut last: (&str, usize) = ("", 0);
    for journey in &report.waterfalls {
        if journey.direction != last.0 {
            last = (&journey.direction, 0);
        }
        last.1 += 1;
        if last.1 <= JOURNEYS {
            journeys.push(journey);
        }
    }
    // Courses by the second are drawn for senders only; here they would be most of the file.
    let mut stages = report.stages.clone();
    stages.iter_mut().for_each(|stage| stage.seconds.clear());
    let mut coalescing = report.coalescing.clone();
    coalescing.iter_mut().for_each(|row| row.seconds.clear());
    let mut threads: Vec<ThreadTime> = report.threads.iter().take(THREADS).cloned().collect();
    for thread in &mut threads {
        (thread.seconds, thread.stages) = (Vec::new(), Vec::new());
    }
    let active = report.threads.iter().filter(|one| one.seconds.len() > 1);
    let activity: Vec<Value> = active
        .take(ACTIVE)
        .map(|one| {
            let rows = one.seconds.iter();
            let course = rows.map(|row| (row.second, rounded(row.cpu_s), rounded(row.saturated_s)));
            json!({ "comm": one.comm, "tid": one.tid, "seconds": course.collect::<Vec<_>>() })
        })
        .collect();
    json!({
        "schema": report.schema,
        "run": report.run,
        "benchmark": report.benchmark,
        "capture": report.capture,
        "tunnels": report.tunnels,
        "findings": report.findings,
        "tcp_flows": flows,
        "stages": stages,
        "waterfalls": journeys,
        "ledger": report.ledger,
        "losses": report.losses,
        "reordering": report.reordering,
        "coalescing": coalescing,
        "retransmits": report.retransmits,
        "threads": threads,
        "activity": activity,
        "stacks": report.cpu.as_ref().map(|cpu| &cpu.stacks),
        "samples_by_group": report.cpu.as_ref().map(|cpu| &cpu.samples_by_group),
        "what_if": report.what_if,
        "problems": report.problems,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(report: &Report) -> String {
        let mut out = Vec::new();
        write(report, &mut out).expect("a vector takes everything");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        let text = page(&Report::default());
        for tag in [
            "src=",
            "<link",
            "@import",
            "url(",
            "fetch(",
            "XMLHttpRequest",
        ] {
            assert!(!text.contains(tag), "{tag}");
        }
    }

    #[test]
    fn text_of_the_run_cannot_end_the_script() {
        let mut report = Report::default();
        report.run.command = vec!["echo".to_owned(), "</script><b>&".to_owned()];
        let text = page(&report);
        assert!(text.contains("<title>echo &lt;/script&gt;&lt;b&gt;&amp; - vpnbench</title>"));
        assert_eq!(
            text.matches("</script>").count(),
            3,
            "ends of our own scripts"
        );
    }
}
