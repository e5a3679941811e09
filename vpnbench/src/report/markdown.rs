//! A summary for issues and pull requests: the findings with their evidence, and the run's key figures.

use std::io::{self, Write};

use super::model::{Finding, Report, Verdict};
use super::terminal::evidence_value;
use super::units::{count, duration, percent, rate};

/// Writes the summary.
///
/// # Errors
/// When the writer fails.
pub fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let run = &report.run;
    let command = match run.command.is_empty() {
        true => "a recording without a command".to_owned(),
        false => format!("`{}`", run.command.join(" ")),
    };
    writeln!(out, "## {command}\n")?;
    let mut parts = vec![format!("{} on Linux {}", run.host, run.kernel)];
    parts.extend(run.duration_s.map(duration));
    let result = report.benchmark.as_ref();
    let received = result.and_then(|result| result.throughput_bps_received);
    parts.extend(received.map(|bps| format!("{} received", rate(bps))));
    parts.extend(
        report
            .retransmits
            .total
            .map(|total| format!("{} retransmissions", count(total))),
    );
    if let Some(tunnel) = &report.tunnel {
        let daemon = tunnel
            .daemon
            .as_ref()
            .map_or(tunnel.kind.clone(), |daemon| daemon.comm.clone());
        let mtu = tunnel
            .mtu
            .map_or(String::new(), |mtu| format!(", MTU {mtu}"));
        parts.push(format!("{} ({daemon}{mtu})", tunnel.interface));
    }
    writeln!(out, "{}\n", parts.join(", "))?;
    if report.capture.lost > 0 {
        writeln!(
            out,
            "**{} events were lost**: what needs them is unknown.\n",
            count(report.capture.lost)
        )?;
    } else if !report.capture.complete {
        writeln!(out, "**The recording is not whole.**\n")?;
    }
    let supported: Vec<&Finding> = of(report, Verdict::Supported).collect();
    if supported.is_empty() {
        writeln!(out, "No finding is supported by the evidence.\n")?;
    }
    for (number, finding) in supported.iter().enumerate() {
        supported_finding(number + 1, finding, out)?;
    }
    for (title, verdict) in [
        ("Refuted", Verdict::Refuted),
        ("Not judged", Verdict::Unknown),
    ] {
        let found = of(report, verdict).filter(|finding| finding.applicable);
        let ids: Vec<String> = found.map(|finding| format!("`{}`", finding.id)).collect();
        if !ids.is_empty() {
            writeln!(out, "{title}: {}\n", ids.join(", "))?;
        }
    }
    writeln!(out, "_vpnbench {}, run {}_", run.tool_version, run.id)
}

fn of(report: &Report, verdict: Verdict) -> impl Iterator<Item = &Finding> {
    report
        .findings
        .iter()
        .filter(move |finding| finding.verdict == verdict)
}

fn supported_finding(number: usize, finding: &Finding, out: &mut dyn Write) -> io::Result<()> {
    let mut facts = Vec::new();
    facts.extend(
        finding
            .share
            .map(|share| format!("{} of the problem", percent(share))),
    );
    facts.extend(
        finding
            .confidence
            .map(|sure| format!("confidence {sure:.2}")),
    );
    writeln!(
        out,
        "{number}. **{}** ({}): {}",
        finding.id,
        facts.join(", "),
        cell(&finding.summary)
    )?;
    if !finding.evidence.is_empty() {
        writeln!(
            out,
            "\n   | measured | value | expected |\n   | --- | --- | --- |"
        )?;
    }
    for evidence in &finding.evidence {
        let value = evidence.value.map_or("-".to_owned(), |value| {
            evidence_value(value, &evidence.unit)
        });
        let expected = evidence.expected.clone().unwrap_or_default();
        writeln!(
            out,
            "   | {} | {} | {} |",
            cell(&evidence.metric),
            cell(&value),
            cell(&expected)
        )?;
    }
    writeln!(out)?;
    if let Some(remedy) = &finding.remedy {
        writeln!(out, "   Try: {}\n", cell(remedy))?;
    }
    Ok(())
}

/// Text that does not end a table's cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
