//! The findings as a Markdown page.

use std::fmt::{self, Write as _};

use super::Findings;
use super::audit::number;
use super::claims::{Judged, Verdict};

/// Writes the page: claims and questions with their verdicts, the audit, the anomalies, what was
/// left out.
///
/// # Errors
/// Never, as text takes everything; the signature is that of the writer.
pub fn markdown(findings: &Findings) -> Result<String, fmt::Error> {
    let mut page = String::new();
    writeln!(page, "# Audit of a benchmark study\n")?;
    writeln!(
        page,
        "{} systems, {} profiles, {} files, {} measurements.",
        findings.systems.len(),
        findings.profiles.len(),
        findings.files,
        findings.measurements
    )?;
    let tests: Vec<String> = findings
        .tests
        .iter()
        .map(|(outcome, count)| format!("{count} {outcome}"))
        .collect();
    writeln!(page, "Tests: {}.\n", tests.join(", "))?;
    for (title, question) in [("Claims", false), ("Open questions", true)] {
        let judged: Vec<&Judged> = findings
            .claims
            .iter()
            .filter(|judged| judged.question == question)
            .collect();
        if judged.is_empty() {
            continue;
        }
        writeln!(page, "## {title}\n")?;
        for judged in judged {
            claim(&mut page, judged)?;
        }
    }
    audit(&mut page, findings)?;
    anomalies(&mut page, findings)?;
    printed(&mut page, findings)?;
    if !findings.problems.is_empty() {
        writeln!(page, "## Left out\n")?;
        for problem in &findings.problems {
            writeln!(
                page,
                "- `{}` `{}`: {}",
                problem.path, problem.pointer, problem.message
            )?;
        }
    }
    Ok(page)
}

/// The verdict on a claim or question in words.
#[must_use]
pub fn words(judged: &Judged) -> &'static str {
    match (judged.verdict, judged.question) {
        (Verdict::Holds, false) => "holds",
        (Verdict::Holds, true) => "answered by the data",
        (Verdict::DoesNotHold, false) => "does not hold",
        (Verdict::DoesNotHold, true) => "its premise does not hold",
        (Verdict::CannotBeTold, _) => "cannot be told",
    }
}

fn claim(page: &mut String, judged: &Judged) -> fmt::Result {
    writeln!(
        page,
        "### {}\n\n{}\n\n**{}**\n",
        judged.id,
        judged.says,
        words(judged)
    )?;
    for reason in &judged.reasons {
        writeln!(page, "- {reason}")?;
    }
    if !judged.audit.is_empty() {
        let ids: Vec<String> = judged.audit.iter().map(|id| format!("`{id}`")).collect();
        writeln!(page, "- audit: {}", ids.join(", "))?;
    }
    if !judged.would_tell.is_empty() {
        writeln!(page, "- would tell: `{}`", judged.would_tell)?;
    }
    writeln!(page)
}

fn audit(page: &mut String, findings: &Findings) -> fmt::Result {
    writeln!(page, "## What does not hold in the data\n")?;
    for finding in &findings.audit {
        writeln!(page, "### `{}`\n\n{}.\n", finding.id, finding.title)?;
        for evidence in finding.evidence.iter().take(12) {
            writeln!(
                page,
                "- `{}` `{}`: {} - {}",
                evidence.path, evidence.pointer, evidence.value, evidence.note
            )?;
        }
        if finding.evidence.len() > 12 {
            writeln!(
                page,
                "- and {} more in the JSON report",
                finding.evidence.len() - 12
            )?;
        }
        for corrected in &finding.corrected {
            let text = |value: Option<f64>| value.map_or_else(|| "unknown".to_owned(), number);
            writeln!(
                page,
                "- **{}**: {} becomes {} {} ({})",
                corrected.figure,
                text(corrected.plain),
                text(corrected.sound),
                corrected.unit,
                corrected.formula
            )?;
        }
        if !finding.effect.is_empty() {
            writeln!(page, "- effect: {}", finding.effect)?;
        }
        let touched = findings
            .claims
            .iter()
            .filter(|judged| judged.audit.contains(&finding.id));
        let touched: Vec<&str> = touched.map(|judged| judged.id.as_str()).collect();
        if !touched.is_empty() {
            writeln!(page, "- claims it touches: {}", touched.join(", "))?;
        }
        writeln!(page)?;
    }
    Ok(())
}

fn anomalies(page: &mut String, findings: &Findings) -> fmt::Result {
    if findings.anomalies.is_empty() {
        return Ok(());
    }
    writeln!(page, "## Anomalies\n")?;
    for anomaly in &findings.anomalies {
        let verdict = match anomaly.verdict {
            super::anomalies::Verdict::Dissolved => "dissolved",
            super::anomalies::Verdict::WithinSpread => "within the spread",
            super::anomalies::Verdict::Stands => "stands",
        };
        writeln!(
            page,
            "- **{verdict}**: {}. {}.",
            anomaly.title, anomaly.reason
        )?;
        writeln!(page, "  Settle it with `{}`.", anomaly.command)?;
    }
    writeln!(page)
}

fn printed(page: &mut String, findings: &Findings) -> fmt::Result {
    let Some(printed) = &findings.printed else {
        return Ok(());
    };
    writeln!(page, "## Printed tables\n")?;
    writeln!(
        page,
        "{} numbers reproduced, {} different, {} without data in the tree.\n",
        printed.reproduced, printed.different, printed.without_data
    )?;
    for found in printed
        .numbers
        .iter()
        .filter(|found| found.verdict != "reproduced")
    {
        let text = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), number);
        writeln!(
            page,
            "- {}: printed {}, from the data {} ({}; {})",
            found.cell,
            text(found.printed),
            text(found.computed),
            found.verdict,
            found.formula
        )?;
    }
    writeln!(page)
}
