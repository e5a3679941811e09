//! `audit-unequal-conditions`: what should be the same within a comparison and is not.

use std::collections::{BTreeMap, BTreeSet};

use super::{Evidence, Finding, number};
use crate::study::model::{Direction, Failure, Outcome, Row, Study, Test};
use crate::study::statistics::median;

/// Finds unequal time limits, transports, segment sizes, routes and versions.
#[must_use]
pub fn find(study: &Study) -> Vec<Finding> {
    let mut findings = time_limits(study);
    findings.extend(segment_sizes(study));
    findings.extend(repairing_transports(study));
    findings.extend(routes(study));
    findings.extend(versions(study));
    findings
}

fn finding(id: String, benchmark: &str, title: String, effect: &str) -> Finding {
    Finding {
        class: "audit-unequal-conditions".to_owned(),
        id: format!("audit-unequal-conditions:{id}"),
        title,
        benchmark: benchmark.to_owned(),
        effect: effect.to_owned(),
        ..Finding::default()
    }
}

/// Some were ended by a limit that others were allowed to exceed.
fn time_limits(study: &Study) -> Vec<Finding> {
    let mut findings = Vec::new();
    for benchmark in study.benchmarks() {
        for profile in &study.profiles {
            let of = |test: &&Test| test.benchmark == benchmark && test.profile == *profile;
            let attempt =
                |test: &Test| Some(test.duration_s? / test.attempts.unwrap_or(1).max(1) as f64);
            let ended: Vec<(&Test, f64)> = study
                .tests
                .iter()
                .filter(of)
                .filter(|test| {
                    matches!(
                        &test.outcome,
                        Outcome::Failed {
                            failure: Failure::TimeLimit(_),
                            ..
                        }
                    )
                })
                .filter_map(|test| Some((test, attempt(test)?)))
                .collect();
            let allowed = study
                .tests
                .iter()
                .filter(of)
                .filter(|test| test.outcome.is_done())
                .filter_map(|test| Some((test, attempt(test)?)))
                .max_by(|a, b| a.1.total_cmp(&b.1));
            let Some((longest, allowed)) = allowed else {
                continue;
            };
            // A limit much shorter than what another needed: half as long again, to be sure.
            let cut: Vec<&(&Test, f64)> = ended
                .iter()
                .filter(|(_, seconds)| *seconds * 1.5 < allowed)
                .collect();
            if cut.is_empty() {
                continue;
            }
            let systems: BTreeSet<String> =
                cut.iter().map(|(test, _)| test.system.clone()).collect();
            let shortest = cut
                .iter()
                .map(|(_, seconds)| *seconds)
                .fold(f64::MAX, f64::min);
            let mut evidence: Vec<Evidence> = cut
                .iter()
                .map(|(test, seconds)| Evidence {
                    path: test.path.clone(),
                    pointer: "/meta".to_owned(),
                    value: format!(
                        "{} s in {} attempts",
                        number(test.duration_s.unwrap_or_default()),
                        test.attempts.unwrap_or(1)
                    ),
                    note: format!(
                        "{}, {}: ended after {} s an attempt",
                        test.system,
                        test.link(),
                        number(*seconds)
                    ),
                })
                .collect();
            evidence.push(Evidence {
                path: longest.path.clone(),
                pointer: "/meta/duration_seconds".to_owned(),
                value: format!("{} s", number(longest.duration_s.unwrap_or_default())),
                note: format!(
                    "{}, {}: allowed to take {} s an attempt, and counted as a success",
                    longest.system,
                    longest.link(),
                    number(allowed)
                ),
            });
            let title = format!(
                "{benchmark} at {profile}: some were ended after {} s an attempt, others were allowed {} s",
                number(shortest),
                number(allowed)
            );
            let effect = "\"failed\" and \"completed\" do not compare here: a system that was ended early may have been the faster one";
            findings.push(Finding {
                systems: systems
                    .into_iter()
                    .chain([longest.system.clone()])
                    .collect(),
                profile: Some(profile.clone()),
                evidence,
                ..finding(
                    format!("{benchmark}/{profile}/time-limit"),
                    benchmark,
                    title,
                    effect,
                )
            });
        }
    }
    findings
}

/// Links of one system with different segment sizes: the tunnel changed its transport or MTU.
fn segment_sizes(study: &Study) -> Vec<Finding> {
    let mut findings = Vec::new();
    for system in &study.systems {
        let rows: Vec<&Row> = study
            .profiles
            .iter()
            .flat_map(|profile| study.rows_of(system, profile, "tcp", "mss_bytes"))
            .collect();
        let mut sizes: BTreeMap<u64, Vec<&Row>> = BTreeMap::new();
        for row in &rows {
            sizes.entry(row.value as u64).or_default().push(row);
        }
        if sizes.len() < 2 {
            continue;
        }
        let usual = sizes
            .values()
            .max_by_key(|rows| rows.len())
            .map_or(0, |rows| rows[0].value as u64);
        let odd: Vec<&Row> = sizes
            .iter()
            .filter(|(size, _)| **size != usual)
            .flat_map(|(_, rows)| rows.iter().copied())
            .collect();
        let cells: Vec<String> = odd
            .iter()
            .map(|row| format!("{} at {}", row.link(), row.profile))
            .collect();
        let title = format!(
            "{system}: MSS {} instead of {usual} bytes on {}: another transport or MTU than its other links",
            odd.iter()
                .map(|row| number(row.value))
                .collect::<Vec<_>>()
                .join(", "),
            cells.join(", ")
        );
        let evidence = odd.iter().flat_map(|row| {
            let more = ["retransmits", "reord_seen", "rtt_mean_us"]
                .iter()
                .filter_map(|metric| study.beside(row, metric));
            let more = more
                .map(|other| Evidence::row(other, format!("{}: of the same flow", other.metric)));
            std::iter::once(Evidence::row(row, row.link()))
                .chain(more)
                .collect::<Vec<_>>()
        });
        findings.push(Finding {
            systems: vec![system.clone()],
            profile: (cells.len() == 1).then(|| odd[0].profile.clone()),
            evidence: evidence.collect(),
            ..finding(
                format!("tcp/{system}/mss"),
                "tcp",
                title,
                "a mean over these links averages two different tunnels",
            )
        });
    }
    findings
}

/// Under an impairment that reorders, a flow that never sees reordering went through a transport
/// that repairs order and loss by itself (TCP, QUIC streams, relays).
fn repairing_transports(study: &Study) -> Vec<Finding> {
    let mut findings = Vec::new();
    for system in &study.systems {
        let mut evidence = Vec::new();
        let mut links = BTreeSet::new();
        let mut others = BTreeSet::new();
        for profile in study
            .profiles
            .iter()
            .filter(|profile| Some(profile.as_str()) != study.baseline())
        {
            let seen: Vec<f64> = study
                .systems
                .iter()
                .flat_map(|system| study.rows_of(system, profile, "tcp", "reord_seen"))
                .map(|row| row.value)
                .collect();
            if median(&seen).unwrap_or(0.0) < 100.0 {
                continue;
            }
            for row in study.rows_of(system, profile, "tcp", "reord_seen") {
                if super::dead_flows::is_dead(study, row) {
                    continue;
                }
                let cell = format!("{} at {profile}", row.link());
                if row.value == 0.0 {
                    links.insert(cell);
                    evidence.push(Evidence::row(row, format!("{} at {profile}: the flow's TCP saw no reordering (median of all systems {})", row.link(), number(median(&seen).unwrap_or(0.0)))));
                    let ping = study
                        .rows_of(system, profile, "ping", "loss_percent")
                        .find(|ping| ping.link() == row.link());
                    evidence.extend(ping.map(|ping| {
                        Evidence::row(ping, format!("{}: ping loss on the same link", ping.link()))
                    }));
                } else {
                    others.insert(cell);
                }
            }
        }
        if links.len() < 2 {
            continue;
        }
        let mixed = if others.is_empty() {
            ""
        } else {
            ", while its other links expose it"
        };
        let title = format!(
            "{system}: {} flows saw none of the injected reordering: the tunnel's outer transport repairs order and loss{mixed}",
            links.len()
        );
        let effect = if others.is_empty() {
            "the impairment acted on the tunnel's own transport, not on the benchmark's TCP as for datagram tunnels: retransmission counts and stream quality do not compare with theirs"
        } else {
            "links of one system ran over different transports: a mean over them describes none, and a resilience of the average is that of the repaired links"
        };
        findings.push(Finding {
            systems: vec![system.clone()],
            evidence,
            ..finding(format!("tcp/{system}/transport"), "tcp", title, effect)
        });
    }
    findings
}

/// The smallest RTT of a loaded flow cannot be below the smallest of an idle ping on the same
/// route, nor many times above it at once; where it is, the two tests took different routes.
fn routes(study: &Study) -> Vec<Finding> {
    let mut findings = Vec::new();
    for system in &study.systems {
        let mut evidence = Vec::new();
        let mut cells = Vec::new();
        for profile in &study.profiles {
            for ping in study.rows_of(system, profile, "ping", "rtt_min_ms_min") {
                let flow = study
                    .rows_of(system, profile, "tcp", "rtt_min_us")
                    .find(|row| row.link() == ping.link() && row.direction == Direction::Forward);
                let Some(flow) = flow else { continue };
                // Half of the idle minimum leaves room for jitter that is clipped at zero.
                if ping.value > 5.0 && flow.value / 1e3 < ping.value / 2.0 {
                    cells.push(format!("{} at {profile}", ping.link()));
                    evidence.push(Evidence::row(
                        ping,
                        format!(
                            "{} at {profile}: smallest RTT of the idle ping",
                            ping.link()
                        ),
                    ));
                    evidence.push(Evidence::row(
                        flow,
                        format!(
                            "{} at {profile}: smallest smoothed RTT of the loaded TCP flow",
                            flow.link()
                        ),
                    ));
                }
            }
        }
        if cells.is_empty() {
            continue;
        }
        let title = format!(
            "{system}: under load RTTs fall below the idle minimum on {}: ping and TCP tests took different routes",
            cells.join(", ")
        );
        let effect = "latency of one test must not be set beside throughput of another: the route was chosen anew between them";
        findings.push(Finding {
            systems: vec![system.clone()],
            evidence,
            ..finding(format!("tcp/{system}/route"), "tcp", title, effect)
        });
    }
    findings
}

/// Versions and options that differ within a benchmark.
fn versions(study: &Study) -> Vec<Finding> {
    let mut findings = Vec::new();
    for benchmark in study.benchmarks() {
        for condition in [
            "tool",
            "kernel",
            "congestion_control",
            "duration_s",
            "streams",
            "bidirectional",
        ] {
            let mut values: BTreeMap<&str, Vec<&Test>> = BTreeMap::new();
            for test in study
                .tests
                .iter()
                .filter(|test| test.benchmark == benchmark && test.outcome.is_done())
            {
                if let Some(value) = test.conditions.get(condition) {
                    values.entry(value).or_default().push(test);
                }
            }
            if values.len() < 2 {
                continue;
            }
            let systems: BTreeSet<String> = values
                .values()
                .flatten()
                .map(|test| test.system.clone())
                .collect();
            let evidence = values.iter().map(|(value, tests)| Evidence {
                path: tests[0].path.clone(),
                pointer: tests[0].pointer.clone(),
                value: (*value).to_owned(),
                note: format!(
                    "{} tests, this one of {} at {}",
                    tests.len(),
                    tests[0].system,
                    tests[0].profile
                ),
            });
            let title = format!(
                "{benchmark}: {condition} differs between tests: {}",
                values.keys().copied().collect::<Vec<_>>().join(", ")
            );
            findings.push(Finding {
                systems: systems.into_iter().collect(),
                evidence: evidence.collect(),
                ..finding(
                    format!("{benchmark}/{condition}"),
                    benchmark,
                    title,
                    "systems compared across this difference were not measured alike",
                )
            });
        }
    }
    findings
}
