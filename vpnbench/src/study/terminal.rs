//! The findings for people.

use std::io::{self, Write};

use super::Findings;
use super::anomalies::Verdict;
use super::audit::{Finding, number};
use super::claims;
use super::document::words;
use super::tables;
use crate::report::table::{Align, Screen, Table, wrap};

/// Evidence lines per finding before the rest is counted.
const EVIDENCE: usize = 4;

/// What to print beside the audit.
#[derive(Debug, Clone, Copy, Default)]
pub struct Details {
    /// All evidence.
    pub evidence: bool,
    /// The tables.
    pub tables: bool,
}

/// Writes tables, audit, anomalies and claims.
///
/// # Errors
/// When the writer fails.
pub fn write(
    findings: &Findings,
    details: Details,
    screen: Screen,
    out: &mut dyn Write,
) -> io::Result<()> {
    let tests: Vec<String> = findings
        .tests
        .iter()
        .map(|(outcome, count)| format!("{count} {outcome}"))
        .collect();
    writeln!(
        out,
        "{}   {} ({} layout): {} systems, {} profiles, {} files",
        screen.title("study"),
        findings.root,
        findings.layout,
        findings.systems.len(),
        findings.profiles.len(),
        findings.files
    )?;
    writeln!(
        out,
        "{}   {}; {} measurements",
        screen.title("tests"),
        tests.join(", "),
        findings.measurements
    )?;
    if details.tables {
        for table in &findings.tables {
            writeln!(out)?;
            write_table(table, screen, out)?;
        }
    }
    audit(findings, details, screen, out)?;
    anomalies(findings, screen, out)?;
    judged(findings, screen, out)?;
    printed(findings, screen, out)?;
    left_out(findings, screen, out)
}

fn write_table(table: &tables::Table, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let mut columns = vec![("system", Align::Text)];
    columns.extend(
        table
            .columns
            .iter()
            .map(|name| (name.as_str(), Align::Number)),
    );
    let mut lines = Table::new(&columns);
    let mut marked = false;
    for row in &table.rows {
        let mut cells = vec![row.system.clone()];
        for figure in &row.figures {
            let differs = figure
                .plain
                .zip(figure.sound)
                .is_none_or(|(plain, sound)| (plain - sound).abs() > 1e-9);
            let mark = if figure.plain.is_some() && (differs || figure.samples < figure.expected) {
                "*"
            } else {
                " "
            };
            marked |= mark == "*";
            cells.push(figure.plain.map_or_else(
                || "- ".to_owned(),
                |value| format!("{}{mark}", number(value)),
            ));
        }
        lines.row(cells);
    }
    let title = format!(
        "{}   {}, {}",
        table.id.to_uppercase(),
        table.title,
        table.unit
    );
    lines.write(&title, screen, out)?;
    if marked {
        writeln!(
            out,
            "{}",
            screen.faint(" * some links are missing or dead: see the audit")
        )?;
    }
    Ok(())
}

fn paragraph(text: &str, indent: usize, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let width = screen.width.saturating_sub(indent).max(20);
    writeln!(out, "{}{}", " ".repeat(indent), wrap(text, width, indent))
}

fn audit(
    findings: &Findings,
    details: Details,
    screen: Screen,
    out: &mut dyn Write,
) -> io::Result<()> {
    let classes: std::collections::BTreeSet<&str> = findings
        .audit
        .iter()
        .map(|finding| finding.class.as_str())
        .collect();
    writeln!(
        out,
        "\n{}   {} problems of {} classes",
        screen.title("AUDIT"),
        findings.audit.len(),
        classes.len()
    )?;
    for class in classes {
        writeln!(out, "\n {}", screen.warn(class))?;
        for finding in findings
            .audit
            .iter()
            .filter(|finding| finding.class == class)
        {
            one(finding, details, screen, out)?;
        }
    }
    Ok(())
}

fn one(finding: &Finding, details: Details, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    paragraph(&finding.title, 3, screen, out)?;
    for corrected in finding
        .corrected
        .iter()
        .take(if details.evidence { usize::MAX } else { 3 })
    {
        let text = |value: Option<f64>| value.map_or_else(|| "unknown".to_owned(), number);
        paragraph(
            &format!(
                "{}: {} becomes {} {}",
                corrected.figure,
                text(corrected.plain),
                text(corrected.sound),
                corrected.unit
            ),
            5,
            screen,
            out,
        )?;
    }
    paragraph(&format!("effect: {}", finding.effect), 5, screen, out)?;
    let shown = if details.evidence {
        finding.evidence.len()
    } else {
        EVIDENCE
    };
    for evidence in finding.evidence.iter().take(shown) {
        let place = format!(
            "{} {} = {}",
            evidence.path, evidence.pointer, evidence.value
        );
        writeln!(out, "     {}", screen.faint(&place))?;
    }
    if finding.evidence.len() > shown {
        writeln!(
            out,
            "     {}",
            screen.faint(&format!(
                "and {} more (--evidence)",
                finding.evidence.len() - shown
            ))
        )?;
    }
    Ok(())
}

fn anomalies(findings: &Findings, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    if findings.anomalies.is_empty() {
        return Ok(());
    }
    let count = |verdict: Verdict| {
        findings
            .anomalies
            .iter()
            .filter(|anomaly| anomaly.verdict == verdict)
            .count()
    };
    writeln!(
        out,
        "\n{}   {} dissolved, {} within the spread, {} stand",
        screen.title("ANOMALIES"),
        count(Verdict::Dissolved),
        count(Verdict::WithinSpread),
        count(Verdict::Stands)
    )?;
    for anomaly in &findings.anomalies {
        let verdict = match anomaly.verdict {
            Verdict::Dissolved => screen.good("dissolved"),
            Verdict::WithinSpread => screen.faint("within the spread"),
            Verdict::Stands => screen.bad("stands"),
        };
        writeln!(out, " {verdict}")?;
        paragraph(&anomaly.title, 3, screen, out)?;
        paragraph(&anomaly.reason, 5, screen, out)?;
        writeln!(out, "     {}", screen.faint(&anomaly.command))?;
    }
    Ok(())
}

fn judged(findings: &Findings, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    if findings.claims.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{}", screen.title("CLAIMS"))?;
    for judged in &findings.claims {
        let verdict = words(judged);
        let verdict = match judged.verdict {
            claims::Verdict::Holds => screen.good(verdict),
            claims::Verdict::DoesNotHold => screen.bad(verdict),
            claims::Verdict::CannotBeTold => screen.warn(verdict),
        };
        writeln!(out, " {verdict}   {}", judged.id)?;
        paragraph(&judged.says, 3, screen, out)?;
        for reason in &judged.reasons {
            paragraph(reason, 5, screen, out)?;
        }
    }
    Ok(())
}

fn printed(findings: &Findings, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let Some(printed) = &findings.printed else {
        return Ok(());
    };
    writeln!(
        out,
        "\n{}   {} numbers reproduced, {} different, {} without data",
        screen.title("PRINTED"),
        printed.reproduced,
        printed.different,
        printed.without_data
    )?;
    for found in printed
        .numbers
        .iter()
        .filter(|found| found.verdict != "reproduced")
    {
        let text = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), number);
        paragraph(
            &format!(
                "{}: {}, printed {}, from the data {}",
                found.cell,
                found.verdict,
                text(found.printed),
                text(found.computed)
            ),
            1,
            screen,
            out,
        )?;
    }
    Ok(())
}

fn left_out(findings: &Findings, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    if findings.problems.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "\n{}   {}",
        screen.title("LEFT OUT"),
        findings.problems.len()
    )?;
    for problem in &findings.problems {
        paragraph(
            &format!("{} {}: {}", problem.path, problem.pointer, problem.message),
            1,
            screen,
            out,
        )?;
    }
    Ok(())
}
