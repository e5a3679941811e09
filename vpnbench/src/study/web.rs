//! The findings as one self-contained HTML file: no script, no network, light and dark.

use std::fmt::Write as _;

use super::Findings;
use super::anomalies::Verdict;
use super::audit::{Corrected, Finding, number};
use super::document::words;
use super::plots::Plot;
use super::tables::Table;

const STYLE: &str = "
:root{color-scheme:light dark;--ink:#1b1f24;--paper:#fff;--line:#d0d7de;--faint:#59636e;--good:#1a7f37;--bad:#b3261e;--heat:9,105,218}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--paper:#0d1117;--line:#30363d;--faint:#9198a1;--good:#3fb950;--bad:#ff7b72;--heat:88,166,255}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:76rem;margin:2rem auto;padding:0 1rem}
h1,h2,h3{line-height:1.25}h2{border-bottom:1px solid var(--line);padding-bottom:.2rem;margin-top:2.5rem}
table{border-collapse:collapse;margin:.6rem 0 1.4rem}caption{text-align:left;font-weight:600;padding:.3rem 0}
th,td{padding:.2rem .7rem;border:1px solid var(--line);text-align:right;font-variant-numeric:tabular-nums}th:first-child,td:first-child{text-align:left}
.faint{color:var(--faint)}code{font-size:.88em;overflow-wrap:anywhere}.good{color:var(--good)}.bad{color:var(--bad)}
details{margin:.5rem 0;border:1px solid var(--line);border-radius:6px;padding:.4rem .8rem}summary{cursor:pointer}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,32rem),1fr));gap:1rem}figure{margin:0}figure svg{width:100%;height:auto;background:#fff;border-radius:6px}
@media print{details{break-inside:avoid}body{max-width:none}}";

/// Text safe inside HTML.
fn safe(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// The page.
#[must_use]
pub fn page(findings: &Findings, plots: &[Plot]) -> String {
    let mut page = String::new();
    let _ = write!(
        page,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><title>Study audit</title><style>{STYLE}</style><h1>Study audit</h1><p>{}: {} systems, {} profiles, {} files, {} measurements.</p>",
        safe(&findings.root),
        findings.systems.len(),
        findings.profiles.len(),
        findings.files,
        findings.measurements
    );
    claims(&mut page, findings);
    let _ = write!(
        page,
        "<h2 id=\"audit\">What does not hold ({})</h2>",
        findings.audit.len()
    );
    findings
        .audit
        .iter()
        .for_each(|finding| audit(&mut page, finding));
    anomalies(&mut page, findings);
    page.push_str("<h2 id=\"tables\">Tables</h2><p class=\"faint\">Cells marked * rest on missing or dead links. Darker is more.</p>");
    findings
        .tables
        .iter()
        .for_each(|found| table(&mut page, found));
    if !plots.is_empty() {
        page.push_str("<h2 id=\"plots\">Plots</h2><div class=\"plots\">");
        for plot in plots {
            let _ = write!(
                page,
                "<figure><figcaption>{}</figcaption>{}</figure>",
                safe(&plot.title),
                plot.svg
            );
        }
        page.push_str("</div>");
    }
    left_out(&mut page, findings);
    page.push_str("</html>\n");
    page
}

fn claims(page: &mut String, findings: &Findings) {
    if findings.claims.is_empty() {
        return;
    }
    page.push_str("<h2 id=\"claims\">Claims and questions</h2>");
    for judged in &findings.claims {
        let class = match judged.verdict {
            super::claims::Verdict::Holds => "good",
            super::claims::Verdict::DoesNotHold => "bad",
            super::claims::Verdict::CannotBeTold => "faint",
        };
        let _ = write!(
            page,
            "<details><summary><b class=\"{class}\">{}</b> {}</summary><ul>",
            words(judged),
            safe(&judged.says)
        );
        for reason in &judged.reasons {
            let _ = write!(page, "<li>{}</li>", safe(reason));
        }
        for id in &judged.audit {
            let _ = write!(page, "<li><a href=\"#{0}\">{0}</a></li>", safe(id));
        }
        if !judged.would_tell.is_empty() {
            let _ = write!(
                page,
                "<li>would tell: <code>{}</code></li>",
                safe(&judged.would_tell)
            );
        }
        page.push_str("</ul></details>");
    }
}

fn audit(page: &mut String, finding: &Finding) {
    let _ = write!(
        page,
        "<details id=\"{0}\"><summary><code>{1}</code> {2}</summary>",
        safe(&finding.id),
        safe(&finding.class),
        safe(&finding.title)
    );
    if !finding.corrected.is_empty() {
        page.push_str(
            "<table><tr><th>figure</th><th>as averaged</th><th>should be</th><th>unit</th></tr>",
        );
        for Corrected {
            figure,
            unit,
            plain,
            sound,
            formula,
        } in &finding.corrected
        {
            let text = |value: &Option<f64>| value.map_or_else(|| "unknown".to_owned(), number);
            let _ = write!(
                page,
                "<tr title=\"{}\"><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                safe(formula),
                safe(figure),
                text(plain),
                text(sound),
                safe(unit)
            );
        }
        page.push_str("</table>");
    }
    let _ = write!(page, "<p>Effect: {}</p><ul>", safe(&finding.effect));
    for evidence in &finding.evidence {
        let _ = write!(
            page,
            "<li><code>{} {}</code> = {} <span class=\"faint\">{}</span></li>",
            safe(&evidence.path),
            safe(&evidence.pointer),
            safe(&evidence.value),
            safe(&evidence.note)
        );
    }
    page.push_str("</ul></details>");
}

fn anomalies(page: &mut String, findings: &Findings) {
    if findings.anomalies.is_empty() {
        return;
    }
    page.push_str("<h2 id=\"anomalies\">Anomalies</h2>");
    for anomaly in &findings.anomalies {
        let (class, verdict) = match anomaly.verdict {
            Verdict::Dissolved => ("good", "dissolved"),
            Verdict::WithinSpread => ("faint", "within the spread"),
            Verdict::Stands => ("bad", "stands"),
        };
        let _ = write!(
            page,
            "<details><summary><b class=\"{class}\">{verdict}</b> {}</summary><p>{}</p><p>Settle it: <code>{}</code></p></details>",
            safe(&anomaly.title),
            safe(&anomaly.reason),
            safe(&anomaly.command)
        );
    }
}

fn table(page: &mut String, table: &Table) {
    let _ = write!(
        page,
        "<table><caption>{} <span class=\"faint\">{}, {}</span></caption><tr><th>system</th>",
        safe(&table.id),
        safe(&table.title),
        safe(&table.unit)
    );
    for column in &table.columns {
        let _ = write!(page, "<th>{}</th>", safe(column));
    }
    page.push_str("</tr>");
    let most: Vec<f64> = (0..table.columns.len())
        .map(|at| {
            table
                .rows
                .iter()
                .filter_map(|row| row.figures[at].plain)
                .fold(0.0, f64::max)
        })
        .collect();
    for row in &table.rows {
        let _ = write!(page, "<tr><td>{}</td>", safe(&row.system));
        for (figure, most) in row.figures.iter().zip(&most) {
            match figure.plain {
                Some(value) => {
                    let heat = if *most > 0.0 {
                        0.55 * value / most
                    } else {
                        0.0
                    };
                    let differs = figure
                        .sound
                        .is_none_or(|sound| (sound - value).abs() > 1e-9);
                    let mark = if differs || figure.samples < figure.expected {
                        "*"
                    } else {
                        ""
                    };
                    let sound = figure.sound.map_or_else(|| "unknown".to_owned(), number);
                    let interval = figure.interval.map_or_else(String::new, |(low, high)| {
                        format!(" (95 % {} to {})", number(low), number(high))
                    });
                    let _ = write!(
                        page,
                        "<td style=\"background:rgba(var(--heat),{heat:.2})\" title=\"sound: {sound}{interval}; {} of {} links, {} dead\">{}{mark}</td>",
                        figure.samples,
                        figure.expected,
                        figure.dead,
                        number(value)
                    );
                }
                None => page.push_str("<td class=\"faint\">-</td>"),
            }
        }
        page.push_str("</tr>");
    }
    page.push_str("</table>");
}

fn left_out(page: &mut String, findings: &Findings) {
    if findings.problems.is_empty() {
        return;
    }
    page.push_str("<h2 id=\"left-out\">Left out</h2><ul>");
    for problem in &findings.problems {
        let _ = write!(
            page,
            "<li><code>{} {}</code> {}</li>",
            safe(&problem.path),
            safe(&problem.pointer),
            safe(&problem.message)
        );
    }
    page.push_str("</ul>");
}
