//! `audit-counter-artifact`: wrap-around, impossible counts, contradicting counters, and times
//! taken at another moment than claimed.

use super::{Corrected, Evidence, Finding, number};
use crate::study::model::{Direction, Row, Study};

/// Payload of the smallest packet a transport stream can be cut into: one TS packet
/// (ISO/IEC 13818-1).
const SMALLEST_PAYLOAD: f64 = 188.0;
/// A peer that answers within this many seconds of the gate opening, at the first attempt, had
/// been ready before.
const GATE: f64 = 0.5;

/// Finds them.
#[must_use]
pub fn find(study: &Study) -> Vec<Finding> {
    let mut findings = impossible_drops(study);
    findings.extend(contradicting_loss(study));
    findings.extend(gated_times(study));
    findings
}

fn finding(id: String, benchmark: &str, title: String, effect: &str) -> Finding {
    Finding {
        class: "audit-counter-artifact".to_owned(),
        id: format!("audit-counter-artifact:{id}"),
        title,
        benchmark: benchmark.to_owned(),
        effect: effect.to_owned(),
        ..Finding::default()
    }
}

/// Packets a second that a stream of this rate can have at most.
fn most_packets(study: &Study, row: &Row) -> Option<(f64, f64)> {
    let encoded = study
        .beside(row, "encoded_bps_max")
        .or_else(|| study.beside(row, "encoded_bps"))?;
    Some((encoded.value, encoded.value / 8.0 / SMALLEST_PAYLOAD))
}

fn is_impossible(study: &Study, row: &Row) -> bool {
    most_packets(study, row).is_some_and(|(_, most)| row.value > most)
}

/// More packets dropped in one reporting interval of a second than the stream can have had.
fn impossible_drops(study: &Study) -> Vec<Finding> {
    let mut findings = Vec::new();
    for system in &study.systems {
        let mut evidence = Vec::new();
        let mut profiles = Vec::new();
        for profile in &study.profiles {
            for row in study.rows_of(system, profile, "stream", "dropped_per_interval_max") {
                let Some((encoded, most)) = most_packets(study, row) else {
                    continue;
                };
                if row.value > most {
                    let near = near_wrap(row.value);
                    evidence.push(Evidence::row(
                        row,
                        format!("{} at {profile}: dropped in one interval; the stream of {} Mbit/s has at most {} packets a second{near}", row.link(), number(encoded / 1e6), number(most.floor())),
                    ));
                    profiles.push(profile.clone());
                }
            }
        }
        profiles.dedup();
        let Some(first) = profiles.first().cloned() else {
            continue;
        };
        let title = format!(
            "{system}: the stream receiver's drop counter exceeds what was sent ({}): a sequence-number jump, not lost packets",
            profiles.join(", ")
        );
        let bare = study.reference().is_some_and(|bare| {
            bare != system
                && study.profiles.iter().any(|profile| {
                    study
                        .rows_of(bare, profile, "stream", "dropped_per_interval_max")
                        .any(|row| is_impossible(study, row))
                })
        });
        let also = if bare {
            "; the bare link shows the same"
        } else {
            ""
        };
        let effect = format!(
            "drop counts, their means and maxima are void here; whether the quality ratio built on them is, the file cannot tell{also}"
        );
        findings.push(Finding {
            systems: vec![system.clone()],
            profile: (profiles.len() == 1).then_some(first),
            evidence,
            ..finding(format!("stream/{system}/drops"), "stream", title, &effect)
        });
    }
    findings
}

/// Whether a count is near a multiple of 2^16.
fn near_wrap(count: f64) -> String {
    let wraps = (count / 65_536.0).round();
    let near = wraps >= 1.0 && (count - wraps * 65_536.0).abs() < 2_300.0 * wraps;
    if near {
        format!("; near {} x 65536", number(wraps))
    } else {
        String::new()
    }
}

/// iperf3's `lost_percent` of the reverse direction is lost over packets sent, its neighbours count
/// up to the last packet received.
fn contradicting_loss(study: &Study) -> Option<Finding> {
    let mut evidence = Vec::new();
    let mut corrected = Vec::new();
    let mut systems = Vec::new();
    for row in study
        .rows
        .iter()
        .filter(|row| row.benchmark == "udp" && row.metric == "lost_percent")
    {
        let (Some(lost), Some(packets)) = (
            study.beside(row, "lost_packets"),
            study.beside(row, "packets"),
        ) else {
            continue;
        };
        if packets.value <= 0.0 {
            continue;
        }
        let own = 100.0 * lost.value / packets.value;
        if (own - row.value).abs() <= 1.0 {
            continue;
        }
        let direction = if row.direction == Direction::Reverse {
            "reverse"
        } else {
            "forward"
        };
        evidence.push(Evidence::row(
            row,
            format!(
                "{} at {}, {} {direction}: but {} of {} packets are {} %",
                row.system,
                row.profile,
                row.link(),
                lost.value,
                packets.value,
                number(own)
            ),
        ));
        corrected.push(Corrected {
            figure: format!(
                "udp.loss@{}/{} {} {direction}",
                row.system,
                row.profile,
                row.link()
            ),
            unit: "%".to_owned(),
            plain: Some(row.value),
            sound: Some(own),
            formula: "100 x lost_packets / packets of the same object".to_owned(),
        });
        systems.push(row.system.clone());
    }
    systems.sort();
    systems.dedup();
    let title = format!(
        "lost_percent contradicts lost_packets / packets of the same object in {} flows",
        evidence.len()
    );
    let effect = "use the counts; the percentage divides by packets that were never on the wire";
    (!evidence.is_empty()).then(|| Finding {
        systems,
        evidence,
        corrected,
        ..finding("udp/lost-percent".to_owned(), "udp", title, effect)
    })
}

/// The tunnel is tried only after every peer has answered on its public address. Where it answers
/// at the first attempt right then, the time is the public network's.
fn gated_times(study: &Study) -> Vec<Finding> {
    let mut findings = Vec::new();
    for benchmark in ["connect", "reconnect"] {
        for system in &study.systems {
            let (gated, all) = gated(study, system, benchmark);
            if gated.is_empty() {
                continue;
            }
            let hosts: Vec<String> = gated
                .iter()
                .filter_map(|(vpn, _)| vpn.source.clone())
                .collect();
            let times: Vec<String> = gated.iter().map(|(vpn, _)| number(vpn.value)).collect();
            let mut evidence = Vec::new();
            for (vpn, public) in &gated {
                evidence.push(Evidence::row(
                    public,
                    format!(
                        "{}: the last peer answered on its public address",
                        vpn.source.as_deref().unwrap_or("?")
                    ),
                ));
                evidence.push(Evidence::row(
                    vpn,
                    format!(
                        "{}: answer through the tunnel, first attempt",
                        vpn.source.as_deref().unwrap_or("?")
                    ),
                ));
            }
            let title = format!(
                "{benchmark} of {system}: on {} of {all} hosts ({}) the time taken ({} s) is that of the public-address check it waits for",
                gated.len(),
                hosts.join(", "),
                times.join(", ")
            );
            let effect = "only an upper bound of the tunnel's own time is known; equal times on several hosts show the check's one-second grid, not a timer of the tunnel";
            findings.push(Finding {
                systems: vec![system.clone()],
                evidence,
                ..finding(
                    format!("{benchmark}/{system}/gate"),
                    benchmark,
                    title,
                    effect,
                )
            });
        }
    }
    findings
}

/// Hosts whose first answer through the tunnel came at once when the check was allowed to start:
/// the answer and the public answer that opened the gate.
fn gated<'a>(
    study: &'a Study,
    system: &'a str,
    benchmark: &'a str,
) -> (Vec<(&'a Row, &'a Row)>, usize) {
    let mut found = Vec::new();
    let mut all = 0;
    for profile in &study.profiles {
        let first = study
            .rows_of(system, profile, benchmark, "vpn_s")
            .filter(|row| row.flow == 0);
        for vpn in first {
            all += 1;
            let of_file = |metric: &'a str| {
                study
                    .rows_of(system, profile, benchmark, metric)
                    .filter(move |row| row.path == vpn.path)
            };
            let soonest = of_file("vpn_s").min_by(|a, b| a.value.total_cmp(&b.value));
            let gate = of_file("public_s").max_by(|a, b| a.value.total_cmp(&b.value));
            let (Some(soonest), Some(gate)) = (soonest, gate) else {
                continue;
            };
            let attempt = study.beside(soonest, "vpn_attempt").map(|row| row.value);
            if attempt == Some(1.0) && (0.0..GATE).contains(&(soonest.value - gate.value)) {
                found.push((soonest, gate));
            }
        }
    }
    (found, all)
}
