//! The answer: what explains the run, with the strongest evidence and what to do.

use std::io::{self, Write};

use super::super::model::{Evidence, Finding, Report, Verdict};
use super::super::table::{Screen, wrap};
use super::super::units::{count, duration, percent};

/// Findings told in full.
const FULL: usize = 3;
/// Findings told in a line each.
const LINES: usize = 8;
/// Pieces of evidence beside the summary.
const PROOFS: usize = 3;
/// Columns in front of what belongs to a finding.
const INDENT: usize = 5;

/// The findings, most important first.
pub(super) fn write(report: &Report, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    if report.findings.is_empty() {
        return Ok(());
    }
    writeln!(out, "{}", screen.title("WHY"))?;
    capture(report, screen, out)?;
    let supported: Vec<&Finding> = with(report, Verdict::Supported).collect();
    if supported.is_empty() {
        writeln!(out, "  nothing is supported by the evidence")?;
    }
    for (number, finding) in supported.iter().take(FULL).enumerate() {
        full(number + 1, finding, screen, out)?;
    }
    for (number, finding) in supported.iter().enumerate().skip(FULL).take(LINES) {
        head(number + 1, finding, screen, out)?;
    }
    if supported.len() > FULL + LINES {
        writeln!(
            out,
            "  and {} more in the JSON report",
            supported.len() - FULL - LINES
        )?;
    }
    others(report, screen, out)?;
    writeln!(out)
}

/// Whether the recording is whole enough to believe what follows.
fn capture(report: &Report, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let capture = &report.capture;
    let text = if capture.lost > 0 {
        format!(
            "{} of {} events were lost: findings that need them are unknown, not refuted (--buffer gives more room)",
            count(capture.lost),
            count(capture.events + capture.lost)
        )
    } else if !capture.complete {
        "the recording is not whole: what follows is about what is there".to_owned()
    } else {
        return Ok(());
    };
    let text = wrap(&text, screen.width.saturating_sub(4), 2);
    writeln!(out, "  {}", screen.bad(&text))
}

fn with(report: &Report, verdict: Verdict) -> impl Iterator<Item = &Finding> {
    let findings = report.findings.iter();
    findings.filter(move |finding| finding.verdict == verdict)
}

fn head(number: usize, finding: &Finding, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let mut facts = Vec::new();
    if let Some(share) = finding.share.filter(|_| finding.id != "healthy") {
        facts.push(format!("{} of the problem", percent(share)));
    }
    facts.extend(finding.confidence.map(sure));
    let text = format!("{}; {}", finding.summary, facts.join(", "));
    let wide = screen.width.saturating_sub(INDENT);
    writeln!(out, "{number:>2} {}", screen.title(&finding.id))?;
    writeln!(out, "     {}", wrap(&text, wide, INDENT))
}

/// Confidence in words; figures only where there is doubt.
fn sure(confidence: f64) -> String {
    if confidence >= 0.995 {
        "sure".to_owned()
    } else {
        format!("{} sure", percent(confidence))
    }
}

fn full(number: usize, finding: &Finding, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    head(number, finding, screen, out)?;
    let wide = screen.width.saturating_sub(INDENT);
    let proofs: Vec<String> = finding
        .evidence
        .iter()
        .take(PROOFS)
        .filter_map(proof)
        .collect();
    if !proofs.is_empty() {
        writeln!(out, "     {}", wrap(&proofs.join("; "), wide, INDENT))?;
    }
    if !finding.consequence_of.is_empty() {
        let causes = format!("follows from {}", finding.consequence_of.join(", "));
        writeln!(out, "     {}", wrap(&causes, wide, INDENT))?;
    }
    for (name, text) in [("try", &finding.remedy), ("wrong if", &finding.refuted_by)] {
        if let Some(text) = text {
            // No-break spaces: the columns stay when the text is broken.
            let name = format!("{name:<9}").replace(' ', "\u{a0}");
            let text = wrap(&format!("{name}{text}"), wide, INDENT + 9);
            writeln!(out, "     {}", screen.faint(&text))?;
        }
    }
    Ok(())
}

/// `metric value (without the problem: expected)`.
fn proof(evidence: &Evidence) -> Option<String> {
    let value = value(evidence.value?, &evidence.unit);
    let expected = evidence.expected.as_ref();
    let expected = expected.map_or(String::new(), |text| format!(" (expected {text})"));
    Some(format!("{} {value}{expected}", evidence.metric))
}

/// A value as people read it.
pub(in super::super) fn value(value: f64, unit: &str) -> String {
    match unit {
        "us" => duration(value / 1e6),
        "s" => duration(value),
        "ratio" | "probability" => percent(value),
        unit if unit.starts_with("of the ") => format!("{} {unit}", percent(value)),
        unit if value.fract() == 0.0 && value >= 0.0 => format!("{} {unit}", count(value as u64)),
        unit => format!("{value:.1} {unit}"),
    }
}

/// What it is not, and what could not be judged.
fn others(report: &Report, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let names = |verdict, applicable| {
        let found = with(report, verdict).filter(move |finding| finding.applicable == applicable);
        let plain =
            found.filter(|finding| !finding.id.starts_with("audit-") && finding.id != "healthy");
        plain
            .map(|finding| finding.id.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let lines = [
        ("not the cause", names(Verdict::Refuted, true)),
        ("not judged", names(Verdict::Unknown, true)),
    ];
    for (name, ids) in lines {
        if !ids.is_empty() {
            let text = wrap(&format!("{name}: {ids}"), screen.width.saturating_sub(4), 4);
            writeln!(out, "  {}", screen.faint(&text))?;
        }
    }
    Ok(())
}
