//! Claims about a study held against its data. A claims file (TOML) says each claim in a sentence,
//! with conditions over figures that must be true if it holds, the figures it prints, and the
//! audit findings that would undo it. The verdict is computed.
//!
//! ```toml
//! [[claim]]
//! id = "tunnel-beats-link"
//! says = "At medium the tunnel carries 40 % more than the bare link."
//! holds_if = ["tcp.throughput@Tunnel/medium > 1.3 * tcp.throughput@Internal/medium"]
//! printed = [{ figure = "tcp.throughput@Tunnel/medium", value = 41.5 }]
//! undone_by = ["audit-dead-flow:tcp/Internal/medium"]
//! cause = false        # true: the claim names a cause, which no result file can show
//! would_tell = "vpnbench lab ablate ..."
//! ```
//!
//! A figure is `METRIC@SYSTEM/PROFILE`, with `[SOURCE>TARGET]` behind it for one link; metrics are
//! those of [`super::metrics`], and `tcp.retransmit_rate` and `parallel.retransmit_rate` (per 1000
//! segments). Conditions compare products of numbers and figures with `<` or `>`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::audit::{Finding, number};
use super::metrics::find as metric;
use super::model::{Direction, Study};
use super::statistics::{mean, welch};
use super::tables::per_1000_segments;

/// A claims file.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// What the claims are about.
    #[serde(default)]
    pub title: String,
    /// Claims, in the order of the report.
    #[serde(default, rename = "claim")]
    pub claims: Vec<Claim>,
}

/// A claim.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Claim {
    /// Stable name.
    pub id: String,
    /// The claim or question in a sentence.
    pub says: String,
    /// Whether it is an open question rather than a claim.
    pub question: bool,
    /// Conditions that are true if it holds.
    pub holds_if: Vec<String>,
    /// Figures it prints.
    pub printed: Vec<Printed>,
    /// Audit findings that undo it.
    pub undone_by: Vec<String>,
    /// Audit findings that answer a question.
    pub answered_by: Vec<String>,
    /// Audit findings to read with it.
    pub see: Vec<String>,
    /// Whether it names a cause.
    pub cause: bool,
    /// What the data says, where a condition cannot say it.
    pub note: String,
    /// The measurement that would tell.
    pub would_tell: String,
}

/// A figure that a claim prints.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Printed {
    /// Figure.
    pub figure: String,
    /// Value as printed, in the figure's unit.
    pub value: f64,
}

/// What the data says of a claim.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It does.
    Holds,
    /// It does not.
    DoesNotHold,
    /// The data cannot tell.
    #[default]
    CannotBeTold,
}

/// A claim with its verdict.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Judged {
    /// See [`Claim::id`].
    pub id: String,
    /// See [`Claim::says`].
    pub says: String,
    /// See [`Claim::question`].
    pub question: bool,
    /// Verdict.
    pub verdict: Verdict,
    /// Why, one line per condition, printed figure and finding.
    pub reasons: Vec<String>,
    /// Audit findings that touch it and are in this tree.
    pub audit: Vec<String>,
    /// See [`Claim::would_tell`].
    pub would_tell: String,
}

impl File {
    /// Parses a claims file and its conditions.
    ///
    /// # Errors
    /// With line and column for TOML, with the claim's name for a condition.
    pub fn parse(text: &str) -> Result<File, String> {
        let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
        for claim in &file.claims {
            for condition in &claim.holds_if {
                parse_condition(condition).map_err(|error| {
                    format!("claim {}: condition \"{condition}\": {error}", claim.id)
                })?;
            }
            for printed in &claim.printed {
                parse_figure(&printed.figure)
                    .map_err(|error| format!("claim {}: {error}", claim.id))?;
            }
        }
        Ok(file)
    }
}

/// Holds every claim against a study.
#[must_use]
pub fn judge(study: &Study, audit: &[Finding], file: &File) -> Vec<Judged> {
    file.claims
        .iter()
        .map(|claim| one(study, audit, claim))
        .collect()
}

fn one(study: &Study, audit: &[Finding], claim: &Claim) -> Judged {
    let mut reasons = Vec::new();
    let mut votes = Vec::new();
    for condition in &claim.holds_if {
        let (vote, reason) = evaluate(study, condition);
        votes.push(vote);
        reasons.push(reason);
    }
    for printed in &claim.printed {
        let (vote, reason) = check_printed(study, printed);
        votes.extend(vote);
        reasons.push(reason);
    }
    let present = |ids: &[String]| -> Vec<&Finding> {
        audit
            .iter()
            .filter(|finding| ids.contains(&finding.id))
            .collect()
    };
    let undoing = present(&claim.undone_by);
    for finding in &undoing {
        reasons.push(format!("{}: {}", finding.id, finding.title));
    }
    let answering = present(&claim.answered_by);
    for finding in &answering {
        reasons.push(format!("{}: {}", finding.id, finding.title));
    }
    if !claim.note.is_empty() {
        reasons.push(claim.note.clone());
    }
    let verdict = if !undoing.is_empty() || votes.contains(&Verdict::DoesNotHold) {
        Verdict::DoesNotHold
    } else if !answering.is_empty() {
        Verdict::Holds
    } else if votes.is_empty() || claim.cause || votes.contains(&Verdict::CannotBeTold) {
        Verdict::CannotBeTold
    } else {
        Verdict::Holds
    };
    if claim.cause && verdict == Verdict::CannotBeTold {
        reasons.push("the claim names a cause; result files show effects only".to_owned());
    }
    let mut ids: Vec<String> = undoing
        .iter()
        .chain(&answering)
        .chain(&present(&claim.see))
        .map(|finding| finding.id.clone())
        .collect();
    ids.dedup();
    Judged {
        id: claim.id.clone(),
        says: claim.says.clone(),
        question: claim.question,
        verdict,
        reasons,
        audit: ids,
        would_tell: claim.would_tell.clone(),
    }
}

/// A figure of a claim.
#[derive(Debug, Clone, PartialEq)]
struct Figure {
    metric: String,
    system: String,
    profile: String,
    link: Option<String>,
}

/// A factor of a product.
#[derive(Debug, Clone, PartialEq)]
enum Factor {
    Number(f64),
    Figure(Figure),
}

fn parse_figure(text: &str) -> Result<Figure, String> {
    let wrong = || format!("\"{text}\" is no figure; write METRIC@SYSTEM/PROFILE");
    let (metric_name, rest) = text.split_once('@').ok_or_else(wrong)?;
    let (system, rest) = rest.split_once('/').ok_or_else(wrong)?;
    let (profile, link) = match rest.split_once('[') {
        Some((profile, link)) => (
            profile,
            Some(link.strip_suffix(']').ok_or_else(wrong)?.to_owned()),
        ),
        None => (rest, None),
    };
    if metric(metric_name).is_none() && !metric_name.ends_with(".retransmit_rate") {
        return Err(format!("no metric \"{metric_name}\""));
    }
    Ok(Figure {
        metric: metric_name.to_owned(),
        system: system.to_owned(),
        profile: profile.to_owned(),
        link,
    })
}

fn parse_product(text: &str) -> Result<Vec<Factor>, String> {
    text.split('*')
        .map(|part| {
            let part = part.trim();
            part.parse()
                .map(Factor::Number)
                .or_else(|_| parse_figure(part).map(Factor::Figure))
        })
        .collect()
}

/// Left, right, and whether left must be the greater.
fn parse_condition(text: &str) -> Result<(Vec<Factor>, Vec<Factor>, bool), String> {
    // A link is written with `>` too, but without spaces.
    let (left, right, greater) = match (text.split_once(" > "), text.split_once(" < ")) {
        (Some((left, right)), None) => (left, right, true),
        (None, Some((left, right))) => (left, right, false),
        _ => return Err("write LEFT > RIGHT or LEFT < RIGHT, with spaces".to_owned()),
    };
    Ok((parse_product(left)?, parse_product(right)?, greater))
}

impl Figure {
    /// The samples: one per link and run, dead flows left out if `live`.
    fn samples(&self, study: &Study, live: bool) -> Vec<f64> {
        let Some(system) = study
            .systems
            .iter()
            .find(|name| name.eq_ignore_ascii_case(&self.system))
        else {
            return Vec::new();
        };
        let of_link = |link: String| self.link.as_ref().is_none_or(|wanted| *wanted == link);
        if let Some(benchmark) = self.metric.strip_suffix(".retransmit_rate") {
            return study
                .rows_of(system, &self.profile, benchmark, "retransmits")
                .filter(|row| row.direction == Direction::Forward && of_link(row.link()))
                .filter_map(|row| per_1000_segments(study, row))
                .collect();
        }
        let Some(metric) = metric(&self.metric) else {
            return Vec::new();
        };
        metric
            .rows_in(study, system, &self.profile)
            .into_iter()
            .filter(|row| {
                of_link(row.link()) && !(live && super::audit::dead_flows::is_dead(study, row))
            })
            .map(|row| row.value * metric.scale)
            .collect()
    }

    /// Plain and sound value.
    fn values(&self, study: &Study) -> (Option<f64>, Option<f64>) {
        match (metric(&self.metric), &self.link) {
            (Some(metric), None) => {
                let system = study
                    .systems
                    .iter()
                    .find(|name| name.eq_ignore_ascii_case(&self.system));
                let figure = system
                    .map(|system| metric.figure(study, system, &self.profile))
                    .unwrap_or_default();
                (figure.plain, figure.sound)
            }
            _ => (
                mean(&self.samples(study, false)),
                mean(&self.samples(study, true)),
            ),
        }
    }
}

fn product(study: &Study, factors: &[Factor], sound: bool) -> Option<f64> {
    factors.iter().try_fold(1.0, |product, factor| {
        Some(
            product
                * match factor {
                    Factor::Number(number) => *number,
                    Factor::Figure(figure) => {
                        let (plain, good) = figure.values(study);
                        if sound { good? } else { plain? }
                    }
                },
        )
    })
}

/// The samples of a product of numbers and one figure.
fn spread(study: &Study, factors: &[Factor]) -> Option<Vec<f64>> {
    let mut scale = 1.0;
    let mut samples = None;
    for factor in factors {
        match factor {
            Factor::Number(number) => scale *= number,
            Factor::Figure(figure)
                if samples.is_none()
                    && metric(&figure.metric).is_none_or(|metric| {
                        metric.aggregate == super::metrics::Aggregate::Mean
                    }) =>
            {
                samples = Some(figure.samples(study, true));
            }
            Factor::Figure(_) => return None,
        }
    }
    Some(samples?.into_iter().map(|value| value * scale).collect())
}

fn evaluate(study: &Study, condition: &str) -> (Verdict, String) {
    let Ok((left, right, greater)) = parse_condition(condition) else {
        return (
            Verdict::CannotBeTold,
            format!("{condition}: not understood"),
        );
    };
    let test = |a: f64, b: f64| if greater { a > b } else { a < b };
    let sides = |sound: bool| product(study, &left, sound).zip(product(study, &right, sound));
    let (plain, sound) = (sides(false), sides(true));
    let Some((a, b)) = sound else {
        return (
            Verdict::CannotBeTold,
            format!("{condition}: no sound figure in the data"),
        );
    };
    let shown = format!("{condition}: {} against {}", number(a), number(b));
    let printed = plain.map_or_else(String::new, |(pa, pb)| {
        let same = (pa - a).abs() < 1e-9 && (pb - b).abs() < 1e-9;
        if same {
            String::new()
        } else {
            format!(
                " (by the study's own formula {} against {})",
                number(pa),
                number(pb)
            )
        }
    });
    if !test(a, b) {
        return (Verdict::DoesNotHold, format!("{shown}{printed}: false"));
    }
    let interval = spread(study, &left)
        .zip(spread(study, &right))
        .and_then(|(left, right)| welch(&left, &right));
    match interval {
        Some(difference) if !difference.is_beyond_spread() => (
            Verdict::CannotBeTold,
            format!(
                "{shown}{printed}: within the spread (95 % interval of the difference {} to {})",
                number(difference.low),
                number(difference.high)
            ),
        ),
        _ => (Verdict::Holds, format!("{shown}{printed}: true")),
    }
}

/// A printed figure beside the data. A power of 1000 between them is a slip of units.
fn check_printed(study: &Study, printed: &Printed) -> (Option<Verdict>, String) {
    let Ok(figure) = parse_figure(&printed.figure) else {
        return (
            Some(Verdict::CannotBeTold),
            format!("{}: not understood", printed.figure),
        );
    };
    let (plain, sound) = figure.values(study);
    let Some(plain) = plain else {
        return (
            Some(Verdict::CannotBeTold),
            format!(
                "{} is printed as {}; the tree has no data for it",
                printed.figure,
                number(printed.value)
            ),
        );
    };
    let close =
        |value: f64| (printed.value - value).abs() <= 0.02 * value.abs().max(f64::MIN_POSITIVE);
    let sound_text = sound.map_or_else(|| "unknown".to_owned(), number);
    let slip = [
        ("1000", 1e3),
        ("a million", 1e6),
        ("1/1000", 1e-3),
        ("a millionth", 1e-6),
    ];
    if let Some((factor, _)) = slip.iter().find(|(_, factor)| close(plain * factor)) {
        return (
            Some(Verdict::DoesNotHold),
            format!(
                "{} is printed as {}; the data has {}: a slip of units by {factor} (audit-unit)",
                printed.figure,
                number(printed.value),
                number(plain)
            ),
        );
    }
    if close(plain) && sound.is_some_and(close) {
        return (
            None,
            format!("{} = {}, as printed", printed.figure, number(plain)),
        );
    }
    if close(plain) {
        return (
            None,
            format!(
                "{} = {} by the study's formula; soundly made it is {sound_text}",
                printed.figure,
                number(plain)
            ),
        );
    }
    (
        Some(Verdict::DoesNotHold),
        format!(
            "{} is printed as {}; the data has {} (soundly made {sound_text})",
            printed.figure,
            number(printed.value),
            number(plain)
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_parsed() {
        let (left, right, greater) =
            parse_condition("tcp.throughput@A/low[x>y] > 1.5 * ping.rtt@B/high").expect("fine");
        assert!(greater);
        assert_eq!(left.len(), 1);
        assert!(
            matches!(&left[0], Factor::Figure(figure) if figure.link.as_deref() == Some("x>y") && figure.profile == "low")
        );
        assert_eq!(right[0], Factor::Number(1.5));
        assert!(parse_condition("tcp.throughput@A/low>2").is_err());
        assert!(parse_condition("no.such@A/low > 2").is_err());
    }

    #[test]
    fn a_bad_file_names_the_claim() {
        let error =
            File::parse("[[claim]]\nid = \"x\"\nholds_if = [\"1 = 1\"]").expect_err("no condition");
        assert!(error.contains("claim x"), "{error}");
        assert!(File::parse("[[claim]]\nnonsense = 1").is_err());
    }
}
