//! Results that contradict an expectation: what the raw data says about each, and the measurement
//! that would settle it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::audit::{Evidence, Finding, number};
use super::metrics::{Metric, find as metric};
use super::model::{Direction, Study, is_reference};
use super::statistics::{Difference, mean, welch};

/// A result that contradicts an expectation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Anomaly {
    /// Kind and cell, unique within a report: `above-the-link:tcp.throughput/Headscale/medium`.
    pub id: String,
    /// What is odd.
    pub title: String,
    /// What the raw data says: dissolved by the audit, within the spread, or standing.
    pub verdict: Verdict,
    /// Why.
    pub reason: String,
    /// Audit findings that touch it.
    pub audit: Vec<String>,
    /// Interval of the difference, where there is one.
    pub difference: Option<Difference>,
    /// Where to look.
    pub evidence: Vec<Evidence>,
    /// The measurement that would settle it.
    pub command: String,
}

/// What is left of an anomaly after a look at the raw data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The audit's corrected figures do not show it.
    Dissolved,
    /// It is within the spread of the runs.
    WithinSpread,
    /// It stands and wants an explanation.
    #[default]
    Stands,
}

/// Finds them.
#[must_use]
pub fn find(study: &Study, audit: &[Finding]) -> Vec<Anomaly> {
    let mut anomalies = above_the_link(study, audit);
    anomalies.extend(not_monotonic(study, audit));
    anomalies.extend(parallel_slower(study, audit));
    anomalies.extend(fast_ping_slow_stream(study, audit));
    anomalies.extend(uneven_links(study, audit));
    anomalies.extend(uniform_waits(study, audit));
    anomalies.extend(sender_and_receiver(study, audit));
    anomalies
}

fn touching(
    audit: &[Finding],
    system: &str,
    benchmark: &str,
    profile: Option<&str>,
) -> Vec<String> {
    let touches = |finding: &&Finding| {
        finding.systems.iter().any(|name| name == system)
            && finding.benchmark == benchmark
            && (finding.profile.is_none()
                || profile.is_none()
                || finding.profile.as_deref() == profile)
    };
    audit
        .iter()
        .filter(touches)
        .map(|finding| finding.id.clone())
        .collect()
}

fn lab(system: &str, profile: &str, bench: &str) -> String {
    let vpn = if is_reference(system) {
        "none".to_owned()
    } else {
        system.to_lowercase()
    };
    format!("vpnbench lab run --vpn {vpn} --profile {profile} --bench {bench} --repeat 5")
}

/// Which of the two is better: positive if the first.
fn lead(metric: &Metric, first: f64, second: f64) -> f64 {
    if metric.more_is_better {
        first - second
    } else {
        second - first
    }
}

/// A tunnel that beats the bare link it runs over.
fn above_the_link(study: &Study, audit: &[Finding]) -> Vec<Anomaly> {
    let Some(reference) = study.reference() else {
        return Vec::new();
    };
    let mut anomalies = Vec::new();
    for metric in [
        "tcp.throughput",
        "parallel.throughput",
        "udp.throughput",
        "quic.throughput",
        "stream.quality",
        "download.time",
    ]
    .iter()
    .filter_map(|id| metric(id))
    {
        for profile in &study.profiles {
            let bare = metric.figure(study, reference, profile);
            for system in study.systems.iter().filter(|system| *system != reference) {
                let tunnel = metric.figure(study, system, profile);
                let (Some(plain), Some(bare_plain)) = (tunnel.plain, bare.plain) else {
                    continue;
                };
                // Smaller leads are noise of any benchmark and not worth a line.
                if lead(metric, plain, bare_plain) <= 0.02 * bare_plain.abs() {
                    continue;
                }
                let difference = welch(
                    &metric.samples(study, system, profile, true),
                    &metric.samples(study, reference, profile, true),
                );
                let sound = tunnel
                    .sound
                    .zip(bare.sound)
                    .map(|(a, b)| lead(metric, a, b));
                let (verdict, reason) = judge(
                    sound,
                    difference,
                    &format!(
                        "{reference} {} {}",
                        bare.sound.map_or_else(|| "unknown".to_owned(), number),
                        metric.unit
                    ),
                );
                let mut ids = touching(audit, system, metric.rows.0, Some(profile));
                ids.extend(touching(audit, reference, metric.rows.0, Some(profile)));
                ids.sort();
                ids.dedup();
                anomalies.push(Anomaly {
                    id: format!("above-the-link:{}/{system}/{profile}", metric.id),
                    title: format!("{system} beats the bare link at {profile}: {} against {} {} ({})", number(plain), number(bare_plain), metric.unit, metric.title),
                    verdict,
                    reason,
                    audit: ids,
                    difference,
                    evidence: sources(study, metric, &[system, reference], profile),
                    command: format!("vpnbench lab ablate --base none --against {} --profile {profile} --bench {} --repeat 10", system.to_lowercase(), metric.rows.0),
                });
            }
        }
    }
    anomalies
}

/// The verdict on a lead from its sound value and its interval.
fn judge(sound: Option<f64>, difference: Option<Difference>, beside: &str) -> (Verdict, String) {
    match (sound, difference) {
        (None, _) => (Verdict::Stands, "one side has no sound figure".to_owned()),
        (Some(lead), _) if lead <= 0.0 => (
            Verdict::Dissolved,
            format!(
                "without dead flows and over all links of the design the order is reversed ({beside})"
            ),
        ),
        (Some(_), Some(difference)) if !difference.is_beyond_spread() => (
            Verdict::WithinSpread,
            format!(
                "difference {} with 95 % interval {} to {}: it includes zero",
                number(difference.difference),
                number(difference.low),
                number(difference.high)
            ),
        ),
        (Some(_), Some(difference)) => (
            Verdict::Stands,
            format!(
                "difference {} with 95 % interval {} to {}",
                number(difference.difference),
                number(difference.low),
                number(difference.high)
            ),
        ),
        (Some(_), None) => (Verdict::Stands, "too few runs for an interval".to_owned()),
    }
}

fn sources(study: &Study, metric: &Metric, systems: &[&str], profile: &str) -> Vec<Evidence> {
    let rows = systems
        .iter()
        .flat_map(|system| metric.rows_in(study, system, profile));
    rows.map(|row| Evidence::row(row, format!("{} {}", row.system, row.link())))
        .collect()
}

/// Better under a harder profile.
fn not_monotonic(study: &Study, audit: &[Finding]) -> Vec<Anomaly> {
    let mut anomalies = Vec::new();
    for metric in [
        "tcp.throughput",
        "parallel.throughput",
        "ping.rtt",
        "download.time",
        "quic.throughput",
    ]
    .iter()
    .filter_map(|id| metric(id))
    {
        for system in &study.systems {
            for pair in study.profiles.windows(2) {
                let (mild, hard) = (
                    metric.figure(study, system, &pair[0]),
                    metric.figure(study, system, &pair[1]),
                );
                let (Some(mild_plain), Some(hard_plain)) = (mild.plain, hard.plain) else {
                    continue;
                };
                if lead(metric, hard_plain, mild_plain) <= 0.02 * mild_plain.abs() {
                    continue;
                }
                let difference = welch(
                    &metric.samples(study, system, &pair[1], true),
                    &metric.samples(study, system, &pair[0], true),
                );
                let sound = hard.sound.zip(mild.sound).map(|(a, b)| lead(metric, a, b));
                let (verdict, reason) = judge(sound, difference, "corrected figures");
                let mut evidence = sources(study, metric, &[system], &pair[0]);
                evidence.extend(sources(study, metric, &[system], &pair[1]));
                anomalies.push(Anomaly {
                    id: format!("not-monotonic:{}/{system}/{}", metric.id, pair[1]),
                    title: format!(
                        "{system} does better at {} than at {}: {} after {} {} ({})",
                        pair[1],
                        pair[0],
                        number(hard_plain),
                        number(mild_plain),
                        metric.unit,
                        metric.title
                    ),
                    verdict,
                    reason,
                    audit: touching(audit, system, metric.rows.0, None),
                    difference,
                    evidence,
                    command: lab(system, &pair[1], metric.rows.0),
                });
            }
        }
    }
    anomalies
}

/// Several links at once carry less than one alone.
fn parallel_slower(study: &Study, audit: &[Finding]) -> Vec<Anomaly> {
    let (Some(single), Some(parallel)) = (metric("tcp.throughput"), metric("parallel.throughput"))
    else {
        return Vec::new();
    };
    let mut anomalies = Vec::new();
    for profile in &study.profiles {
        for system in &study.systems {
            let (one, all) = (
                single.figure(study, system, profile),
                parallel.figure(study, system, profile),
            );
            let (Some(one_plain), Some(all_plain)) = (one.plain, all.plain) else {
                continue;
            };
            if all_plain >= one_plain {
                continue;
            }
            let sound = all.sound.zip(one.sound).map(|(all, one)| one - all);
            let (verdict, reason) = match sound {
                Some(gap) if gap <= 0.0 => (
                    Verdict::Dissolved,
                    format!(
                        "{} of {} links are missing from the sum; over all of them it is {} {}",
                        all.expected - all.samples,
                        all.expected,
                        all.sound.map_or_else(String::new, number),
                        single.unit
                    ),
                ),
                _ => (
                    Verdict::Stands,
                    "no link is missing that would explain it".to_owned(),
                ),
            };
            let mut evidence = sources(study, parallel, &[system], profile);
            evidence.extend(sources(study, single, &[system], profile));
            anomalies.push(Anomaly {
                id: format!("parallel-slower:{system}/{profile}"),
                title: format!(
                    "{system} at {profile}: all links at once give {} Mbit/s, one alone {}",
                    number(all_plain),
                    number(one_plain)
                ),
                verdict,
                reason,
                audit: touching(audit, system, "parallel", Some(profile)),
                difference: None,
                evidence,
                command: lab(system, profile, "parallel"),
            });
        }
    }
    anomalies
}

/// Among the best in latency and among the worst in throughput.
fn fast_ping_slow_stream(study: &Study, audit: &[Finding]) -> Vec<Anomaly> {
    let (Some(ping), Some(tcp), Some(baseline)) = (
        metric("ping.rtt"),
        metric("tcp.throughput"),
        study.baseline(),
    ) else {
        return Vec::new();
    };
    let mut by_ping: Vec<(&String, f64)> = study
        .systems
        .iter()
        .filter_map(|system| Some((system, ping.figure(study, system, baseline).sound?)))
        .collect();
    let mut by_rate: Vec<(&String, f64)> = study
        .systems
        .iter()
        .filter_map(|system| Some((system, tcp.figure(study, system, baseline).sound?)))
        .collect();
    by_ping.sort_by(|a, b| a.1.total_cmp(&b.1));
    by_rate.sort_by(|a, b| b.1.total_cmp(&a.1));
    let half = study.systems.len() / 2;
    let place =
        |order: &[(&String, f64)], name: &str| order.iter().position(|(other, _)| *other == name);
    let odd = study
        .systems
        .iter()
        .filter(|system| !is_reference(system))
        .filter_map(|system| {
            let (fast, slow) = (place(&by_ping, system)?, place(&by_rate, system)?);
            (fast < half.min(4) && slow > half).then_some((system, fast, slow))
        });
    odd.map(|(system, fast, slow)| {
        let cpu: Vec<Evidence> = study.rows_of(system, baseline, "quic", "cpu_percent").map(|row| Evidence::row(row, format!("{}: CPU as reported during QUIC; of what it is a share, the file does not say", row.link()))).collect();
        let mut evidence = sources(study, ping, &[system], baseline);
        evidence.extend(sources(study, tcp, &[system], baseline));
        evidence.extend(cpu);
        Anomaly {
            id: format!("fast-ping-slow-stream:{system}"),
            title: format!("{system} is number {} in latency and number {} in throughput at {baseline}", fast + 1, slow + 1),
            verdict: Verdict::Stands,
            reason: "a single packet is quick, a stream is not: a limit per packet (one busy thread, a lock, a system call each) or loss inside; total CPU cannot tell which".to_owned(),
            audit: touching(audit, system, "tcp", Some(baseline)),
            difference: None,
            evidence,
            command: format!("vpnbench attach --stacks -- iperf3 -c PEER -t 30 (threads: saturation and ns per packet), or {}", lab(system, baseline, "tcp")),
        }
    }).collect()
}

/// Links of one system that differ by a factor of two or more.
fn uneven_links(study: &Study, audit: &[Finding]) -> Vec<Anomaly> {
    let mut anomalies = Vec::new();
    for metric in ["tcp.throughput", "ping.rtt", "reconnect.time"]
        .iter()
        .filter_map(|id| metric(id))
    {
        for profile in &study.profiles {
            for system in &study.systems {
                let values = metric.samples(study, system, profile, true);
                let (low, high) = (
                    values.iter().copied().fold(f64::MAX, f64::min),
                    values.iter().copied().fold(0.0, f64::max),
                );
                if values.len() < 2 || low <= 0.0 || high / low < 2.0 {
                    continue;
                }
                anomalies.push(Anomaly {
                    id: format!("uneven-links:{}/{system}/{profile}", metric.id),
                    title: format!("{system} at {profile}: {} ranges from {} to {} {} over the links", metric.title, number(low), number(high), metric.unit),
                    verdict: Verdict::Stands,
                    reason: "the links do not belong to one population: their mean describes none of them; different routes or transports are the first suspicion".to_owned(),
                    audit: touching(audit, system, metric.rows.0, Some(profile)),
                    difference: None,
                    evidence: sources(study, metric, &[system], profile),
                    command: "vpnbench attach -- iperf3 -c PEER -t 30 on each link (tunnel.outer.remotes shows where outer packets go)".to_owned(),
                });
            }
        }
    }
    anomalies
}

/// Waiting times that agree within 2 % across hosts: a timer, of the system or of the check.
fn uniform_waits(study: &Study, audit: &[Finding]) -> Vec<Anomaly> {
    let Some(metric) = metric("reconnect.time") else {
        return Vec::new();
    };
    let mut anomalies = Vec::new();
    for profile in &study.profiles {
        for system in &study.systems {
            let rows = metric.rows_in(study, system, profile);
            let values: Vec<f64> = rows
                .iter()
                .filter(|row| row.flow == 0)
                .map(|row| row.value)
                .collect();
            let Some(average) = mean(&values).filter(|average| *average > 1.0) else {
                continue;
            };
            let spread = values.iter().copied().fold(0.0, f64::max)
                - values.iter().copied().fold(f64::MAX, f64::min);
            if values.len() < 3 || spread > 0.04 * average {
                continue;
            }
            let gate = format!("audit-counter-artifact:reconnect/{system}/gate");
            let gated = audit.iter().any(|finding| finding.id == gate);
            let (verdict, reason) = if gated {
                (
                    Verdict::Dissolved,
                    "the check itself waits for the public addresses and asks once a second: its times fall on a grid, and the tunnel answered as soon as it was asked",
                )
            } else {
                (
                    Verdict::Stands,
                    "equal waits on different hosts point to a fixed timer; the check's own grid is one second",
                )
            };
            anomalies.push(Anomaly {
                id: format!("uniform-wait:reconnect/{system}/{profile}"),
                title: format!(
                    "{system} reconnects after {} s on every host, within {} s",
                    number(average),
                    number(spread)
                ),
                verdict,
                reason: reason.to_owned(),
                audit: touching(audit, system, "reconnect", None),
                difference: None,
                evidence: rows
                    .iter()
                    .filter(|row| row.direction == Direction::Forward)
                    .map(|row| Evidence::row(row, row.source.clone().unwrap_or_default()))
                    .collect(),
                command: format!(
                    "{} (gap before the first outer and the first inner packet)",
                    lab(system, profile, "reconnect")
                ),
            });
        }
    }
    anomalies
}

/// Flows whose receiver got less than the sender handed over by more than the sender's buffers
/// explain: 5 %.
fn sender_and_receiver(study: &Study, audit: &[Finding]) -> Vec<Anomaly> {
    let mut anomalies = Vec::new();
    for profile in &study.profiles {
        for system in &study.systems {
            let flows: Vec<_> = study
                .rows_of(system, profile, "tcp", "sent_bytes")
                .filter(|row| !super::audit::dead_flows::is_dead(study, row))
                .filter_map(|sent| Some((sent, study.beside(sent, "received_bytes")?)))
                .filter(|(sent, received)| received.value < 0.95 * sent.value)
                .collect();
            if flows.is_empty() {
                continue;
            }
            let missing: f64 = flows
                .iter()
                .map(|(sent, received)| sent.value - received.value)
                .sum();
            let evidence = flows.iter().flat_map(|(sent, received)| {
                [
                    Evidence::row(sent, format!("{}: handed to the sender", sent.link())),
                    Evidence::row(received, "arrived at the receiver"),
                ]
            });
            anomalies.push(Anomaly {
                id: format!("sender-receiver-apart:{system}/{profile}"),
                title: format!(
                    "{system} at {profile}: on {} flows the receiver has over 5 % less than the sender handed over ({} MB in all)",
                    flows.len(),
                    number(missing / 1e6)
                ),
                verdict: Verdict::Stands,
                reason: "TCP loses nothing: the difference was still on the way when the test ended, in the sender's buffer or in the tunnel's queues; beside the congestion window it is a measure of queueing".to_owned(),
                audit: touching(audit, system, "tcp", Some(profile)),
                difference: None,
                evidence: evidence.collect(),
                command: format!("{} (backlog inside the daemon)", lab(system, profile, "tcp")),
            });
        }
    }
    anomalies
}
